//! A Secret that is there before the release: nothing of it is lost.

use std::process::Output;

use serde_json::json;
use test_support::{ApiServer, clean_command, files::overwrite, output};

use super::{DEADLINE, Helm, chart};

#[test]
fn an_existing_secret_is_handed_over_with_its_content() {
    let Some(server) = ApiServer::shared() else { return };
    for (helm, namespace) in Helm::both().iter().zip(["takeover-helm3", "takeover-helm4"]) {
        let folder = tempfile::tempdir().unwrap();
        let helm = |arguments: &[&str]| -> Output {
            let mut command = clean_command(&helm.0, folder.path());
            command.args(arguments).args(["--namespace", namespace, "--kubeconfig"]).arg(server.kubeconfig());
            output(&mut command, DEADLINE)
        };
        let content = r#"{"auths":{"ghcr.io":{"auth":"YTpi"}}}"#;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": "ecr-credentials", "namespace": namespace},
            "stringData": {".dockerconfigjson": content},
        });
        server.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"));
        server.apply(&secret.to_string());
        let now = || server.get("secret", namespace, "ecr-credentials").unwrap();
        let before = now()["data"].clone();
        assert_eq!(before.as_object().unwrap().len(), 1);

        let path = chart().display().to_string();
        let rejected = helm(&["install", "ecr-sidecar", &path]);
        let said = String::from_utf8_lossy(&rejected.stderr);
        assert!(!rejected.status.success() && said.contains("ecr-credentials"), "{said}");
        assert_eq!(now()["data"], before);

        let values = folder.path().join("values.yaml");
        for (round, arguments) in [
            &["install", "ecr-sidecar", &path, "--take-ownership"][..],
            &["upgrade", "ecr-sidecar", &path],
            &["rollback", "ecr-sidecar", "1"],
        ]
        .iter()
        .enumerate()
        {
            overwrite(&values, &format!("podAnnotations: {{round: '{round}'}}"));
            let file = values.display().to_string();
            let with_values = [*arguments, &["--values", &file]].concat();
            let done = helm(if arguments[0] == "rollback" { arguments } else { &with_values });
            assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
            let now = now();
            assert_eq!(now["data"], before, "{arguments:?}");
            assert_eq!(now["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm");
        }
    }
}
