//! Which of the Secrets that are due is next: pure.
//!
//! One that something has just happened to comes before those that are merely due, so that an edit is undone soon while
//! thousands are checked. Yet whoever may write to a Secret can make it urgent all the time. So the check that began
//! longest ago comes first, and every [`REGARDLESS`]th pick is regardless of urgency: `noisy_secrets_hold_up_no_other`.

use super::target::Target;
use crate::kubernetes::ObjectRef;

/// One pick of so many is regardless of urgency.
const REGARDLESS: u64 = 4;

/// The next of those that are due, after so many picks.
pub(super) fn next<'a>(
    due: impl Iterator<Item = (&'a ObjectRef, &'a Target)>,
    picks: u64,
) -> Option<ObjectRef> {
    let is_regardless = picks.is_multiple_of(REGARDLESS);
    let rank = |target: &Target| (!(target.urgent || is_regardless), target.began);
    due.min_by_key(|(_, target)| rank(target)).map(|(at, _)| at.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::output::secrets::desired::Content;

    /// So many that are urgent again as soon as they were picked, and one that is merely due, last by name.
    fn due(noisy: usize) -> BTreeMap<ObjectRef, Target> {
        let target = |urgent| Target::new(Content::Repository, urgent);
        let noisy = (0..noisy).map(|number| (ObjectRef::new(format!("a-{number}"), "pull"), target(true)));
        noisy.chain([(ObjectRef::new("quiet", "pull"), target(false))]).collect()
    }

    #[test]
    fn noisy_secrets_hold_up_no_other() {
        const NOISY: usize = 40;
        let mut targets = due(NOISY);
        let mut picked = Vec::new();
        for pick in 0..1000 {
            let at = next(targets.iter(), pick).unwrap();
            targets.get_mut(&at).unwrap().began = pick + 1;
            picked.push(at.namespace);
        }
        let longest = |wanted: &str| picked.split(|one| one == wanted).map(<[_]>::len).max().unwrap();
        // Each other one at most once, and those before its turn regardless of urgency.
        assert!(longest("quiet") <= NOISY + 4, "{}", longest("quiet"));
        for noisy in 0..NOISY {
            let name = format!("a-{noisy}");
            assert!(longest(&name) <= NOISY + 4, "{name}: {}", longest(&name));
        }
    }

    #[test]
    fn what_has_just_happened_does_not_wait_for_the_many() {
        let mut targets = due(0);
        for number in 0..1000 {
            let at = ObjectRef::new(format!("many-{number:04}"), "pull");
            targets.insert(at, Target::new(Content::Repository, false));
        }
        let urgent = ObjectRef::new("zzz", "pull");
        targets.insert(urgent.clone(), Target { began: 99, ..Target::new(Content::Repository, true) });
        let picks = (0..4).map(|pick| next(targets.iter(), pick)).collect::<Vec<_>>();
        assert!(picks[1..].iter().all(|picked| picked.as_ref() == Some(&urgent)), "{picks:?}");
    }

    #[test]
    fn of_none_that_is_due_none_is_next() {
        assert_eq!(next(BTreeMap::new().iter(), 0), None);
    }
}
