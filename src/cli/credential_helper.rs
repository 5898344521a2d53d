//! `docker-credential-ecr-sidecar`: the protocol of docker's credential helpers, over the same lookup as `print`.
//!
//! A helper is a program that docker, helm, crane, skopeo and their kin run by its name: one argument, a host on standard
//! input, one JSON object on standard output. What goes wrong is a line on standard output too, with exit status 1; of all
//! lines they know one, [`NOT_FOUND`], which lets them go on without a credential.
//!
//! Nothing is ever stored: `store` and `erase` are rejected, and a `docker logout` goes on after that.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    cli::{
        lookup::{self, LookupError},
        standard_input::{self, InputError},
    },
    config::Flags,
    env::Environment,
    failure::chain,
    registry::RegistryHost,
};

/// The name by which the program is a credential helper.
const NAME: &str = "docker-credential-ecr-sidecar";
/// What every consumer takes for "it has none of this registry".
const NOT_FOUND: &str = "credentials not found in native keychain";
/// What docker's own helpers answer to an empty question.
const NO_SERVER: &str = "no credentials server URL";

/// Whether the program was called as a credential helper.
pub fn is_called(name: &OsStr) -> bool {
    Path::new(name).file_name() == Some(OsStr::new(NAME))
}

/// Runs the action that the arguments name.
pub async fn run(arguments: Vec<OsString>) -> ExitCode {
    let action = match arguments.as_slice() {
        [action] => action.to_str().unwrap_or_default(),
        _ => "",
    };
    let answer = match action {
        "get" => match question().await {
            Ok(asked) => get(&asked).await,
            Err(error) => Err(error),
        },
        "list" => list().await,
        "version" => Ok(format!("{NAME} ({}) {}", env!("CARGO_PKG_REPOSITORY"), env!("CARGO_PKG_VERSION"))),
        "store" => reject(
            "nothing is stored here: credentials of ECR come from AWS. Name this helper for hosts of ECR alone, in `credHelpers`",
        )
        .await,
        "erase" => reject("nothing is stored here that could be erased: tokens of ECR expire").await,
        _ => Err(format!("usage: {NAME} <get|list|store|erase|version>")),
    };
    let (line, code) = match answer {
        Ok(line) => (Zeroizing::new(line), ExitCode::SUCCESS),
        Err(line) => (Zeroizing::new(line), ExitCode::FAILURE),
    };
    // A reader that went away is no failure.
    let _ = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().write_all(b"\n"));
    code
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'static str,
    secret: &'a str,
}

async fn get(asked: &str) -> Result<String, String> {
    if asked.is_empty() {
        return Err(NO_SERVER.into());
    }
    let host = host_of(asked).ok_or(NOT_FOUND)?;
    let credential = lookup::credential(&host, &Flags::default(), Environment::of_process()).await;
    match credential {
        Ok(credential) => {
            let secret = credential.expose_password();
            let answer = Answer { server_url: asked, username: "AWS", secret };
            serde_json::to_string(&answer).map_err(|error| error.to_string())
        }
        Err(LookupError::NotOurs(_)) => Err(NOT_FOUND.into()),
        Err(error) => Err(one_line(&chain(&error))),
    }
}

/// Every registry of the configuration. The caller's own is not among them: its name takes a call to AWS.
async fn list() -> Result<String, String> {
    let hosts = lookup::hosts(&Flags::default(), Environment::of_process()).await;
    let hosts = hosts.map_err(|error| one_line(&chain(&error)))?;
    let users: BTreeMap<_, _> = hosts.iter().map(|host| (format!("https://{host}"), "AWS")).collect();
    serde_json::to_string(&users).map_err(|error| error.to_string())
}

/// The question; nothing when that is more than one, or no text.
async fn question() -> Result<Zeroizing<String>, String> {
    match standard_input::read().await {
        Ok(text) => Ok(Zeroizing::new(text.trim().to_owned())),
        Err(InputError::TooLarge | InputError::Read(_)) => Ok(Zeroizing::default()),
        Err(error) => Err(error.to_string()),
    }
}

/// What is written to standard input is read, lest its writer fail before it reads the answer.
async fn reject(why: &str) -> Result<String, String> {
    let _ = question().await;
    Err(format!("{NAME}: {why}"))
}

/// The registry that is asked about: consumers add a scheme, a path or both.
fn host_of(asked: &str) -> Option<RegistryHost> {
    let bare = asked.split_once("://").map_or(asked, |(_, bare)| bare);
    bare.split('/').next()?.parse().ok()
}

/// Consumers and the kubelet quote the answer in a line of theirs.
pub(super) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_called_by_its_own_name_wherever_that_stands() {
        for name in [
            "docker-credential-ecr-sidecar",
            "/usr/local/bin/docker-credential-ecr-sidecar",
            "./docker-credential-ecr-sidecar",
        ] {
            assert!(is_called(OsStr::new(name)), "{name}");
        }
        for name in
            ["ecr-sidecar", "/docker-credential-ecr-sidecar/ecr-sidecar", "docker-credential-ecr-login", ""]
        {
            assert!(!is_called(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn a_host_is_asked_for_in_many_ways() {
        let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        for asked in [
            host.to_owned(),
            format!("https://{host}"),
            format!("http://{host}/"),
            format!("https://{host}/v2/"),
            format!("{host}/team/app"),
            format!("oci://{}", host.to_uppercase()),
        ] {
            assert_eq!(host_of(&asked).unwrap().as_str(), host, "{asked}");
        }
        for asked in ["https://", "a b", "user@host", "-", "a\nb"] {
            assert_eq!(host_of(asked), None, "{asked}");
        }
        assert_eq!(host_of("https://index.docker.io/v1/").unwrap().as_str(), "index.docker.io");
    }
}
