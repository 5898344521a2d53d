//! Who reads the `config.json`: as helm or crane would, again for each pull.

use std::{fs, net::SocketAddr, path::PathBuf};

use serde_json::Value;
use test_support::http;

pub(crate) struct Consumer {
    pub(crate) registry: String,
    /// The registry's region, for people.
    pub(crate) region: &'static str,
    /// The file with the credentials.
    pub(crate) config_json: PathBuf,
    /// Pulls that were let in.
    pub(crate) good: u64,
    /// Pulls that were not, for want of credentials too.
    pub(crate) refused: u64,
}

impl Consumer {
    /// Pulls once and counts it. The error is why it was refused.
    pub(crate) fn pull(&mut self) -> Result<(), String> {
        let outcome = self.try_pull();
        match outcome {
            Ok(()) => self.good += 1,
            Err(_) => self.refused += 1,
        }
        outcome
    }

    /// What the file has for this registry now.
    pub(crate) fn credential(&self) -> Result<String, String> {
        let text =
            fs::read_to_string(&self.config_json).map_err(|error| format!("no config.json: {error}"))?;
        let document: Value =
            serde_json::from_str(&text).map_err(|error| format!("config.json is broken: {error}"))?;
        match document["auths"][&self.registry]["auth"].as_str() {
            Some(auth) => Ok(auth.to_owned()),
            None => Err("config.json has no credential for it".to_owned()),
        }
    }

    fn try_pull(&self) -> Result<(), String> {
        let authorization = format!("Basic {}", self.credential()?);
        let address: SocketAddr = self.registry.parse().map_err(|error| format!("no address: {error}"))?;
        for path in ["/v2/", "/v2/app/manifests/1.0"] {
            match http::http_get_with(address, path, &[("Authorization", &authorization)]) {
                Ok((200, _)) => {}
                Ok((status, body)) => return Err(format!("{status} to GET {path}: {}", body.trim())),
                Err(error) => return Err(format!("GET {path}: {error}")),
            }
        }
        Ok(())
    }
}
