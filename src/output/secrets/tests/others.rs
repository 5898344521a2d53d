//! What other field managers do to our Secrets.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_others_do_to_our_credentials_is_undone_at_once() {
    let api = api(&["apps"]);
    let harness = Harness::start(&api, &named(&["apps"]));
    harness.in_sync().await;
    let changed = Instant::now();
    api.edit(&at("apps"), ".dockerconfigjson", "{}");
    harness.holds(&at("apps"), "one").await;
    api.delete_secret(&at("apps"));
    harness.holds(&at("apps"), "one").await;
    assert_eq!(changed.elapsed(), Duration::ZERO);
    // What is put next to them stays.
    let writes = harness.writes();
    api.edit(&at("apps"), "note", "theirs");
    tokio::time::sleep(20 * MINUTE).await;
    assert_eq!(harness.writes(), writes);
    assert!(api.secret(&at("apps")).unwrap()["data"]["note"].is_string());
}

/// An editor without an end, for ten minutes: a consumer waits two seconds, and the API server sees no storm.
#[tokio::test(start_paused = true)]
async fn in_an_ownership_conflict_the_pace_is_bounded_and_so_is_the_wait() {
    let api = api(&["apps"]);
    let harness = Harness::start(&api, &named(&["apps"]));
    harness.in_sync().await;
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    while begun.elapsed() < 10 * MINUTE {
        let edited = Instant::now();
        api.edit(&at("apps"), ".dockerconfigjson", "{}");
        harness.holds(&at("apps"), "one").await;
        longest = longest.max(edited.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(longest <= Duration::from_secs(2), "{longest:?}");
    assert!((250..350).contains(&harness.writes()), "{}", harness.writes());
    tokio::time::sleep(2 * MINUTE).await;
    api.edit(&at("apps"), ".dockerconfigjson", "{}");
    let edited = Instant::now();
    harness.holds(&at("apps"), "one").await;
    assert_eq!(edited.elapsed(), Duration::ZERO, "it is over");
}

#[tokio::test(start_paused = true)]
async fn what_another_filled_is_not_taken_over_unless_asked_to() {
    let theirs = STANDARD.encode("{\"auths\":{\"ghcr.io\":{\"auth\":\"eA==\"}}}");
    let filled = json!({
        "metadata": {}, "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": theirs},
    });
    let api = api(&["apps"]);
    api.put_secret(&at("apps"), filled);
    let harness = Harness::start(&api, &named(&["apps"]));
    let output = harness.wait("failing", |output| output.last_error.is_some()).await;
    assert_eq!(output.last_error.unwrap().remedy.diagnosis, Diagnosis::SecretUnmanaged);
    assert_eq!(harness.writes(), 0);
    let adopting = DockerConfigSecretSettings { adopt: true, ..docker_config(Namespaces::Own) };
    let harness = Harness::start(&api, &OutputConfig::DockerConfigSecret(adopting));
    harness.holds(&at("apps"), "one").await;
}

/// Decisions on large Secrets leave the runtime thread, one at a time.
#[tokio::test(start_paused = true)]
async fn a_large_secret_is_kept_as_any_other() {
    let api = api(&["apps", "team"]);
    for namespace in ["apps", "team"] {
        let padding = STANDARD.encode("x".repeat(200_000));
        let secret = json!({
            "metadata": {}, "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": STANDARD.encode("{}"), "padding": padding},
        });
        api.put_secret(&at(namespace), secret);
    }
    let harness = Harness::start(&api, &named(&["apps", "team"]));
    harness.in_sync().await;
    assert_eq!(harness.writes(), 2);
}

/// Two sidecars keep one Secret: the one with the token that expires sooner leaves it as it is.
#[tokio::test(start_paused = true)]
async fn replicas_never_step_back() {
    let api = api(&["apps"]);
    let first = Harness::start(&api, &named(&["apps"]));
    first.in_sync().await;
    let second = Harness::of(&api, &named(&["apps"]), true, ("older", LIFE / 2));
    second.in_sync().await;
    tokio::time::sleep(20 * MINUTE).await;
    assert_eq!(first.writes(), 1);
    second.publish("newer").await;
    second.holds(&at("apps"), "newer").await;
    first.in_sync().await;
    assert_eq!(first.writes(), 2);
}
