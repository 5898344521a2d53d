//! `ecr-sidecar kubelet-credential-provider`: the kubelet's exec protocol for pull credentials
//! (`credentialprovider.kubelet.k8s.io/v1`), over the same lookup as `print`.
//!
//! The kubelet starts one process a pull: a request on standard input, a response on standard output. What fails is a line
//! on standard error with exit status 1: it is in the kubelet's log, and the image is pulled without these credentials.
//!
//! Invariants:
//! * An image of another registry is answered with an empty response, which is no failure
//!   (`an_image_of_another_registry_is_answered_with_nothing`).
//! * Whom a pod's ServiceAccount stands for is decided in [`request`]: a role that it names is the only one that is asked
//!   for it (`a_role_that_is_refused_is_not_replaced_by_the_node_s_identity`).
//! * The kubelet may keep a credential for no longer than it is valid
//!   (`a_token_is_kept_to_the_half_of_its_life_then_for_minutes_and_never_beyond_its_end`).

mod install;
mod request;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;
use zeroize::Zeroizing;

pub(super) use self::request::RoleRules;
use self::request::{Request, RequestError};
use crate::{
    cli::{
        credential_helper::one_line,
        lookup::{self, LookupError, Obtained},
        standard_input::{self, InputError},
    },
    clock::Clock,
    config::Flags,
    env::Environment,
    failure::chain,
    telemetry,
};

/// Where root's processes may write, and no other; in memory.
const OF_ROOT: &str = "/var/run";
const API_VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

#[derive(Debug, thiserror::Error)]
enum ProviderError {
    #[error("no request: {0}; the kubelet writes it, and `--help` shows one to try")]
    Input(#[from] InputError),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("cannot write the response: {0}")]
    Output(#[from] io::Error),
}

/// Answers the request on standard input.
pub(super) async fn run(flags: &Flags, env: Environment, rules: &RoleRules) -> ExitCode {
    let answered = match answer(flags, with_cache(env), rules).await {
        Ok(response) => print(&response).map_err(ProviderError::from),
        Err(error) => Err(error),
    };
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::print_error(&format!("ecr-sidecar: {}", one_line(&chain(&error))));
            ExitCode::FAILURE
        }
    }
}

/// With a place for tokens: a kubelet is a service of root's, which may have no home
/// (`a_service_without_a_home_keeps_its_tokens_in_memory`).
fn with_cache(env: Environment) -> Environment {
    let has_none = ["XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HOME"].iter().all(|name| env.get(name).is_none());
    if has_none && rustix::process::geteuid().is_root() { env.with("XDG_RUNTIME_DIR", OF_ROOT) } else { env }
}

/// Puts this program into the folder where the kubelet looks for it.
pub(super) fn install(folder: &Path) -> ExitCode {
    match install::install(folder) {
        Ok(done) => {
            let _ = writeln!(io::stdout(), "{done}"); // a reader that went away is no failure
            ExitCode::SUCCESS
        }
        Err(error) => {
            telemetry::print_error(&format!("ecr-sidecar: {}", chain(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn answer(flags: &Flags, env: Environment, rules: &RoleRules) -> Result<Response, ProviderError> {
    let text = standard_input::read().await?;
    let request = Request::parse(&text)?;
    let Some((named, host)) = request.registry() else { return Ok(Response::default()) };
    let account = match request.account(rules) {
        Ok(account) => account,
        // It may be of another registry, and then it is not ours to complain.
        Err(error) => {
            return if lookup::is_ours(&host, flags, env).await? {
                Err(error.into())
            } else {
                Ok(Response::default())
            };
        }
    };
    match lookup::obtain(&host, account, flags, env).await {
        Ok(obtained) => Ok(Response::of(named, obtained)),
        Err(LookupError::NotOurs(_)) => Ok(Response::default()),
        Err(error) => Err(error.into()),
    }
}

fn print(response: &Response) -> io::Result<()> {
    let text = serde_json::to_string(response).map(Zeroizing::new)?;
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// What the kubelet gets. Without a credential it is to be asked again for the next pull.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    api_version: &'static str,
    kind: &'static str,
    /// What it keeps them by. A token serves every image of a registry, and other registries that have other names.
    cache_key_type: &'static str,
    cache_duration: String,
    auth: BTreeMap<String, Auth>,
}

#[derive(Serialize)]
struct Auth {
    username: &'static str,
    password: Zeroizing<String>,
}

impl Default for Response {
    fn default() -> Self {
        Self {
            api_version: API_VERSION,
            kind: "CredentialProviderResponse",
            cache_key_type: "Registry",
            cache_duration: go_duration(Duration::ZERO),
            auth: BTreeMap::new(),
        }
    }
}

impl Response {
    fn of(registry: &str, Obtained { credential, life }: Obtained) -> Self {
        let password = Zeroizing::new(credential.expose_password().to_owned());
        Self {
            cache_duration: go_duration(life.may_be_kept_for(Clock::System.now())),
            auth: BTreeMap::from([(registry.to_owned(), Auth { username: "AWS", password })]),
            ..Self::default()
        }
    }
}

/// As Go's `time.ParseDuration` reads it.
fn go_duration(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}
