//! The API server that tests start is the real thing: its rights, its apply, its log, its outages, its end.

use std::{path::Path, process::Output, time::Duration};

use serde_json::Value;
use test_support::{
    ApiServer, Process, ServiceAccount, clean_command,
    kubernetes::{AuditMark, Request, tally},
    output, wait_for,
};

const SOON: Duration = Duration::from_secs(30);

/// One Secret that `sidecar` in `flux-system` may patch, and one that it may not.
const OBJECTS: &str = "
{apiVersion: v1, kind: Secret, metadata: {name: ours, namespace: flux-system}, stringData: {theirs: kept}}
---
{apiVersion: v1, kind: Secret, metadata: {name: other, namespace: flux-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: sidecar, namespace: flux-system}
rules: [{apiGroups: [''], resources: [secrets], resourceNames: [ours], verbs: [patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: sidecar, namespace: flux-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: sidecar}
subjects: [{kind: ServiceAccount, name: sidecar, namespace: flux-system}]
";

#[test]
fn a_service_account_may_do_what_its_role_says_and_the_log_shows_what_it_did() {
    let Some(server) = ApiServer::shared() else { return };
    let sidecar = server.service_account("flux-system", "sidecar");
    assert_denied(&server.kubectl_as(&sidecar, ["get", "secrets"]));
    assert_denied(&patch(&server, &sidecar, "ours"));

    server.apply(OBJECTS);
    wait_for("the Role to count", SOON, || patch(&server, &sidecar, "ours").status.success().then_some(()));
    let mark = server.audit_mark();
    assert!(patch(&server, &sidecar, "ours").status.success());
    assert_denied(&patch(&server, &sidecar, "other"));
    assert_denied(&server.kubectl_as(&sidecar, ["get", "secrets"]));

    let since = server.requests_since(mark);
    let codes: Vec<(&str, &str, u16)> = since
        .iter()
        .filter(|request| request.user == sidecar.user() && request.resource == "secrets")
        .map(|request| (request.verb.as_str(), request.name.as_str(), request.code))
        .collect();
    assert_eq!(codes, [("patch", "ours", 200), ("patch", "other", 403), ("list", "", 403)]);
    let user = sidecar.user();
    let writes = |request: &Request| request.user == user && request.is_write();
    assert_eq!(server.count_requests(mark, writes), 2);
    assert_eq!(tally(&since)[&format!("{user} patch secrets")], 2, "{:?}", tally(&since));
    assert_eq!(server.count_requests(server.audit_mark(), |request| request.user == user), 0);
    assert!(server.count_requests(AuditMark::default(), |request| request.user == "admin") > 2);
}

#[test]
fn fields_of_two_appliers_are_kept_apart() {
    let Some(server) = ApiServer::shared() else { return };
    server.apply("{apiVersion: v1, kind: Namespace, metadata: {name: argocd}}");
    let secret = |data: &str| {
        format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: creds, namespace: argocd}}, stringData: {{{data}}}}}"
        )
    };
    let apply = |manager: &str, data: &str| {
        server.apply_with(["--server-side", "--field-manager", manager], &secret(data))
    };
    assert_success(&apply("git", "url: example.test, type: helm"));
    assert_success(&apply("ecr-sidecar", "username: AWS"));
    assert_success(&apply("git", "url: example.test, type: oci"));
    let found = server.get("secret", "argocd", "creds").unwrap();
    assert_eq!(found["data"].as_object().unwrap().len(), 3, "{found}");
    let managers: Vec<&Value> = found["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fields| &fields["manager"])
        .collect();
    assert_eq!(managers, ["ecr-sidecar", "git"]);
    assert!(!apply("ecr-sidecar", "username: AWS, type: git").status.success(), "a conflict");

    server.delete_namespace("argocd");
    assert_eq!(server.get("namespace", "argocd", "argocd"), None);
}

#[test]
fn a_program_in_a_pod_finds_its_service_account() {
    let Some(server) = ApiServer::shared() else { return };
    let account = server.service_account("pods", "program");
    let mut command = clean_command(ServiceAccount::ENTER, account.folder());
    if !account.enter_pod(&mut command, Path::new("sh")) {
        return;
    }
    let script = "cd /var/run/secrets/kubernetes.io/serviceaccount && cat namespace && ls && \
                  echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT";
    let process = Process::spawn(command.args(["-c", script]));
    assert!(process.wait_exit(SOON).success(), "{}", process.stderr());
    let said = process.stdout();
    let expected = format!("podsca.crt\nkubeconfig\nnamespace\ntoken\n{}\n", server.addr());
    assert_eq!(said, expected);
}

#[test]
fn a_renewed_token_is_good_and_a_revoked_one_is_not() {
    let Some(server) = ApiServer::shared() else { return };
    let account = server.service_account("tokens", "rotating");
    let token = || std::fs::read_to_string(account.token_file()).unwrap();
    let answered =
        || server.kubectl_as(&account, ["auth", "whoami", "-o=jsonpath={.status.userInfo.username}"]);
    let first = token();
    assert_eq!(String::from_utf8(assert_success(&answered()).stdout.clone()).unwrap(), account.user());
    server.revoke_tokens(&account);
    wait_for("the old token to be refused", SOON, || (!answered().status.success()).then_some(()));
    server.renew_token(&account);
    assert_ne!(token(), first);
    assert_success(&answered());
}

#[test]
fn data_tokens_and_certificate_survive_outages_and_nothing_survives_the_end() {
    let Some(server) = ApiServer::start() else { return };
    let account = server.service_account("outage", "survivor");
    let (addr, mark) = (server.addr(), server.audit_mark());
    let who = || server.kubectl_as(&account, ["auth", "whoami"]);
    server.restart();
    assert_success(&who());
    assert_eq!(server.addr(), addr);
    assert!(server.count_requests(mark, |request| request.user == account.user()) > 0, "the log goes on");

    server.stop_etcd();
    let get = ["get", "namespace", "outage", "--request-timeout=2s"];
    let failed = output(server.kubectl_command(&server.kubeconfig()).args(get), SOON);
    assert!(!failed.status.success(), "without etcd");
    server.start_etcd();
    server.wait_ready();
    server.kubectl(get);

    server.pause();
    let failed = output(server.kubectl_command(&server.kubeconfig()).args(get), SOON);
    assert!(!failed.status.success(), "while it is paused");
    server.resume();
    server.kubectl(get);

    server.stop_etcd();
    let pids = server.pids();
    drop(server);
    assert!(pids.len() == 1 && !Path::new(&format!("/proc/{}", pids[0])).exists());
}

fn patch(server: &ApiServer, account: &ServiceAccount, name: &str) -> Output {
    let secret =
        format!("{{apiVersion: v1, kind: Secret, metadata: {{name: {name}}}, stringData: {{ours: new}}}}");
    server.apply_as(account, ["--server-side"], &secret)
}

#[track_caller]
fn assert_success(output: &Output) -> &Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[track_caller]
fn assert_denied(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("Forbidden"), "{stderr}");
}
