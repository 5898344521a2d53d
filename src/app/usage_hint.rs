//! What the program prints when it is started without any configuration or AWS credentials: five lines with what it
//! searched for and the two most likely next steps.

use std::fmt;

use crate::{
    aws::identity::{self, Looked},
    config::{self, Context, Flags},
    failure::diagnosis::Diagnosis,
};

#[derive(Debug)]
pub(crate) struct UsageHint {
    looked: Vec<Looked>,
    is_in_a_cluster: bool,
}

impl UsageHint {
    /// `None` as soon as anything is configured or found. Also in a pod that has a region: there, waiting for credentials
    /// and logging so serves the main container better than a sidecar that exits again and again.
    pub(super) fn of(flags: &Flags, context: &Context) -> Option<Self> {
        let Context { env, sdk } = context;
        let is_configured = !flags.0.is_empty() || config::own_variables(env).next().is_some();
        let is_in_a_cluster = env.is_in_a_cluster();
        if is_configured || (is_in_a_cluster && sdk.region.is_some()) {
            return None;
        }
        Some(Self { looked: identity::no_source_configured(env, &sdk.profile_files)?, is_in_a_cluster })
    }
}

impl fmt::Display for UsageHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "nothing is configured, and there are no AWS credentials.")?;
        f.write_str("  Looked for --config and ECR_SIDECAR_… (unset)")?;
        for Looked { looked_for, saw, .. } in &self.looked {
            write!(f, ", {looked_for} ({saw})")?;
        }
        let here = format!(
            "{}; then: ecr-sidecar once --registries 123456789012.dkr.ecr.eu-west-1.amazonaws.com --docker-config ./config.json",
            Diagnosis::NoCredentials.remedy()
        );
        let in_a_cluster =
            format!("patches/ has manifests for Flux and Argo CD. {}", Diagnosis::IrsaInactive.remedy());
        let mut steps = [("On this machine", here), ("In a cluster", in_a_cluster)];
        if self.is_in_a_cluster {
            steps.reverse();
        }
        for (place, step) in steps {
            write!(f, "\n  {place}: {step}")?;
        }
        write!(f, "\n  More: ecr-sidecar --help, and {}/tree/main/docs", env!("CARGO_PKG_REPOSITORY"))
    }
}

impl std::error::Error for UsageHint {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aws::{profile_file::Profiles, sdk::SdkSettings},
        env::Environment,
    };

    /// Its configuration is complete, by defaults: if it exited, it would only be started again.
    #[test]
    fn a_pod_with_a_region_is_not_turned_away() {
        let pod = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
        let env = Environment::from_pairs(pod);
        let region = Environment::from_pairs([("AWS_REGION", "eu-west-1")]);
        let sdk = SdkSettings::of(&region, &Profiles::default()).unwrap();
        let with = Context { env: env.clone(), sdk };
        assert!(UsageHint::of(&Flags::default(), &with).is_none());
        assert!(UsageHint::of(&Flags::default(), &Context { env, sdk: SdkSettings::default() }).is_some());
    }
}
