//! What was the API server asked, by whom, how often? From its audit log.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde_json::Value;

use crate::kubernetes::{ApiServer, locked};

/// One request that the API server has answered, or a watch that it has begun to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asked: `admin`, `system:serviceaccount:…`, `system:apiserver`.
    pub user: String,
    /// What for: `get`, `list`, `watch`, `create`, `update`, `patch` (server-side apply too), `delete`.
    pub verb: String,
    /// Of what: `secrets`, `serviceaccounts/token`; empty for paths such as `/version`.
    pub resource: String,
    /// Where, empty for everywhere.
    pub namespace: String,
    /// Which one, empty for many.
    pub name: String,
    /// What it was answered with: 403 is a right that was not there.
    pub code: u16,
    /// Path and query, with the `fieldManager` of an apply.
    pub uri: String,
    /// What the client calls itself.
    pub user_agent: String,
}

impl Request {
    /// Whether it was meant to change something, answered with success or not.
    pub fn is_write(&self) -> bool {
        ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str())
    }

    /// `None` for what is no event of the audit log.
    fn parse(event: &Value) -> Option<Self> {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut resource = text("/objectRef/resource");
        if let Some(subresource) = event.pointer("/objectRef/subresource").and_then(Value::as_str) {
            resource = format!("{resource}/{subresource}");
        }
        Some(Self {
            user: event.pointer("/user/username")?.as_str()?.to_owned(),
            verb: event.get("verb")?.as_str()?.to_owned(),
            resource,
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            code: event.pointer("/responseStatus/code")?.as_u64()?.try_into().ok()?,
            uri: text("/requestURI"),
            user_agent: text("/userAgent"),
        })
    }
}

/// A moment in the audit log; the default is its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditMark(usize);

impl ApiServer {
    /// Now. What has been answered before is before it.
    pub fn audit_mark(&self) -> AuditMark {
        AuditMark(self.audit().requests(|all| all.len()))
    }

    /// Every request since `mark`, in the order of their answers.
    pub fn requests_since(&self, mark: AuditMark) -> Vec<Request> {
        self.audit().requests(|all| all[mark.0..].to_vec())
    }

    /// How many requests since `mark` are `wanted`.
    pub fn count_requests(&self, mark: AuditMark, wanted: impl Fn(&Request) -> bool) -> usize {
        self.audit().requests(|all| all[mark.0..].iter().filter(|request| wanted(request)).count())
    }
}

/// How often who did what: counts by `user verb resource`, for a report or an assertion on all of them.
pub fn tally(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for Request { user, verb, resource, .. } in requests {
        *counts.entry(format!("{user} {verb} {resource}")).or_default() += 1;
    }
    counts
}

/// The file, and what has been read of it.
#[derive(Debug)]
pub(super) struct AuditLog {
    path: PathBuf,
    read: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    offset: u64,
    /// A watch is logged when it starts, and again when it ends.
    ids: HashSet<String>,
    requests: Vec<Request>,
}

impl AuditLog {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, read: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what is new, and hands all of it to `read`.
    fn requests<T>(&self, read: impl FnOnce(&[Request]) -> T) -> T {
        let mut seen = locked(&self.read);
        let mut new = Vec::new();
        let mut file = File::open(&self.path).expect("an audit log");
        file.seek(SeekFrom::Start(seen.offset))
            .and_then(|_| file.read_to_end(&mut new))
            .expect("an audit log");
        seen.add(&new);
        read(&seen.requests)
    }
}

impl Seen {
    /// Takes all whole lines of `new`.
    fn add(&mut self, new: &[u8]) {
        for line in new.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            self.offset += line.len() as u64;
            // A line that a kill has cut short is nothing to count.
            let Ok(event) = serde_json::from_slice::<Value>(line) else { continue };
            let id = event.get("auditID").and_then(Value::as_str).unwrap_or_default();
            if self.ids.insert(id.to_owned()) {
                self.requests.extend(Request::parse(&event));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, stage: &str, verb: &str) -> String {
        format!(
            r#"{{"auditID":"{id}","stage":"{stage}","requestURI":"/api/v1/secrets","verb":"{verb}","user":{{"username":"admin"}},"objectRef":{{"resource":"secrets"}},"responseStatus":{{"code":200}}}}"#
        ) + "\n"
    }

    #[test]
    fn a_watch_that_starts_and_ends_is_one_request() {
        let mut seen = Seen::default();
        seen.add(line("1", "ResponseStarted", "watch").as_bytes());
        seen.add(line("2", "ResponseComplete", "list").as_bytes());
        seen.add(line("1", "ResponseComplete", "watch").as_bytes());
        let expected = [("admin list secrets".to_owned(), 1), ("admin watch secrets".to_owned(), 1)];
        assert_eq!(tally(&seen.requests), expected.into());
    }

    #[test]
    fn half_a_line_is_read_when_it_is_whole() {
        let (mut seen, line) = (Seen::default(), line("1", "ResponseComplete", "get"));
        let (half, _) = line.split_at(20);
        seen.add(half.as_bytes());
        assert_eq!((seen.offset, seen.requests.len()), (0, 0));
        seen.add(line.as_bytes());
        assert_eq!((seen.offset, seen.requests.len()), (line.len() as u64, 1));
    }
}
