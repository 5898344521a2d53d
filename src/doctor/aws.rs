//! Each identity's credentials, who AWS takes them for, and each token.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aws_config::SdkConfig;
use tokio::task::JoinSet;

use super::{
    finished::finished,
    report::{Finding, Step},
};
use crate::{
    aws::{
        identity::{Caller, Identity, IdentityError, Resolved},
        token::{Fetched, TokenError, TokenKey, TokenSource},
    },
    clock::{Clock, rfc3339},
    config::Config,
    env::Environment,
    failure::{Diagnose, diagnosis::Diagnosis},
    registry::{Location, RegistryHost},
};

/// How long the credentials of an identity may take, with every role of its chain, and each call after that.
pub(super) const CREDENTIALS_LIMIT: Duration = Duration::from_millis(4_500);
pub(super) const CALL_LIMIT: Duration = Duration::from_millis(4_500);

#[derive(Default)]
pub(super) struct Answers {
    pub(super) findings: Vec<Finding>,
    /// The tokens that were obtained, and the registries that each serves.
    pub(super) tokens: Vec<(Fetched, Vec<RegistryHost>)>,
}

/// Asks AWS for everything that the configuration needs: all identities at a time, and all tokens of each.
pub(super) async fn ask(
    config: &Config,
    identities: &BTreeMap<String, Arc<Identity>>,
    sdk: &SdkConfig,
    clock: &Clock,
) -> Answers {
    let mut asking = JoinSet::new();
    for (name, identity) in identities {
        let keys: Vec<_> = config
            .tokens()
            .into_iter()
            .filter(|(key, _)| key.identity == *name)
            .map(|(key, registries)| (key.clone(), registries.iter().map(|it| it.host.clone()).collect()))
            .collect();
        if keys.is_empty() {
            continue; // named, and used by no registry
        }
        // Boxed: what the SDK makes of a call is larger than a future of many should be.
        let (name, check) =
            (name.clone(), of_identity(Arc::clone(identity), keys, sdk.clone(), clock.clone()));
        asking.spawn(Box::pin(async move { finished(Step::Identity, &name, check).await }));
    }
    all(asking.join_all().await)
}

/// One that did not finish is a finding, and the others are reported all the same.
fn all(checks: Vec<Result<Answers, Finding>>) -> Answers {
    let mut all = Answers::default();
    for check in checks {
        match check {
            Ok(answers) => {
                all.findings.extend(answers.findings);
                all.tokens.extend(answers.tokens);
            }
            Err(unfinished) => all.findings.push(unfinished),
        }
    }
    all
}

async fn of_identity(
    identity: Arc<Identity>,
    keys: Vec<(TokenKey, Vec<RegistryHost>)>,
    sdk: SdkConfig,
    clock: Clock,
) -> Answers {
    let name = &identity.spec().name;
    let nothing = "no credentials";
    let without = |finding| {
        let skipped = keys.iter().map(|(key, _)| Step::Ecr.skip(key.to_string(), nothing));
        Answers { findings: [finding].into_iter().chain(skipped).collect(), tokens: Vec::new() }
    };
    let resolved = match within(CREDENTIALS_LIMIT, identity.credentials()).await {
        Some(Ok(resolved)) => resolved,
        Some(Err(error)) => return without(Step::Identity.problem(name, error.problem())),
        None => {
            let limit = CREDENTIALS_LIMIT;
            return without(Step::Identity.timed_out(name, nothing, limit, Diagnosis::Unreachable));
        }
    };
    let mut asking = JoinSet::new();
    for (key, hosts) in keys {
        let source = TokenSource::new(key, Arc::clone(&identity), &sdk, clock.clone());
        asking.spawn(Box::pin(async move {
            let outcome = within(CALL_LIMIT, source.fetch()).await;
            (source.key().clone(), hosts, outcome)
        }));
    }
    let (caller, mut fetched) =
        tokio::join!(within(CALL_LIMIT, identity.caller(&resolved)), asking.join_all());
    fetched.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let hosts = fetched.iter().flat_map(|(_, hosts, _)| hosts);
    let mut answers = Answers::default();
    answers.findings.push(Step::Identity.ok(name, who(&resolved)));
    answers.findings.push(of_caller(name, caller.as_ref(), hosts));
    let is_known = matches!(caller, Some(Ok(_)));
    for (key, mut hosts, outcome) in fetched {
        answers.findings.push(of_token(&key, outcome.as_ref(), is_known));
        if let Some(Ok(fetched)) = outcome {
            if hosts.is_empty() {
                hosts.extend(fetched.own_registry.clone());
            }
            answers.tokens.push((fetched, hosts));
        }
    }
    answers
}

async fn within<T>(limit: Duration, asked: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, Box::pin(asked)).await.ok()
}

fn who(resolved: &Resolved) -> String {
    let until = resolved.credentials.expiry().map(|end| format!(", until {}", rfc3339(end)));
    let arn = resolved.principal.arn.as_deref().map(|arn| format!(", as {arn}"));
    format!("{}{}{}", resolved.principal.source, arn.unwrap_or_default(), until.unwrap_or_default())
}

/// Whether the account is the one that the registries belong to, by their names.
fn of_caller<'a>(
    name: &str,
    caller: Option<&Result<Caller, IdentityError>>,
    hosts: impl Iterator<Item = &'a RegistryHost>,
) -> Finding {
    match caller {
        None => {
            let saw = format!("sts:GetCallerIdentity did not respond within {} s", CALL_LIMIT.as_secs_f32());
            Step::Sts.warn(name, saw, Diagnosis::Unreachable)
        }
        // ECR answers also where STS cannot be reached, and that is enough.
        Some(Err(error)) => Step::Sts.warn(name, error.to_string(), error.remedy()),
        Some(Ok(Caller { account, arn })) => {
            let others: Vec<_> =
                hosts.filter(|host| is_of_another(host, account)).map(RegistryHost::as_str).collect();
            match others.as_slice() {
                [] => Step::Sts.ok(name, format!("{arn}, account {account}")),
                [first, rest @ ..] => {
                    let more =
                        if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
                    let saw = format!("{arn} is of account {account}, and {first}{more} is not");
                    Step::Sts.warn(name, saw, Diagnosis::OtherAccount)
                }
            }
        }
    }
}

fn is_of_another(host: &RegistryHost, account: &str) -> bool {
    matches!(host.location(), Location::Private(registry) if registry.account.as_str() != account)
}

fn of_token(key: &TokenKey, outcome: Option<&Result<Fetched, TokenError>>, is_known: bool) -> Finding {
    let subject = key.to_string();
    match outcome {
        Some(Ok(fetched)) => {
            let until = rfc3339(fetched.token.expires_at);
            let own =
                fetched.own_registry.as_ref().map(|host| format!("; the caller's own registry is {host}"));
            Step::Ecr.ok(subject, format!("a token until {until}{}", own.unwrap_or_default()))
        }
        Some(Err(error)) => {
            let problem = error.problem();
            // STS knows the key. Then it is the region that does not know the account.
            let remedy = match problem.remedy.diagnosis {
                Diagnosis::UnknownKey if is_known => Diagnosis::RegionDisabled.into(),
                _ => problem.remedy,
            };
            Step::Ecr.fail(subject, problem.message, remedy)
        }
        None => Step::Ecr.timed_out(subject, "no answer", CALL_LIMIT, Diagnosis::Unreachable),
    }
}

pub(super) fn identities(
    config: &Config,
    env: &Environment,
    sdk: &SdkConfig,
    clock: &Clock,
) -> BTreeMap<String, Arc<Identity>> {
    let new = |spec: &crate::aws::identity::IdentitySpec| {
        Identity::new(spec.clone(), env.clone(), sdk.clone(), clock.clone())
    };
    config.identities.iter().map(|(name, spec)| (name.clone(), Arc::new(new(spec)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Outcome;

    #[tokio::test]
    async fn an_identity_whose_check_panics_is_a_failure() {
        let broken = finished(Step::Identity, "billing", async { panic!("in the SDK") }).await;
        let well = Answers { findings: vec![Step::Identity.ok("default", "")], tokens: Vec::new() };
        let findings = all(vec![broken, Ok(well)]).findings;
        assert_eq!(
            findings.iter().map(|finding| finding.outcome).collect::<Vec<_>>(),
            [Outcome::Fail, Outcome::Ok]
        );
        assert_eq!(findings[0].subject, "billing");
    }

    #[test]
    fn a_registry_of_another_account_is_a_warning() {
        let hosts: Vec<RegistryHost> = [
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "999999999999.dkr.ecr.eu-west-1.amazonaws.com",
            "public.ecr.aws",
        ]
        .map(|host| host.parse().unwrap())
        .into();
        let caller =
            Caller { account: "123456789012".into(), arn: "arn:aws:iam::123456789012:user/me".into() };
        let caller = Ok(caller);
        let own = of_caller("default", Some(&caller), hosts[..1].iter());
        assert_eq!(own.outcome, Outcome::Ok, "{own:?}");
        let other = of_caller("default", Some(&caller), hosts.iter());
        assert_eq!(other.outcome, Outcome::Warn);
        assert!(other.saw.contains("999999999999.dkr"), "{other:?}");
    }
}
