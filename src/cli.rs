//! Commands and flags, and the exit status of each.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};

use crate::{
    app::{self, AppError},
    config::{self, Flags, Surroundings, env::Environment, units::parse_duration},
    doctor::{self, Consumer, Report},
    health::client,
    helper,
    lookup::{self, LookupError},
    manifests::{self, Account},
    output::secret_settings::{NamespaceName, ObjectName},
    registry::RegistryHost,
    status::command::{self as status, Format},
};

/// Exit status for bad configuration or usage (EX_USAGE of sysexits).
const BAD_CONFIGURATION: u8 = 64;
/// Exit status when what was asked for could not be had (EX_UNAVAILABLE).
const UNAVAILABLE: u8 = 69;
/// Exit status of `doctor` when something does not work.
const FINDINGS: u8 = 1;
/// Exit status of a fault of the program itself.
const FAULT: u8 = 1;

/// Keeps Amazon ECR credentials fresh in the place the main container reads them.
#[derive(Debug, Parser)]
#[command(name = "ecr-sidecar", version = env!("BUILD_VERSION"), after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    values: Values,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "Examples:
  ecr-sidecar once --registries 123456789012.dkr.ecr.eu-west-1.amazonaws.com --docker-config ./config.json
  DOCKER_CONFIG=$PWD helm pull oci://123456789012.dkr.ecr.eu-west-1.amazonaws.com/charts/app

Every flag has an environment variable, and everything else is in a YAML file: ecr-sidecar config --schema";

#[derive(Debug, Default, Args)]
struct Values {
    /// The configuration file [env: ECR_SIDECAR_CONFIG] [default: none]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<String>,
    /// Registry hosts, comma-separated [env: ECR_SIDECAR_REGISTRIES] [default: the caller's own in AWS_REGION]
    #[arg(long, global = true, value_name = "HOSTS")]
    registries: Option<String>,
    /// The docker config.json to keep [env: ECR_SIDECAR_DOCKER_CONFIG] [default: /var/run/ecr-sidecar/config.json, or none with other outputs]
    #[arg(long, global = true, value_name = "FILE")]
    docker_config: Option<String>,
    /// Its mode, octal [env: ECR_SIDECAR_FILE_MODE] [default: 0640]
    #[arg(long, global = true, value_name = "MODE")]
    file_mode: Option<String>,
    /// Secrets that hold a docker config, comma-separated NAME or NAMESPACE/NAME [env: ECR_SIDECAR_DOCKER_CONFIG_SECRET] [default: none]
    #[arg(long, global = true, value_name = "SECRETS")]
    docker_config_secret: Option<String>,
    /// Keep Argo CD's credential templates in this namespace [env: ECR_SIDECAR_ARGOCD_NAMESPACE] [default: none]
    #[arg(long, global = true, value_name = "NAMESPACE")]
    argocd_namespace: Option<String>,
    /// Address of the health endpoint [env: ECR_SIDECAR_HEALTH_LISTEN] [default: 127.0.0.1:9808]
    #[arg(long, global = true, value_name = "ADDRESS")]
    health_listen: Option<String>,
    /// json or text [env: ECR_SIDECAR_LOG_FORMAT] [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// A level, or target=level pairs [env: ECR_SIDECAR_LOG] [default: info]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep every output fresh until SIGTERM (the default)
    Run,
    /// Refresh once, write every output, end
    Once {
        /// Give up after this time
        #[arg(long, default_value = "60s", value_parser = parse_duration)]
        timeout: Duration,
    },
    /// Ask the running sidecar: an exec probe
    Health {
        /// What to ask
        #[arg(value_enum, default_value_t = Question::Live)]
        question: Question,
    },
    /// Wait until a running sidecar is ready
    Wait {
        /// Give up after this time
        #[arg(long, default_value = "60s", value_parser = parse_duration)]
        timeout: Duration,
    },
    /// Walk through everything that the configuration rests on, and say what is wrong and what mends it
    #[command(after_help = DOCTOR)]
    Doctor {
        /// Who reads the docker config.json: a user, and perhaps its groups
        #[arg(long, value_name = "UID[:GID,...]")]
        consumer: Option<Consumer>,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = ReportFormat::Text)]
        output: ReportFormat,
    },
    /// Show every registry and output of the running sidecar
    Status {
        /// Draw it anew each second; in a pipe: a block a second, with an empty line between two
        #[arg(long)]
        watch: bool,
        /// For people, or what /status answers
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Print AWS:PASSWORD of one registry, from the local file or else from AWS
    Print {
        /// The registry
        #[arg(value_name = "HOST")]
        host: RegistryHost,
    },
    /// Print the rights and the empty Secrets that the Kubernetes outputs need, for `kubectl apply -f -`
    Manifests {
        /// The service account of the sidecar's pod
        #[arg(long, value_name = "NAME")]
        service_account: ObjectName,
        /// The namespace of the sidecar's pod
        #[arg(long, value_name = "NAMESPACE")]
        namespace: NamespaceName,
    },
    /// Print the effective configuration and where each value came from
    Config {
        /// Print the JSON Schema of the configuration file instead
        #[arg(long)]
        schema: bool,
    },
}

const DOCTOR: &str =
    "It changes nothing, prints no secret, and takes at most 15 seconds. Exit status: 0 when nothing fails \
(warnings are printed), 1 when something does.

Examples:
  kubectl -n argocd exec deployment/argocd-repo-server -c ecr-sidecar -- ecr-sidecar doctor --consumer 999:999
  ecr-sidecar doctor --output json";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReportFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Question {
    Live,
    Ready,
    Startup,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::Live => "/livez?verbose",
            Self::Ready => "/readyz?verbose",
            Self::Startup => "/startupz?verbose",
        }
    }
}

impl Values {
    fn into_flags(self) -> Flags {
        let values = [
            ("ECR_SIDECAR_REGISTRIES", "--registries", self.registries),
            ("ECR_SIDECAR_DOCKER_CONFIG", "--docker-config", self.docker_config),
            ("ECR_SIDECAR_FILE_MODE", "--file-mode", self.file_mode),
            ("ECR_SIDECAR_DOCKER_CONFIG_SECRET", "--docker-config-secret", self.docker_config_secret),
            ("ECR_SIDECAR_ARGOCD_NAMESPACE", "--argocd-namespace", self.argocd_namespace),
            ("ECR_SIDECAR_HEALTH_LISTEN", "--health-listen", self.health_listen),
            ("ECR_SIDECAR_LOG_FORMAT", "--log-format", self.log_format),
            ("ECR_SIDECAR_LOG", "--log", self.log),
        ];
        let given = values.into_iter().filter_map(|(variable, flag, value)| Some((variable, (flag, value?))));
        Flags { config: self.config, values: given.collect::<BTreeMap<_, _>>() }
    }
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|name| helper::is_called(&name)) {
        return to_its_end(helper::run(arguments.collect()));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // nobody left to tell
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { BAD_CONFIGURATION.into() };
        }
    };
    let flags = cli.values.into_flags();
    to_its_end(dispatch(cli.command.unwrap_or(Command::Run), &flags))
}

fn to_its_end(work: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, FAULT),
    };
    let outcome = runtime.block_on(work);
    // Nothing is torn down: a thread may hang in a volume, and the process ends anyway.
    std::mem::forget(runtime);
    outcome
}

async fn dispatch(command: Command, flags: &Flags) -> ExitCode {
    if let Command::Config { schema: true } = command {
        return print(&format!("{:#}\n", config::schema()));
    }
    let env = Environment::of_process();
    match command {
        Command::Health { question } => {
            ask(flags, &env, |listen| client::ask(listen, question.path()), FAULT)
        }
        Command::Wait { timeout } => {
            ask(flags, &env, |listen| client::wait(listen, "/readyz", timeout), UNAVAILABLE)
        }
        Command::Status { watch, output } => match config::health_listen(flags, &env) {
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
        command => match app::surroundings(env).await {
            Ok(surroundings) => work(command, flags, &surroundings).await,
            Err(problems) if let Command::Doctor { output, .. } = command => {
                tell(&doctor::of_bad_configuration(&problems), output)
            }
            Err(problems) => failed(&problems, BAD_CONFIGURATION),
        },
    }
}

async fn work(command: Command, flags: &Flags, surroundings: &Surroundings) -> ExitCode {
    match command {
        Command::Once { timeout } => ended(app::once(flags, surroundings, timeout).await),
        Command::Config { .. } => match config::load(flags, surroundings) {
            Ok(config) => print(&config.to_yaml()),
            Err(problems) => failed(&problems, BAD_CONFIGURATION),
        },
        Command::Doctor { consumer, output } => {
            tell(&Box::pin(doctor::examine(flags, surroundings, consumer.as_ref())).await, output)
        }
        Command::Manifests { service_account: name, namespace } => {
            let config = match config::load(flags, surroundings) {
                Ok(config) => config,
                Err(problems) => return failed(&problems, BAD_CONFIGURATION),
            };
            match manifests::yaml(&config, &Account { namespace, name }) {
                Ok(yaml) => print(&yaml),
                Err(error) => failed(&error, BAD_CONFIGURATION),
            }
        }
        _ => ended(app::run(flags, surroundings).await),
    }
}

fn ended(outcome: Result<(), AppError>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let status = match &error {
        AppError::Configuration(_)
        | AppError::ConfigurationHangs
        | AppError::Output(_)
        | AppError::Bind(_) => BAD_CONFIGURATION,
        AppError::NotWritten(_) => UNAVAILABLE,
        AppError::Signals(_) | AppError::Panicked(_) => FAULT,
    };
    failed(&error, status)
}

fn ask(
    flags: &Flags,
    env: &Environment,
    question: impl FnOnce(SocketAddr) -> io::Result<client::Answer>,
    no: u8,
) -> ExitCode {
    let listen = match config::health_listen(flags, env) {
        Ok(listen) => listen,
        Err(problems) => return failed(&problems, no),
    };
    match question(listen) {
        Ok(answer) => {
            let printed = print(&answer.text);
            if answer.yes { printed } else { no.into() }
        }
        Err(error) => {
            eprintln!("ecr-sidecar: no sidecar answers on {listen}: {error}");
            no.into()
        }
    }
}

fn tell(report: &Report, format: ReportFormat) -> ExitCode {
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
    eprintln!("ecr-sidecar: {}", crate::failure::causes(error));
    status.into()
}
