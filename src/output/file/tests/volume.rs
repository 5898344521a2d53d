//! What another user who may write to the volume can put there.

use std::os::unix::{fs::lchown, net::UnixListener};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, mknodat};

use super::{faults::as_nobody, *};
use crate::{
    failure::{Diagnose, diagnosis::Diagnosis},
    fs::atomic_file::Cause,
};

const NOBODY: u32 = 65534;
const CANARY: &str = "hunter2";

/// A volume that everybody may write to, next to a directory of ours with a file in it.
fn shared(content: &str, mode: u32) -> (Place, PathBuf) {
    let place = Place::new();
    fs::set_permissions(place.directory.path(), Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("volume", 0o777), ("private", 0o755)] {
        fs::create_dir(place.at(name)).unwrap();
        fs::set_permissions(place.at(name), Permissions::from_mode(mode)).unwrap();
    }
    let victim = place.at("private/victim");
    put(&victim, content);
    fs::set_permissions(&victim, Permissions::from_mode(mode)).unwrap();
    (place, victim)
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, 0o666.into(), 0).unwrap();
}

/// Everything that could have been done to a file.
fn state(path: &Path) -> (u64, u32, u32, String) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.ino(), metadata.mode(), metadata.gid(), fs::read_to_string(path).unwrap())
}

#[test]
fn a_link_of_another_user_is_replaced() {
    let json = format!("{{\"auths\":{{\"ghcr.io\":{{\"auth\":\"{}\"}}}}}}", STANDARD.encode("me:hunter2"));
    for (content, mode) in [(CANARY, 0o600), (&json, 0o644), ("", 0o600)] {
        let (place, victim) = shared(content, mode);
        let path = place.at("volume/config.json");
        symlink(&victim, &path).unwrap();
        if rustix::process::geteuid().is_root() {
            lchown(&path, Some(NOBODY), None).unwrap();
        }
        let before = state(&victim);
        let file = || file_at(path.clone(), None);
        file().check_path().unwrap();
        let report = file().reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now());
        assert_eq!(written(&report), Written::Changed);
        assert!(
            warnings(&report).contains("was a symbolic link that is not followed"),
            "{}",
            warnings(&report)
        );
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{{\"auths\":{{\"{A}\":{{\"auth\":\"QVdTOm9uZQ==\"}}}}}}"));
        assert_eq!(state(&victim), before);
        assert_eq!(fs::read_dir(place.at("private")).unwrap().count(), 1);
        assert!(!format!("{report:?}").contains(CANARY));
        // the same for what is stored next to it
        let store = place.at("volume/.config.json.ecr-sidecar");
        fs::remove_file(&store).unwrap();
        symlink(&victim, &store).unwrap();
        assert_eq!(warnings(&file().reconciled(&desired(&[(A, "QVdTOnR3bw==", 12)]), now())), "");
        assert!(fs::symlink_metadata(&store).unwrap().is_file());
        assert_eq!(state(&victim), before);
    }
}

/// A sidecar without rights, whose volume is not the only one that it may write to.
#[test]
fn a_link_into_another_volume_is_replaced() {
    const AT: &str = "ECR_SIDECAR_TEST_VOLUME";
    if let Some(at) = std::env::var_os(AT) {
        let report = file_at(PathBuf::from(at).join("config.json"), None)
            .reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now());
        assert_eq!(written(&report), Written::Changed);
        println!("{}", warnings(&report));
        return;
    }
    let (place, victim) = shared("{\"auths\":{}}", 0o644);
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can become another user");
    }
    for path in [place.at("private"), victim.clone()] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let link = place.at("volume/config.json");
    symlink(&victim, &link).unwrap();
    // The consumer may well be of the sidecar's own user.
    lchown(&link, Some(NOBODY), Some(NOBODY)).unwrap();
    let before = state(&victim);
    let name = "volume::a_link_into_another_volume_is_replaced";
    let printed = as_nobody(name, AT, place.at("volume").as_os_str()).unwrap();
    assert!(printed.contains("was a symbolic link"), "{printed}");
    assert_eq!(state(&victim), before);
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
}

#[test]
fn a_directory_that_was_swapped_for_a_link_is_reported_and_not_followed() {
    let (place, victim) = shared("{}", 0o644);
    let (directory, set) = (place.at("volume/out"), desired(&[(A, "QVdTOm9uZQ==", 12)]));
    let mut file = file_at(directory.join("victim"), None);
    assert_eq!(written(&file.reconciled(&set, now())), Written::Changed);
    fs::rename(&directory, place.at("volume/moved")).unwrap();
    symlink(place.at("private"), &directory).unwrap();
    let before = state(&victim);
    file.check_path().unwrap();
    let report = file.reconciled(&set, now());
    let error = failed(&report);
    assert!(
        matches!(error, DockerConfigError::File(error) if matches!(error.cause, Cause::Untrusted(_))),
        "{error}"
    );
    assert_eq!(error.remedy().diagnosis, Diagnosis::UntrustedLink);
    assert_eq!(in_place(&report), []);
    assert_eq!(state(&victim), before);
    assert_eq!(fs::read_dir(place.at("private")).unwrap().count(), 1);
    // another directory in its place is another volume
    fs::remove_file(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    assert_eq!(written(&file.reconciled(&set, now())), Written::Changed);
}

/// The old file cannot be kept without renaming what the link leads to.
#[test]
fn a_link_to_what_is_no_docker_config_gives_way() {
    let place = Place::new();
    put(&place.at("other"), "not JSON");
    symlink("other", place.path()).unwrap();
    let before = state(&place.at("other"));
    let report = place.file().reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now());
    assert_eq!(written(&report), Written::Changed);
    assert!(warnings(&report).contains("was a symbolic link"), "{}", warnings(&report));
    assert_eq!(state(&place.at("other")), before);
    assert_eq!(place.names(), ["config.json", "other"]);
}

#[test]
fn what_is_no_file_is_replaced() {
    type Put<'a> = (&'static str, &'a dyn Fn(&Path));
    let things: [Put<'_>; 4] = [
        ("a FIFO", &fifo),
        ("a socket", &|path| drop(UnixListener::bind(path).unwrap())),
        ("an empty directory", &|path| fs::create_dir(path).unwrap()),
        ("a symbolic link", &|path| symlink("/nowhere", path).unwrap()),
    ];
    let set = desired(&[(A, "QVdTOm9uZQ==", 12)]);
    for (what, make) in things {
        let place = Place::new();
        make(&place.path());
        make(&place.at(".config.json.ecr-sidecar"));
        place.file().check_path().unwrap();
        let report = place.file().reconciled(&set, now());
        assert_eq!(written(&report), Written::Changed, "{what}");
        assert!(warnings(&report).contains(&format!("was {what}")), "{what}: {}", warnings(&report));
        assert_eq!(in_place(&place.file().reconciled(&CredentialSet::default(), now())), [(A, at_hour(12))]);

        put(&place.path(), "not JSON");
        make(&place.at("config.json.invalid"));
        assert_eq!(written(&place.file().reconciled(&set, now())), Written::Changed, "{what}");
        assert_eq!(fs::read_to_string(place.at("config.json.invalid")).unwrap(), "not JSON", "{what}");
    }
}

#[test]
fn a_full_directory_is_reported_wherever_it_is() {
    let set = desired(&[(A, "QVdTOm9uZQ==", 12)]);
    for name in ["config.json", ".config.json.ecr-sidecar"] {
        let place = Place::new();
        fs::create_dir_all(place.at(name).join("x")).unwrap();
        let report = place.file().reconciled(&set, now());
        match &report.result {
            Ok(_) => {
                assert_eq!(name, ".config.json.ecr-sidecar");
                assert!(warnings(&report).contains("are not stored") && warnings(&report).contains(name));
            }
            Err(error) => {
                assert_eq!(error.remedy().diagnosis, Diagnosis::NotAFile, "{name}");
                assert!(error.to_string().contains(name), "{error}");
            }
        }
        fs::remove_dir_all(place.at(name)).unwrap();
        assert_eq!(warnings(&place.file().reconciled(&desired(&[(A, "QVdTOnR3bw==", 12)]), now())), "");
    }
}

#[test]
fn an_expiry_that_could_not_be_stored_is_stored_later() {
    let set = desired(&[(A, "QVdTOm9uZQ==", 12)]);
    let (place, store) = (Place::new(), ".config.json.ecr-sidecar");
    fs::create_dir_all(place.at(store).join("x")).unwrap();
    let mut file = place.file();
    for expected in [Written::Changed, Written::Unchanged] {
        let report = file.reconciled(&set, now());
        assert_eq!(written(&report), expected);
        assert!(warnings(&report).contains("are not stored"), "{}", warnings(&report));
    }
    fs::remove_dir_all(place.at(store)).unwrap();
    let report = file.reconciled(&set, now());
    assert_eq!((written(&report), warnings(&report).as_str()), (Written::Unchanged, ""));
    assert_eq!(in_place(&place.file().reconciled(&CredentialSet::default(), now())), [(A, at_hour(12))]);
}

#[test]
fn an_unusable_file_gets_a_free_name_and_is_never_lost() {
    let set = desired(&[(A, "QVdTOm9uZQ==", 12)]);
    let place = Place::new();
    let names: Vec<_> = std::iter::once("config.json.invalid".to_owned())
        .chain((1..=9).map(|number| format!("config.json.invalid.{number}")))
        .collect();
    for (taken, name) in names.iter().enumerate() {
        put(&place.path(), &format!("not JSON {taken}"));
        let report = place.file().reconciled(&set, now());
        assert_eq!(written(&report), Written::Changed);
        assert_eq!(in_place(&report), [(A, at_hour(12))]);
        assert!(warnings(&report).contains(&format!("{name}`")), "{}", warnings(&report));
        assert_eq!(fs::read_to_string(place.at(name)).unwrap(), format!("not JSON {taken}"));
        assert_eq!(fs::metadata(place.at(name)).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(place.at(name)).unwrap();
        fs::create_dir_all(place.at(name).join("x")).unwrap();
    }
    // Whoever takes all of them is named, and what was there stays there.
    put(&place.path(), "not JSON");
    let report = place.file().reconciled(&set, now());
    let error = failed(&report);
    assert_eq!(error.remedy().diagnosis, Diagnosis::NotAFile);
    assert!(error.to_string().contains(".invalid"), "{error}");
    assert_eq!(place.text(), "not JSON");
    assert_eq!(place.names().len(), 1 + names.len(), "no temporary file is left");
    fs::remove_dir_all(place.at(&names[4])).unwrap();
    assert_eq!(written(&place.file().reconciled(&set, now())), Written::Changed);
}

#[test]
fn an_expiry_file_is_believed_within_bounds() {
    let place = Place::new();
    let store = place.at(".config.json.ecr-sidecar");
    let auth = STANDARD.encode("AWS:one");
    let known = || {
        let host: RegistryHost = A.parse().unwrap();
        let found = lookup::find(&place.path(), &host, now()).unwrap().unwrap();
        let recalled =
            in_place(&place.file().reconciled(&CredentialSet::default(), now())) == [(A, at_hour(12))];
        assert_eq!(recalled, found.end == End::Known(at_hour(12)));
        (recalled, found.end)
    };
    let _ = place.file().reconciled(&desired(&[(A, &auth, 12)]), now());
    assert_eq!(known(), (true, End::Known(at_hour(12))));
    let honest = fs::read_to_string(&store).unwrap();
    let expiry = (12 * 3600).to_string();
    assert!(honest.contains(&expiry), "{honest}");
    // the year 9999, the last second that there is, and one second too late
    for forged in ["253402300799".to_owned(), u64::MAX.to_string(), (18 * 3600 + 15 * 60 + 1).to_string()] {
        put(&store, &honest.replace(&expiry, &forged));
        assert!(matches!(known(), (false, End::Unknown { .. })), "{forged}");
    }
    put(&store, &honest);
    fs::set_permissions(&store, Permissions::from_mode(0o666)).unwrap();
    assert!(!known().0, "everybody may have written it");
    fs::set_permissions(&store, Permissions::from_mode(0o640)).unwrap();
    assert!(known().0);
    if rustix::process::geteuid().is_root() {
        chown(&store, Some(NOBODY), None).unwrap();
        assert!(!known().0, "another user's");
        // A consumer, for whom both files are another user's: the sidecar's.
        chown(place.path(), Some(NOBODY), None).unwrap();
        let host: RegistryHost = A.parse().unwrap();
        let found = lookup::find(&place.path(), &host, now()).unwrap().unwrap();
        assert_eq!(found.end, End::Known(at_hour(12)));
    }
}

/// The name of a credential store is shown: docker asks that program. It is no place for a secret.
fn config() -> impl Strategy<Value = String> {
    let store = |name| format!("\"credsStore\":\"{name}\"");
    json().prop_map(move |text| text.replace(&store(CANARY), &store("desktop")))
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("{}".to_owned()),
        Just("[]".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        Just(format!("\"{CANARY}\"")),
        Just(format!("{{\"auth\":\"{CANARY}\"}}")),
        Just(format!("{{\"auth\":\"{}\"}}", STANDARD.encode(format!("AWS:{CANARY}")))),
        Just(format!("{{\"auth\":\"{}\"}}", STANDARD.encode(format!("me:{CANARY}")))),
        Just(format!("{{\"username\":\"AWS\",\"password\":\"{CANARY}\"}}")),
        Just(format!("{{\"identitytoken\":\"{CANARY}\",\"auth\":7}}")),
        Just("1e999".to_owned()),
        Just("\"\\ud800\"".to_owned()),
    ];
    let key = prop_oneof![
        Just("auths".to_owned()),
        Just("credHelpers".to_owned()),
        Just("credsStore".to_owned()),
        Just(A.to_owned()),
        Just(format!("https://{A}")),
        Just(format!("{A}/app")),
        Just(A.to_uppercase()),
        Just("ghcr.io".to_owned()),
        Just(String::new()),
        Just("\\u0000\\u202e".to_owned()),
    ];
    leaf.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec((key.clone(), inner.clone()), 0..5).prop_map(|entries| {
                let entries: Vec<_> =
                    entries.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
            proptest::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever the file was: ours is in it afterwards, another host's entry still is, and nothing of it is shown.
    #[test]
    fn no_existing_file_is_more_than_the_merge_can_take(
        content in prop_oneof![
            3 => config().prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..200),
            1 => config().prop_map(|text| text.as_bytes()[..text.len() / 2].to_vec()),
        ],
    ) {
        let place = Place::new();
        File::create(place.path()).unwrap().write_all(&content).unwrap();
        put(&place.at(".config.json.ecr-sidecar"), &String::from_utf8_lossy(&content));
        let other = |text: &str| Some(Document::parse(text).ok()?.auths.get("ghcr.io")?.get().to_owned());
        let before = std::str::from_utf8(&content).ok().and_then(other);
        let mut file = place.file();
        file.check_path().unwrap();
        let report = file.reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now());
        prop_assert_eq!(written(&report), Written::Changed);
        let shown = format!("{report:?} {}", warnings(&report));
        prop_assert!(!shown.contains(CANARY));
        let text = place.text();
        let auth = Document::parse(&text).unwrap().auth_of(A).map(|auth| auth.into_owned());
        prop_assert_eq!(auth.as_deref(), Some("QVdTOm9uZQ=="));
        if before.is_some() {
            prop_assert_eq!(other(&text), before);
        }
        if place.at("config.json.invalid").exists() {
            prop_assert_eq!(fs::read(place.at("config.json.invalid")).unwrap(), content);
        }
        prop_assert_eq!(written(&file.reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now())), Written::Unchanged);
    }
}

/// Blocking at any of these would be for ever.
#[test]
fn a_reader_of_the_file_waits_for_no_fifo() {
    let place = Place::new();
    let host: RegistryHost = A.parse().unwrap();
    fifo(&place.path());
    assert!(lookup::find(&place.path(), &host, now()).is_err());
    fs::remove_file(place.path()).unwrap();
    let _ = place.file().reconciled(&desired(&[(A, &STANDARD.encode("AWS:one"), 12)]), now());
    let store = place.at(".config.json.ecr-sidecar");
    fs::remove_file(&store).unwrap();
    fifo(&store);
    assert!(matches!(lookup::find(&place.path(), &host, now()).unwrap().unwrap().end, End::Unknown { .. }));
}
