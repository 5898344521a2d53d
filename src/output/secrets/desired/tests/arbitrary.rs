//! Whatever a Secret holds: no panic, nothing of it in what is logged, and at rest after one write.

use proptest::prelude::*;

use super::*;
use crate::output::secrets::expiry_annotation::EXPIRES;

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
                texts.extend(decision.warnings.iter().map(|warning| format!("{warning:?}")));
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
            // A key of a docker config is a registry's name, and is shown; no value is.
            prop_assert!(!text.contains(&auth(CANARY)) && !text.contains("hunter2CANARY@"), "{}", text);
            prop_assert!(!text.contains('\u{1b}'), "{}", text);
        }
    }
}
