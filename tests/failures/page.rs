//! `docs/failures.md`: printed from the catalogue; and each of the catalogue is caused by a test.
//!
//! After a change of `src/failure/diagnosis.rs`: `UPDATE=1 cargo test --test failures page`.

use std::{collections::BTreeSet, env, fmt::Write, fs, path::Path};

use ecr_sidecar::failure::diagnosis::Diagnosis as D;
use test_support::files::overwrite;

/// The files of this test program that cause failures.
const HERE: [&str; 6] = [
    include_str!("aws.rs"),
    include_str!("network.rs"),
    include_str!("registries.rs"),
    include_str!("places.rs"),
    include_str!("pull.rs"),
    include_str!("warnings.rs"),
];

/// Those that other tests cause: by a real API server, or where they arise.
const ELSEWHERE: [(D, &str, &str); 36] = [
    (D::TooManyOpenFiles, "tests/open_files.rs", "whatever_the_limit_is_it_is_named"),
    (D::GroupNotPermitted, "src/output/file/tests/faults.rs", "a_group_that_is_not_ours_says_so"),
    (D::DirectoryMissing, "src/fs/atomic_file/tests.rs", "each_refusal_of_the_system_has_its_diagnosis"),
    (D::VolumeBroken, "src/fs/atomic_file/tests.rs", "each_refusal_of_the_system_has_its_diagnosis"),
    (
        D::VolumeHangs,
        "tests/process/lifecycle.rs",
        "a_volume_that_begins_to_hang_is_reported_and_holds_up_neither_health_nor_the_end",
    ),
    (
        D::Contended,
        "tests/process/volume/edits.rs",
        "edits_without_end_are_answered_at_a_bounded_rate_and_reported",
    ),
    (
        D::UntrustedLink,
        "tests/process/volume/links.rs",
        "a_directory_swapped_for_a_link_while_running_is_reported_and_not_followed",
    ),
    (
        D::ModeNotKept,
        "src/output/file/tests.rs",
        "a_mode_that_the_file_system_imposes_is_reported_and_accepted",
    ),
    (D::ServiceAccountToken, "tests/secrets/reach.rs", "a_pod_without_a_token_gets_the_remedy"),
    (D::Kubeconfig, "tests/secrets/reach.rs", "without_a_cluster_it_reports_it_and_keeps_the_file"),
    (D::ApiServerCredentials, "src/kubernetes/error.rs", "each_refusal_has_its_diagnosis"),
    (
        D::ApiServerLogin,
        "tests/secrets/outages.rs",
        "a_token_of_the_service_account_is_read_again_as_it_rotates",
    ),
    (D::ApiServerUnreachable, "tests/failures/doctor.rs", "it_ends_when_everything_hangs"),
    (D::ApiServerThrottled, "src/kubernetes/error.rs", "each_refusal_has_its_diagnosis"),
    (D::NamespaceMissing, "src/kubernetes/error.rs", "each_refusal_has_its_diagnosis"),
    (D::ApiServerCertificate, "src/kubernetes/error.rs", "what_only_a_person_can_fix_in_tls_is_denied"),
    (
        D::CaBundleIncomplete,
        "tests/process/identities/network.rs",
        "a_bundle_with_a_broken_certificate_works_without_it_and_that_is_reported",
    ),
    (
        D::ApiServerUnverified,
        "tests/secrets/reach.rs",
        "a_kubeconfig_that_switches_verification_off_is_obeyed_and_reported",
    ),
    (D::RequestRejected, "src/kubernetes/error/refusal.rs", "a_refusal_is_judged_by_its_message"),
    (
        D::SelectorRejected,
        "tests/secrets/admission.rs",
        "a_selector_that_the_api_server_rejects_is_reported_by_its_words",
    ),
    (D::AdmissionDenied, "tests/secrets/admission.rs", "a_webhook_that_denies_is_reported_by_its_words"),
    (D::QuotaExceeded, "src/kubernetes/error/refusal.rs", "a_refusal_is_judged_by_its_message"),
    (D::WebhookFailing, "src/kubernetes/error/refusal.rs", "a_refusal_is_judged_by_its_message"),
    (D::SecretImmutable, "src/kubernetes/error.rs", "only_an_immutable_field_calls_for_a_deletion"),
    (D::SecretInvalid, "src/kubernetes/error.rs", "each_refusal_has_its_diagnosis"),
    (D::RightMissing, "tests/secrets/doctor.rs", "rights_that_are_missing_are_reported_with_the_rule"),
    (D::SecretType, "tests/secrets/doctor.rs", "a_secret_of_another_type_is_reported"),
    (D::SecretUnmanaged, "tests/secrets/doctor.rs", "a_secret_that_others_filled_is_reported"),
    (D::SecretMissing, "tests/secrets/argocd.rs", "a_repository_that_is_not_there_is_reported"),
    (
        D::RegistryNotConfigured,
        "tests/secrets/doctor.rs",
        "a_secret_of_argo_cd_that_brings_no_credential_is_reported",
    ),
    (
        D::ArgocdSecretIgnored,
        "tests/secrets/doctor.rs",
        "a_secret_of_argo_cd_that_brings_no_credential_is_reported",
    ),
    (
        D::CredentialWithheld,
        "tests/secrets/ownership.rs",
        "a_template_whose_url_a_tenant_changes_loses_our_password",
    ),
    (
        D::SecretConflict,
        "tests/secrets/others.rs",
        "an_ownership_conflict_is_reported_and_leaves_no_consumer_without_a_credential",
    ),
    (D::SecretTooLarge, "src/output/secrets/desired/tests.rs", "no_secret_is_larger_than_is_possible"),
    (D::InputUnreadable, "tests/failures/aws.rs", "a_token_that_this_user_may_not_read"),
    (D::NameUnresolved, "tests/failures/network.rs", "a_name_that_resolves_to_nothing"),
];

/// Those that no test causes.
const NOWHERE: [(D, &str); 1] = [(D::Fault, "if we knew how, it would be fixed")];

fn all() -> impl Iterator<Item = D> {
    D::SECTIONS.iter().flat_map(|(_, diagnoses)| diagnoses.iter().copied())
}

#[test]
fn each_is_brought_about() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (diagnosis, file, test) in ELSEWHERE {
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert!(text.contains(&format!("fn {test}(")), "{}: {file} has no {test}", diagnosis.id());
    }
    let counted: BTreeSet<_> =
        ELSEWHERE.iter().map(|(it, ..)| *it).chain(NOWHERE.iter().map(|(it, _)| *it)).collect();
    for diagnosis in all() {
        let here = HERE.iter().any(|text| text.contains(&format!("D::{diagnosis:?}")));
        assert!(here || counted.contains(&diagnosis), "no test causes {}", diagnosis.id());
    }
}

#[test]
fn the_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/failures.md");
    let page = page();
    if env::var_os("UPDATE").is_some() {
        overwrite(&path, &page);
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page, "docs/failures.md is stale: UPDATE=1 cargo test --test failures page");
}

fn page() -> String {
    let mut page = String::from(
        "# Failures and their remedies\n\n\
         Every failure that ecr-sidecar reports has a name. The log has it as `diagnosis`, next to `error` (what failed, where,\n\
         why) and `remedy`; so do `/status` and `ecr-sidecar status`; `ecr-sidecar doctor` shows it in brackets after the remedy.\n\
         Text in parentheses after a remedy is about the case at hand. While a failure lasts, the last good credential stays in\n\
         place.\n\n\
         A warning stops nothing, and has a name and a remedy of the same kind: the log has its sentence as `warning`, and\n\
         `/status` all of it in `warning_details`. Only what the sidecar has put right already has neither.\n\n\
         This page is generated from `src/failure/diagnosis.rs`.\n",
    );
    for (section, diagnoses) in D::SECTIONS {
        let _ = write!(page, "\n## {section}\n\n| name | cause | remedy |\n|---|---|---|\n");
        for it in *diagnoses {
            let cell = |text: &str| text.replace('|', "\\|");
            let _ = writeln!(page, "| `{}` | {} | {} |", it.id(), cell(it.cause()), cell(it.remedy()));
        }
    }
    page
}
