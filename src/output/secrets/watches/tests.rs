use super::*;

fn object(name: &str, version: &str) -> ObjectState {
    ObjectState { name: name.into(), resource_version: version.into(), ..ObjectState::default() }
}

fn versions(change: Change) -> Vec<(String, String)> {
    let Change::Listed(None, found) = change else { panic!("the versions are lost") };
    found.into_iter().map(|(at, version)| (at.name, version)).collect()
}

/// While the watch was cut, one came and another was edited: both are known from the list.
#[test]
fn a_relist_reports_the_versions_also_when_there_are_other_secrets() {
    let scope = Scope { labels: Some("ecr=enabled".into()), ..Scope::of(SECRETS) };
    let mut discovered = None;
    let mut discover = |event| discover(&mut discovered, &scope, event, |_| false);
    let first = discover(WatchEvent::All(vec![object("a", "1")]));
    assert_eq!(versions(first), [("a".to_owned(), "1".to_owned())]);
    let second = discover(WatchEvent::All(vec![object("a", "2"), object("b", "3")]));
    assert_eq!(versions(second), [("a".to_owned(), "2".to_owned()), ("b".to_owned(), "3".to_owned())]);
    assert!(matches!(discover(WatchEvent::Changed(object("a", "4"))), Change::Observed(..)));
    assert!(matches!(discover(WatchEvent::Gone(object("a", "5"))), Change::Targets));
    assert_eq!(discovered, Some(["b".to_owned()].into()));
}

#[test]
fn of_namespaces_only_their_coming_and_going_counts() {
    let scope = Scope::of(NAMESPACES);
    let mut discovered = None;
    let mut discover = |event| discover(&mut discovered, &scope, event, |name| name == "out");
    let ending = ObjectState { deletion_timestamp: Some("t".into()), ..object("b", "1") };
    let all = vec![object("a", "1"), ending, object("out", "1")];
    assert!(matches!(discover(WatchEvent::All(all.clone())), Change::Targets));
    assert!(matches!(discover(WatchEvent::All(all)), Change::None));
    assert!(matches!(discover(WatchEvent::Changed(object("a", "2"))), Change::None));
    assert!(matches!(discover(WatchEvent::Changed(object("b", "2"))), Change::Targets));
    assert_eq!(discovered, Some(["a".to_owned(), "b".to_owned()].into()));
}
