//! ecr-emulator: the emulator as a process of its own, for trials and for tests in other languages.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ecr_emulator::{Attachment, Emulator, Settings, User};
use lexopt::prelude::{Long, Short, ValueExt};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
ecr-emulator: STS, ECR, Pod Identity, IMDS and a registry on this machine, for tests

  --listen ADDR            every API by HTTP              (127.0.0.1:0)
  --https-listen ADDR      the same by TLS                (127.0.0.1:0)
  --proxy-listen ADDR      the proxy                      (127.0.0.1:0)
  --registry REGION=ADDR   one more registry; repeatable
  --upstream URL           a real registry on this machine behind the token check
  --jwks FILE              the keys that web-identity tokens must be signed by
  --policy FILE            what the one user may do (everything)
  --token-lifetime SECONDS how long a registry token lives (43200)
  --ca-file FILE           copy the certificate authority there
";

fn main() -> ExitCode {
    match Options::read().and_then(|options| options.map_or(Ok(()), run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ecr-emulator: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), String> {
    let emulator = Emulator::start(options.settings).map_err(text)?;
    if let Some(file) = options.policy {
        let invalid = |error: String| format!("{}: {error}", file.display());
        let policy = std::fs::read_to_string(&file).map_err(|error| invalid(text(error)))?;
        let user = Attachment::Identity(User::default().arn);
        emulator.try_set_policies(user, &[&policy]).map_err(invalid)?;
    }
    println!("endpoint {}", emulator.endpoint());
    println!("https-endpoint {}", emulator.https_endpoint());
    println!("proxy {}", emulator.proxy());
    for (region, address) in options.registries {
        let address = emulator.add_registry_at(&region, address).map_err(text)?;
        println!("registry {region} {address}");
    }
    let ca_file = match options.ca_file {
        Some(copy) => std::fs::copy(emulator.ca_file(), &copy).map(|_| copy).map_err(text)?,
        None => emulator.ca_file().to_owned(),
    };
    println!("ca-file {}", ca_file.display());
    io::stdout().flush().map_err(text)?;
    wait_for_signal().map_err(text)
}

fn wait_for_signal() -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

struct Options {
    settings: Settings,
    registries: Vec<(String, SocketAddr)>,
    ca_file: Option<PathBuf>,
    policy: Option<PathBuf>,
}

impl Options {
    /// None after `--help`.
    fn read() -> Result<Option<Self>, String> {
        let mut options =
            Self { settings: Settings::default(), registries: Vec::new(), ca_file: None, policy: None };
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next().map_err(text)? {
            if argument == Short('h') || argument == Long("help") {
                print!("{USAGE}");
                return Ok(None);
            }
            let Long(name) = argument else { return Err(text(argument.unexpected())) };
            let name = name.to_owned();
            let value = arguments.value().and_then(|value| value.string()).map_err(text)?;
            options.set(&name, &value).map_err(|error| format!("--{name} {value}: {error}"))?;
        }
        Ok(Some(options))
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let address = |value: &str| value.parse::<SocketAddr>().map_err(text);
        let settings = &mut self.settings;
        match name {
            "listen" => settings.http_listen = address(value)?,
            "https-listen" => settings.https_listen = address(value)?,
            "proxy-listen" => settings.proxy_listen = address(value)?,
            "upstream" => settings.registry_upstream = Some(value.to_owned()),
            "jwks" => settings.jwks_file = Some(value.into()),
            "ca-file" => self.ca_file = Some(value.into()),
            "policy" => self.policy = Some(value.into()),
            "token-lifetime" => settings.token_lifetime = Duration::from_secs(value.parse().map_err(text)?),
            "registry" => {
                let (region, listen) = value.split_once('=').ok_or("REGION=ADDR is wanted")?;
                self.registries.push((region.to_owned(), address(listen)?));
            }
            _ => return Err("no such flag; see --help".to_owned()),
        }
        Ok(())
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
