//! The credential that a consumer finds for a registry, wherever it is published.
//!
//! What is read may be anyone's who may write to the file or Secret. So it costs bounded time and memory, a hung volume
//! has one pending read (`fs/read.rs`), and the credential is of the registry's own entry and of a token's size
//! (`what_no_token_can_be_is_no_credential`).

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout_at};

use super::{
    OutputConfig,
    file::lookup::{End, Held, find},
    secrets,
};
use crate::{
    clock::{Clock, rfc3339},
    failure::{
        Class, Diagnose, Problem,
        diagnosis::{Diagnosis, Remedy},
    },
    fs::read::{ReadError, within},
    kubernetes::{Connection, ObjectRef},
    registry::RegistryHost,
    secret::Secret,
    status::OutputId,
};

/// How long it may take to read all outputs.
const READ_LIMIT: Duration = Duration::from_secs(4);
/// A token takes some 3 kB.
const LONGEST_AUTH: usize = 16 << 10;

/// A credential that a consumer finds.
pub(crate) struct Published {
    /// The output that holds it, and the Secret.
    pub(crate) place: String,
    /// Padded base64 of `AWS:<password>`.
    pub(crate) auth: Secret<String>,
    /// `None` where no sidecar put it there.
    pub(crate) expires_at: Option<SystemTime>,
}

/// What the outputs hold for a registry.
#[derive(Default)]
pub(crate) struct Reading {
    /// The credential of the first output that has one.
    pub(crate) found: Option<Published>,
    /// Outputs before it that cannot be read.
    pub(crate) problems: Vec<(OutputId, Problem)>,
    /// Outputs before it of whose discovered Secrets none is known.
    pub(crate) unknown: Vec<OutputId>,
}

/// Which Secrets are read of an output that discovers them.
pub(crate) enum Discovered<'a> {
    /// Those that the API server lists now.
    Listed,
    /// The one that is known to hold the credential, if any: a list may be long, and a tenant's Secret anything.
    Known(&'a (dyn Fn(&OutputId) -> Option<ObjectRef> + Sync)),
}

/// Reads `outputs` in their order.
pub(crate) async fn published(
    outputs: &[OutputConfig],
    host: &RegistryHost,
    discovered: &Discovered<'_>,
    connection: &Connection,
    clock: &Clock,
) -> Reading {
    let until = Instant::now() + READ_LIMIT;
    let mut reading = Reading::default();
    for output in outputs {
        if Instant::now() >= until {
            break; // one that hangs has taken all of it, and is a problem
        }
        let id = output.id();
        let (read, diagnosis) = match output {
            OutputConfig::DockerConfig(settings) => {
                let read = in_file(&settings.path, host, clock.now());
                (timeout_at(until, read).await, Diagnosis::VolumeHangs)
            }
            _ => {
                let known = match discovered {
                    Discovered::Known(known) if secrets::are_discovered(output) => {
                        let Some(at) = known(&id) else {
                            reading.unknown.push(id);
                            continue;
                        };
                        Some(at)
                    }
                    _ => None,
                };
                let read = in_secrets(output, host, known.as_ref(), connection, clock.now());
                (timeout_at(until, read).await, Diagnosis::ApiServerUnreachable)
            }
        };
        match read {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(found))) => match fit(found.auth) {
                Some(auth) => {
                    let place = found.at.map_or_else(|| id.to_string(), |at| format!("{id} (Secret {at})"));
                    reading.found = Some(Published { place, auth, expires_at: found.expires_at });
                    return reading;
                }
                None => {
                    let message =
                        format!("its entry of {host} cannot be a token: it is too long, or not base64");
                    reading.problems.push((id, nothing(message)));
                }
            },
            Ok(Err(problem)) => reading.problems.push((id, problem)),
            Err(_) => reading.problems.push((id, no_answer(diagnosis))),
        }
    }
    reading
}

impl Reading {
    /// The credential for `host`, if there is one that has not expired; else why there is none.
    pub(crate) fn into_credential(self, host: &RegistryHost, now: SystemTime) -> Result<Published, Problem> {
        match (self.found, self.problems.into_iter().next()) {
            (Some(found), _) => match found.expires_at.filter(|end| *end <= now) {
                None => Ok(found),
                Some(end) => Err(Problem {
                    message: format!("the credential in {} expired at {}", found.place, rfc3339(end)),
                    remedy: Diagnosis::PublishedExpired.into(),
                    class: Class::Denied,
                }),
            },
            (None, Some((id, problem))) => {
                Err(Problem { message: format!("{id}: {}", problem.message), ..problem })
            }
            (None, None) => {
                let mut message = format!("no output holds a credential for {host}");
                for id in self.unknown {
                    let _ = write!(message, ", {id} in none of the Secrets that it discovers"); // a String takes any text
                }
                Err(nothing(message))
            }
        }
    }
}

fn no_answer(diagnosis: Diagnosis) -> Problem {
    let message = format!("no answer within {} s", READ_LIMIT.as_secs());
    Problem { message, remedy: diagnosis.into(), class: Class::Transient }
}

fn nothing(message: String) -> Problem {
    Problem { message, remedy: Remedy::from(Diagnosis::NothingPublished), class: Class::Denied }
}

/// The `auth` as it is sent: docker skips line breaks in it. None if it is longer than any token, or not base64.
fn fit(auth: Secret<String>) -> Option<Secret<String>> {
    let text = auth.expose();
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(&byte);
    if text.len() > LONGEST_AUTH || !text.bytes().all(is_base64) {
        return None;
    }
    if !text.contains(['\r', '\n']) {
        return Some(auth);
    }
    let mut plain = String::with_capacity(text.len()); // one that grows would leave copies behind
    plain.extend(text.chars().filter(|c| !['\r', '\n'].contains(c)));
    Some(Secret::new(plain))
}

/// A credential, and the Secret that it is in.
struct Found {
    at: Option<ObjectRef>,
    auth: Secret<String>,
    expires_at: Option<SystemTime>,
}

async fn in_file(path: &Path, host: &RegistryHost, now: SystemTime) -> Result<Option<Found>, Problem> {
    let (file, host): (PathBuf, _) = (path.to_owned(), host.clone());
    let found = match within(READ_LIMIT, path, move || Ok(find(&file, &host, now))).await {
        Ok(found) => found,
        Err(error) => {
            return Err(match error {
                ReadError::TimedOut => no_answer(Diagnosis::VolumeHangs),
                _ => Problem { remedy: Diagnosis::VolumeBroken.into(), ..nothing(error.to_string()) },
            });
        }
    };
    let held = found.map_err(|error| nothing(error.to_string()))?;
    Ok(held.map(|Held { auth, end }| {
        let expires_at = match end {
            End::Known(end) => Some(end),
            End::Unknown { .. } => None,
        };
        Found { at: None, auth, expires_at }
    }))
}

async fn in_secrets(
    output: &OutputConfig,
    host: &RegistryHost,
    known: Option<&ObjectRef>,
    connection: &Connection,
    now: SystemTime,
) -> Result<Option<Found>, Problem> {
    let cluster = connection.cluster().await.map_err(|error| error.problem())?;
    let found = secrets::published(output, cluster, host, known, now).await?;
    Ok(found.map(|it| Found { at: Some(it.at), auth: it.auth, expires_at: it.expires_at }))
}

#[cfg(test)]
mod tests {
    use std::{fmt::Display, sync::mpsc};

    use super::*;
    use crate::{fs::atomic_file::FileMode, output::file::DockerConfigSettings};

    const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    const TOKEN: &str = "QVdTOnB3"; // AWS:pw

    fn output(path: &Path) -> OutputConfig {
        let (path, mode) = (path.to_owned(), FileMode::default());
        OutputConfig::DockerConfig(DockerConfigSettings { path, mode, group: None, base: None })
    }

    async fn credential(outputs: &[OutputConfig]) -> Result<(String, String), Problem> {
        let host = HOST.parse().unwrap();
        let (connection, clock) = (Connection::default(), Clock::System);
        let reading = published(outputs, &host, &Discovered::Listed, &connection, &clock).await;
        let found = reading.into_credential(&host, clock.now())?;
        Ok((found.place, found.auth.expose().clone()))
    }

    fn entry(host: &str, auth: impl Display) -> String {
        format!(r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#)
    }

    #[test]
    fn what_no_token_can_be_is_no_credential() {
        let auth = |text: &str| fit(Secret::new(text.to_owned())).map(|auth| auth.expose().clone());
        assert_eq!(auth(TOKEN).as_deref(), Some(TOKEN));
        assert_eq!(auth("QVdT\r\nOnB3\n").as_deref(), Some(TOKEN));
        assert!(auth(&"A".repeat(LONGEST_AUTH)).is_some());
        assert_eq!(auth(&"A".repeat(LONGEST_AUTH + 1)), None);
        for text in ["QVdT OnB3", "QVdTOnB3\0", "QVdTOnB3\u{fc}", "Basic x", "a\r\nx-header: b"] {
            assert_eq!(auth(text), None, "{text:?}");
        }
    }

    /// Whoever may write to the volume decides what is in the file.
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    async fn only_the_registrys_own_entry_is_its_credential() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let outputs = [output(&path)];
        let absent = credential(&outputs).await.unwrap_err();
        assert_eq!(absent.remedy.diagnosis, Diagnosis::NothingPublished);
        let long = "QVdT".repeat(8 << 10);
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let other_user = entry(HOST, "bWU6cHc=");
        for (text, expected) in [
            (entry("evil.example", TOKEN), "no output holds a credential for "),
            (entry(&format!("{HOST}.evil.example"), TOKEN), "no output holds a credential for "),
            (entry(&format!("{HOST}/team"), TOKEN), "no output holds a credential for "),
            (other_user, "no output holds a credential for "),
            (deep, "no output holds a credential for "),
            (entry(HOST, format!("QVdTOnB3{long}")), "cannot be a token"),
            ("not a config".to_owned(), "it is not a JSON object"),
            (" ".repeat((8 << 20) + 1), "larger than 8 MiB"),
        ] {
            std::fs::write(&path, text).unwrap();
            let problem = credential(&outputs).await.unwrap_err();
            assert!(problem.message.contains(expected), "{}", problem.message);
            assert_eq!(problem.remedy.diagnosis, Diagnosis::NothingPublished);
            assert!(!problem.to_string().contains("QVdT"), "{problem}");
        }
        std::fs::write(&path, entry(HOST, "QVdT\\nOnB3")).unwrap();
        let (place, auth) = credential(&outputs).await.unwrap();
        assert_eq!((place, &*auth), (format!("docker-config {}", path.display()), TOKEN));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(credential(&outputs).await.is_err());
    }

    #[tokio::test]
    async fn a_hung_file_is_reported_and_costs_one_thread() {
        let path = Path::new("/hung/config.json");
        let (release, hangs) = mpsc::channel::<()>();
        let held = within(Duration::from_millis(10), path, move || {
            let _ = hangs.recv(); // until the test ends
            Ok(())
        });
        assert!(held.await.is_err());
        for _ in 0..2 {
            let problem = credential(&[output(path)]).await.unwrap_err();
            assert_eq!(problem.remedy.diagnosis, Diagnosis::VolumeHangs, "{problem}");
            assert!(problem.message.starts_with("docker-config /hung/config.json: "), "{problem}");
        }
        drop(release);
    }
}
