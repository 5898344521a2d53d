//! Argo CD: templates, and repositories that others made.

use base64::{Engine, engine::general_purpose::STANDARD};
use ecr_emulator::Settings;
use serde_json::{Value, json};
use test_support::{
    Signal,
    harness::{DEADLINE, HOST},
    iam::allow_what_we_ship,
    output, program, wait_for,
};

use crate::cluster::{Cluster, SOON, argocd, by_file, sha256, value, with_registry};

#[test]
fn argo_cd_finds_both_kinds_of_template_and_another_applier_keeps_its_fields() {
    let Some(cluster) = Cluster::new("argo") else { return };
    let manifests = cluster.manifests(argocd("argo"));
    let git = || {
        let applied =
            cluster.server.apply_with(["--server-side", "--field-manager", "argocd-controller"], &manifests);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    };
    git();
    let sidecar = cluster.start(argocd("argo"));
    sidecar.wait_ready();
    let name = "ecr-123456789012-eu-west-1-helm";
    let before = cluster.secret("argo", name).unwrap();
    assert_eq!(value(&before, "username").as_deref(), Some("AWS"));
    let mark = cluster.server.audit_mark();
    git();
    assert_eq!(
        cluster.secret("argo", name).unwrap()["data"],
        before["data"],
        "a second apply leaves it alone"
    );
    assert_eq!(cluster.writes_since(mark), 0);

    for (url, secret) in [
        (format!("{HOST}/charts/web"), name),
        (format!("oci://{HOST}/charts/web"), "ecr-123456789012-eu-west-1-oci"),
    ] {
        let Some(found) = cluster.finds(&["argocd-match", "--namespace=argo", "--url", &url]) else { return };
        assert_eq!((&found["secret"], &found["username"]), (&json!(secret), &json!("AWS")), "{found}");
        let password = value(&cluster.secret("argo", secret).unwrap(), "password").unwrap();
        assert_eq!(found["passwordSha256"], json!(sha256(&password)));
    }
}

/// As repo-server does it: helm with the bare password for `chart:` sources, oras for `oci://` ones.
#[test]
fn both_kinds_of_source_pull_from_every_registry() {
    let Some((_registry, aws)) = with_registry(Settings::default()) else { return };
    let Some(cluster) = Cluster::with("argo-pulls", aws) else { return };
    allow_what_we_ship(&cluster.harness.emulator);
    let hosts = [HOST, "123456789012.dkr.ecr.us-east-1.amazonaws.com"];
    let sidecar = cluster.run(|command| {
        argocd("argo-pulls")(command);
        command.env("ECR_SIDECAR_REGISTRIES", hosts.join(","));
    });
    sidecar.wait_ready();
    let Some(helm) = program("helm3") else { return };
    for host in hosts {
        let password = cluster.harness.at("password");
        let to = password.to_str().unwrap();
        let of = |url: &str| {
            cluster.finds(&["argocd-match", "--namespace=argo-pulls", "--password-to", to, "--url", url])
        };
        let Some(_) = of(&format!("{host}/charts/web")) else { return };
        let mut login = cluster.consumer(&helm);
        login.args(["registry", "login", host, "--username=AWS", "--password"]);
        login.arg(std::fs::read_to_string(&password).unwrap());
        let said = output(&mut login, DEADLINE);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let mut pull = cluster.consumer(&helm);
        pull.args(["pull", &format!("oci://{host}/charts/web"), "--version=0.1.0", "-d"])
            .arg(cluster.harness.folder());
        let said = output(&mut pull, DEADLINE);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));

        of(&format!("oci://{host}/charts/web")).unwrap();
        let oras = ["oras", "--username=AWS", "--password-file", to, "--tags", "--ref"];
        let reference = format!("{host}/charts/web:0.1.0");
        let mut oras = {
            let mut command = cluster.consumer(&program("consumers").unwrap());
            command.args(oras).arg(reference);
            command
        };
        let found = output(&mut oras, DEADLINE);
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let found: Value = serde_json::from_slice(&found.stdout).unwrap();
        assert_eq!(found["tags"], json!(["0.1.0"]), "{found}");
    }
}

/// A repository as Argo CD's UI makes it, with a password of last week.
fn repository(name: &str, url: &str, labels: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: argo-repos, labels: \
         {{argocd.argoproj.io/secret-type: repository{labels}}}}}, stringData: {{url: '{url}', type: helm, \
         project: team-a, username: AWS, password: stale}}}}\n---\n"
    )
}

#[test]
fn repositories_that_others_made_get_fresh_credentials_and_stay_theirs() {
    let Some(cluster) = Cluster::new("argo-repos") else { return };
    let of = |name: &str, key: &str| value(&cluster.secret("argo-repos", name)?, key);
    let url = format!("{HOST}/charts/web");
    let labels = ", ecr-sidecar/refresh: enabled";
    cluster.server.apply(
        &[
            repository("named", &url, ""),
            repository("labelled", &format!("oci://{url}"), labels),
            repository("elsewhere", "ghcr.io/charts/web", labels),
            repository("other", &url, ""),
        ]
        .concat(),
    );
    let file = cluster.harness.put(
        "repos.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\noutputs:\n\
             - {{type: argocd-repositories, namespace: argo-repos, names: [named]}}\n\
             - {{type: argocd-repositories, namespace: argo-repos, selector: ecr-sidecar/refresh=enabled}}\n"
        ),
    );
    let manifests = cluster.manifests(by_file(&file));
    assert!(manifests.contains("this role applies to every Secret in\n# argo-repos"), "{manifests}");
    let sidecar = cluster.run(by_file(&file));
    sidecar.wait_ready();
    let password = of("named", "password").unwrap();
    assert_ne!(password, "stale");
    assert_eq!(of("labelled", "password").as_deref(), Some(&*password));
    for (key, text) in [("project", "team-a"), ("type", "helm"), ("url", &url)] {
        assert_eq!(of("named", key).as_deref(), Some(text));
    }
    for name in ["elsewhere", "other"] {
        assert_eq!(of(name, "password").as_deref(), Some("stale"), "{name}");
    }
    let status = sidecar.status().to_string();
    assert!(status.contains("argo-repos/elsewhere gets no credentials"), "{status}");

    // one that comes, and one that is edited
    cluster.server.apply(&repository("late", &url, labels));
    wait_for("the new one's credential", SOON, || (of("late", "password")? == password).then_some(()));
    cluster.patch_as(
        "argocd-server",
        "argo-repos",
        "named",
        &json!({"password": STANDARD.encode("typed in")}),
    );
    wait_for("the edited one's credential", SOON, || (of("named", "password")? == password).then_some(()));
    sidecar.signal(Signal::HUP);
    wait_for("the next credential", DEADLINE, || {
        ["named", "labelled", "late"]
            .iter()
            .all(|name| of(name, "password") != Some(password.clone()))
            .then_some(())
    });

    // without the label it is its owner's again, and what is ours leaves
    cluster.server.kubectl(["label", "secret", "late", "-n", "argo-repos", "ecr-sidecar/refresh-"]);
    wait_for("our fields to go", SOON, || of("late", "password").is_none().then_some(()));
    assert_eq!(of("late", "project").as_deref(), Some("team-a"));
    cluster.server.kubectl(["delete", "secret", "labelled", "-n", "argo-repos"]);
    sidecar.wait_status("one less", |status| status.to_string().contains("\"total\":1"));
    assert!(of("labelled", "url").is_none(), "a repository that its owner deletes stays deleted");
    sidecar.wait_ready();
}

#[test]
fn a_repository_that_is_not_there_is_reported() {
    let Some(cluster) = Cluster::new("argo-missing") else { return };
    let file = cluster.harness.put(
        "missing.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\n\
             outputs: [{{type: argocd-repositories, namespace: argo-missing, names: [team-a]}}]\n"
        ),
    );
    let sidecar = cluster.run(by_file(&file));
    let line = sidecar.wait_log("there is no Secret argo-missing/team-a", DEADLINE);
    assert!(line.contains("create the repository in Argo CD"), "{line}");
}
