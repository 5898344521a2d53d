use super::*;

fn sighting(name: &str, version: &str) -> ObjectState {
    ObjectState { name: name.into(), resource_version: version.into(), ..ObjectState::default() }
}

fn versions(news: TargetEvent) -> Vec<(String, String)> {
    let TargetEvent::SeenAll(None, seen) = news else { panic!("the versions are not told") };
    seen.into_iter().map(|(at, version)| (at.name, version)).collect()
}

/// While the watch was cut, one came and another was edited: both are known from the list.
#[test]
fn a_relist_tells_the_versions_also_when_there_are_other_secrets() {
    let mut listed = None;
    let mut find = |watching, seen| find(&mut listed, watching, seen, |_| false);
    let first = find(Watching::Secrets, WatchEvent::All(vec![sighting("a", "1")]));
    assert_eq!(versions(first), [("a".to_owned(), "1".to_owned())]);
    let second = find(Watching::Secrets, WatchEvent::All(vec![sighting("a", "2"), sighting("b", "3")]));
    assert_eq!(versions(second), [("a".to_owned(), "2".to_owned()), ("b".to_owned(), "3".to_owned())]);
    assert!(matches!(
        find(Watching::Secrets, WatchEvent::Changed(sighting("a", "4"))),
        TargetEvent::Seen(..)
    ));
    assert!(matches!(
        find(Watching::Secrets, WatchEvent::Gone(sighting("a", "5"))),
        TargetEvent::OtherTargets
    ));
    assert_eq!(listed, Some(["b".to_owned()].into()));
}

#[test]
fn of_namespaces_only_their_coming_and_going_counts() {
    let mut listed = None;
    let mut find = |seen| find(&mut listed, Watching::Namespaces, seen, |name| name == "out");
    let ending = ObjectState { deletion_timestamp: Some("t".into()), ..sighting("b", "1") };
    let all = vec![sighting("a", "1"), ending, sighting("out", "1")];
    assert!(matches!(find(WatchEvent::All(all.clone())), TargetEvent::OtherTargets));
    assert!(matches!(find(WatchEvent::All(all)), TargetEvent::Nothing));
    assert!(matches!(find(WatchEvent::Changed(sighting("a", "2"))), TargetEvent::Nothing));
    assert!(matches!(find(WatchEvent::Changed(sighting("b", "2"))), TargetEvent::OtherTargets));
    assert_eq!(listed, Some(["a".to_owned(), "b".to_owned()].into()));
}
