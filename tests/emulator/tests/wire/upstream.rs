//! A real registry behind the token check: what is pushed through it can be pulled through it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ecr_emulator::{Emulator, IMAGE, Settings};

use crate::clients::{HOST, by_proxy, log_in};
use crate::common::{command, ecr_token, program, stdout};

struct DockerRegistry {
    child: Child,
    url: String,
}

impl DockerRegistry {
    fn start(program: &Path, folder: &Path) -> Self {
        let config = folder.join("registry.yml");
        let storage = folder.join("storage");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n",
            storage.display()
        );
        std::fs::File::create(&config).unwrap().write_all(text.as_bytes()).unwrap();
        let mut serve = command(program, folder);
        let mut child =
            serve.arg("serve").arg(&config).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address =
            lines.find_map(|line| Some(line.split("listening on ").nth(1)?.split('"').next()?.to_owned()));
        // It goes on logging, and blocks when its pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("http://{}", address.unwrap()) }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).unwrap();
    }
}

#[test]
fn an_image_goes_in_and_out_by_crane() {
    let (Some(crane), Some(registry)) = (program("crane"), program("docker-registry")) else { return };
    let (emulator, home) = (Emulator::start(Settings::default()).unwrap(), tempfile::tempdir().unwrap());
    log_in(home.path(), &ecr_token(&emulator, "eu-west-1"));
    let crane = |arguments: &[&str]| {
        let mut command: Command = by_proxy(&crane, home.path(), &emulator);
        command.args(arguments).current_dir(home.path()).output().unwrap()
    };
    stdout(&crane(&["pull", "--format=oci", &format!("{HOST}/{IMAGE}"), "image"]));
    let registry = DockerRegistry::start(&registry, home.path());
    emulator.set_registry_upstream(Some(&registry.url));
    let pushed = format!("{HOST}/team/app:2.0");
    stdout(&crane(&["push", "image", &pushed]));
    let digest = stdout(&crane(&["digest", &pushed]));
    stdout(&crane(&["pull", &pushed, "again.tar"]));
    emulator.set_registry_upstream(None);
    assert_eq!(stdout(&crane(&["digest", &format!("{HOST}/{IMAGE}")])), digest);
    assert!(!crane(&["digest", &pushed]).status.success(), "only the real registry has it");
    emulator.set_registry_upstream(Some(&registry.url));
    emulator.revoke_tokens();
    assert!(!crane(&["push", "image", &pushed]).status.success(), "with a revoked token");
}
