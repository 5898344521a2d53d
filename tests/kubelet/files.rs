//! What `patches/kubelet` has: its files agree with each other and with the program, and the README's commands put them in
//! place.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use ecr_emulator::{ACCESS_KEY_ID, Emulator, SECRET_ACCESS_KEY, Settings};
use serde_json::Value;
use test_support::{
    clean_command, files::replace, markdown::blocks_of, output, process::install, program, root,
};

use crate::scene::{BINARY, ROOT, read};

const PLAIN: &str = "credential-provider.yaml";
const WITH_ROLES: &str = "credential-provider-with-roles.yaml";

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&read(name)).unwrap()
}

/// The file with roles has one key more, and Talos's the same under its own path of the configuration.
#[test]
fn there_is_one_provider_in_three_files() {
    let plain = yaml(PLAIN);
    let mut with_roles = yaml(WITH_ROLES);
    let attributes = with_roles["providers"][0].as_object_mut().unwrap().remove("tokenAttributes").unwrap();
    assert_eq!(
        attributes["serviceAccountTokenAudience"],
        yaml_documents("rbac.yaml")[0]["rules"][0]["resources"][0]
    );
    assert_eq!(with_roles, plain);
    let machine = yaml("talos/machine-config.yaml");
    let text = machine["machine"]["kubelet"]["credentialProviderConfig"].to_string();
    let of_talos: Value =
        serde_json::from_str(&text.replace("/var/lib/ecr-sidecar", "/etc/ecr-sidecar")).unwrap();
    assert_eq!(of_talos, plain);
}

fn yaml_documents(name: &str) -> Vec<Value> {
    read(name).split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// A kubelet's pattern matches as many parts of a name as it has itself.
#[test]
fn every_kind_of_private_registry_is_matched_and_only_those() {
    let patterns: Vec<String> =
        serde_json::from_value(yaml(PLAIN)["providers"][0]["matchImages"].clone()).unwrap();
    let matches = |host: &str| {
        patterns.iter().any(|pattern| {
            let (pattern, host): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), host.split('.').collect());
            pattern.len() == host.len()
                && pattern.iter().zip(&host).all(|(part, name)| *part == "*" || part == name)
        })
    };
    for host in [
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
        "123456789012.dkr-ecr.eu-west-1.on.aws",
        "123456789012.dkr-ecr-fips.us-east-1.on.aws",
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
        "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn",
        "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
        "123456789012.dkr-ecr.eusc-de-east-1.on.amazonwebservices.eu",
        "123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov",
        "123456789012.dkr-ecr.us-iso-east-1.on.aws.ic.gov",
        "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
        "123456789012.dkr-ecr.us-isob-east-1.on.aws.scloud",
        "123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk",
        "123456789012.dkr-ecr.eu-isoe-west-1.on.cloud-aws.adc-e.uk",
        "123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov",
        "123456789012.dkr-ecr.us-isof-south-1.on.aws.hci.ic.gov",
    ] {
        assert!(matches(host), "{host}");
    }
    for host in
        ["docker.io", "ghcr.io", "dkr.ecr.eu-west-1.amazonaws.com", "a.b.dkr.ecr.eu-west-1.amazonaws.com"]
    {
        assert!(!matches(host), "{host}");
    }
}

/// Paths and flags, wherever they are named.
#[test]
fn every_file_names_the_same_places() {
    let readme = read("README.md");
    let mut flags = BTreeSet::new();
    for argument in yaml("kubeadm/join.yaml")["nodeRegistration"]["kubeletExtraArgs"].as_array().unwrap() {
        let text = |key: &str| argument[key].as_str().unwrap().to_owned();
        flags.insert(format!("--{}={}", text("name"), text("value")));
        assert!(readme.contains(&text("value")), "{argument}");
    }
    let environment = read("kubeadm/default-kubelet");
    let line = environment.lines().find_map(|line| line.strip_prefix("KUBELET_EXTRA_ARGS=")).unwrap();
    let of_joined: BTreeSet<_> = line.trim_matches('"').split(' ').map(str::to_owned).collect();
    assert_eq!(of_joined, flags);
    let folder =
        flags.iter().find_map(|flag| flag.strip_prefix("--image-credential-provider-bin-dir=")).unwrap();
    let volumes = &yaml_documents("daemonset.yaml")[1]["spec"]["template"]["spec"]["volumes"];
    assert_eq!(volumes[0]["hostPath"]["path"], folder);
    let Some(kubelet) = program("kubelet") else { return };
    let help = output(Command::new(kubelet).arg("--help"), Duration::from_secs(60));
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for flag in &flags {
        assert!(help.contains(flag.split('=').next().unwrap()), "{flag}");
    }
}

#[test]
fn the_program_is_in_talos_s_folder_and_its_configuration_is_mounted_for_the_kubelet() {
    let dockerfile = read("talos/extension/Dockerfile");
    let to = "/rootfs/usr/local/lib/kubelet/credentialproviders/ecr-sidecar";
    assert!(
        dockerfile.contains(&format!("COPY --from=program --chmod=0755 /usr/local/bin/ecr-sidecar {to}\n"))
    );
    let manifest = yaml("talos/extension/manifest.yaml");
    assert_eq!(
        (&manifest["version"], &manifest["metadata"]["name"]),
        (&"v1alpha1".into(), &"ecr-sidecar".into())
    );
    assert_eq!(manifest["metadata"]["version"], env!("CARGO_PKG_VERSION"));

    let machine = yaml("talos/machine-config.yaml");
    let mount = &machine["machine"]["kubelet"]["extraMounts"][0];
    assert_eq!(mount["source"], mount["destination"]);
    let files = machine["machine"]["files"].as_array().unwrap();
    let config = files[0]["content"].as_str().unwrap();
    for file in files {
        let path = file["path"].as_str().unwrap();
        assert!(path.starts_with(mount["source"].as_str().unwrap()), "{path}");
        assert!(path.ends_with("/config.yaml") || config.contains(path), "{path}");
    }
    let folder = tempfile::tempdir().unwrap();
    replace(&folder.path().join("config.yaml"), config);
    let mut command = clean_command(BINARY, folder.path());
    let checked =
        output(command.args(["config", "--config", "config.yaml"]).current_dir(folder.path()), DEADLINE);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

const DEADLINE: Duration = Duration::from_secs(60);

/// In a mount namespace of their own; systemd is not here.
#[test]
fn the_readme_s_commands_install_a_provider_that_answers() {
    if !root() || program("unshare").is_none() {
        return;
    }
    let aws = Emulator::start(Settings::default()).unwrap();
    let blocks = blocks_of("sh", &read("README.md"));
    let of = |part: &str| blocks.iter().find(|block| block.contains(part)).unwrap().clone();
    let verify = of("grep -c");
    let k3s = "/var/lib/rancher/credentialprovider";
    let kubeadm = of("libexec/kubelet-credential-provider/ecr-sidecar\n") + &of("systemctl restart kubelet");
    for (installation, verify, bin, config) in [
        (
            kubeadm,
            verify.clone(),
            "/usr/local/libexec/kubelet-credential-provider",
            "/etc/kubernetes/credential-provider.yaml",
        ),
        (
            of("systemctl restart k3s"),
            verify.replace("/usr/local/libexec/kubelet-credential-provider", &format!("{k3s}/bin")),
            &*format!("{k3s}/bin"),
            &*format!("{k3s}/config.yaml"),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let copy =
            Command::new("cp").arg("-r").arg(format!("{ROOT}/patches/kubelet/.")).arg(folder.path()).status();
        assert!(copy.unwrap().success());
        install(BINARY, &folder.path().join("ecr-sidecar"));
        replace(&folder.path().join("access-key-id"), ACCESS_KEY_ID);
        replace(&folder.path().join("secret-access-key"), SECRET_ACCESS_KEY);
        let script = format!(
            "for hidden in /etc /usr/local /var/lib /run; do mount -t tmpfs -o mode=755 none $hidden; done\n\
             systemctl() {{ echo \"systemctl $*\"; }}\n{installation}\n{verify}\n\
             stat -c '%a %n' {bin}/ecr-sidecar {config} /etc/ecr-sidecar/config.yaml /etc/ecr-sidecar/aws/*"
        );
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "--propagation=private", "bash", "-euo", "pipefail", "-c", &script]);
        shell
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("AWS_ENDPOINT_URL", aws.endpoint());
        let done = output(shell.current_dir(folder.path()), DEADLINE);
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{script}\n{said}{}", String::from_utf8_lossy(&done.stderr));
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[0].starts_with("systemctl restart k") && lines[1] == "1", "{said}");
        let modes: Vec<_> = lines[2..].iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(modes, ["755", "644", "600", "600", "600"], "{said}");
    }
}

#[test]
fn the_configuration_on_the_node_is_accepted() {
    let file = Path::new(ROOT).join("patches/kubelet/config.yaml");
    let mut command = clean_command(BINARY, Path::new("/nonexistent"));
    let checked = output(command.args(["config", "--config"]).arg(file), DEADLINE);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(fs::read_to_string(format!("{ROOT}/patches/README.md")).unwrap().contains("(kubelet)"));
}
