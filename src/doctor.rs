//! Checks everything that a configuration depends on, and suggests fixes.
//!
//! configuration → files → network → clock → identity → STS → ECR → registries → outputs → Kubernetes → pull. It goes on past a
//! failure where the next step still means something, and names the first failure, for the ones after it may be its
//! consequences.
//!
//! It uses the engine's own parts ([`Identity`](crate::aws::identity::Identity), [`TokenSource`](crate::aws::token::TokenSource),
//! the HTTP client), so that what works here works there, and reports failures in the engine's own sentences
//! ([`Diagnosis`]).
//!
//! Invariants:
//! * It changes nothing, and shows no secret (`it_changes_nothing_and_shows_no_secret` in `tests/failures`).
//! * A check that did not finish is a failure (`a_check_that_panics_at_once_later_or_in_a_task_of_its_own_is_a_failure`,
//!   `an_identity_whose_check_panics_is_a_failure`).
//! * It ends within 15 s, whatever hangs (`it_ends_when_everything_hangs`): each step has its limit, and those that wait
//!   for each other have at most 13 s together (`limits_add_up`).

mod aws;
mod cluster;
mod files;
mod finished;
mod image;
mod network;
mod outputs;
mod registry;
mod report;

use std::time::Duration;

use aws_smithy_types::timeout::TimeoutConfig;

use self::{finished::finished, network::RecordingClient, report::Step};
pub(crate) use self::{
    image::{PullCheck, Puller},
    outputs::Consumer,
    report::Report,
};
use crate::{
    aws::http,
    clock::Clock,
    config::{self, Config, Context, Flags, Registries, Violations},
    failure::{diagnosis::Diagnosis, shown_value::clean_path},
};

/// Time-outs of a call to AWS: to connect, and in all.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
const CALL_LIMIT: Duration = Duration::from_secs(4);

pub(crate) fn of_bad_configuration(problems: &Violations) -> Report {
    let saw = problems.to_string();
    Report::new(vec![Step::Configuration.fail("configuration", saw, Diagnosis::Configuration)])
}

/// Checks configuration, credentials, network and outputs. `consumer`: who reads the docker config.json, if known.
/// `check`: the image to pull, if any.
pub(crate) async fn run(
    flags: &Flags,
    context: &Context,
    consumer: Option<&Consumer>,
    check: Option<&PullCheck>,
) -> Report {
    let config = match config::load(flags, context).await {
        Ok(config) => config,
        Err(problems) => return of_bad_configuration(&problems),
    };
    let (clock, env) = (Clock::System, &context.env);
    let client = http::client(env);
    let recording = RecordingClient::new(clock.clone());
    let plain = context.sdk.config(client.clone());
    let limits =
        TimeoutConfig::builder().connect_timeout(CONNECT_LIMIT).operation_timeout(CALL_LIMIT).build();
    let sdk = plain.to_builder().http_client(recording.client(client)).timeout_config(limits).build();
    let identities = aws::identities(&config, env, &sdk, &clock);

    let configuration = vec![Step::Configuration.ok(origin(&config), summary(&config))];
    let to_aws = async {
        let asked = aws::ask(&config, &identities, &sdk, &clock);
        let aws = match finished(Step::Identity, "AWS", asked).await {
            Ok(answers) => answers,
            Err(unfinished) => return vec![unfinished],
        };
        let registries = registry::ask(aws.tokens, &plain);
        let registries = finished::findings(Step::Registry, "registries", registries).await;
        [aws.findings, registries].concat()
    };
    let files = files::check(identities.values(), env, clock.now());
    let outputs = outputs::check(&config, env, consumer);
    let cluster = cluster::check(&config, &clock);
    let image = image::check(check, &config, &plain, &clock);
    // None of these waits for another, and each may hang.
    let (aws, files, outputs, cluster, image) = tokio::join!(
        to_aws,
        finished::findings(Step::Files, "files", files),
        finished::findings(Step::Output, "outputs", outputs),
        finished::findings(Step::Kubernetes, "kubernetes", cluster),
        finished::findings(Step::Pull, "image", image)
    );
    let mut network = recording.findings(env);
    network.extend(network::in_clear(&config, context));
    Report::new([configuration, files, network, aws, outputs, cluster, image].concat())
}

fn origin(config: &Config) -> String {
    config.path.as_ref().map_or_else(|| "environment".to_owned(), |path| clean_path(path))
}

fn summary(config: &Config) -> String {
    let registries = match &config.registries {
        Registries::Own(key) => format!("the caller's own registry in {}", key.region.as_str()),
        Registries::Listed(registries) => format!("registries: {}", registries.len()),
    };
    let outputs: Vec<_> = config.outputs.iter().map(|output| output.id().to_string()).collect();
    let identities: Vec<_> = config.identities.keys().map(String::as_str).collect();
    format!("{registries}; identities: {}; outputs: {}", identities.join(", "), outputs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_add_up() {
        let all = aws::CREDENTIALS_LIMIT + aws::CALL_LIMIT + registry::LIMIT;
        assert!(all <= Duration::from_secs(13) && CALL_LIMIT < aws::CALL_LIMIT, "{all:?}");
        assert!(cluster::LIMIT < all && outputs::LIMIT < all && files::LIMIT < all && image::LIMIT <= all);
    }
}
