//! Whether the API server grants the rights that the configuration needs, and the state of the Secrets.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::report::{Finding, Step};
use crate::{
    clock::Clock,
    config::{Config, Registries},
    credentials::CredentialSet,
    failure::{
        Diagnose,
        diagnosis::{Diagnosis, Remedy},
    },
    kubernetes::{ApiError, Cluster, Connection, Wanted, rbac::Right, rule},
    manifests,
    output::{
        OutputConfig,
        secrets::{Inspection, base_of, inspect},
    },
};

pub(super) const LIMIT: Duration = Duration::from_secs(10);
const AT_A_TIME: usize = 32;

pub(super) async fn check(config: &Config, clock: &Clock) -> Vec<Finding> {
    let outputs: Vec<_> =
        config.outputs.iter().filter(|output| !matches!(output, OutputConfig::DockerConfig(_))).collect();
    if outputs.is_empty() {
        return Vec::new();
    }
    let until = Instant::now() + LIMIT;
    let subject = "the API server";
    let connection = Connection::default();
    let cluster = match tokio::time::timeout_at(until, connection.cluster()).await {
        Ok(Ok(cluster)) => cluster,
        Ok(Err(error)) => return vec![Step::Kubernetes.problem(subject, error.problem())],
        Err(_) => {
            let saw = "the kubeconfig's plugin gives no answer";
            return vec![Step::Kubernetes.fail(subject, saw, Diagnosis::ApiServerCredentials)];
        }
    };
    let mut findings = Vec::new();
    for output in outputs {
        findings.extend(of_output(output, config, cluster, clock, until).await);
    }
    findings
}

async fn of_output(
    output: &OutputConfig,
    config: &Config,
    cluster: &Cluster,
    clock: &Clock,
    until: Instant,
) -> Vec<Finding> {
    let id = output.id().to_string();
    let rights = match manifests::rights(output, &config.registries, cluster.namespace()) {
        Ok(rights) => rights,
        // Its templates are named after registries that only AWS knows.
        Err(error) => return vec![Step::Kubernetes.skip(id, error.to_string())],
    };
    let (base, unusable) = base_of(output).await;
    let mut findings = of_rights(&id, rights, cluster, until).await;
    let can_read = findings.iter().all(|finding| finding.remedy.is_none());
    findings.extend(unusable.map(|warning| Step::Kubernetes.warning(&id, warning)));
    if can_read {
        let mut desired = CredentialSet::default();
        if let Registries::Listed(registries) = &config.registries {
            desired.awaited.extend(registries.iter().map(|registry| registry.host.clone()));
        }
        match tokio::time::timeout_at(until, inspect(output, cluster, &desired, base.as_ref(), clock)).await {
            Ok(inspected) => findings.extend(inspected.into_iter().flat_map(|secret| of_secret(&id, secret))),
            Err(_) => {
                let what = "its Secrets could not be read";
                findings.push(Step::Kubernetes.timed_out(id, what, LIMIT, Diagnosis::ApiServerUnreachable));
            }
        }
    }
    findings
}

/// Whether we have each of the rights; what lacks of one Secret is one finding.
async fn of_rights(id: &str, rights: Vec<Right>, cluster: &Cluster, until: Instant) -> Vec<Finding> {
    let count = rights.len();
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut asking = JoinSet::new();
    for right in rights {
        let (cluster, places) = (cluster.clone(), Arc::clone(&places));
        asking.spawn(async move {
            let asked = async {
                let _place = places.acquire().await;
                cluster.may(&right).await
            };
            let answer = tokio::time::timeout_at(until, asked).await;
            (right, answer.unwrap_or(Err(ApiError::NoAnswer)))
        });
    }
    let mut lacking: BTreeMap<_, Vec<&'static str>> = BTreeMap::new();
    let mut unknown = None;
    for (right, answer) in asking.join_all().await {
        match answer {
            Ok(true) => {}
            Ok(false) => {
                lacking.entry((right.namespace, right.resource, right.name)).or_default().push(right.verb);
            }
            Err(error) => unknown = Some(error),
        }
    }
    if let Some(error) = unknown {
        let wanted = Wanted { verb: "create", resource: "selfsubjectaccessreviews", namespace: "", name: "" };
        return vec![Step::Kubernetes.problem(id, error.problem(&wanted))];
    }
    if lacking.is_empty() {
        return vec![Step::Kubernetes.ok(id, format!("has the {count} rights that it needs"))];
    }
    let lack = |((namespace, resource, name), mut verbs): ((String, _, String), Vec<&str>)| {
        verbs.sort_unstable();
        let (verbs, rule) = (verbs.join(", "), rule(&namespace, resource, &name, &verbs.join(", ")));
        let place =
            if namespace.is_empty() { "all namespaces".to_owned() } else { format!("namespace {namespace}") };
        let what = format!("{resource} {name}");
        let saw = format!("may not {verbs} {} in {place}", what.trim_end());
        Step::Kubernetes.fail(id, saw, Remedy::with(Diagnosis::RightMissing, rule))
    };
    lacking.into_iter().map(lack).collect()
}

fn of_secret(id: &str, Inspection { at, state }: Inspection) -> Vec<Finding> {
    match state {
        Some(Ok(warnings)) if warnings.is_empty() => {
            vec![Step::Kubernetes.ok(id, format!("the Secret {at} can be kept"))]
        }
        Some(Ok(warnings)) => {
            warnings.into_iter().map(|warning| Step::Kubernetes.warning(id, warning)).collect()
        }
        Some(Err(problem)) => vec![Step::Kubernetes.problem(id, problem)],
        None => {
            let saw = format!("there is no Secret {at}, and we may not create it");
            let remedy = Remedy::with(Diagnosis::RightMissing, "the Secret is in it, to be created once");
            vec![Step::Kubernetes.fail(id, saw, remedy)]
        }
    }
}
