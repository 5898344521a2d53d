//! What is in the registry when there is no other one behind it?
//!
//! The image `app:1.0` (linux/amd64, one layer with one file) and the helm chart `charts/hello:1.0.0`, built once
//! from the texts below, the same bytes each time. They can be pulled, not pushed.

use std::collections::HashMap;
use std::io::Write;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::Method;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::fault::Service;
use crate::random::hex;
use crate::reply::{self, Failure, Reply};

/// The image that every registry holds.
pub const IMAGE: &str = "app:1.0";
/// The helm chart that every registry holds.
pub const CHART: &str = "charts/hello:1.0.0";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

static CONTENT: LazyLock<HashMap<&str, Repository>> = LazyLock::new(|| {
    let (app, hello) = (app(), chart());
    [IMAGE, CHART]
        .into_iter()
        .filter_map(|name| name.split_once(':'))
        .zip([app, hello])
        .map(|((name, tag), artifact)| (name, Repository { tag, artifact }))
        .collect()
});

struct Repository {
    tag: &'static str,
    artifact: Artifact,
}

/// A manifest and the blobs it names.
struct Artifact {
    manifest: Blob,
    blobs: [Blob; 2],
}

struct Blob {
    digest: String,
    bytes: Bytes,
}

/// Answers an admitted request.
pub(crate) fn answer(method: &Method, path: &str) -> Reply {
    if method != Method::GET && method != Method::HEAD {
        return Failure::new(405, "UNSUPPORTED", "this registry can only be pulled from")
            .reply(Service::Registry);
    }
    let mut reply = find(path).unwrap_or_else(|failure| failure.reply(Service::Registry));
    let version = HeaderValue::from_static("registry/2.0");
    reply.headers_mut().insert("docker-distribution-api-version", version);
    reply
}

fn find(path: &str) -> Result<Reply, Failure> {
    let rest = path.strip_prefix("/v2").unwrap_or_default().trim_start_matches('/');
    if rest.is_empty() {
        return Ok(reply::with_type(200, "application/json", "{}"));
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        let repository = CONTENT.get(name).ok_or_else(unknown_repository)?;
        return Ok(list(name, [repository.tag.to_owned()]));
    }
    if let Some((name, reference)) = rest.split_once("/manifests/") {
        return CONTENT.get(name).ok_or_else(unknown_repository)?.manifest(reference);
    }
    let (name, digest) = rest.split_once("/blobs/").ok_or_else(unknown_repository)?;
    CONTENT.get(name).ok_or_else(unknown_repository)?.blob(digest)
}

pub(crate) fn unknown_repository() -> Failure {
    Failure::new(404, "NAME_UNKNOWN", "The repository does not exist in the registry")
}

/// The answer to `tags/list`; digests among the references are left out.
pub(crate) fn list(name: &str, references: impl IntoIterator<Item = String>) -> Reply {
    let tags: Vec<_> = references.into_iter().filter(|reference| !reference.contains(':')).collect();
    reply::with_type(200, "application/json", json!({"name": name, "tags": tags}).to_string())
}

impl Repository {
    fn manifest(&self, reference: &str) -> Result<Reply, Failure> {
        let manifest = &self.artifact.manifest;
        if reference != self.tag && reference != manifest.digest {
            return Err(Failure::new(404, "MANIFEST_UNKNOWN", "Requested image not found"));
        }
        Ok(manifest.reply(MANIFEST))
    }

    fn blob(&self, digest: &str) -> Result<Reply, Failure> {
        let blob = self.artifact.blobs.iter().find(|blob| blob.digest == digest);
        let blob = blob.ok_or_else(|| Failure::new(404, "BLOB_UNKNOWN", "blob unknown to registry"))?;
        Ok(blob.reply("application/octet-stream"))
    }
}

impl Blob {
    fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: sha256(&bytes), bytes }
    }

    fn describe(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    fn reply(&self, content_type: &'static str) -> Reply {
        let mut reply = reply::with_type(200, content_type, self.bytes.clone());
        let name = hyper::header::HeaderName::from_static("docker-content-digest");
        reply::set_header(&mut reply, name, &self.digest);
        reply
    }
}

fn app() -> Artifact {
    let tar = tar(&[("hello.txt", "Hello from the emulator's registry.\n")]);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/hello.txt"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "ecr-emulator"}],
    });
    artifact(&config, "application/vnd.oci.image.config.v1+json", gzip(&tar), TAR_GZIP)
}

fn chart() -> Artifact {
    let config = json!({
        "apiVersion": "v2",
        "name": "hello",
        "version": "1.0.0",
        "appVersion": "1.0",
        "description": "A chart with one ConfigMap",
        "type": "application",
    });
    // Chart.yaml is YAML, and so is JSON.
    let files = [
        ("hello/Chart.yaml", config.to_string() + "\n"),
        ("hello/values.yaml", "greeting: hello\n".to_owned()),
        (
            "hello/templates/configmap.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-hello\n\
             data:\n  greeting: {{ .Values.greeting | quote }}\n"
                .to_owned(),
        ),
    ];
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    artifact(
        &config,
        "application/vnd.cncf.helm.config.v1+json",
        gzip(&tar(&files)),
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
    )
}

fn artifact(config: &Value, config_type: &str, layer: Vec<u8>, layer_type: &str) -> Artifact {
    let blobs = [Blob::new(config.to_string()), Blob::new(layer)];
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blobs[0].describe(config_type),
        "layers": [blobs[1].describe(layer_type)],
    });
    Artifact { manifest: Blob::new(manifest.to_string()), blobs }
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(digest(&SHA256, bytes).as_ref()))
}

/// A ustar archive of plain files, mode 0644, from 1970.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, text) in files {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, b"0000644\x000000000\x000000000\0");
        put(124, format!("{:011o}\0", text.len()).as_bytes());
        put(136, b"00000000000\0        0");
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(text.as_bytes());
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[expect(clippy::expect_used, reason = "writing into a Vec doesn't fail")]
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("a Vec takes all bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blob_that_a_manifest_names_is_there() {
        for (name, repository) in CONTENT.iter() {
            let manifest: Value = serde_json::from_slice(&repository.artifact.manifest.bytes).unwrap();
            for part in [&manifest["config"], &manifest["layers"][0]] {
                let reply = find(&format!("/v2/{name}/blobs/{}", part["digest"].as_str().unwrap())).unwrap();
                assert_eq!(reply.status(), 200);
            }
        }
        assert_eq!(find("/v2/app/blobs/sha256:0").unwrap_err().code, "BLOB_UNKNOWN");
        assert_eq!(find("/v2/app/manifests/2.0").unwrap_err().code, "MANIFEST_UNKNOWN");
        assert_eq!(find("/v2/nothing/tags/list").unwrap_err().code, "NAME_UNKNOWN");
    }
}
