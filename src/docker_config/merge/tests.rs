use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;

use super::*;
use crate::{aws::token::Token, secret::Secret};

const A: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const B: &str = "public.ecr.aws";
/// AWS:one
const ONE: &str = "QVdTOm9uZQ==";
/// me:secret
const FOREIGN: &str = "bWU6c2VjcmV0";

fn desired(current: &[(&str, &str)], retired: &[&str]) -> CredentialSet {
    let token = |auth: &str| {
        let obtained_at = SystemTime::UNIX_EPOCH;
        let expires_at = obtained_at + Duration::from_secs(43_200);
        Arc::new(Token { auth: Secret::new(auth.to_owned()), obtained_at, expires_at })
    };
    CredentialSet {
        current: current.iter().map(|(host, auth)| (host.parse().unwrap(), token(auth))).collect(),
        retired: retired.iter().map(|host| host.parse().unwrap()).collect(),
        awaited: Default::default(),
    }
}

fn merged_with(
    existing: &str,
    base: Option<&str>,
    before: &BaseKeys,
    desired: &CredentialSet,
) -> (String, Vec<Warning>, bool) {
    let base = base.map(|base| Base::of(base, before.clone()));
    let merged = merge(Document::parse(existing).unwrap(), base.as_ref(), desired);
    let mut out = Vec::new();
    merged.write_to(&mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(merged.is(&out) && !merged.is(&format!("{out} ")) && !merged.is(&out[..out.len() - 1]));
    (out, merged.warnings, merged.ours)
}

fn merged(existing: &str, desired: &CredentialSet) -> (String, Vec<Warning>) {
    let (out, warnings, _) = merged_with(existing, None, &BaseKeys::default(), desired);
    (out, warnings)
}

fn entry(host: &str, auth: &str) -> String {
    format!("\"{host}\":{{\"auth\":\"{auth}\"}}")
}

#[test]
fn the_bare_form() {
    let (out, warnings) = merged("", &desired(&[(A, ONE), (B, ONE)], &[]));
    assert_eq!(out, format!("{{\"auths\":{{{},{}}}}}", entry(A, ONE), entry(B, ONE)));
    assert_eq!(warnings, []);
}

#[test]
fn each_kind_of_existing_content() {
    let ours = entry(A, ONE);
    let foreign = entry("ghcr.io", FOREIGN);
    let cases = [
        // an old token of ours gives way in its place, whatever else the entry has
        (
            format!("{{\"auths\":{{\"{A}\":{{\"auth\":\"b2xkOm9sZA==\",\"email\":\"x\"}},{foreign}}}}}"),
            format!("{{\"auths\":{{{ours},{foreign}}}}}"),
        ),
        // layout around foreign values goes, the values stay
        (
            format!("{{\n\t\"auths\": {{\n\t\t{foreign}\n\t}},\n\t\"x\": {{ \"y\": 1.0e+2 }}\n}}\n"),
            format!("{{\"auths\":{{{foreign},{ours}}},\"x\":{{ \"y\": 1.0e+2 }}}}"),
        ),
        // unknown keys come first if they did, and numbers keep their digits
        (
            "{\"n\":12345678901234567890.10,\"s\":\"\\u00e9\\/\",\"auths\":null}".to_owned(),
            format!("{{\"n\":12345678901234567890.10,\"s\":\"\\u00e9\\/\",\"auths\":{{{ours}}}}}"),
        ),
        ("{\"HttpHeaders\":{}}".to_owned(), format!("{{\"auths\":{{{ours}}},\"HttpHeaders\":{{}}}}")),
        (
            "{\"credHelpers\":{\"gcr.io\":\"gcloud\"},\"auths\":{}}".to_owned(),
            format!("{{\"credHelpers\":{{\"gcr.io\":\"gcloud\"}},\"auths\":{{{ours}}}}}"),
        ),
        ("{\"credHelpers\":{}}".to_owned(), format!("{{\"auths\":{{{ours}}},\"credHelpers\":{{}}}}")),
    ];
    for (existing, expected) in cases {
        let (out, warnings) = merged(&existing, &desired(&[(A, ONE)], &[]));
        assert_eq!(out, expected);
        assert_eq!(warnings, [], "{existing}");
    }
}

/// podman, skopeo and go-containerregistry prefer `HOST/PATH` to `HOST`: what a login left there a day ago would win.
#[test]
fn a_stale_repository_entry_goes() {
    let password = "{\"username\":\"AWS\",\"password\":\"old\"}";
    for (key, value) in [
        (format!("{A}/app"), "{\"auth\":\"QVdTOm9sZA==\"}"), // AWS:old
        (format!("{A}/team/app"), "{\"auth\":\"QVdTOm9sZA==\",\"email\":\"x\"}"),
        (format!("https://{A}/app"), "{\"auth\":\"QVdTOm9sZA==\"}"),
        (format!("{}/app", A.to_ascii_uppercase()), "{\"auth\":\"QVdTOm9sZA==\"}"),
        (format!("{A}/v2/app"), "{\"auth\":\"QVdTOm9sZA==\"}"),
        (format!("{A}/app"), password),
    ] {
        let existing = format!("{{\"auths\":{{\"{key}\":{value}}}}}");
        let (out, warnings) = merged(&existing, &desired(&[(A, ONE)], &[]));
        assert_eq!(out, format!("{{\"auths\":{{{}}}}}", entry(A, ONE)), "{key} {value}");
        assert_eq!(warnings, [warning::twin_removed(&key, A)], "{key}");
        // a base that names it is corrected in the same way
        let (out, _, _) = merged_with("", Some(&existing), &BaseKeys::default(), &desired(&[(A, ONE)], &[]));
        assert!(!out.contains("/app"), "{out}");
        // without a token of ours it is the best that there is
        assert!(merged(&existing, &desired(&[(B, ONE)], &[])).0.contains(&key));
    }
}

/// Such as the robot user of a mirror: it is meant, but its effect may not be known.
#[test]
fn another_users_repository_entry_stays_and_is_named() {
    for value in [
        format!("{{\"auth\":\"{FOREIGN}\"}}"),
        "{\"auth\":\"QVdTQTp4\"}".to_owned(), // AWSA:x
        "{\"identitytoken\":\"x\"}".to_owned(),
        "{}".to_owned(),
    ] {
        let key = format!("{A}/team/app");
        let existing = format!("{{\"auths\":{{\"{key}\":{value}}}}}");
        let (out, warnings) = merged(&existing, &desired(&[(A, ONE)], &[]));
        assert_eq!(out, format!("{{\"auths\":{{\"{key}\":{value},{}}}}}", entry(A, ONE)));
        assert_eq!(warnings, [warning::repository_entry(&key, A)], "{value}");
    }
    let other = format!("{{\"auths\":{{{}}}}}", entry("ghcr.io/team/app", "QVdTOm9sZA=="));
    assert_eq!(merged(&other, &desired(&[(A, ONE)], &[])).1, [], "another registry's");
}

#[test]
fn twins_and_helpers_leave_and_are_named() {
    let twins = [
        format!("https://{A}"),
        format!("http://{A}"),
        format!("{A}/"),
        format!("https://{A}/v1/"),
        format!("https://{A}/v2/"),
        A.to_ascii_uppercase(),
    ];
    let entries: Vec<_> = twins.iter().map(|twin| entry(twin, FOREIGN)).collect();
    let existing = format!(
        "{{\"auths\":{{{}}},\"credHelpers\":{{\"{A}\":\"ecr-login\",\"https://{A}\":\"ecr-login\"}}}}",
        entries.join(",")
    );
    let (out, warnings) = merged(&existing, &desired(&[(A, ONE)], &[]));
    assert_eq!(out, format!("{{\"auths\":{{{}}},\"credHelpers\":{{}}}}", entry(A, ONE)));
    let shown: Vec<_> = warnings.iter().map(|it| it.message.clone()).collect();
    assert_eq!(shown.len(), twins.len() + 2, "{shown:?}");
    assert!(
        twins.iter().all(|twin| shown.iter().any(|line| line.contains(&format!("`{twin}` from `auths`"))))
    );
    assert_eq!(shown.iter().filter(|line| line.contains("from `credHelpers`")).count(), 2);
    assert_eq!(merged(&out, &desired(&[(A, ONE)], &[])), (out, vec![]));
}

#[test]
fn a_credential_store_and_a_bad_entry_are_named_without_values() {
    let existing = "{\"credsStore\":\"desktop\",\"auths\":{\"ghcr.io\":{\"auth\":\"hunter2!\"},\"u:pw@q.io\":{\"auth\":\"cHc=\"}}}";
    let (out, warnings) = merged(existing, &desired(&[(A, ONE)], &[]));
    assert!(out.contains("hunter2!"), "kept as it is");
    let shown = warnings.iter().map(|it| it.message.clone()).collect::<Vec<_>>().join("\n");
    assert!(
        shown.contains("the entry `ghcr.io` makes docker") && shown.contains("not padded base64"),
        "{shown}"
    );
    assert!(shown.contains("the entry `q.io`") && shown.contains("USER:PASSWORD"), "{shown}");
    assert!(shown.contains("`credsStore` names `desktop`"), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("pw"), "{shown}");
}

#[test]
fn the_retired_leave_when_they_are_ecr_tokens() {
    let foreign = entry("b.example", FOREIGN);
    let existing = format!("{{\"auths\":{{{},{foreign}}}}}", entry(A, ONE));
    let (out, _, ours) =
        merged_with(&existing, None, &BaseKeys::default(), &desired(&[], &[A, "b.example", "c.example"]));
    assert_eq!(out, format!("{{\"auths\":{{{foreign}}}}}"));
    assert!(ours);
    // …unless the base names them
    let base = format!("{{\"auths\":{{{}}}}}", entry(A, ONE));
    let (out, ..) = merged_with(&existing, Some(&base), &BaseKeys::default(), &desired(&[], &[A]));
    assert_eq!(out, existing);
}

#[test]
fn a_host_without_a_token_is_left_alone() {
    let existing = format!(
        "{{\"auths\":{{{},{}}},\"credHelpers\":{{\"{A}\":\"ecr-login\"}}}}",
        entry(A, ONE),
        entry(&format!("https://{A}"), FOREIGN)
    );
    let (out, warnings, ours) = merged_with(&existing, None, &BaseKeys::default(), &desired(&[], &[]));
    assert_eq!((out, warnings, ours), (existing, vec![], false));
}

#[test]
fn the_base_is_the_source_of_what_it_names() {
    let (old, new) = (entry("ghcr.io", "b2xkOm9sZA=="), entry("ghcr.io", FOREIGN));
    let kept = entry("quay.io", FOREIGN);
    let existing = format!("{{\"auths\":{{{old},{kept}}},\"x\":1,\"y\":2}}");
    let base =
        format!("{{\"auths\":{{{new},{}}},\"x\":3,\"credHelpers\":{{\"gcr.io\":\"g\"}}}}", entry(A, FOREIGN));
    let set = desired(&[(A, ONE)], &[]);
    let (out, warnings, _) = merged_with(&existing, Some(&base), &BaseKeys::default(), &set);
    assert_eq!(
        out,
        format!(
            "{{\"auths\":{{{new},{kept},{}}},\"x\":3,\"y\":2,\"credHelpers\":{{\"gcr.io\":\"g\"}}}}",
            entry(A, ONE)
        )
    );
    assert_eq!(warnings, []);

    // what it no longer names leaves; what it never named stays
    let before = BaseKeys::of(&Document::parse(&base).unwrap());
    let (out, ..) = merged_with(&out, Some("{\"z\":4}"), &before, &set);
    assert_eq!(
        out,
        format!("{{\"auths\":{{{kept},{}}},\"y\":2,\"credHelpers\":{{}},\"z\":4}}", entry(A, ONE))
    );
}

/// JSON as people and programs write it, as text.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("1e400".to_owned()),
        Just("-0.0".to_owned()),
        Just("123456789012345678901234567890".to_owned()),
        Just("\"\\ud83d\\ude00 \\/ \\u0041\"".to_owned()),
        "[ -~&&[^\"\\\\]]{0,12}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(" , "))),
            proptest::collection::vec(("[a-z]{1,6}", inner), 0..4).prop_map(|items| {
                let fields: Vec<_> =
                    items.iter().map(|(key, value)| format!("\"{key}\" : {value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

const OUR_HOSTS: [&str; 3] = [A, B, "ecr.internal.example:8443"];

/// Keys: foreign ones, ours, and their twins.
fn any_key() -> impl Strategy<Value = String> {
    let ours = proptest::sample::select(&OUR_HOSTS[..]);
    prop_oneof![
        3 => "[a-z]{1,8}\\.(io|example)(/[a-z]{1,5}){0,2}",
        2 => (proptest::sample::select(&["", "https://", "http://"][..]), ours, any::<bool>(),
              proptest::sample::select(&["", "/", "/v1/", "/v2/", "/v2", "/team/app"][..]))
            .prop_map(|(scheme, host, upper, path)| {
                let host = if upper { host.to_ascii_uppercase() } else { host.to_owned() };
                format!("{scheme}{host}{path}")
            }),
    ]
}

type Fields = Vec<(String, String)>;

fn object(fields: &Fields) -> String {
    let fields: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
    format!("{{{}}}", fields.join(", "))
}

fn any_fields() -> impl Strategy<Value = Fields> {
    proptest::collection::vec((any_key(), any_json()), 0..8)
}

/// A document, with what is under `auths`.
fn any_document() -> impl Strategy<Value = (String, Fields)> {
    (any_fields(), any_fields(), proptest::collection::vec(("[a-z]{1,4}X", any_json()), 0..4)).prop_map(
        |(auths, helpers, mut top)| {
            top.push((AUTHS.to_owned(), object(&auths)));
            top.push((CRED_HELPERS.to_owned(), object(&helpers)));
            (object(&top), auths)
        },
    )
}

fn any_desired() -> impl Strategy<Value = CredentialSet> {
    proptest::collection::vec((any::<bool>(), any::<bool>()), OUR_HOSTS.len()).prop_map(|chosen| {
        let of = |pick: &dyn Fn(&(bool, bool)) -> bool| {
            OUR_HOSTS.iter().zip(&chosen).filter(|(_, c)| pick(c)).map(|(host, _)| *host).collect::<Vec<_>>()
        };
        let current: Vec<_> = of(&|c| c.0).into_iter().map(|host| (host, ONE)).collect();
        desired(&current, &of(&|c| !c.0 && c.1))
    })
}

proptest! {
    #[test]
    fn unmanaged_values_survive((existing, auths) in any_document(), set in any_desired()) {
        let before = Document::parse(&existing).unwrap();
        let (out, _) = merged(&existing, &set);
        let after = Document::parse(&out).unwrap();
        let raw = |entries: &Entries<'_>| -> Vec<(String, String)> {
            entries.iter().map(|(key, value)| (key.to_string(), value.get().to_owned())).collect()
        };
        let is_foreign = |key: &String| {
            let host = host_meant(key);
            !set.current.contains_key(host.as_str()) && !set.retired.contains(host.as_str())
        };
        let foreign = |entries: &Entries<'_>| -> Vec<_> { raw(entries).into_iter().filter(|(key, _)| is_foreign(key)).collect() };
        prop_assert_eq!(foreign(&before.auths), foreign(&after.auths));
        prop_assert_eq!(foreign(&before.helpers), foreign(&after.helpers));
        let unknown = |entries: &Entries<'_>| -> Vec<_> {
            raw(entries).into_iter().filter(|(key, _)| key != AUTHS && key != CRED_HELPERS).collect()
        };
        prop_assert_eq!(unknown(&before.top), unknown(&after.top));
        prop_assert!(before.auths.len() <= auths.len());
    }

    #[test]
    fn merging_twice_changes_nothing((existing, _) in any_document(), base in proptest::option::of(any_document()), set in any_desired()) {
        let base = base.map(|(base, _)| base);
        let (once, ..) = merged_with(&existing, base.as_deref(), &BaseKeys::default(), &set);
        let supplied = base.as_deref().map_or_else(BaseKeys::default, |base| BaseKeys::of(&Document::parse(base).unwrap()));
        let (twice, ..) = merged_with(&once, base.as_deref(), &supplied, &set);
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn each_host_once_and_no_twin((existing, _) in any_document(), base in any_document(), set in any_desired()) {
        let (out, ..) = merged_with(&existing, Some(&base.0), &BaseKeys::default(), &set);
        let value: serde_json::Value = serde_json::from_str::<serde_json::Value>(&out.replace("1e400", "1")).unwrap();
        let auths = value[AUTHS].as_object().unwrap();
        for (host, token) in &set.current {
            prop_assert_eq!(&auths[host.as_str()], &serde_json::json!({"auth": token.auth.expose()}));
            prop_assert_eq!(out.matches(&format!("\"{host}\":{{\"auth\"")).count(), 1);
            let twins = |map: &serde_json::Value| map.as_object().map_or(0, |map| map.keys().filter(|key| host_meant(key) == host.as_str()).count());
            prop_assert_eq!(twins(&value[AUTHS]), 1);
            prop_assert_eq!(twins(&value[CRED_HELPERS]), 0);
            let document = Document::parse(&out).unwrap();
            let auth = document.auth_of(host.as_str());
            prop_assert_eq!(auth.as_deref(), Some(token.auth.expose().as_str()));
        }
    }
}

#[test]
fn of_many_warnings_the_first_are_kept_and_the_others_counted() {
    let broken: Vec<_> = (0..100_000).map(|number| format!("\"{number}\":0")).collect();
    let existing = format!("{{\"auths\":{{{}}},\"credsStore\":\"desktop\"}}", broken.join(","));
    let (out, warnings) = merged(&existing, &desired(&[(A, ONE)], &[]));
    assert_eq!(warnings.len(), WARNINGS + 1);
    assert_eq!(warnings[0], warning::creds_store("desktop"), "what concerns every entry is among them");
    assert_eq!(warnings[1], warning::invalid_entry("0", super::super::entry::BadAuth::NotAnEntry));
    assert_eq!(warnings[WARNINGS], warning::more(100_000 - (WARNINGS - 1)));
    assert_eq!(
        merged(&out, &desired(&[(A, ONE)], &[])),
        (out.clone(), warnings),
        "and the same the next time"
    );
}

#[test]
fn of_many_twins_and_helpers_the_first_are_named() {
    // Each key another writing of one host.
    let keys = (0..1000_u32).map(|number| {
        let flip = |(at, c): (usize, char)| {
            if number >> at & 1 == 1 { c.to_ascii_uppercase() } else { c }
        };
        B.chars().filter(|c| c.is_ascii_alphabetic()).enumerate().map(flip).collect::<String>()
    });
    let entries: Vec<_> =
        keys.map(|key| format!("\"{}.{}.{}\":\"x\"", &key[..6], &key[6..9], &key[9..])).collect();
    let entries = entries.join(",");
    for map in ["auths", "credHelpers"] {
        let (out, warnings) = merged(&format!("{{\"{map}\":{{{entries}}}}}"), &desired(&[(B, ONE)], &[]));
        assert_eq!(out.matches(B).count(), 1, "{map}");
        assert!(!out.to_ascii_lowercase().contains(&format!("\"{B}\":\"x\"")), "{map}");
        assert_eq!(warnings.len(), WARNINGS + 1, "{map}");
    }
}
