//! Whether the API server grants the rights that the configuration needs, and the state of the Secrets.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use super::report::{Finding, Step};
use crate::{
    clock::Clock,
    config::{Config, Registries},
    credentials::CredentialSet,
    docker_config::Base,
    failure::{
        Diagnose, Warning,
        diagnosis::{Diagnosis, Remedy},
    },
    kubernetes::{ApiError, Cluster, Connection, ObjectRef, Wanted, rbac::Right, rule},
    manifests,
    output::{
        OutputConfig,
        secrets::{Inspection, base_of, inspect},
    },
    tasks::joined,
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
    let connected = tokio::time::timeout_at(until, connection.cluster());
    let (connected, bases) = tokio::join!(connected, bases(&outputs));
    let mut findings = Vec::new();
    for (output, (_, unusable)) in outputs.iter().zip(&bases) {
        let warning = unusable.clone().map(|it| Step::Kubernetes.warning(output.id().to_string(), it));
        findings.extend(warning);
    }
    match connected {
        Ok(Ok(cluster)) => {
            for (output, (base, _)) in outputs.into_iter().zip(&bases) {
                findings.extend(of_output(output, base.as_ref(), config, cluster, clock, until).await);
            }
        }
        Ok(Err(error)) => findings.push(Step::Kubernetes.problem(subject, error.problem())),
        Err(_) => {
            let saw = "the kubeconfig's plugin does not respond";
            findings.push(Step::Kubernetes.fail(subject, saw, Diagnosis::ApiServerCredentials));
        }
    }
    findings
}

/// The base of each output, and what is wrong with it. All at the same time, since their volumes may hang.
async fn bases(outputs: &[&OutputConfig]) -> Vec<(Option<Arc<Base>>, Option<Warning>)> {
    let read = |output: &&OutputConfig| {
        let output = OutputConfig::clone(output);
        tokio::spawn(async move { base_of(&output).await })
    };
    let reads: Vec<_> = outputs.iter().map(read).collect();
    let mut bases = Vec::with_capacity(reads.len());
    for read in reads {
        bases.push(joined(read.await).unwrap_or_default());
    }
    bases
}

async fn of_output(
    output: &OutputConfig,
    base: Option<&Arc<Base>>,
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
    let mut findings = of_rights(&id, rights, cluster, until).await;
    let can_read = findings.iter().all(|finding| finding.remedy.is_none());
    if can_read {
        let mut desired = CredentialSet::default();
        if let Registries::Listed(registries) = &config.registries {
            desired.awaited.extend(registries.iter().map(|registry| registry.host.clone()));
        }
        match tokio::time::timeout_at(until, inspect(output, cluster, &desired, base, clock)).await {
            Ok(inspected) => {
                for secret in inspected {
                    findings.extend(of_secret(&id, secret, cluster, until).await);
                }
            }
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
        return vec![Step::Kubernetes.ok(id, format!("has the {count} permissions that it needs"))];
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

async fn of_secret(
    id: &str,
    Inspection { at, state }: Inspection,
    cluster: &Cluster,
    until: Instant,
) -> Vec<Finding> {
    match state {
        Some(Ok(warnings)) if warnings.is_empty() => {
            vec![Step::Kubernetes.ok(id, format!("the Secret {at} can be managed"))]
        }
        Some(Ok(warnings)) => {
            warnings.into_iter().map(|warning| Step::Kubernetes.warning(id, warning)).collect()
        }
        Some(Err(problem)) => vec![Step::Kubernetes.problem(id, problem)],
        None => vec![of_missing(id, &at, cluster, until).await],
    }
}

async fn of_missing(id: &str, at: &ObjectRef, cluster: &Cluster, until: Instant) -> Finding {
    let ObjectRef { namespace, name } = at.clone();
    let create = Right { namespace, resource: "secrets", name, verb: "create" };
    let asked = tokio::time::timeout_at(until, cluster.may(&create)).await;
    match asked.unwrap_or(Err(ApiError::NoAnswer)) {
        Ok(true) => {
            Step::Kubernetes.ok(id, format!("there is no Secret {at}: it is created by the first write"))
        }
        Ok(false) => {
            let saw = format!("there is no Secret {at}, and the sidecar may not create it");
            let remedy = Remedy::with(Diagnosis::RightMissing, "the Secret is in it, to be created once");
            Step::Kubernetes.fail(id, saw, remedy)
        }
        Err(error) => Step::Kubernetes.problem(id, error.problem(&at.wanted("create"))),
    }
}
