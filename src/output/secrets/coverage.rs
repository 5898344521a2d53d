//! What consumers of an output find that discovers its Secrets: pure.
//!
//! Whoever may write to a discovered namespace decides whether our write succeeds there: a Secret of another type, an
//! immutable one, a quota, a webhook, edits without end. So one Secret proves nothing about the others, and a Secret that
//! fails for a reason of its own does not count while others work (`everywhere_but_where_it_fails`). Neither does one
//! that is new, once each of the first has been tried: a tenant may make namespaces as fast as the API server allows.

use std::{collections::BTreeSet, sync::Arc};

use super::desired::{Coverage, InPlace};
use crate::{
    credentials::CredentialSet,
    failure::{Problem, diagnosis::Diagnosis},
    registry::RegistryHost,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Standing {
    /// It has not been written yet.
    #[default]
    New,
    /// It has been as desired, and nothing of its own has failed since.
    Proven,
    /// It fails for a reason of its own.
    Failing,
}

impl Standing {
    /// After a failure: one of the API server's own proves nothing about the Secret.
    pub(super) fn after(self, problem: &Problem) -> Self {
        match problem.remedy.diagnosis {
            Diagnosis::ApiServerUnreachable
            | Diagnosis::ApiServerThrottled
            | Diagnosis::ApiServerLogin
            | Diagnosis::ApiServerCertificate
            | Diagnosis::ApiServerCredentials
            | Diagnosis::RequestRejected => self,
            _ => Self::Failing,
        }
    }
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) standing: Standing,
    /// Of which registries it is to hold the credential.
    pub(super) coverage: Coverage,
    /// Shared by the Secrets that hold the same.
    pub(super) in_place: Arc<InPlace>,
}

impl Held {
    pub(super) fn new(coverage: Coverage) -> Self {
        Self { standing: Standing::New, coverage, in_place: Arc::default() }
    }
}

/// What a consumer finds whichever of the Secrets it reads: of each registry the earliest expiry of its credential, if
/// each Secret that is to hold one does.
pub(super) fn everywhere<'a>(secrets: impl Iterator<Item = &'a Held>, desired: &CredentialSet) -> InPlace {
    in_place(&distinct(secrets), &[], desired)
}

/// The same of the Secrets that work; where none works, of those that still hold a credential. New Secrets count until
/// each of the first has been tried.
pub(super) fn where_it_works<'a>(
    secrets: impl Iterator<Item = &'a Held>,
    desired: &CredentialSet,
    has_been_tried: bool,
) -> InPlace {
    let counted = secrets.filter(|it| it.standing != Standing::New || !has_been_tried);
    let (failing, working): (Vec<_>, Vec<_>) = counted.partition(|it| it.standing == Standing::Failing);
    in_place(&distinct(working.into_iter()), &distinct(failing.into_iter()), desired)
}

/// One of each row of Secrets that hold the same, as most do.
fn distinct<'a>(secrets: impl Iterator<Item = &'a Held>) -> Vec<&'a Held> {
    let mut distinct: Vec<&Held> = secrets.collect();
    distinct.dedup_by(|a, b| a.in_place == b.in_place && a.coverage == b.coverage);
    distinct
}

fn in_place(working: &[&Held], failing: &[&Held], desired: &CredentialSet) -> InPlace {
    let expiry = |host: &RegistryHost| {
        let of_host = |secrets: &[&Held]| {
            let holders = secrets.iter().filter(|it| it.coverage.is_for(host));
            holders.map(|it| it.in_place.get(host).copied()).collect::<Vec<_>>()
        };
        match of_host(working).as_slice() {
            [] => match of_host(failing).as_slice() {
                // No Secret to keep, no consumer without a credential.
                [] => desired.current.get(host).map(|token| token.expires_at),
                expiries => expiries.iter().flatten().min().copied(),
            },
            // One that lacks it is the least.
            expiries => expiries.iter().min().copied().flatten(),
        }
    };
    let found = working.iter().chain(failing).flat_map(|it| it.in_place.keys());
    let hosts: BTreeSet<_> = desired.current.keys().chain(found).collect();
    hosts.into_iter().filter_map(|host| Some((host.clone(), expiry(host)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{aws::token::Token, failure::Class, secret::Secret};

    const HOST: &str = "a.example";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A Secret that is to hold every registry, and holds that one until `expiry`.
    fn secret(standing: Standing, expiry: Option<u64>) -> Held {
        let in_place = expiry.map(|expiry| (HOST.parse::<RegistryHost>().unwrap(), at(expiry)));
        Held { standing, in_place: Arc::new(in_place.into_iter().collect()), ..Held::new(Coverage::All) }
    }

    fn expiry(secrets: &[Held], has_been_tried: bool) -> Option<SystemTime> {
        let token = Token { auth: Secret::new("x".into()), obtained_at: at(0), expires_at: at(1000) };
        let host: RegistryHost = HOST.parse().unwrap();
        let current = [(host.clone(), Arc::new(token))].into();
        let desired = CredentialSet { current, ..CredentialSet::default() };
        where_it_works(secrets.iter(), &desired, has_been_tried).get(&host).copied()
    }

    #[test]
    fn everywhere_but_where_it_fails() {
        use Standing::{Failing, New, Proven};
        for (secrets, tried, expected, why) in [
            (vec![secret(Proven, Some(9)), secret(Failing, None)], true, Some(9), "one tenant fails"),
            (
                vec![secret(Proven, Some(9)), secret(Proven, Some(5))],
                true,
                Some(5),
                "the earliest of those that work",
            ),
            (
                vec![secret(Proven, Some(9)), secret(Failing, Some(1))],
                true,
                Some(9),
                "a tenant puts an old one there",
            ),
            (
                vec![secret(Proven, Some(9)), secret(Failing, Some(99))],
                true,
                Some(9),
                "a tenant forges an expiry",
            ),
            (vec![secret(Proven, None), secret(Failing, Some(9))], true, None, "one that works lacks it"),
            (vec![secret(Failing, None), secret(Failing, None)], true, None, "all fail: a right is missing"),
            (
                vec![secret(Failing, None), secret(Failing, Some(9))],
                true,
                Some(9),
                "all fail, and what is there is good",
            ),
            (vec![secret(Proven, Some(9)), secret(New, None)], true, Some(9), "a tenant makes namespaces"),
            (vec![secret(Proven, Some(9)), secret(New, None)], false, None, "the start: each is tried once"),
            (vec![secret(Failing, None), secret(New, None)], true, None, "none works"),
            (vec![secret(New, None)], true, Some(1000), "there was no Secret to keep until now"),
            (vec![], true, Some(1000), "there is no Secret to keep"),
        ] {
            assert_eq!(expiry(&secrets, tried), expected.map(at), "{why}");
        }
    }

    #[test]
    fn an_outage_of_the_api_server_is_no_failure_of_a_secret() {
        let problem = |diagnosis: Diagnosis| Problem {
            message: String::new(),
            remedy: diagnosis.into(),
            class: Class::Transient,
        };
        for standing in [Standing::New, Standing::Proven, Standing::Failing] {
            assert_eq!(standing.after(&problem(Diagnosis::ApiServerUnreachable)), standing);
            // Also what comes back: five conflicts in a row, a webhook, a namespace that goes.
            for own in [Diagnosis::SecretConflict, Diagnosis::WebhookFailing, Diagnosis::NamespaceMissing] {
                assert_eq!(standing.after(&problem(own)), Standing::Failing);
            }
        }
    }

    fn holding(coverage: Coverage, in_place: &[(&str, u64)]) -> Held {
        let in_place = in_place.iter().map(|(host, end)| (host.parse().unwrap(), at(*end))).collect();
        Held { in_place: Arc::new(in_place), ..Held::new(coverage) }
    }

    fn ends(secrets: &[Held]) -> Vec<(String, u64)> {
        let found = everywhere(secrets.iter(), &CredentialSet::default());
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        found.into_iter().map(|(host, end)| (host.to_string(), seconds(end))).collect()
    }

    #[test]
    fn a_registry_is_in_place_when_each_secret_that_is_to_hold_it_does() {
        let of = |host: &str| Coverage::One(host.parse::<RegistryHost>().unwrap());
        let all = |in_place| holding(Coverage::All, in_place);
        assert_eq!(
            ends(&[all(&[("a.example", 5)]), all(&[("a.example", 3), ("b.example", 9)])]),
            [("a.example".to_owned(), 3)]
        );
        // Templates are for one registry each.
        let templates = [
            holding(of("a.example"), &[("a.example", 5)]),
            holding(of("a.example"), &[("a.example", 4)]),
            holding(of("b.example"), &[("b.example", 9)]),
            holding(Coverage::None, &[]),
        ];
        assert_eq!(ends(&templates), [("a.example".to_owned(), 4), ("b.example".to_owned(), 9)]);
        let one_is_empty = [holding(of("a.example"), &[("a.example", 5)]), holding(of("a.example"), &[])];
        assert_eq!(ends(&one_is_empty), []);
    }
}
