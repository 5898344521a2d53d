//! Commands and flags, and the exit status of each.

pub mod admin_client;
mod arguments;
pub mod credential_helper;
mod examples;
mod kubelet_provider;
pub mod lookup;
mod manual;
mod standard_input;
pub mod status;

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, error::ErrorKind};

use self::arguments::{Cli, Command, ReportFormat};
use crate::{
    app::{self, AppError},
    config::{self, Context, Flags},
    doctor::{self, PullCheck, Report},
    env::Environment,
    failure::shown_value::may_be_secret,
    hardening::forbid_dumps,
    manifests::{self, Account},
    process_group, telemetry,
};
use lookup::LookupError;

/// In place of an error that repeats an argument.
const NOT_REPEATED: &str =
    "an argument is invalid, and not shown: it may hold a user, a password, a key or a token";

/// Exit status for bad configuration or usage (EX_USAGE of sysexits).
const BAD_CONFIGURATION: u8 = 64;
/// Exit status when what was asked for is not available (EX_UNAVAILABLE).
const UNAVAILABLE: u8 = 69;
/// Exit status of `doctor` when something does not work.
const FINDINGS: u8 = 1;
/// Exit status of a fault of the program itself.
const FAULT: u8 = 1;

const THREAD_KEEP_ALIVE: Duration = Duration::from_millis(500);

pub fn main() -> ExitCode {
    forbid_dumps();
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|name| credential_helper::is_called(&name)) {
        return block_on(credential_helper::run(arguments.collect()));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let rendered = error.render().to_string();
            let _ = match repeats_a_secret(&rendered) {
                true => writeln!(io::stderr(), "error: {NOT_REPEATED}"),
                false => error.print(),
            }; // standard error may be closed
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { BAD_CONFIGURATION.into() };
        }
    };
    block_on(dispatch(cli.command.unwrap_or(Command::Run), &cli.flags))
}

/// Whether the parser's error repeats an argument that may be a credential, such as a URL with a password for a host.
fn repeats_a_secret(error: &str) -> bool {
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    arguments.into_iter().any(|argument| {
        let value = argument.split_once('=').map_or(&*argument, |(_, value)| value);
        [value, &argument].iter().any(|text| may_be_secret(text) && error.contains(text))
    })
}

fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Each living thread keeps what it freed last: the next one takes that over from one that exited.
    builder.enable_all().thread_keep_alive(THREAD_KEEP_ALIVE);
    let runtime = match builder.build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, FAULT),
    };
    let outcome = runtime.block_on(work);
    process_group::kill_all();
    // Nothing is torn down: a thread may hang in a volume, and the process exits anyway.
    std::mem::forget(runtime);
    telemetry::flush();
    outcome
}

async fn dispatch(command: Command, flags: &Flags) -> ExitCode {
    let env = Environment::of_process();
    match command {
        Command::Config { schema: true } => print(&format!("{:#}\n", config::schema())),
        Command::Completions { shell } => print(&manual::completions(shell)),
        Command::Man => print(&manual::page()),
        Command::Health { question } => {
            ask(flags, &env, async |listen| admin_client::ask(listen, question.path()).await, FAULT).await
        }
        Command::Wait { timeout } => {
            ask(flags, &env, async |listen| admin_client::wait(listen, "/readyz", timeout).await, UNAVAILABLE)
                .await
        }
        Command::Status { watch, output } => match config::health_listen(flags, &env).await {
            Ok(listen) => match status::run(listen, &env, output, watch).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(&error, FAULT),
            },
            Err(problems) => failed(&problems, FAULT),
        },
        Command::Print { host } => match lookup::credential(&host, flags, env).await {
            Ok(credential) => print(&format!("{}\n", credential.expose())),
            Err(error) => {
                let unavailable = matches!(error, LookupError::None { .. } | LookupError::TimedOut);
                failed(&error, if unavailable { UNAVAILABLE } else { BAD_CONFIGURATION })
            }
        },
        Command::KubeletCredentialProvider { install: Some(folder), .. } => {
            kubelet_provider::install(&folder)
        }
        Command::KubeletCredentialProvider { rules, .. } => kubelet_provider::run(flags, env, &rules).await,
        command => match Context::load(env).await {
            Ok(context) => work(command, flags, &context).await,
            Err(problems) if let Command::Doctor { output, .. } = command => {
                report(&doctor::of_bad_configuration(&problems), output)
            }
            Err(problems) => failed(&problems, BAD_CONFIGURATION),
        },
    }
}

async fn work(command: Command, flags: &Flags, context: &Context) -> ExitCode {
    match command {
        Command::Once { timeout } => exit_code(app::once(flags, context, timeout).await),
        Command::Config { .. } => match config::effective(flags, context).await {
            Ok(yaml) => print(&yaml),
            Err(problems) => failed(&problems, BAD_CONFIGURATION),
        },
        Command::Doctor { consumer, image, as_consumer, output } => {
            let check = image.map(|image| PullCheck { image, puller: as_consumer });
            let checked = doctor::run(flags, context, consumer.as_ref(), check.as_ref());
            report(&Box::pin(checked).await, output)
        }
        Command::Manifests { service_account: name, namespace, pod_pull_secrets } => {
            let config = match config::load(flags, context).await {
                Ok(config) => config,
                Err(problems) => return failed(&problems, BAD_CONFIGURATION),
            };
            let account = Account { namespace, name };
            let printed = manifests::yaml(&config, &account).and_then(|yaml| {
                let more = pod_pull_secrets.then(|| manifests::pull_secrets::yaml(&config, &account));
                Ok(yaml + &more.transpose()?.unwrap_or_default())
            });
            match printed {
                Ok(yaml) => print(&yaml),
                Err(error) => failed(&error, BAD_CONFIGURATION),
            }
        }
        _ => exit_code(app::run(flags, context).await),
    }
}

fn exit_code(outcome: Result<(), AppError>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let status = match &error {
        AppError::UsageHint(_) | AppError::Configuration(_) | AppError::Unusable(_) => BAD_CONFIGURATION,
        AppError::NotWritten(_) => UNAVAILABLE,
        AppError::Signals(_) | AppError::Panicked(_) => FAULT,
    };
    failed(&error, status)
}

async fn ask(
    flags: &Flags,
    env: &Environment,
    question: impl AsyncFnOnce(SocketAddr) -> io::Result<admin_client::Answer>,
    no: u8,
) -> ExitCode {
    let listen = match config::health_listen(flags, env).await {
        Ok(listen) => listen,
        Err(problems) => return failed(&problems, no),
    };
    match question(listen).await {
        Ok(answer) => {
            let printed = print(&answer.text);
            if answer.yes { printed } else { no.into() }
        }
        Err(error) => {
            telemetry::print_error(&format!("ecr-sidecar: no sidecar answers on {listen}: {error}"));
            no.into()
        }
    }
}

fn report(report: &Report, format: ReportFormat) -> ExitCode {
    let printed = match format {
        ReportFormat::Text => print(&report.to_string()),
        ReportFormat::Json => print(&report.to_json()),
    };
    if report.is_healthy() { printed } else { FINDINGS.into() }
}

fn print(text: &str) -> ExitCode {
    // A reader that went away (`| head`) is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn failed(error: &(dyn std::error::Error + 'static), status: u8) -> ExitCode {
    telemetry::print_error(&format!("ecr-sidecar: {}", crate::failure::chain(error)));
    status.into()
}
