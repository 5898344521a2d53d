//! Whatever a Secret holds: no panic, nothing of it in what is logged, and at rest after one write.

use proptest::prelude::*;

use super::*;
use crate::output::secrets::{
    expiry_annotation::EXPIRES,
    reconcile::{Drift, Found, Outcome},
    target::{Moment, Target},
};

const CANARY: &str = "CANARYhunter2CANARY";

/// What people and tools put into a key, and what they don't.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just(CANARY.to_owned()),
        Just(HOST.to_owned()),
        Just(format!("oci://{HOST}/charts")),
        Just(format!("https://AWS:{CANARY}@{HOST}/")),
        Just("AWS".to_owned()),
        Just("true".to_owned()),
        Just(json!({"auths": {HOST: {"auth": auth(CANARY)}, "x": {"auth": CANARY}, "y": 0}}).to_string()),
        Just(json!({"auths": {HOST: {"auth": auth("ours")}}, "credHelpers": {HOST: CANARY}}).to_string()),
        Just(format!("{{\"auths\":{{\"{CANARY}\"")),
        Just(format!("{{\"{HOST}\":\"1970-01-01T01:00:00Z {CANARY}\"}}")),
        Just(format!("{{\"{HOST}\":\"9999-12-31T23:59:59.999999999Z 0000000000000000\"}}")),
        Just(format!("{{\"{CANARY}\":\"{CANARY}\"}}")),
        "[\\PC\n\t\u{0}]{0,60}",
    ]
}

fn key() -> impl Strategy<Value = String> {
    let known = [
        ".dockerconfigjson",
        "username",
        "password",
        "url",
        "type",
        "enableOCI",
        "insecure",
        "project",
        "proxy",
    ];
    prop_oneof![8 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[a-zA-Z._-]{1,12}"]
}

/// Field managers as they are, as they are forged, and as no API server sends them.
fn managed_fields() -> impl Strategy<Value = Value> {
    let manager = proptest::sample::select(vec!["ecr-sidecar", "helm", CANARY, ""]);
    let operation = proptest::sample::select(vec!["Apply", "Update", ""]);
    let keys = proptest::collection::vec(key(), 0..4);
    let odd = prop_oneof![
        6 => Just(None),
        1 => proptest::sample::select(vec![json!(null), json!([]), json!("x"), json!({"f:data": 7, "f:metadata": []})])
            .prop_map(Some),
    ];
    let entry = (manager, operation, keys, any::<(bool, bool)>(), odd).prop_map(
        |(manager, operation, keys, (annotated, typed), odd)| {
            let data: serde_json::Map<_, _> =
                keys.into_iter().map(|key| (format!("f:{key}"), json!({}))).collect();
            let mut fields = json!({"f:data": data, "f:metadata": {"f:labels": {"f:a/b": {}}}});
            if annotated {
                fields["f:metadata"]["f:annotations"] = json!({format!("f:{EXPIRES}"): {}});
            }
            if typed {
                fields["f:type"] = json!({});
            }
            json!({"manager": manager, "operation": operation, "fieldsV1": odd.unwrap_or(fields)})
        },
    );
    proptest::collection::vec(entry, 0..4).prop_map(Value::from)
}

fn secret() -> impl Strategy<Value = Value> {
    let kind =
        proptest::sample::select(vec![docker_config::TYPE, "Opaque", "", "kubernetes.io/tls\u{1b}[2J"]);
    let data = proptest::collection::btree_map(
        key(),
        prop_oneof![9 => text().prop_map(|it| STANDARD.encode(it)), 1 => text()],
        0..8,
    );
    let annotations = proptest::collection::btree_map(
        prop_oneof![Just(EXPIRES.to_owned()), Just("a/b".to_owned())],
        text(),
        0..3,
    );
    let labels = proptest::collection::btree_map("[a-z/.-]{1,20}", text(), 0..3);
    (kind, data, annotations, labels, managed_fields()).prop_map(|(kind, data, annotations, labels, managed)| {
        json!({
            "metadata": {"resourceVersion": "1", "labels": labels, "annotations": annotations, "managedFields": managed},
            "type": kind, "data": data,
        })
    })
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        any::<bool>().prop_map(flux),
        Just(Content::Template { host: host(), flavour: Flavour::Helm }),
        Just(Content::Template { host: host(), flavour: Flavour::Oci }),
        Just(Content::Repository),
    ]
}

fn desired() -> impl Strategy<Value = CredentialSet> {
    prop_oneof![
        4 => Just(credentials("ours", 1000)),
        1 => Just(CredentialSet::default()),
        1 => Just(CredentialSet { retired: [host()].into(), ..CredentialSet::default() }),
        1 => Just(CredentialSet { awaited: [host()].into(), ..CredentialSet::default() }),
    ]
}

/// Written, in sync, failed, or left as it is: by `number`.
fn outcome(cleanup: bool, desired: &Arc<CredentialSet>, number: u64, defers: bool) -> Outcome {
    let each = |count: u64| number.is_multiple_of(count);
    let failed = || Problem {
        message: "no".into(),
        remedy: Diagnosis::Fault.into(),
        class: if each(2) { Class::Denied } else { Class::Transient },
    };
    let in_place = desired.current.iter().map(|(host, token)| (host.clone(), token.expires_at)).collect();
    let found = Found { coverage: Concern::All, in_place, version: number.to_string() };
    Outcome {
        cleanup,
        found: (!each(5)).then_some(found),
        desired: Arc::clone(desired),
        drift: Some(if each(3) { Drift::Gone } else { Drift::Edited("hand".into()) }),
        warnings: Vec::new(),
        deferred: defers && each(4),
        result: if each(7) { Err(failed()) } else { Ok(!each(4)) },
    }
}

proptest! {
    #[test]
    fn nothing_in_a_secret_panics_leaks_or_is_written_twice(
        secret in secret(), content in content(), desired in desired(), kept in any::<bool>(),
    ) {
        let memory = Memory { kept, ..Memory::default() };
        let basis = Basis { desired: &desired, memory: &memory, now: at(0) };
        let decided = |secret: &Value| super::super::decide(&here(), &content, Some(&object(secret)), &basis);
        let mut texts = Vec::new();
        match decided(&secret) {
            Err(problem) => texts.push(format!("{problem} {problem:?}")),
            Ok(decision) => {
                texts.extend(decision.warnings);
                texts.extend(decision.problem.map(|problem| format!("{problem:?}")));
                if let Some((body, after)) = decision.apply {
                    let body_json: Value = serde_json::from_slice(&body).unwrap();
                    prop_assert_eq!(&body_json["metadata"]["resourceVersion"], "1");
                    let written = applied(Some(&secret), &body);
                    let second = decided(&written).unwrap();
                    prop_assert!(second.apply.is_none(), "{} then {:?}", written, second.in_place);
                    prop_assert_eq!(second.in_place, after);
                }
            }
        }
        for text in texts {
            // A key of a docker config is a registry's name, and is told; no value is.
            prop_assert!(!text.contains(&auth(CANARY)) && !text.contains("hunter2CANARY@"), "{}", text);
            prop_assert!(!text.contains('\u{1b}'), "{}", text);
        }
    }

    /// The state of a target, whatever happens in whatever order.
    #[test]
    fn a_target_survives_every_order_of_events(events in proptest::collection::vec((0_u8..8, 0_u64..100_000), 0..60)) {
        let start = tokio::time::Instant::now();
        let mut now = start;
        let mut target = Target::new(flux(false), false);
        let desired = Arc::new(credentials("ours", 1000));
        for (event, millis) in events {
            now += Duration::from_millis(millis);
            match event {
                0 => target.see(millis.to_string()),
                1 => target.miss(),
                2 => target.leave(),
                3 => target.stay(flux(true)),
                _ if target.is_due(now) => {
                    let defers = target.defers(now);
                    let cleanup = target.removing;
                    target.begin(1);
                    prop_assert!(target.due(now).is_none(), "two at once");
                    let outcome = outcome(cleanup, &desired, millis, defers);
                    let failed = outcome.result.is_err();
                    let moment = Moment { now, random: 0.5 };
                    if target.removing || cleanup {
                        let is_over = target.has_left("o", &here(), &outcome, moment);
                        let is_retry = failed && !is_over && target.removing && cleanup;
                        prop_assert!(!is_retry || target.due(now) > Some(now), "without a pause");
                    } else {
                        target.note("o", &here(), outcome, 0, moment);
                        // What is to be done is done within a bounded time.
                        let due = target.due(now);
                        prop_assert!(due.is_none_or(|due| due <= now + Duration::from_secs(61)), "{:?}", due);
                        prop_assert!(!failed || due > Some(now), "without a pause");
                    }
                }
                _ => {}
            }
        }
    }
}

/// A look that found what it is to hold, in this version.
fn found(desired: &Arc<CredentialSet>, version: &str) -> Outcome {
    let found = Found { coverage: Concern::All, in_place: InPlace::new(), version: version.into() };
    Outcome {
        cleanup: false,
        found: Some(found),
        desired: Arc::clone(desired),
        drift: None,
        warnings: Vec::new(),
        deferred: false,
        result: Ok(false),
    }
}

#[test]
fn a_failure_of_what_was_deferred_has_its_pause() {
    let now = tokio::time::Instant::now();
    let desired = Arc::new(credentials("ours", 1000));
    let mut target = Target::new(flux(false), false);
    target.deferred_until = Some(now);
    let problem = refuse_size(&here(), LARGEST + 1).unwrap_err();
    target.begin(1);
    let outcome = Outcome { result: Err(problem), ..found(&desired, "1") };
    target.note("o", &here(), outcome, 0, Moment { now, random: 0.5 });
    assert!(target.due(now) > Some(now));
    target.leave();
    assert_eq!(target.deferred_until, None, "there is nothing left to put right");
}

/// A lagging watch reports an older version before a reconciliation: one is enough. A version that it reports during
/// one calls for another.
#[test]
fn a_version_told_before_a_look_is_no_reason_for_another() {
    let moment = Moment { now: tokio::time::Instant::now(), random: 0.5 };
    let desired = Arc::new(credentials("ours", 1000));
    let mut target = Target::new(flux(false), false);
    target.see("1".into());
    target.begin(1);
    target.note("o", &here(), found(&desired, "2"), 0, moment);
    assert!(!target.marked, "told before");
    target.see("3".into());
    assert!(target.marked, "told between looks");
    target.begin(1);
    target.see("4".into());
    target.note("o", &here(), found(&desired, "3"), 0, moment);
    assert!(target.marked, "told during it");
    target.begin(1);
    target.see("4".into());
    target.note("o", &here(), found(&desired, "4"), 0, moment);
    assert!(!target.marked, "of its own version");
    target.begin(1);
    target.miss();
    target.note("o", &here(), found(&desired, "4"), 0, moment);
    assert!(target.marked, "gone during it");
}
