//! What runs in the main containers: crane for Flux's controller, helm 3 for repo-server.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use test_support::{ImageConfig, Node, files::overwrite, libraries, program, release_program};

pub(crate) const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
/// What scripts of the manifests call.
pub(crate) const APPLETS: [&str; 9] =
    ["sh", "cat", "tar", "cut", "sha256sum", "sleep", "date", "rm", "mkdir"];
const SIDECAR: &str = "ghcr.io/ecr-sidecar/ecr-sidecar";
/// What a consumer says of a pull that was let in, and of one that was not.
pub(crate) const PULLED: &str = "PULLED";
pub(crate) const REFUSED: &str = "REFUSED";
/// What it says first.
pub(crate) const WITH_FILE: &str = "config.json is there";
pub(crate) const WITHOUT_FILE: &str = "config.json is not there";
/// What it says last.
pub(crate) const ENDS: &str = "the consumer ends";

/// Gives the node all images that the manifests name. `false` when a program is not here.
pub(crate) fn import(node: &Node) -> bool {
    let (Some(crane), Some(helm), Some(busybox)) = (program("crane"), program("helm3"), program("busybox"))
    else {
        return false;
    };
    import_sidecar(node, "0.1.0");
    let _turn = one_at_a_time();
    let consumer = |image: &str, user: &str, port: u16, tool: (&str, &Path), pull: &str| {
        let folder = tempfile::tempdir().unwrap();
        let (script, healthy) = (folder.path().join("consume"), folder.path().join("healthz"));
        write_program(&script, &script_of(port, pull));
        overwrite(&healthy, "ok");
        let files = [
            ("/bin/consume", script.as_path()),
            ("/bin/busybox", &busybox),
            // What Argo CD's copyutil runs, and copies.
            ("/bin/sh", &busybox),
            ("/bin/cp", &busybox),
            ("/bin/ln", &busybox),
            ("/usr/local/bin/argocd", &healthy),
            ("/www/healthz", &healthy),
            ("/www/readyz", &healthy),
            tool,
        ];
        let libraries = libraries(tool.1);
        let files = files.into_iter().chain(libraries.iter().map(|path| as_they_are(path)));
        node.import_image(
            image,
            files,
            ImageConfig { entrypoint: &["/bin/consume"], user, ..ImageConfig::default() },
        );
    };
    let pull = format!("/bin/crane pull {HOST}/app:1.0 /tmp/app.tar");
    consumer(
        "docker.io/fluxcd/image-reflector-controller:v1.2.4",
        "65534:65534",
        9440,
        ("/bin/crane", &crane),
        &pull,
    );
    let pull = format!(
        "busybox rm -rf /tmp/charts; busybox mkdir /tmp/charts; \
         /bin/helm pull oci://{HOST}/charts/hello --version 1.0.0 --destination /tmp/charts"
    );
    consumer("quay.io/argoproj/argocd:v3.5.1", "999", 8084, ("/bin/helm", &helm), &pull);
    let libraries = libraries(&helm);
    let applets = APPLETS.map(|applet| format!("/bin/{applet}"));
    let applets = applets.iter().map(|path| (path.as_str(), busybox.as_path()));
    node.import_image(
        "docker.io/alpine/helm:3.21.4",
        libraries.iter().map(|path| as_they_are(path)).chain([("/bin/helm", helm.as_path())]).chain(applets),
        ImageConfig { entrypoint: &["/bin/helm"], ..ImageConfig::default() },
    );
    true
}

/// Gives the node the image of the sidecar with that tag.
pub(crate) fn import_sidecar(node: &Node, tag: &str) {
    let _turn = one_at_a_time();
    let config = ImageConfig {
        entrypoint: &["/usr/local/bin/ecr-sidecar"],
        user: "65534:65534",
        ..ImageConfig::default()
    };
    let files = [("/usr/local/bin/ecr-sidecar", release_program())];
    node.import_image(
        &format!("{SIDECAR}:{tag}"),
        files.iter().map(|(path, file)| (*path, file.as_path())),
        config,
    );
}

/// containerd rejects an image that is imported twice at once, as by two tests.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A library, at the same path.
pub(crate) fn as_they_are(path: &Path) -> (&str, &Path) {
    (path.to_str().unwrap(), path)
}

/// Says whether the file is there, answers the stock probes, and pulls every second until SIGTERM.
fn script_of(port: u16, pull: &str) -> String {
    format!(
        "#!/bin/busybox sh
if [ -e \"$DOCKER_CONFIG/config.json\" ]; then echo '{WITH_FILE}'; else echo '{WITHOUT_FILE}'; fi
busybox httpd -p 127.0.0.1:{port} -h /www
trap 'echo {ENDS}; exit 0' TERM
while :; do
  if said=$({pull} 2>&1); then echo {PULLED}; else echo \"{REFUSED}: $said\"; fi
  busybox sleep 1 & wait $!
done
"
    )
}

fn write_program(path: &Path, text: &str) {
    overwrite(path, text);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
