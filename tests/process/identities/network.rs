//! The `AWS_*` and proxy variables mean what they mean elsewhere. By the emulator's proxy, AWS is asked by its
//! true names, and nothing leaves this machine.

use std::{fs, process::Command};

use ecr_emulator::{Emulator, Service, Settings};
use ecr_sidecar::failure::diagnosis::Diagnosis;
use test_support::{
    Harness, free_port,
    harness::{DEADLINE, HOST, KEYS, PUBLIC},
};

use crate::BINARY;

/// With keys, and AWS by its true names behind the emulator's proxy.
fn by_proxy(harness: &Harness, command: &mut Command) {
    command.envs(KEYS).env_remove("AWS_ENDPOINT_URL").env("AWS_CA_BUNDLE", harness.emulator.ca_file());
}

/// The hosts that the proxy was asked for.
fn connects(harness: &Harness) -> Vec<String> {
    harness.emulator.connects().into_keys().collect()
}

#[test]
fn aws_endpoint_url_is_asked_for_everything() {
    let harness = Harness::new(BINARY).without_keys();
    let config = harness.write("config.yaml", "identities: {default: {expectAccount: '123456789012'}}\n");
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", config);
        command.env("ECR_SIDECAR_REGISTRIES", format!("{HOST},{PUBLIC}"));
    });
    assert_eq!(harness.counts()[1..3], [1, 1]);
    assert!(harness.counts()[0] >= 1);
    assert_eq!(connects(&harness), [""; 0]);
}

#[test]
fn the_endpoint_of_a_service_goes_before_that_of_all() {
    let [harness, sts, ecr, public] = [(); 4].map(|()| Harness::new(BINARY).without_keys());
    let config = harness.write("config.yaml", "identities: {default: {expectAccount: '123456789012'}}\n");
    let once = harness.once(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_CONFIG", config);
        command.env("ECR_SIDECAR_REGISTRIES", format!("{HOST},{PUBLIC}"));
        command.env("AWS_ENDPOINT_URL_STS", sts.emulator.endpoint());
        command.env("AWS_ENDPOINT_URL_ECR", ecr.emulator.endpoint());
        command.env("AWS_ENDPOINT_URL_ECR_PUBLIC", public.emulator.endpoint());
    });
    assert_eq!(once.code, Some(0), "{}", once.stderr);
    assert_eq!(harness.counts(), [0; 5]);
    assert_eq!(ecr.counts(), [0, 1, 0, 0, 0]);
    assert_eq!(public.counts(), [0, 0, 1, 0, 0]);
    assert_eq!((sts.counts()[0] >= 1, &sts.counts()[1..]), (true, &[0, 0, 0, 0][..]));
}

#[test]
fn an_endpoint_of_one_service_leaves_the_others_alone() {
    let [harness, ecr] = [(); 2].map(|()| Harness::new(BINARY).without_keys());
    let once = harness.once(|command| {
        command.envs(KEYS).env("ECR_SIDECAR_REGISTRIES", format!("{HOST},{PUBLIC}"));
        command.env("AWS_ENDPOINT_URL_ECR", ecr.emulator.endpoint());
    });
    assert_eq!(once.code, Some(0), "{}", once.stderr);
    assert_eq!((ecr.counts(), harness.counts()), ([0, 1, 0, 0, 0], [0, 0, 1, 0, 0]));
}

#[test]
fn the_authority_of_aws_ca_bundle_or_ssl_cert_file_is_trusted() {
    for variable in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        let harness = Harness::new(BINARY).without_keys();
        harness.once_pulls(HOST, |command| {
            command.envs(KEYS).env("AWS_ENDPOINT_URL", harness.emulator.https_endpoint());
            command.env(variable, harness.emulator.ca_file());
        });
    }
}

#[test]
fn aws_ca_bundle_goes_before_ssl_cert_file() {
    let harness = Harness::new(BINARY).without_keys();
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS).env("AWS_ENDPOINT_URL", harness.emulator.https_endpoint());
        command.env("AWS_CA_BUNDLE", harness.emulator.ca_file()).env("SSL_CERT_FILE", "/nowhere");
    });
}

#[test]
fn a_bundle_with_a_broken_certificate_works_without_it_and_that_is_reported() {
    let harness = Harness::new(BINARY).without_keys();
    let good = std::fs::read_to_string(harness.emulator.ca_file()).unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let bundle = harness.write("bundle.pem", &format!("# comment\n{broken}{good}{broken}"));
    let once = harness.once(|command| {
        command.envs(KEYS).env("AWS_ENDPOINT_URL", harness.emulator.https_endpoint());
        command.env("AWS_CA_BUNDLE", bundle);
    });
    assert_eq!(once.code, Some(0), "{}", once.stderr);
    once.has(&["certificates of the CA bundle do not parse and are left out", "\"left_out\":2"]);
    once.has(&["\"diagnosis\":\"ca-bundle-incomplete\"", Diagnosis::CaBundleIncomplete.remedy()]);
    harness.pull(HOST);
}

/// `once` that gives up soon, since what is transient is waited for.
#[track_caller]
fn fails_saying(harness: &Harness, prepare: impl FnOnce(&mut Command), parts: &[&str]) {
    let once = harness.once(|command| {
        command.envs(KEYS).args(["--timeout", "3s"]);
        prepare(command);
    });
    once.failed_with(parts);
    assert!(harness.nothing_written());
    assert_eq!(harness.counts(), [0; 5]);
}

#[test]
fn an_unknown_authority_is_an_error_whose_remedy_is_aws_ca_bundle() {
    let harness = Harness::new(BINARY).without_keys();
    let other_aws = Emulator::start(Settings::default()).unwrap();
    fails_saying(
        &harness,
        |command| {
            command.env("AWS_ENDPOINT_URL", harness.emulator.https_endpoint());
            command.env("SSL_CERT_FILE", other_aws.ca_file());
        },
        &["invalid peer certificate", "set AWS_CA_BUNDLE to a bundle"],
    );
}

/// A proxy that intercepts TLS gets another certificate authority, and the bundle follows.
#[test]
fn a_bundle_that_changes_is_read_again_when_a_certificate_is_not_trusted() {
    let harness = Harness::new(BINARY).without_keys();
    let stranger = Emulator::start(Settings::default()).unwrap();
    let bundle = harness.put("ca.pem", &fs::read_to_string(stranger.ca_file()).unwrap());
    let sidecar = harness.run(|command| {
        command.envs(KEYS).env("AWS_ENDPOINT_URL", harness.emulator.https_endpoint());
        command.env("AWS_CA_BUNDLE", &bundle);
    });
    sidecar.wait_log("\"diagnosis\":\"unknown-ca\"", DEADLINE);
    harness.put("ca.pem", &fs::read_to_string(harness.emulator.ca_file()).unwrap());
    sidecar.wait_ready();
}

#[test]
fn a_bundle_that_cannot_be_used_is_an_error_that_names_it() {
    let harness = Harness::new(BINARY).without_keys();
    let https = harness.emulator.https_endpoint();
    fails_saying(
        &harness,
        |command| {
            command.env("AWS_ENDPOINT_URL", &https).env("AWS_CA_BUNDLE", "/nowhere/ca.pem");
        },
        &["cannot read the CA bundle /nowhere/ca.pem that AWS_CA_BUNDLE names", "No such file"],
    );
    let empty = harness.write("empty.pem", "no certificate\n");
    fails_saying(
        &harness,
        |command| {
            command.env("AWS_ENDPOINT_URL", &https).env("SSL_CERT_FILE", empty);
        },
        &["empty.pem holds no usable certificate"],
    );
}

#[test]
fn without_tls_no_bundle_is_read() {
    let harness = Harness::new(BINARY).without_keys();
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS).env("AWS_CA_BUNDLE", "/nowhere/ca.pem");
    });
}

#[test]
fn https_proxy_leads_to_the_true_names_of_aws() {
    let harness = Harness::new(BINARY).without_keys();
    let config = harness.write(
        "config.yaml",
        "identities: {default: {expectAccount: '123456789012', stsRegion: eu-central-1}}\n",
    );
    harness.once_pulls(HOST, |command| {
        by_proxy(&harness, command);
        command.env("ECR_SIDECAR_CONFIG", config);
        command.env("ECR_SIDECAR_REGISTRIES", format!("{HOST},{PUBLIC}"));
    });
    assert_eq!(
        connects(&harness),
        [
            "api.ecr-public.us-east-1.amazonaws.com",
            "api.ecr.eu-west-1.amazonaws.com",
            "sts.eu-central-1.amazonaws.com"
        ]
    );
    assert_eq!(harness.only_call(Service::Ecr).host, "api.ecr.eu-west-1.amazonaws.com");
}

#[test]
fn a_web_identity_is_exchanged_at_sts_of_aws_region() {
    let harness = Harness::new(BINARY).without_keys();
    let token = harness.web_identity_file("me");
    harness.once_pulls(HOST, |command| {
        command.env_remove("AWS_ENDPOINT_URL").env("AWS_CA_BUNDLE", harness.emulator.ca_file());
        command.env("AWS_REGION", "us-west-2").env("AWS_WEB_IDENTITY_TOKEN_FILE", token);
        command.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/irsa");
    });
    assert_eq!(connects(&harness), ["api.ecr.eu-west-1.amazonaws.com", "sts.us-west-2.amazonaws.com"]);
}

/// `127.1` is this machine by a name that is not exempt from proxies automatically.
#[test]
fn no_proxy_is_followed() {
    let harness = Harness::new(BINARY).without_keys();
    let endpoint = harness.emulator.endpoint().replace("127.0.0.1", "127.1");
    let closed = format!("http://127.0.0.1:{}", free_port());
    fails_saying(
        &harness,
        |command| {
            command.env("AWS_ENDPOINT_URL", &endpoint).env("HTTP_PROXY", &closed);
        },
        &["ecr:GetAuthorizationToken", "Connection refused"],
    );
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS).env("AWS_ENDPOINT_URL", &endpoint).env("HTTP_PROXY", &closed);
        command.env("NO_PROXY", "example.com,127.1");
    });
}

#[test]
fn loopback_is_never_asked_by_a_proxy() {
    let harness = Harness::new(BINARY).without_keys();
    harness.emulator.refuse_proxy(Some(403));
    harness.once_pulls(HOST, |command| {
        command.envs(KEYS);
    });
    assert_eq!(connects(&harness), [""; 0]);
}

#[test]
fn a_proxy_that_refuses_is_an_error_that_names_the_proxy_variables() {
    for status in [403, 407] {
        let harness = Harness::new(BINARY).without_keys();
        harness.emulator.refuse_proxy(Some(status));
        fails_saying(
            &harness,
            |command| by_proxy(&harness, command),
            &["ecr:GetAuthorizationToken", "check HTTPS_PROXY and NO_PROXY"],
        );
        assert_eq!(connects(&harness), ["api.ecr.eu-west-1.amazonaws.com"]);
    }
}

/// The hosts that are asked for a token of `host`, with `variables`.
#[track_caller]
fn asked_for(host: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let harness = Harness::new(BINARY).without_keys();
    harness.once_pulls(host, |command| {
        by_proxy(&harness, command);
        command.env("ECR_SIDECAR_REGISTRIES", host).envs(variables.iter().copied());
    });
    connects(&harness)
}

#[test]
fn a_fips_or_dual_stack_host_asks_the_fips_or_dual_stack_api() {
    let cases = [
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com", "api.ecr.us-east-1.amazonaws.com"),
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", "api.ecr-fips.us-east-1.amazonaws.com"),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", "ecr.eu-west-1.api.aws"),
        ("123456789012.dkr-ecr-fips.us-west-2.on.aws", "ecr-fips.us-west-2.api.aws"),
        ("ecr-public.aws.com", "ecr-public.us-east-1.api.aws"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "api.ecr.cn-north-1.amazonaws.com.cn"),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "api.ecr-fips.us-gov-west-1.amazonaws.com"),
    ];
    for (host, endpoint) in cases {
        assert_eq!(asked_for(host, &[]), [endpoint], "{host}");
    }
}

#[test]
fn the_variables_for_fips_and_dual_stack_are_followed() {
    let host = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    let fips = ("AWS_USE_FIPS_ENDPOINT", "true");
    let dual_stack = ("AWS_USE_DUALSTACK_ENDPOINT", "true");
    assert_eq!(asked_for(host, &[fips]), ["api.ecr-fips.us-east-1.amazonaws.com"]);
    assert_eq!(asked_for(host, &[dual_stack]), ["ecr.us-east-1.api.aws"]);
    assert_eq!(asked_for(host, &[fips, dual_stack]), ["ecr-fips.us-east-1.api.aws"]);
}

#[test]
fn with_fips_sts_is_asked_by_its_fips_endpoint_too() {
    let harness = Harness::new(BINARY).without_keys();
    let config = harness.write(
        "config.yaml",
        "identities: {default: {expectAccount: '123456789012', stsRegion: us-east-1}}\n",
    );
    harness.once_pulls(HOST, |command| {
        by_proxy(&harness, command);
        command.env("ECR_SIDECAR_CONFIG", config).env("AWS_USE_FIPS_ENDPOINT", "true");
    });
    assert_eq!(
        connects(&harness),
        ["api.ecr-fips.eu-west-1.amazonaws.com", "sts-fips.us-east-1.amazonaws.com"]
    );
}

/// The SDK refuses FIPS together with a named endpoint. A host says what its API would be called; who names
/// an endpoint has chosen it.
#[test]
fn a_named_endpoint_serves_fips_and_dual_stack_hosts_too() {
    for host in ["123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", "123456789012.dkr-ecr.eu-west-1.on.aws"]
    {
        for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_ECR"] {
            let harness = Harness::new(BINARY).without_keys();
            harness.once_pulls(host, |command| {
                command.envs(KEYS).env("ECR_SIDECAR_REGISTRIES", host);
                command.env_remove("AWS_ENDPOINT_URL").env(variable, harness.emulator.endpoint());
            });
        }
        let harness = Harness::new(BINARY).without_keys();
        let endpoint = harness.emulator.endpoint();
        let config = harness
            .write("config.yaml", &format!("registries: [{{host: {host}, endpoint: '{endpoint}'}}]\n"));
        harness.once_pulls(host, |command| {
            command.envs(KEYS).env("ECR_SIDECAR_CONFIG", config).env("AWS_USE_FIPS_ENDPOINT", "true");
            command.env_remove("ECR_SIDECAR_REGISTRIES").env_remove("AWS_ENDPOINT_URL");
        });
    }
}

#[test]
fn fips_by_variable_together_with_an_endpoint_by_variable_is_an_error_that_names_both() {
    let harness = Harness::new(BINARY).without_keys();
    let once = harness.once(|command| {
        command.envs(KEYS).env("AWS_USE_FIPS_ENDPOINT", "true");
    });
    once.failed_with(&[
        "FIPS and custom endpoint are not supported",
        "AWS_USE_FIPS_ENDPOINT",
        "AWS_ENDPOINT_URL",
    ]);
    assert_eq!(harness.counts(), [0; 5]);
}
