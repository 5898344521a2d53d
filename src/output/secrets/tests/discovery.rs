//! Secrets that a selector finds, Secrets that are no longer wanted, and those of Argo CD.

use super::*;
use crate::output::secret_settings::{RepoCredsSettings, RepositoriesSettings, Which};

/// The Secret in each namespace with the label `ecr=enabled`.
fn selected(prune: bool) -> OutputConfig {
    let selector = Namespaces::Selector("ecr=enabled".parse().unwrap());
    OutputConfig::DockerConfigSecret(DockerConfigSecretSettings { prune, ..docker_config(selector) })
}

fn argocd_repositories(which: Which) -> OutputConfig {
    OutputConfig::ArgocdRepositories(RepositoriesSettings { namespace: "argocd".parse().unwrap(), which })
}

fn repository() -> Value {
    let data =
        json!({"url": STANDARD.encode(format!("oci://{HOST}/charts")), "type": STANDARD.encode("helm")});
    let labels = json!({"argocd.argoproj.io/secret-type": "repository", "ecr": "enabled"});
    json!({"metadata": {"labels": labels}, "type": "Opaque", "data": data})
}

#[tokio::test(start_paused = true)]
async fn a_secret_follows_the_labels_of_namespaces() {
    let api = api(&["a", "b"]);
    let harness = Harness::start(&api, &selected(false));
    harness.in_sync().await;
    assert_eq!((harness.output().targets.unwrap().total, harness.writes()), (2, 2));
    let read = api.count(&Method::GET);
    api.put_namespace("c", json!({"ecr": "enabled"}));
    harness.holds(&at("c"), "one").await;
    assert_eq!(api.count(&Method::GET), read, "what is absent is not asked for");
    // Our entries leave the Secret of a namespace that loses its label.
    api.put_namespace("a", json!({}));
    api.wait(|api| password_in(&api.secret(&at("a"))?).is_none().then_some(())).await;
    // Its label comes back, and goes and comes back while that is cleaned up.
    for labels in [json!({"ecr": "enabled"}), json!({}), json!({"ecr": "enabled"})] {
        api.put_namespace("a", labels);
        tokio::task::yield_now().await;
    }
    harness.holds(&at("a"), "one").await;
    harness.in_sync().await;
    api.delete_secret(&at("b"));
    api.delete_namespace("b");
    harness.wait("forgotten", |output| output.targets.as_ref().is_some_and(|it| it.total == 2)).await;
    assert!(api.secret(&at("b")).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_ours_alone_is_pruned_if_that_is_asked_for() {
    let api = api(&["a", "b"]);
    let harness = Harness::start(&api, &selected(true));
    harness.in_sync().await;
    api.edit(&at("b"), "note", "keep me");
    for namespace in ["a", "b"] {
        api.put_namespace(namespace, json!({}));
    }
    api.wait(|api| api.secret(&at("a")).is_none().then_some(())).await;
    api.wait(|api| password_in(&api.secret(&at("b"))?).is_none().then_some(())).await;
    assert!(api.secret(&at("b")).unwrap()["data"]["note"].is_string());
}

/// Its Secret is being made when its label goes, and no watch has reported that Secret yet.
#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_unwanted_while_its_secret_is_made_keeps_no_credential() {
    let api = api(&["a"]);
    let harness = Harness::start(&api, &selected(false));
    harness.in_sync().await;
    api.put_namespace("b", json!({"ecr": "enabled"}));
    api.put_namespace("b", json!({}));
    tokio::time::sleep(MINUTE).await;
    let left = api.secret(&at("b"));
    assert_eq!(left.as_ref().and_then(password_in), None, "{left:?}");
}

/// The entries of the base are credentials of ours, too.
#[tokio::test(start_paused = true)]
async fn the_entries_of_the_base_leave_with_the_namespace() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.json");
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    std::fs::write(&base, r#"{"auths":{"ghcr.io":{"auth":"bWU6b25l"}},"HttpHeaders":{"X":"y"}}"#).unwrap();
    let OutputConfig::DockerConfigSecret(settings) = selected(false) else { panic!() };
    let settings = DockerConfigSecretSettings { base: Some(base), ..settings };
    let api = api(&["a", "b"]);
    let harness = Harness::start(&api, &OutputConfig::DockerConfigSecret(settings));
    harness.in_sync().await;
    let config = |namespace| {
        let text =
            api.secret(&at(namespace)).unwrap()["data"][".dockerconfigjson"].as_str().unwrap().to_owned();
        String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
    };
    assert!(config("a").contains("ghcr.io"));
    api.put_namespace("a", json!({}));
    api.wait(|api| password_in(&api.secret(&at("a"))?).is_none().then_some(())).await;
    assert_eq!(config("a"), r#"{"auths":{}}"#);
    assert!(config("b").contains("ghcr.io"));
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_is_tried_again_and_ends_when_it_is_denied() {
    for (code, is_removed) in [(503, true), (403, false)] {
        let api = api(&["a", "b"]);
        let harness = Harness::start(&api, &selected(false));
        harness.in_sync().await;
        api.fail(move |method, path| {
            let fails = method == Method::PATCH && path.contains("/a/");
            fails.then(|| Answer::status(code, "", "User \"u\" cannot patch resource \"secrets\""))
        });
        let writes = harness.writes();
        api.put_namespace("a", json!({}));
        api.wait(|_| (harness.writes() >= writes + 1 + 2 * usize::from(is_removed)).then_some(())).await;
        api.heal();
        tokio::time::sleep(MINUTE).await;
        assert_eq!(password_in(&api.secret(&at("a")).unwrap()).is_none(), is_removed);
    }
}

/// One tenant's Secret fails, and the watch is cut: neither takes anything from the others.
#[tokio::test(start_paused = true)]
async fn a_tenants_secret_takes_readiness_from_no_other() {
    let api = api(&["a", "b"]);
    api.put_secret(&at("b"), json!({"metadata": {}, "type": "Opaque", "data": {}}));
    let harness = Harness::start(&api, &selected(false));
    let output = harness
        .wait("settled", |output| {
            output.targets.as_ref().is_some_and(|it| (it.in_sync, it.failing()) == (1, 1))
        })
        .await;
    assert_eq!(output.last_error.unwrap().remedy.diagnosis, Diagnosis::SecretType);
    assert_eq!(output.in_place.len(), 1);
    assert!(output.reconciled);
}

#[tokio::test(start_paused = true)]
async fn changes_while_nothing_is_watched_are_found_by_the_next_list() {
    let api = api(&["a", "b"]);
    let harness = Harness::start(&api, &selected(false));
    harness.in_sync().await;
    let forbidden = || Answer::status(403, "Forbidden", "User \"u\" cannot watch resource \"secrets\"");
    api.fail(move |_, path| (path.contains("watch=true")).then(forbidden));
    api.hang_up();
    let output = harness.wait("a failing watch", |output| output.last_error.is_some()).await;
    assert_eq!(output.last_error.unwrap().remedy.diagnosis, Diagnosis::RightMissing);
    api.edit(&at("a"), ".dockerconfigjson", "{}");
    api.delete_secret(&at("b"));
    api.put_namespace("c", json!({"ecr": "enabled"}));
    // The versions from which they would go on are gone.
    api.fail(move |_, path| {
        let is_old = path.contains("watch=true") && path.contains("resourceVersion=4");
        is_old.then(|| Answer::status(410, "Expired", "too old resource version"))
    });
    for namespace in ["a", "b", "c"] {
        harness.holds(&at(namespace), "one").await;
    }
    harness.wait("recovered", |output| output.last_error.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn all_namespaces_but_the_excluded_get_the_secret() {
    let api = api(&["a", "kube-system"]);
    let all = Namespaces::All { exclude: ["kube-system".parse().unwrap()].into() };
    let harness = Harness::start(&api, &OutputConfig::DockerConfigSecret(docker_config(all)));
    harness.in_sync().await;
    assert!(api.secret(&at("a")).is_some() && api.secret(&at("kube-system")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_replaced_output_cleans_up_what_its_successor_does_not_keep() {
    let api = api(&["a", "b", "c"]);
    let harness = Harness::start(&api, &named(&["a", "b"]));
    harness.in_sync().await;
    harness.replace(&[named(&["b", "c"])]).await;
    assert_eq!(password_in(&api.secret(&at("a")).unwrap()), None);
    assert_eq!(password_in(&api.secret(&at("b")).unwrap()).as_deref(), Some("one"));
    // Without a successor what it kept stays.
    let harness = Harness::start(&api, &named(&["b"]));
    harness.in_sync().await;
    harness.replace(&[]).await;
    assert_eq!(password_in(&api.secret(&at("b")).unwrap()).as_deref(), Some("one"));
    // And when the API server is away, its end does not wait for ever.
    let harness = Harness::start(&api, &named(&["b"]));
    harness.in_sync().await;
    api.fail(unavailable);
    let begun = Instant::now();
    harness.replace(&[named(&["c"])]).await;
    assert_eq!(begun.elapsed(), 2 * MINUTE);
}

#[tokio::test(start_paused = true)]
async fn each_registry_has_its_templates() {
    let api = api(&["argocd"]);
    let settings = RepoCredsSettings { namespace: "argocd".parse().unwrap() };
    let harness = Harness::start(&api, &OutputConfig::ArgocdRepoCreds(settings));
    let output = harness.in_sync().await;
    assert_eq!((output.targets.unwrap().total, output.in_place.len()), (2, 1));
    harness.publish("two").await;
    harness.wait("written again", |output| output.writes == 4).await;
    // A registry that leaves the configuration: the password leaves its templates.
    harness.credentials.route(BTreeMap::new(), &[].into());
    harness.wait("retired", |output| output.writes == 6 && output.in_place.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn repositories_get_a_password_as_long_as_they_have_the_label() {
    let api = api(&["argocd"]);
    let charts = ObjectRef::new("argocd", "charts");
    api.put_secret(&charts, repository());
    let which = Which::Selector("ecr=enabled".parse().unwrap());
    let harness = Harness::start(&api, &argocd_repositories(which));
    harness.holds(&charts, "one").await;
    api.put_secret(&ObjectRef::new("argocd", "late"), repository());
    harness.holds(&ObjectRef::new("argocd", "late"), "one").await;
    let mut unlabelled = api.secret(&charts).unwrap();
    unlabelled["metadata"]["labels"] = json!({});
    api.put_secret(&charts, unlabelled);
    api.wait(|api| password_in(&api.secret(&charts)?).is_none().then_some(())).await;
    assert_eq!(harness.in_sync().await.targets.unwrap().total, 1);
}

#[tokio::test(start_paused = true)]
async fn an_inspection_reports_and_writes_nothing() {
    let api = api(&["argocd", "apps"]);
    api.put_secret(&ObjectRef::new("argocd", "charts"), repository());
    let names = ["charts", "missing"].map(|name| name.parse().unwrap()).into();
    let repositories = argocd_repositories(Which::Names(names));
    let credentials = CredentialStore::default();
    credentials.route([(HOST.parse::<RegistryHost>().unwrap(), key())].into(), &[key()].into());
    let desired = credentials.subscribe().borrow().clone();
    let connection = api.connection();
    let cluster = connection.cluster().await.unwrap();
    let inspected = async |config: &OutputConfig| {
        let inspected = inspect(config, cluster, &desired, None, &Clock::System).await;
        inspected.into_iter().map(|it| it.state.map(|it| it.is_ok())).collect::<Vec<_>>()
    };
    assert_eq!(inspected(&repositories).await, [Some(true), Some(false)]);
    assert_eq!(inspected(&named(&["argocd"])).await, [None]);
    api.put_secret(&at("apps"), json!({"metadata": {}, "type": "Opaque"}));
    assert_eq!(inspected(&named(&["apps"])).await, [Some(false)]);
    assert_eq!(inspected(&selected(false)).await, [], "its Secrets are not known");
    api.fail(unavailable);
    assert_eq!(inspected(&named(&["apps"])).await, [Some(false)]);
    assert_eq!(api.count(&Method::PATCH), 0);
}
