//! `values.schema.json`: its part for the configuration is generated from `config.schema.json`; what does not fit is
//! rejected with the key and the reason.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use test_support::files::replace;

use super::{Helm, chart, file, values};
use crate::build::{Objects, read};

const FILE: &str = "values.schema.json";

#[test]
fn the_configurations_part_is_that_of_its_schema() {
    let text = file(FILE);
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    schema["properties"]["config"] = of_config();
    let written = format!("{schema:#}\n");
    if std::env::var_os("UPDATE").is_some() {
        replace(&chart().join(FILE), &written);
    }
    assert!(file(FILE) == written, "{FILE} is stale: UPDATE=1 cargo test --test patches chart");
}

fn of_config() -> Value {
    let mut schema: Value = serde_json::from_str(&read("config.schema.json")).unwrap();
    for key in ["$schema", "title"] {
        schema.as_object_mut().unwrap().remove(key);
    }
    simplify(&mut schema);
    // Without an output it would write a file that nobody reads.
    schema["properties"]["outputs"]["minItems"] = json!(1);
    schema["required"] = json!(["outputs"]);
    schema
}

/// The same in the words by which helm's messages are the clearest: of a choice, they report each part that does not fit.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("default");
            map.values_mut().for_each(simplify);
            if let Some(Value::Array(choices)) = map.remove("oneOf") {
                map.extend(choice(&choices));
            }
            if let Some(Value::Array(choices)) = map.remove("anyOf") {
                let [one, null] = choices.as_slice() else { panic!("{choices:?}") };
                assert_eq!(*null, json!({"type": "null"}));
                map.extend(one.as_object().unwrap().clone());
                map["enum"].as_array_mut().unwrap().push(Value::Null);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(simplify),
        _ => {}
    }
}

fn choice(choices: &[Value]) -> Map<String, Value> {
    let constants: Vec<_> = choices.iter().filter_map(|choice| choice.get("const")).collect();
    let replaced = if constants.is_empty() {
        let types: Vec<_> = choices.iter().map(|choice| &choice["properties"]["type"]["const"]).collect();
        let branch = |choice: &Value| json!({"if": {"properties": {"type": choice["properties"]["type"]}}, "then": choice});
        json!({
            "type": "object", "required": ["type"], "properties": {"type": {"enum": types}},
            "allOf": choices.iter().map(branch).collect::<Vec<_>>(),
        })
    } else {
        assert_eq!(constants.len(), choices.len());
        json!({"enum": constants})
    };
    replaced.as_object().unwrap().clone()
}

/// A key that is in one of them only is a key that nobody finds, or that does nothing.
#[test]
fn its_keys_are_those_of_the_values() {
    let schema: Value = serde_json::from_str(&file(FILE)).unwrap();
    let values = Objects::parse(&file("values.yaml")).0.swap_remove(0);
    let keys = |map: &Value| map.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let mut known = keys(&schema["properties"]);
    assert!(known.remove("global"), "charts that include this one have it");
    assert_eq!(known, keys(&values));
    for name in ["identity", "image", "metrics", "rbac", "serviceAccount"] {
        assert_eq!(keys(&schema["properties"][name]["properties"]), keys(&values[name]), "{name}");
    }
}

#[test]
fn what_does_not_fit_is_rejected_with_its_key_and_the_reason() {
    for helm in Helm::both() {
        for (values, parts) in [
            ("conifg: {}", &["conifg"][..]),
            ("config: {outputs: []}", &["/config/outputs", "minItems"]),
            ("config: {registries: [{hots: a}]}", &["/config/registries/0", "hots"]),
            ("config: {registries: [public.ecr.aws]}", &["/config/registries/0", "got string, want object"]),
            ("config: {outputs: [{name: a}]}", &["/config/outputs/0", "type"]),
            (
                "config: {outputs: [{type: docker-secret, name: a}]}",
                &["/config/outputs/0/type", "docker-config-secret"],
            ),
            (
                "config: {outputs: [{type: docker-config-secret, name: a, namspaces: {all: true}}]}",
                &["/config/outputs/0", "namspaces"],
            ),
            ("config: {log: {format: yaml}}", &["/config/log/format", "'json'", "'text'"]),
            (
                "config: {identities: {default: {expectAccount: 123456789012}}}",
                &["/expectAccount", "want", "string"],
            ),
            ("identity: {type: irsa}", &["/identity/roleArn"]),
            ("identity: {type: web-identity, roleArn: ecr-pull}", &["/identity/roleArn", "ecr-pull"]),
            ("identity: {type: keys}", &["/identity/type", "'static-keys'"]),
            ("identity: {type: static-keys, secretName: ''}", &["/identity/secretName"]),
            ("mode: daemonset", &["/mode", "'cronjob'"]),
            ("image: {digest: 0.1.0}", &["/image/digest"]),
            ("podLabels: {a: 1}", &["/podLabels/a"]),
        ] {
            rejects(&helm, values, parts);
        }
    }
}

#[test]
fn what_fits_and_yet_has_no_effect_or_no_name_is_rejected_by_the_templates() {
    for helm in Helm::both() {
        for (values, parts) in [
            (
                "identity: {roleArn: 'arn:aws:iam::123456789012:role/a'}",
                &["identity.roleArn is set", "pod-identity", "set the type to irsa"][..],
            ),
            (
                "{identity: {type: irsa, roleArn: 'arn:aws:iam::123456789012:role/a'}, serviceAccount: {create: false}}",
                &["serviceAccount.create is false: annotate yours"],
            ),
            ("{mode: cronjob, metrics: {enabled: true}}", &["no effect with mode cronjob"]),
            ("metrics: {podMonitor: {enabled: true}}", &["metrics.podMonitor.enabled needs metrics.enabled"]),
            (
                "config: {outputs: [{type: docker-config-secret, name: Pulls}]}",
                &["config.outputs[0].name: \"Pulls\" is not a Secret's name"],
            ),
            (
                "config: {outputs: [{type: docker-config-secret, name: a, namespaces: {names: [a.b]}}]}",
                &["config.outputs[0].namespaces.names: \"a.b\" is not a namespace's name"],
            ),
            (
                "config: {outputs: [{type: docker-config-secret, name: a, namespaces: {all: true, exclude: [\"') || true || ('\"]}}]}",
                &["is not a namespace's name"],
            ),
            (
                "config: {outputs: [{type: argocd-repo-creds, namespace: argocd}]}",
                &["config.outputs[0]: Argo CD's templates are named after their registries"],
            ),
        ] {
            rejects(&helm, values, parts);
        }
    }
}

#[track_caller]
fn rejects(helm: &Helm, values: &str, parts: &[&str]) {
    let message = helm.template(values, &["--kube-version=1.36.0"]).expect_err(values);
    for part in parts {
        assert!(message.contains(part), "{values}: no {part:?} in: {message}");
    }
}

/// Numbers keep their digits on their way into the file.
#[test]
fn the_file_says_what_the_values_say() {
    let Some(helm) = Helm::newest() else { return };
    for text in [
        read("tests/data/full.yaml").lines().map(|line| format!("  {line}\n")).collect::<String>(),
        "  outputs: [{type: docker-config, path: /a, group: 1000650000, mode: '0640'}]\n".to_owned(),
    ] {
        let given = Objects::parse(&format!("config:\n{text}")).0.swap_remove(0);
        let rendered = helm.rendered(&format!("config:\n{text}"));
        let file = rendered.get("ConfigMap", "ecr-sidecar")["data"]["config.yaml"].as_str().unwrap();
        assert_eq!(Objects::parse(file).0.swap_remove(0), given["config"], "{file}");
    }
    assert!(values("names").contains("refresh"), "a section besides");
}
