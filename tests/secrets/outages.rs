//! What goes away for a while: the API server, its etcd, AWS, the sidecar itself, rights and tokens.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use ecr_emulator::{Fault, Reason, Service, Settings};
use serde_json::Value;
use test_support::{
    ApiServer, Harness, Running, Signal,
    harness::{DEADLINE, HOST},
    iam::allow_what_we_ship,
    kubernetes::audit::tally,
    output, pause, program, wait_for,
};

use crate::{
    BINARY,
    cluster::{Cluster, SECRET, Server, argocd, by_file, sha256, value, with_registry},
};

#[test]
fn an_outage_of_the_api_server_goes_unnoticed() {
    let aws = Settings { token_lifetime: Duration::from_secs(40), ..Settings::default() };
    let Some(cluster) = of_its_own("outage", aws) else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let first = cluster.wait_password("outage");
    cluster.server.stop_server();
    sidecar.wait_status("a failing output", |status| status["outputs"][0]["last_error"].is_object());
    assert_eq!(sidecar.get("/readyz").0, 200, "what is there is good still");
    cluster.server.start_server();
    cluster.server.wait_ready();
    wait_for("a newer credential", DEADLINE, || (cluster.password("outage")? != first).then_some(()));
    sidecar.wait_status("the output in sync", |status| status["outputs"][0]["last_error"].is_null());
    sidecar.wait_ready();
    // and its watch lives
    cluster.server.kubectl(["delete", "secret", SECRET, "-n", "outage"]);
    cluster.server.apply(&cluster.manifests(|_| {}));
    cluster.wait_password("outage");
}

#[test]
fn a_sidecar_that_is_killed_while_aws_is_away_is_ready_when_it_is_back() {
    let Some(cluster) = Cluster::new("killed") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    drop(sidecar);
    cluster.harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    cluster.start(|_| {}).wait_ready();
    cluster.harness.emulator.clear_faults();
    let sidecar = cluster.run(argocd("killed"));
    sidecar.wait_ready();
    drop(sidecar);
    cluster.harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    cluster.start(argocd("killed")).wait_ready();
}

/// What the annotation of a Secret with one registry says: the end of its credential, and the hash of that.
fn mark(secret: &Value) -> (String, String) {
    let text = secret["metadata"]["annotations"]["ecr-sidecar/expires"].as_str().unwrap();
    let marks: Value = serde_json::from_str(text).unwrap();
    let (expiry, hash) = marks[HOST].as_str().unwrap().split_once(' ').unwrap();
    (expiry.to_owned(), hash.to_owned())
}

/// Three replicas for some refreshes: no replica ever puts an older credential over a newer one, and a user name never
/// stands next to a password that it does not belong to.
#[test]
fn replicas_never_step_back_and_tear_no_pair() {
    let aws = Settings { token_lifetime: Duration::from_secs(12), ..Settings::default() };
    let Some(cluster) = Cluster::with("replicas", aws) else { return };
    let both = |command: &mut Command| {
        command.env("ECR_SIDECAR_ARGOCD_NAMESPACE", "replicas");
    };
    let first = cluster.run(both);
    let replicas = [first, cluster.start(both), cluster.start(both)];
    replicas.iter().for_each(Running::wait_ready);
    let begun = cluster.harness.emulator.count(Service::Ecr);
    let start = cluster.server.audit_mark();
    let secrets = [SECRET, "ecr-123456789012-eu-west-1-helm", "ecr-123456789012-eu-west-1-oci"];
    let mut last = [const { String::new() }; 3];
    let mut changes = 0;
    wait_for("ten refreshes of each", Duration::from_secs(240), || {
        for (name, last) in secrets.iter().zip(&mut last) {
            let secret = cluster.secret("replicas", name)?;
            let (expiry, hash) = mark(&secret);
            assert!(expiry >= *last, "{name}: {expiry} after {last}");
            changes += u32::from(expiry != *last);
            *last = expiry;
            if let Some(password) = value(&secret, "password") {
                assert_eq!(value(&secret, "username").as_deref(), Some("AWS"));
                assert_eq!(sha256(&password)[..16], hash);
            }
        }
        (cluster.harness.emulator.count(Service::Ecr) >= begun + 30).then_some(())
    });
    let writes = cluster.writes_since(start) as u64;
    let refreshes = cluster.harness.emulator.count(Service::Ecr) - begun;
    assert!(writes <= 3 * (refreshes + 3), "{writes} writes of 3 Secrets for {refreshes} refreshes");
    assert!(changes > 15, "{changes}");
}

/// With an API server that no other test uses.
fn of_its_own(namespace: &str, aws: Settings) -> Option<Cluster> {
    let server = ApiServer::start()?;
    let account = server.service_account(namespace, "reflector");
    Some(Cluster { server: Server::Shared(Arc::new(server)), harness: Harness::with(BINARY, aws), account })
}

/// The Secret in every namespace with the label `ecr: enabled`, and the file.
fn selecting(cluster: &Cluster) -> impl Fn(&mut Command) {
    let file = cluster.harness.put(
        "selecting.yaml",
        &format!(
            "registries: [{{host: {HOST}}}]\nrefresh: {{at: 25%}}\noutputs:\n\
             - {{type: docker-config, path: '{}'}}\n- {{type: docker-config-secret, name: {SECRET}, namespaces: {{selector: ecr=enabled}}}}\n",
            cluster.harness.file().display()
        ),
    );
    move |command| by_file(&file)(command)
}

/// Its watches are cut and their versions become too old (410), meanwhile a Secret goes and a namespace comes.
#[test]
fn what_happens_while_it_is_cut_off_is_caught_up_with_without_a_storm() {
    let Some(cluster) = of_its_own("cut-off", Settings::default()) else { return };
    cluster.namespace_with("cut-off", "{ecr: enabled}");
    let sidecar = cluster.run(selecting(&cluster));
    sidecar.wait_ready();
    cluster.wait_password("cut-off");
    sidecar.signal(Signal::STOP);
    for number in 0..20 {
        cluster.server.kubectl(["create", "configmap", &format!("c{number}"), "-n", "cut-off"]);
    }
    cluster.server.kubectl(["delete", "secret", SECRET, "-n", "cut-off"]);
    cluster.server.restart();
    cluster.namespace_with("cut-off-late", "{ecr: enabled}");
    let mark = cluster.server.audit_mark();
    sidecar.signal(Signal::CONT);
    cluster.wait_password("cut-off");
    cluster.wait_password("cut-off-late");
    // Two watches: each is listed again at most once, and then goes on.
    let user = cluster.account.user();
    let requests = cluster.server.requests_since(mark);
    let ours: Vec<_> = requests.into_iter().filter(|request| request.user == user).collect();
    let lists = ours.iter().filter(|request| request.verb == "list").count();
    assert!(lists <= 2 && ours.len() <= 20, "{:?}", tally(&ours));
    cluster.server.kubectl(["delete", "secret", SECRET, "-n", "cut-off"]);
    cluster.wait_password("cut-off");
}

#[test]
fn a_token_of_the_service_account_is_read_again_as_it_rotates() {
    let Some(cluster) = Cluster::new("rotates") else { return };
    let sidecar = cluster.run(|_| {});
    sidecar.wait_ready();
    let before = cluster.wait_password("rotates");
    cluster.server.revoke_tokens(&cluster.account);
    wait_for("the old token to be worth nothing", DEADLINE, || {
        let answer = cluster.server.kubectl_as(&cluster.account, ["get", "secret", SECRET]);
        (!answer.status.success()).then_some(())
    });
    sidecar.signal(Signal::HUP);
    let line = sidecar.wait_log("\"diagnosis\":\"api-server-login\"", DEADLINE);
    assert!(line.contains("rotates/ecr-credentials"), "{line}");
    assert_eq!(sidecar.get("/readyz").0, 200, "what is there is good still");
    cluster.server.renew_token(&cluster.account);
    // The file is read again once a minute.
    let long = Duration::from_secs(150);
    wait_for("the newer credential", long, || (cluster.password("rotates")? != before).then_some(()));
}

/// A consumer that pulls every second for as long as the test goes on: how often it pulled, and how often it could not
/// even try, since there was no API server to ask or no Secret.
fn pull_until(end: Instant, command: impl Fn() -> Command) -> (u32, u32) {
    let (mut pulled, mut blind) = (0, 0);
    while Instant::now() < end {
        let next = Instant::now() + Duration::from_secs(1);
        let done = output(&mut command(), DEADLINE);
        let said = String::from_utf8_lossy(&done.stderr);
        if done.status.success() {
            pulled += 1;
        } else {
            // Whole words: the number of a port may have these in it.
            let mut words = said.split(|character: char| !character.is_ascii_alphanumeric());
            assert!(!words.any(|word| ["UNAUTHORIZED", "401", "403"].contains(&word)), "{said}");
            blind += 1;
        }
        pause(next.saturating_duration_since(Instant::now()));
    }
    (pulled, blind)
}

/// 40-second tokens for three minutes, with all that may go away. They are renewed at a quarter of their life: an outage
/// of 20 s, with what comes before all is up again, is longer than what is left of a token at its half.
#[test]
fn no_pull_is_rejected_through_restarts_outages_deletions_and_lost_rights() {
    let aws = Settings { token_lifetime: Duration::from_secs(40), ..Settings::default() };
    let Some((_registry, aws)) = with_registry(aws) else { return };
    let (Some(crane), Some(consumers)) = (program("crane"), program("consumers")) else { return };
    let Some(cluster) = of_its_own("endures", aws) else { return };
    allow_what_we_ship(&cluster.harness.emulator);
    cluster.namespace_with("endures", "{ecr: enabled}");
    let sidecar = cluster.run(selecting(&cluster));
    sidecar.wait_ready();
    let binding = format!("ecr-sidecar-endures-{}", cluster.account.name());
    let manifests = cluster.manifests(selecting(&cluster));
    let image = format!("{HOST}/team/app:v1");
    let end = Instant::now() + Duration::from_secs(180);
    let by_secret = || {
        let mut command = cluster.consumer(Path::new("timeout"));
        command.arg("5").arg(&consumers).args(["keychain", "--namespace=endures", "--secret", SECRET]);
        command.args(["--pull", "--image", &image, "--kubeconfig"]).arg(cluster.server.kubeconfig());
        command
    };
    let by_file = || {
        let mut command = cluster.consumer(&crane);
        command.args(["digest", &image]).env("DOCKER_CONFIG", cluster.harness.file().parent().unwrap());
        command
    };
    let server = &cluster.server;
    let (by_secret, by_file) = std::thread::scope(|scope| {
        let by_secret = scope.spawn(|| pull_until(end, by_secret));
        let by_file = scope.spawn(|| pull_until(end, by_file));
        let rest = |seconds| pause(Duration::from_secs(seconds));
        rest(15);
        server.restart();
        rest(15);
        server.stop_etcd();
        rest(20);
        server.start_etcd();
        server.wait_ready();
        rest(15);
        server.kubectl(["delete", "secret", SECRET, "-n", "endures"]);
        rest(15);
        server.kubectl(["delete", "clusterrolebinding", &binding]);
        rest(15);
        server.apply(&manifests);
        (by_secret.join().unwrap(), by_file.join().unwrap())
    });
    println!("pulls and blind ones, by the Secret {by_secret:?}, by the file {by_file:?}");
    let mut refusals = cluster.harness.emulator.refusals();
    refusals.retain(|refusal| refusal.reason != Reason::NoCredentials); // each client asks first what is wanted
    assert!(refusals.is_empty(), "{refusals:?}");
    assert!(by_secret.0 > 60 && by_secret.1 < by_secret.0, "{by_secret:?}");
    assert!(by_file.0 > 60 && by_file.1 == 0, "{by_file:?}");
    assert!(cluster.harness.emulator.count(Service::Ecr) >= 6, "tokens did rotate");
    sidecar.wait_ready();
}
