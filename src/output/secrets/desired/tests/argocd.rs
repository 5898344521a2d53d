//! The Secrets that Argo CD reads, and how other field managers change them.

use super::*;
use crate::{failure::Class, output::secrets::expiry_annotation::EXPIRES};

fn helm() -> Content {
    Content::Template { host: host(), flavour: Flavour::Helm }
}

/// The printed template as its applier made it, and these fields next to or in place of its own.
fn template(fields: &[(&str, &str)]) -> Value {
    let mut secret = json!({
        "metadata": {
            "resourceVersion": "1", "labels": {"argocd.argoproj.io/secret-type": "repo-creds"},
            "managedFields": [{"manager": "argocd-controller", "operation": "Apply", "fieldsV1": {
                "f:metadata": {"f:labels": {"f:argocd.argoproj.io/secret-type": {}}}, "f:type": {},
                "f:data": {"f:url": {}, "f:type": {}, "f:enableOCI": {}},
            }}],
        },
        "type": "Opaque", "data": {},
    });
    let own = [("url", HOST), ("type", "helm"), ("enableOCI", "true")];
    for (key, value) in own.iter().chain(fields) {
        secret["data"][key] = json!(STANDARD.encode(value));
    }
    secret
}

fn value(secret: &Value, key: &str) -> Option<Vec<u8>> {
    secret["data"][key].as_str().map(|text| STANDARD.decode(text).unwrap())
}

/// Decides, with the password `ours` at hand.
fn decided(content: &Content, secret: &Value) -> Decision {
    decide(&here(), content, Some(&object(secret)), &credentials("ours", 1000), at(0)).unwrap()
}

/// Applies what is to be applied.
fn after(secret: &Value, decision: &Decision) -> Value {
    decision.apply.as_ref().map_or_else(|| secret.clone(), |(body, _)| applied(Some(secret), body))
}

/// No password, reported as denied, and neither readiness nor a second write.
#[track_caller]
fn is_withheld(content: &Content, secret: &Value, reason: &str) {
    let decision = decided(content, secret);
    let problem = decision.problem.as_ref().unwrap_or_else(|| panic!("no problem: {reason}"));
    assert!(!decision.is_harmless(), "in a conflict it would stay for a while: {reason}");
    assert_eq!((problem.remedy.diagnosis, problem.class), (Diagnosis::CredentialWithheld, Class::Denied));
    let left = after(secret, &decision);
    assert!(!left.to_string().contains(&STANDARD.encode("ours")), "{reason}: {left}");
    assert_eq!(
        (&decision.in_place, &decision.coverage),
        (&InPlace::new(), &Coverage::One(host())),
        "{reason}"
    );
    let again = decided(content, &left);
    assert!(again.apply.is_none() && again.problem.is_some(), "{reason}");
}

/// The Secret with our password in it, as it is a while later.
fn with_password(content: &Content, secret: &Value) -> Value {
    let secret = after(secret, &decided(content, secret));
    assert_eq!(value(&secret, "password").unwrap(), b"ours");
    secret
}

#[test]
fn a_template_is_shared() {
    let content = Content::Template { host: host(), flavour: Flavour::Helm };
    let given = json!({
        "metadata": {"resourceVersion": "1", "labels": {"argocd.argoproj.io/secret-type": "repo-creds"}}, "type": "Opaque",
        "data": {"url": STANDARD.encode(HOST), "type": STANDARD.encode("helm"), "enableOCI": STANDARD.encode("true")},
    });
    let desired = credentials("pass:word", 1000);
    let (secret, after) = step(&content, Some(&given), &desired, 0).unwrap();
    let value =
        |secret: &Value, key: &str| secret["data"][key].as_str().map(|text| STANDARD.decode(text).unwrap());
    assert_eq!(value(&secret, "username").unwrap(), b"AWS");
    assert_eq!(value(&secret, "password").unwrap(), b"pass:word");
    assert_eq!(after, [(host(), at(1000))].into());
    assert!(!object(&secret).metadata.we_own("url"), "the rest is theirs");
    assert_eq!(step(&content, Some(&secret), &desired, 0), None);
    assert_eq!(step(&content, Some(&secret), &credentials("older", 999), 0), None);

    let (made, _) = step(&content, None, &desired, 0).unwrap();
    assert_eq!(value(&made, "url").unwrap(), HOST.as_bytes());
    let (still, _) = step(&content, Some(&made), &credentials("newer", 2000), 0).unwrap();
    assert!(object(&still).metadata.we_own("url"), "who made it keeps all of it");

    let retired = CredentialSet { retired: [host()].into(), ..CredentialSet::default() };
    let found = object(&secret);
    let (body, after) = decide(&here(), &content, Some(&found), &retired, at(0)).unwrap().apply.unwrap();
    assert_eq!(
        (serde_json::from_slice::<Value>(&body).unwrap()["data"].clone(), after),
        (json!({}), InPlace::new())
    );
}

/// Another field manager decides where Argo CD would send the password.
#[test]
fn a_template_with_another_url_gets_no_password() {
    let evil = [
        ("https://evil.example", "elsewhere"),
        ("", "empty, which is a prefix of every URL"),
        ("123456789012", "a prefix of other registries too"),
        ("HOST.evil.example", "our host is a prefix of it"),
        ("HOST@evil.example", "userinfo"),
        ("HOST:8443", "another port"),
        ("HOST/team", "not what was printed: whoever wrote it means something else"),
        ("oci://HOST", "the other flavour's"),
        ("http://HOST", "in clear"),
        (" HOST", "no URL"),
    ];
    for (url, reason) in evil.map(|(url, reason)| (url.replace("HOST", HOST), reason)) {
        is_withheld(&helm(), &template(&[("url", &url)]), reason);
    }
    is_withheld(&helm(), &template(&[("url", &HOST.to_ascii_uppercase())]), "not what was printed");
    let mut without = template(&[]);
    without["data"].as_object_mut().unwrap().remove("url");
    is_withheld(&helm(), &without, "no url at all");
    is_withheld(
        &Content::Template { host: host(), flavour: Flavour::Oci },
        &template(&[]),
        "the other flavour's",
    );
}

#[test]
fn a_template_with_the_credentials_of_another_user_is_theirs() {
    let theirs = template(&[("username", "robot"), ("password", "theirs")]);
    is_withheld(&helm(), &theirs, "another user");
    let decision = decided(&helm(), &theirs);
    assert!(decision.apply.is_none(), "nothing of theirs is touched");
    // No user, or ECR's own one, is what it is for.
    for fields in [&[("username", "")][..], &[("username", "AWS"), ("password", "of a CronJob")]] {
        let decision = decided(&helm(), &template(fields));
        assert!(decision.problem.is_none() && decision.apply.is_some(), "{fields:?}");
    }
}

/// A tenant has changed the template after our password was put there.
#[test]
fn a_password_leaves_when_the_url_changes() {
    let printed = with_password(&helm(), &template(&[]));
    let made = {
        let (body, _) =
            decide(&here(), &helm(), None, &credentials("ours", 1000), at(0)).unwrap().apply.unwrap();
        applied(None, &body)
    };
    for secret in [printed, made] {
        for (key, text) in
            [("url", "https://evil.example"), ("insecure", "true"), ("insecureOCIForceHttp", "true")]
        {
            is_withheld(&helm(), &edited(&secret, &[(key, text)]), key);
        }
        // It is theirs to correct; then the password is back, and nothing else of it has changed.
        let changed = edited(&secret, &[("url", "https://evil.example")]);
        let withheld = after(&changed, &decided(&helm(), &changed));
        assert_eq!(value(&withheld, "type").unwrap(), b"helm");
        assert_eq!(withheld["metadata"]["labels"]["argocd.argoproj.io/secret-type"], "repo-creds");
        let corrected = edited(&withheld, &[("url", HOST)]);
        with_password(&helm(), &corrected);
        // The user alone is an edit like any other: put right.
        let decision = decided(&helm(), &edited(&secret, &[("username", "robot")]));
        assert!(decision.problem.is_none());
        let user = edited(&secret, &[("username", "robot")]);
        assert_eq!(value(&after(&user, &decision), "username").unwrap(), b"AWS");
    }
}

#[test]
fn a_password_goes_nowhere_that_is_not_verified() {
    let repository = |fields: &[(&str, &str)]| {
        let mut secret = template(fields);
        secret["metadata"]["labels"]["argocd.argoproj.io/secret-type"] = json!("repository");
        secret
    };
    for key in ["insecure", "insecureIgnoreHostKey", "insecureOCIForceHttp"] {
        // Go's booleans; what is none keeps Argo CD from using the Secret at all.
        for text in ["true", "True", "TRUE", "t", "1", "yes", " true", "\u{ff54}rue"] {
            is_withheld(&helm(), &template(&[(key, text)]), text);
            is_withheld(&Content::Repository, &repository(&[(key, text)]), text);
        }
        for text in ["false", "F", "0", ""] {
            with_password(&helm(), &template(&[(key, text)]));
        }
    }
    // A proxy sees what TLS lets it see, and a company's own is a good reason to name one.
    with_password(&helm(), &template(&[("proxy", "http://proxy.example:3128"), ("noProxy", "x")]));
}

#[test]
fn a_template_that_argo_cd_would_not_take_is_reported() {
    let content = Content::Template { host: host(), flavour: Flavour::Oci };
    let url = STANDARD.encode(format!("oci://{HOST}"));
    let wrong = json!({"metadata": {}, "type": "Opaque", "data": {"url": url}});
    let decision = decide(&here(), &content, Some(&object(&wrong)), &credentials("a", 1), at(0)).unwrap();
    let text = format!("{:?}", decision.warnings);
    for part in ["lacks the label", "`type` should be `oci`", "ArgocdSecretIgnored"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn of_a_repository_only_two_fields_are_set() {
    let repository = |url: &str| {
        json!({
            "metadata": {"resourceVersion": "1", "labels": {"argocd.argoproj.io/secret-type": "repository"}},
            "type": "Opaque",
            "data": {
                "url": STANDARD.encode(url), "type": STANDARD.encode("helm"), "project": STANDARD.encode("team-a"),
                "username": STANDARD.encode("AWS"), "password": STANDARD.encode("of last week"),
            },
        })
    };
    let desired = credentials("pass:word", 1000);
    let urls = ["oci://HOST/charts/web", "HOST/charts/web", "https://HOST/charts/web", "HOST", "OCI://HOST"];
    for url in urls.map(|url| url.replace("HOST", HOST)) {
        let (secret, after) = step(&Content::Repository, Some(&repository(&url)), &desired, 0).unwrap();
        assert_eq!(secret["data"]["password"], STANDARD.encode("pass:word"), "{url}");
        assert_eq!(secret["data"]["project"], STANDARD.encode("team-a"));
        assert_eq!(secret["metadata"]["labels"], repository(&url)["metadata"]["labels"]);
        assert!(!object(&secret).metadata.we_own("url") && !object(&secret).metadata.we_own("type"));
        assert_eq!(after, [(host(), at(1000))].into());
        assert_eq!(step(&Content::Repository, Some(&secret), &desired, 0), None);
    }
    let elsewhere = [
        "ghcr.io/charts",
        "https://HOST.evil.example/charts",
        "https://x@HOST/charts",
        "https://AWS:x@HOST/charts",
        "git@HOST:charts",
        "https://HOST@evil.example/charts",
        "HOST@evil.example",
        "https://HOST:8443/charts", // another service of that machine, or none of AWS
        "https://HOST:443@evil.example",
        "http://HOST/charts", // in clear
        "ssh://HOST/charts",
        "oci://oci://HOST",
        "//HOST/charts",
        "HOST?x=.evil.example",
        "HOST#.evil.example",
        "https://HOST\\.evil.example/charts", // browsers take it for a slash, Go does not
        "https://HOST%2eevil.example",
        "HOST\u{3002}evil.example", // an ideographic full stop
        "HOST\n.evil.example",
        "HOST.",
        "https:///HOST",
        "evil.example/HOST",
        "",
    ];
    for other in elsewhere {
        let found = object(&repository(&other.replace("HOST", HOST)));
        let decision = decide(&here(), &Content::Repository, Some(&found), &desired, at(0)).unwrap();
        assert!(decision.apply.is_none() && decision.coverage == Coverage::None, "{other}");
        assert!(decision.warnings[0].message.contains("none of the configured registries"), "{other}");
    }
    let missing = decide(&here(), &Content::Repository, None, &desired, at(0)).err().unwrap();
    assert!(missing.message.contains("there is no Secret"), "{missing}");
}

#[test]
fn a_repository_that_moves_elsewhere_loses_our_password() {
    let repository = template(&[("project", "team-a")]);
    let secret = with_password(&Content::Repository, &repository);
    for url in ["https://evil.example/charts", &format!("{HOST}.evil.example"), ""] {
        let moved = edited(&secret, &[("url", url)]);
        let decision = decided(&Content::Repository, &moved);
        assert_eq!(decision.coverage, Coverage::None);
        assert!(!decision.is_harmless(), "in a conflict it would stay for a while");
        let left = after(&moved, &decision);
        assert!(value(&left, "password").is_none() && value(&left, "username").is_none(), "{url}: {left}");
        assert_eq!(value(&left, "project").unwrap(), b"team-a");
        assert!(decided(&Content::Repository, &left).apply.is_none());
    }
}

/// Without `registries` in the configuration the first token names the only one.
#[test]
fn before_any_registry_is_known_a_repository_is_in_none_that_is_wrong() {
    let repository = template(&[("url", "ghcr.io/charts/web")]);
    let decided = |desired: &CredentialSet| {
        decide(&here(), &Content::Repository, Some(&object(&repository)), desired, at(0)).unwrap()
    };
    let decision = decided(&CredentialSet::default());
    assert_eq!((decision.coverage, decision.warnings), (Coverage::All, Vec::new()));
    let decision = decided(&credentials("ours", 1000));
    assert_eq!((decision.coverage, decision.warnings.len()), (Coverage::None, 1));
    let awaited = CredentialSet { awaited: [host()].into(), ..CredentialSet::default() };
    assert_eq!(decided(&awaited).warnings.len(), 1);
}

/// A registry that a process learns only with its first token, and one that only another sidecar keeps: what stands where
/// it was put stays.
#[test]
fn a_repository_of_an_unknown_registry_keeps_its_password() {
    let other_host: RegistryHost = "210987654321.dkr.ecr.eu-west-1.amazonaws.com".parse().unwrap();
    let token = credentials("other", 1000).current.remove(&host()).unwrap();
    let others = CredentialSet { current: [(other_host.clone(), token)].into(), ..CredentialSet::default() };
    let nothing_yet = CredentialSet::default();
    let decided = |secret: &Value, desired: &CredentialSet| {
        decide(&here(), &Content::Repository, Some(&object(secret)), desired, at(0)).unwrap()
    };
    let ours = with_password(&Content::Repository, &template(&[]));
    let theirs = template(&[("url", other_host.as_str())]);
    let theirs = after(&theirs, &decided(&theirs, &others));
    assert_eq!(value(&theirs, "password").unwrap(), b"other");
    let our_set = credentials("ours", 1000);
    for (secret, desired, reason) in [
        (&ours, &nothing_yet, "its own registry, before the first token"),
        (&ours, &others, "ours, as the other sidecar sees it"),
        (&theirs, &our_set, "the other's, as we see it"),
        (&ours, &our_set, "ours, as we see it"),
        (&theirs, &others, "the other's, as it sees it"),
    ] {
        assert!(decided(secret, desired).apply.is_none(), "{reason}");
    }
    // Whoever writes the other fields sends it to no other place.
    let mut forged = edited(&ours, &[("url", other_host.as_str())]);
    forged["metadata"]["annotations"][EXPIRES] = theirs["metadata"]["annotations"][EXPIRES].clone();
    forged["metadata"]["managedFields"].as_array_mut().unwrap().iter_mut().for_each(|entry| {
        if let Some(fields) = entry["fieldsV1"]["f:metadata"]["f:annotations"].as_object_mut() {
            fields.remove(&format!("f:{EXPIRES}"));
        }
    });
    for (moved, reason) in [
        (edited(&ours, &[("url", other_host.as_str())]), "to another registry"),
        (forged, "with the annotation"),
        (edited(&ours, &[("insecure", "true")]), "to whoever answers"),
        (edited(&ours, &[("url", &format!("http://{HOST}"))]), "in clear"),
    ] {
        let left = after(&moved, &decided(&moved, &nothing_yet));
        assert!(value(&left, "password").is_none(), "{reason}: {left}");
    }
}

/// Argo CD 3 has four labels of Secrets that hold credentials.
#[test]
fn each_label_of_argo_cd_is_one() {
    let warnings = |label: Option<&str>| {
        let mut secret = template(&[]);
        secret["metadata"]["labels"] =
            label.map_or(json!({}), |it| json!({"argocd.argoproj.io/secret-type": it}));
        decided(&Content::Repository, &secret).warnings
    };
    for label in ["repository", "repo-creds", "repository-write", "repo-write-creds"] {
        assert_eq!(warnings(Some(label)), [], "{label}");
    }
    for label in [None, Some("cluster"), Some("Repository")] {
        assert!(warnings(label)[0].message.contains("lacks the label"), "{label:?}");
    }
}

/// `once` with one output, then `once` with another, on the same Secret; whichever comes first.
#[test]
fn no_output_removes_what_another_applied() {
    let fields = ["url", "type", "enableOCI", "username", "password"];
    let (body, _) = decide(&here(), &helm(), None, &credentials("first", 500), at(0)).unwrap().apply.unwrap();
    let made = applied(None, &body);
    for content in [helm(), Content::Repository] {
        for (other, expires) in [("second", 600), ("third", 700)] {
            let found = object(&made);
            let decision =
                decide(&here(), &content, Some(&found), &credentials(other, expires), at(0)).unwrap();
            let secret = after(&made, &decision);
            assert_eq!(value(&secret, "password").unwrap(), other.as_bytes());
            for key in fields {
                assert!(object(&secret).metadata.we_own(key), "{key} after {content:?}");
            }
            assert_eq!(
                secret["metadata"]["labels"],
                json!({"argocd.argoproj.io/secret-type": "repo-creds", "app.kubernetes.io/managed-by": "ecr-sidecar"})
            );
        }
    }
    // What an earlier version, or another tool under our name, has applied, and that no output knows.
    let mut more = made.clone();
    more["data"]["project"] = json!(STANDARD.encode("team-a"));
    more["metadata"]["annotations"]["ecr-sidecar/note"] = json!("x");
    more["metadata"]["managedFields"][0]["fieldsV1"]["f:data"]["f:project"] = json!({});
    more["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:annotations"]["f:ecr-sidecar/note"] =
        json!({});
    for content in [helm(), Content::Repository] {
        let secret = after(&more, &decided(&content, &more));
        assert_eq!(value(&secret, "project").unwrap(), b"team-a");
        assert_eq!(secret["metadata"]["annotations"]["ecr-sidecar/note"], "x");
    }
    // A registry that is retired takes the credential along, and nothing else.
    let retired = CredentialSet { retired: [host()].into(), ..CredentialSet::default() };
    for content in [helm(), Content::Repository] {
        let decision = decide(&here(), &content, Some(&object(&more)), &retired, at(0)).unwrap();
        let secret = after(&more, &decision);
        assert!(value(&secret, "password").is_none() && value(&secret, "username").is_none());
        assert_eq!(value(&secret, "url").unwrap(), HOST.as_bytes());
        assert_eq!(value(&secret, "project").unwrap(), b"team-a");
    }
}
