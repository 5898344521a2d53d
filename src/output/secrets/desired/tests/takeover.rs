//! Who manages a Secret after other field managers have changed it.

use super::*;
use crate::output::secrets::{
    expiry_annotation::{EXPIRES, ExpiryAnnotation},
    ownership::Recorded,
};

/// The printed Secret as an applier made it.
fn printed(manager: &str, operation: &str) -> Value {
    json!({
        "metadata": {
            "resourceVersion": "1", "labels": {"app.kubernetes.io/managed-by": "Helm"},
            "managedFields": [{"manager": manager, "operation": operation, "fieldsV1": {
                "f:metadata": {"f:labels": {"f:app.kubernetes.io/managed-by": {}}}, "f:type": {},
                "f:data": {"f:.dockerconfigjson": {}},
            }}],
        },
        "type": docker_config::TYPE, "data": {docker_config::KEY: STANDARD.encode("{\"auths\":{}}")},
    })
}

fn bogus() -> String {
    json!({"auths": {HOST: {"auth": auth("bogus")}}}).to_string()
}

/// The annotation that vouches for the bogus credential, for almost as long as any is believed.
fn forged() -> Value {
    let mut annotation = ExpiryAnnotation::default();
    annotation.set(&host(), auth("bogus").as_bytes(), at(12 * 3600));
    json!(annotation.to_text())
}

fn auth_in(secret: &Value) -> Value {
    config(secret)["auths"][HOST]["auth"].clone()
}

/// What the sidecar makes of it that holds "ours", and knows this of the Secret.
fn corrected(secret: &Value, memory: &Memory) -> Result<Value, Problem> {
    let desired = credentials("ours", 1000);
    let basis = Basis { desired: &desired, memory, now: at(0) };
    let decision = super::super::decide(&here(), &flux(false), Some(&object(secret)), &basis)?;
    Ok(decision.apply.map_or_else(|| secret.clone(), |(body, _)| applied(Some(secret), &body)))
}

#[test]
fn a_forged_annotation_freezes_nothing() {
    let (ours, _) =
        step(&flux(false), Some(&printed("helm", "Update")), &credentials("ours", 1000), 0).unwrap();
    let mut frozen = edited(&ours, &[(docker_config::KEY, &bogus())]);
    frozen["metadata"]["annotations"][EXPIRES] = forged();
    // With our entry gone, with one that is left of it, and with one of another's.
    let entries = frozen["metadata"]["managedFields"].clone();
    for managed_fields in [
        entries,
        json!([]),
        json!([{"manager": "ecr-sidecar", "operation": "Update", "fieldsV1": {"f:data": {"f:.dockerconfigjson": {}},
            "f:metadata": {"f:annotations": {"f:ecr-sidecar/expires": {}}}}}]),
        json!([{"manager": "tenant", "operation": "Apply", "fieldsV1": {"f:data": {"f:.dockerconfigjson": {}},
            "f:metadata": {"f:annotations": {"f:ecr-sidecar/expires": {}}}}}]),
    ] {
        frozen["metadata"]["managedFields"] = managed_fields.clone();
        let secret = corrected(&frozen, &Memory::default()).unwrap();
        assert_eq!(auth_in(&secret), auth("ours"), "{managed_fields}");
    }
}

/// Under our own name it seems a replica with a newer token: until ours are newer, or for what we know ourselves.
#[test]
fn a_forgery_under_our_name_lasts_no_longer_than_a_token() {
    let (ours, _) = step(&flux(false), None, &credentials("ours", 1000), 0).unwrap();
    let mut frozen = ours;
    frozen["data"][docker_config::KEY] = json!(STANDARD.encode(bogus()));
    frozen["metadata"]["annotations"][EXPIRES] = forged();
    assert_eq!(auth_in(&corrected(&frozen, &Memory::default()).unwrap()), auth("bogus"));
    let next = credentials("next", 12 * 3600 + 1);
    let (secret, _) = step(&flux(false), Some(&frozen), &next, 3600).unwrap();
    assert_eq!(auth_in(&secret), auth("next"));
    // A token of ours that is replayed is known by what it is.
    let mut recorded = Recorded::default();
    recorded.record(&credentials("bogus", 500));
    let memory = Memory { kept: true, recorded: Arc::new(recorded) };
    assert_eq!(auth_in(&corrected(&frozen, &memory).unwrap()), auth("ours"));
}

#[test]
fn what_this_process_kept_is_restored_after_a_replacement() {
    let memory = Memory { kept: true, ..Memory::default() };
    // `kubectl replace`, `Replace=true`, Velero: no annotation, no entry of ours; and what is in it may be anything.
    for content in [bogus(), "no docker config".into(), "{\"auths\":{}}".into()] {
        let replaced = edited(&printed("kubectl-replace", "Update"), &[(docker_config::KEY, &content)]);
        assert_eq!(auth_in(&corrected(&replaced, &memory).unwrap()), auth("ours"), "{content}");
    }
    let theirs = edited(&printed("hand", "Update"), &[(docker_config::KEY, &bogus())]);
    let problem = corrected(&theirs, &Memory::default()).unwrap_err();
    assert_eq!(problem.remedy.diagnosis, Diagnosis::SecretUnmanaged);
}

/// The content is right and the annotation gone: it is there again, for the next process.
#[test]
fn an_annotation_that_was_dropped_is_back() {
    let (ours, _) = step(&flux(false), None, &credentials("ours", 1000), 0).unwrap();
    let annotation = ours["metadata"]["annotations"][EXPIRES].clone();
    let mut dropped = ours.clone();
    dropped["metadata"]["annotations"].as_object_mut().unwrap().remove(EXPIRES);
    let decision =
        decide(&here(), &flux(false), Some(&object(&dropped)), &credentials("ours", 1000), at(0)).unwrap();
    assert!(decision.is_harmless(), "no consumer notices");
    let secret = applied(Some(&dropped), &decision.apply.unwrap().0);
    assert_eq!(secret["metadata"]["annotations"][EXPIRES], annotation);
}

/// Some client would use the old credential there in place of ours: nothing that may wait in a conflict.
#[test]
fn what_clients_would_prefer_is_not_left_for_later() {
    let (ours, _) = step(&flux(false), None, &credentials("ours", 1000), 0).unwrap();
    for (key, harmless) in
        [(format!("https://{HOST}"), false), (format!("{HOST}/team"), false), ("ghcr.io".to_owned(), true)]
    {
        // With the annotation gone there is something to put right in each case.
        let config = json!({"auths": {HOST: {"auth": auth("ours")}, &key: {"auth": auth("old")}}});
        let mut found = edited(&ours, &[(docker_config::KEY, &config.to_string())]);
        found["metadata"]["annotations"].as_object_mut().unwrap().remove(EXPIRES);
        let desired = credentials("ours", 1000);
        let decision = decide(&here(), &flux(false), Some(&object(&found)), &desired, at(0)).unwrap();
        assert!(decision.apply.is_some());
        assert_eq!(decision.is_harmless(), harmless, "{key}");
    }
}

/// Two sidecars with different registries keep one Secret under one name: neither undoes what the other writes.
#[test]
fn the_registries_of_another_sidecar_stay() {
    let other: RegistryHost = "public.ecr.aws".parse().unwrap();
    let mut theirs = credentials("theirs", 900);
    let token = theirs.current.pop_first().unwrap().1;
    theirs.current.insert(other.clone(), token);
    let (mut secret, _) = step(&flux(false), None, &credentials("ours", 1000), 0).unwrap();
    (secret, _) = step(&flux(false), Some(&secret), &theirs, 0).unwrap();
    let found = object(&secret);
    for (set, in_place) in
        [(credentials("ours", 1000), (host(), at(1000))), (theirs, (other.clone(), at(900)))]
    {
        let decision = decide(&here(), &flux(false), Some(&found), &set, at(0)).unwrap();
        assert!(decision.apply.is_none());
        assert_eq!(
            decision.in_place,
            [in_place].into(),
            "whether another sidecar renews its own is not ours to say"
        );
    }
    // Before the first token it is known which are awaited, unless it is the caller's own.
    let awaited = CredentialSet { awaited: [other.clone()].into(), ..CredentialSet::default() };
    let both = [(host(), at(1000)), (other.clone(), at(900))];
    for (set, in_place) in [(awaited, [both[1].clone()].into()), (CredentialSet::default(), both.into())] {
        let decision = decide(&here(), &flux(false), Some(&found), &set, at(0)).unwrap();
        assert_eq!(decision.in_place, in_place);
    }
}

#[test]
fn a_label_is_set_only_on_what_we_create() {
    let label = "app.kubernetes.io/managed-by";
    let (made, _) = step(&flux(false), None, &credentials("one", 1000), 0).unwrap();
    assert_eq!(made["metadata"]["labels"][label], "ecr-sidecar");
    let (still, _) = step(&flux(false), Some(&made), &credentials("two", 2000), 0).unwrap();
    assert_eq!(still["metadata"]["labels"][label], "ecr-sidecar", "and stays there");
    for operation in ["Update", "Apply"] {
        let theirs = printed("helm", operation);
        let (secret, _) = step(&flux(false), Some(&theirs), &credentials("one", 1000), 0).unwrap();
        assert_eq!(secret["metadata"]["labels"][label], "Helm");
        assert!(object(&secret).metadata.applied(crate::kubernetes::FieldSet::Labels).next().is_none());
        // Others' edits of labels are theirs, and call for no write.
        let mut edited = secret;
        edited["metadata"]["labels"][label] = json!("kustomize");
        assert_eq!(step(&flux(false), Some(&edited), &credentials("one", 1000), 0), None);
    }
}

/// Version 0.1.0 forced its label on every Secret, so that Helm 4 failed at each upgrade.
#[test]
fn a_label_that_an_earlier_version_forced_is_given_back() {
    let (mut forced, _) =
        step(&flux(false), Some(&printed("helm", "Apply")), &credentials("one", 1000), 0).unwrap();
    let label = "app.kubernetes.io/managed-by";
    forced["metadata"]["labels"][label] = json!("ecr-sidecar");
    let entries = forced["metadata"]["managedFields"].as_array_mut().unwrap();
    entries[0]["fieldsV1"]["f:metadata"]["f:labels"] = json!({});
    entries[1]["fieldsV1"]["f:metadata"]["f:labels"] = json!({format!("f:{label}"): {}});
    let (given, after) = step(&flux(false), Some(&forced), &credentials("one", 1000), 0).unwrap();
    assert_eq!(given["metadata"]["labels"], json!({}));
    assert_eq!(after, [(host(), at(1000))].into());
    assert_eq!(step(&flux(false), Some(&given), &credentials("one", 1000), 0), None);
}
