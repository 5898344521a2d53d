mod faults;
mod volume;

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tempfile::TempDir;

use super::{lookup::End, *};
use crate::{
    docker_config::Document,
    failure::{Diagnose, diagnosis::Diagnosis},
    secret::Secret,
};

const A: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const B: &str = "public.ecr.aws";

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn path(&self) -> PathBuf {
        self.at("config.json")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn file(&self) -> DockerConfigFile {
        file_at(self.path(), None)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != ".config.json.ecr-sidecar").collect();
        names.sort();
        names
    }
}

impl DockerConfigFile {
    /// With its base as it is now.
    fn reconciled(&mut self, desired: &CredentialSet, now: SystemTime) -> Report {
        let base = self.settings.base.clone().map(|path| Base::new(path).read_now());
        self.reconcile(base, desired, now)
    }
}

fn file_at(path: PathBuf, base: Option<PathBuf>) -> DockerConfigFile {
    DockerConfigFile::new(DockerConfigSettings { path, mode: FileMode::default(), group: None, base })
}

fn put(path: &Path, content: &str) {
    File::create(path).unwrap().write_all(content.as_bytes()).unwrap();
}

/// Hosts with the text of their `auth` and the hour at which it expires.
fn desired(current: &[(&str, &str, u64)]) -> CredentialSet {
    let token = |auth: &str, hour: u64| Token {
        auth: Secret::new(auth.to_owned()),
        obtained_at: SystemTime::UNIX_EPOCH,
        expires_at: at_hour(hour),
    };
    let current = current
        .iter()
        .map(|(host, auth, hour)| (host.parse().unwrap(), Arc::new(token(auth, *hour))))
        .collect();
    CredentialSet { current, ..CredentialSet::default() }
}

fn at_hour(hour: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(hour * 3600)
}

/// The time of every reconcile.
fn now() -> SystemTime {
    at_hour(6)
}

fn version(path: &Path) -> Option<Version> {
    Target::open(path).unwrap().version().unwrap()
}

fn in_place(report: &Report) -> Vec<(&str, SystemTime)> {
    report.in_place.iter().map(|(host, expiry)| (host.as_str(), *expiry)).collect()
}

fn warnings(report: &Report) -> String {
    report.warnings.iter().map(|it| it.message.as_str()).collect::<Vec<_>>().join("\n")
}

fn written(report: &Report) -> Written {
    *report.result.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

fn failed(report: &Report) -> &DockerConfigError {
    report.result.as_ref().expect_err("it should have failed")
}

#[test]
fn what_is_right_is_not_written() {
    let place = Place::new();
    let mut file = place.file();
    let set = desired(&[(A, "QVdTOm9uZQ==", 12)]);
    let report = file.reconciled(&set, now());
    assert_eq!(written(&report), Written::Changed);
    assert_eq!(in_place(&report), [(A, at_hour(12))]);
    assert_eq!(place.text(), format!("{{\"auths\":{{\"{A}\":{{\"auth\":\"QVdTOm9uZQ==\"}}}}}}"));
    let before = version(&place.path());

    // neither the same process nor the next one
    for file in [&mut file, &mut place.file()] {
        let report = file.reconciled(&set, now());
        assert_eq!(written(&report), Written::Unchanged);
        assert_eq!(in_place(&report), [(A, at_hour(12))]);
        assert_eq!(version(&place.path()), before);
    }
    assert_eq!(place.names(), ["config.json"]);
    assert_eq!(file.watched(), (place.path(), vec![]));
}

/// Killed while AWS is away, and started again: what is in the file is still good, and is reported so.
#[test]
fn a_successor_knows_the_credentials_it_finds() {
    let place = Place::new();
    let _ = place.file().reconciled(&desired(&[(A, "AWS:a", 5), (B, "AWS:b", 6)]), now());
    let nothing_yet = CredentialSet::default();
    let mut successor = place.file();
    assert_eq!(in_place(&successor.reconciled(&nothing_yet, now())), [(A, at_hour(5)), (B, at_hour(6))]);
    // one is renewed, the other is left as it was
    let one = CredentialSet { awaited: [B.parse().unwrap()].into(), ..desired(&[(A, "AWS:c", 17)]) };
    assert_eq!(in_place(&successor.reconciled(&one, now())), [(A, at_hour(17)), (B, at_hour(6))]);
    assert_eq!(in_place(&place.file().reconciled(&nothing_yet, now())), [(A, at_hour(17)), (B, at_hour(6))]);

    // a credential that no process of ours has written is not known
    let edited = place.text().replace("AWS:b", "AWS:x");
    put(&place.path(), &edited);
    assert_eq!(in_place(&place.file().reconciled(&nothing_yet, now())), [(A, at_hour(17))]);

    // without the store, or with a broken one, nothing is known and nothing else is wrong
    put(&place.at(".config.json.ecr-sidecar"), "{");
    let mut forgetful = place.file();
    assert_eq!(in_place(&forgetful.reconciled(&nothing_yet, now())), []);
    assert_eq!(in_place(&forgetful.reconciled(&desired(&[(A, "AWS:d", 29)]), now())), [(A, at_hour(29))]);
}

/// The entry of a registry that left the configuration while no process ran is no one's to renew: it is not reported as
/// one of ours that expires.
#[test]
fn what_is_left_of_another_registry_is_not_ours_to_renew() {
    let place = Place::new();
    let _ = place.file().reconciled(&desired(&[(A, "AWS:a", 12), (B, "AWS:b", 7)]), now());
    let report = place.file().reconciled(&desired(&[(A, "AWS:a", 12)]), now());
    assert_eq!(in_place(&report), [(A, at_hour(12))]);
    assert!(place.text().contains(B));
}

#[test]
fn who_may_read_the_file_may_read_its_expiries() {
    let place = Place::new();
    let path = place.at(".config.json.ecr-sidecar");
    let shown =
        |path: &Path| fs::metadata(path).map(|metadata| (metadata.mode() & 0o7777, metadata.gid())).unwrap();
    let _ = place.file().reconciled(&desired(&[(A, "AWS:a", 5)]), now());
    assert_eq!(shown(&path), shown(&place.path()));
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("AWS:a") && !text.contains("AWS"), "{text}");

    // a store of an older version, for its owner alone, next to a file with another mode
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let settings = DockerConfigSettings { mode: "0644".parse().unwrap(), ..place.file().settings };
    let _ = DockerConfigFile::new(settings).reconciled(&desired(&[(A, "AWS:a", 5)]), now());
    assert_eq!(shown(&path).0, 0o644);
    assert_eq!(shown(&path), shown(&place.path()));
}

#[test]
fn a_reader_finds_a_token_and_its_end() {
    let place = Place::new();
    let host = |text: &str| text.parse::<RegistryHost>().unwrap();
    let found = |name: &str| lookup::find(&place.path(), &host(name), now()).unwrap();
    assert_eq!(found(A), None); // no file
    let [one, two] = ["AWS:one", "AWS:two"].map(|text| STANDARD.encode(text));
    let _ = place.file().reconciled(&desired(&[(A, &one, 5)]), now());
    let held = found(A).unwrap();
    assert_eq!((held.auth.expose(), held.end), (&one, End::Known(at_hour(5))));
    assert_eq!(found(B), None);

    // put there by another process: its expiry is unknown
    let foreign = STANDARD.encode("somebody:x");
    put(
        &place.path(),
        &format!(r#"{{"auths": {{"{A}": {{"auth": "{two}"}}, "{B}": {{"auth": "{foreign}"}}}}}}"#),
    );
    let held = found(A).unwrap();
    let changed_at = fs::metadata(place.path()).unwrap().modified().unwrap();
    assert_eq!((held.auth.expose(), held.end), (&two, End::Unknown { changed_at }));
    assert_eq!(found(B), None); // not of ECR

    put(&place.path(), "hunter2");
    let error = lookup::find(&place.path(), &host(A), now()).unwrap_err().to_string();
    assert!(error.contains("is not a JSON object") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_wrong_mode_alone_is_corrected() {
    let place = Place::new();
    let mut file = place.file();
    let set = desired(&[(A, "QVdTOm9uZQ==", 12)]);
    file.reconciled(&set, now());
    fs::set_permissions(place.path(), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(written(&file.reconciled(&set, now())), Written::Changed);
    assert_eq!(fs::metadata(place.path()).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn nothing_to_say_is_not_written() {
    let place = Place::new();
    assert_eq!(written(&place.file().reconciled(&desired(&[]), now())), Written::Unchanged);
    assert_eq!(place.names(), [""; 0]);
    put(&place.path(), "not JSON");
    let report = place.file().reconciled(&desired(&[]), now());
    assert_eq!(written(&report), Written::Unchanged);
    assert_eq!(place.text(), "not JSON");
}

#[test]
fn a_deleted_or_edited_file_is_put_back() {
    let place = Place::new();
    let mut file = place.file();
    let set = desired(&[(A, "QVdTOm9uZQ==", 12)]);
    file.reconciled(&set, now());
    let right = place.text();
    fs::remove_file(place.path()).unwrap();
    assert_eq!(written(&file.reconciled(&set, now())), Written::Changed);
    put(&place.path(), "{\"auths\":{}}");
    assert_eq!(written(&file.reconciled(&set, now())), Written::Changed);
    assert_eq!(place.text(), right);
}

#[test]
fn a_missing_directory_is_made() {
    let place = Place::new();
    let path = place.at("a/b/config.json");
    let mut file = file_at(path.clone(), None);
    file.check_path().unwrap();
    assert!(!place.at("a").exists(), "a check changes nothing");
    assert_eq!(written(&file.reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now())), Written::Changed);
    assert!(path.exists());
}

#[test]
fn the_retired_leave_the_file() {
    let place = Place::new();
    let mut file = place.file();
    file.reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12), (B, "QVdTOnR3bw==", 13)]), now());
    let mut set = desired(&[(B, "QVdTOnR3bw==", 13)]);
    set.retired = [A.parse().unwrap()].into();
    let report = file.reconciled(&set, now());
    assert_eq!(in_place(&report), [(B, at_hour(13))]);
    assert!(!place.text().contains(A));
    set = CredentialSet {
        retired: [A.parse().unwrap(), B.parse().unwrap()].into(),
        ..CredentialSet::default()
    };
    assert_eq!(written(&file.reconciled(&set, now())), Written::Changed);
    assert_eq!(place.text(), "{\"auths\":{}}");
}

/// As CIFS and the like do, whatever is set.
#[test]
fn a_mode_that_the_file_system_imposes_is_reported_and_accepted() {
    let place = Place::new();
    let set = desired(&[(A, "QVdTOm9uZQ==", 12)]);
    let mut file = place.file();
    file.reconciled(&set, now());
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    let metadata = fs::metadata(place.path()).unwrap();
    let target = Target::open(&place.path()).unwrap();
    let warning = file.recheck_mode(&target, &metadata, metadata.gid()).unwrap();
    assert!(warning.message.contains("shows 0755") && warning.message.contains("for 0640"), "{warning:?}");
    assert_eq!(warning.remedy, Some(Diagnosis::ModeNotKept.into()));
    assert_eq!(written(&file.reconciled(&set, now())), Written::Unchanged, "it would never be as wanted");
}

#[test]
fn an_unusable_file_is_set_aside() {
    let large = " ".repeat(1 + crate::docker_config::LARGEST);
    let cases: [(&[u8], &str); 6] = [
        (b"{\"auths\":", "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b"{\"auths\":[]}", "its `auths` is not a JSON object"),
        (b"{} {}", "trailing characters"),
        (b"\xff\xfe{}", "it is not UTF-8 text"),
        (large.as_bytes(), "it is larger than 8 MiB"),
    ];
    let set = desired(&[(A, "QVdTOm9uZQ==", 12)]);
    for (content, reason) in cases {
        let place = Place::new();
        File::create(place.path()).unwrap().write_all(content).unwrap();
        let report = place.file().reconciled(&set, now());
        assert_eq!(written(&report), Written::Changed);
        assert!(warnings(&report).contains(reason), "{reason}: {}", warnings(&report));
        assert!(warnings(&report).contains("config.json.invalid`"));
        assert_eq!(fs::read(place.at("config.json.invalid")).unwrap(), content);
        assert_eq!(fs::metadata(place.at("config.json.invalid")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(in_place(&report), [(A, at_hour(12))]);
        assert_eq!(place.names(), ["config.json", "config.json.invalid"]);
        assert!(place.file().reconciled(&set, now()).warnings.is_empty());
    }
}

#[test]
fn an_empty_file_is_just_filled() {
    let place = Place::new();
    put(&place.path(), "");
    assert_eq!(warnings(&place.file().reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now())), "");
    assert_eq!(place.names(), ["config.json"]);
}

#[test]
fn a_symbolic_link_stays_and_its_target_is_replaced() {
    let place = Place::new();
    fs::create_dir(place.at("dotfiles")).unwrap();
    put(&place.at("dotfiles/docker.json"), "{}");
    symlink("dotfiles/docker.json", place.path()).unwrap();
    let set = desired(&[(A, "QVdTOm9uZQ==", 12)]);
    assert_eq!(written(&place.file().reconciled(&set, now())), Written::Changed);
    assert!(fs::symlink_metadata(place.path()).unwrap().is_symlink());
    assert!(fs::read_to_string(place.at("dotfiles/docker.json")).unwrap().contains(A));

    // a link to nothing gives way
    fs::remove_dir_all(place.at("dotfiles")).unwrap();
    assert_eq!(written(&place.file().reconciled(&set, now())), Written::Changed);
    assert!(fs::symlink_metadata(place.path()).unwrap().is_file());
}

#[test]
fn a_broken_base_keeps_its_last_entries() {
    let place = Place::new();
    let base = place.at("base.json");
    let mut file = file_at(place.path(), Some(base.clone()));
    assert_eq!(file.watched(), (place.path(), vec![base.clone()]));
    let set = desired(&[(A, "QVdTOm9uZQ==", 12)]);

    let report = file.reconciled(&set, now());
    assert!(warnings(&report).contains("it does not exist"), "{}", warnings(&report));
    assert_eq!(in_place(&report), [(A, at_hour(12))]);

    put(&base, "{\"auths\":{\"ghcr.io\":{\"auth\":\"bWU6c2VjcmV0\"}},\"x\":1}");
    assert_eq!(warnings(&file.reconciled(&set, now())), "");
    assert!(place.text().contains("ghcr.io") && place.text().contains("\"x\":1"));

    for broken in ["", "{\"auths\":3}", "{"] {
        if broken.is_empty() {
            fs::remove_file(&base).unwrap()
        } else {
            put(&base, broken)
        }
        fs::remove_file(place.path()).unwrap();
        let report = file.reconciled(&set, now());
        assert!(warnings(&report).contains("the entries that it had last are kept"), "{}", warnings(&report));
        assert!(place.text().contains("ghcr.io") && place.text().contains(A));
    }

    put(&base, "{}");
    assert_eq!(written(&file.reconciled(&set, now())), Written::Changed);
    assert!(!place.text().contains("ghcr.io") && !place.text().contains("\"x\":1"));
}

#[test]
fn the_base_alone_is_written_too() {
    let place = Place::new();
    put(&place.at("base.json"), "{\"auths\":{\"ghcr.io\":{\"auth\":\"bWU6c2VjcmV0\"}}}");
    let mut file = file_at(place.path(), Some(place.at("base.json")));
    assert_eq!(written(&file.reconciled(&desired(&[]), now())), Written::Changed);
    assert_eq!(place.text(), "{\"auths\":{\"ghcr.io\":{\"auth\":\"bWU6c2VjcmV0\"}}}");
}

#[test]
fn a_directory_is_rejected() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    put(&place.at("config.json/file"), "x");
    let error = place.file().check_path().unwrap_err();
    assert!(matches!(error, DockerConfigError::IsADirectory { .. }), "{error}");
    assert!(error.remedy().to_string().contains("config.json/config.json"));
    let report = place.file().reconciled(&desired(&[(A, "QVdTOm9uZQ==", 12)]), now());
    assert!(matches!(failed(&report), DockerConfigError::IsADirectory { .. }));
    assert!(matches!(
        file_at("/".into(), None).check_path().unwrap_err(),
        DockerConfigError::NoFileName { .. }
    ));
    assert!(matches!(
        file_at("/dev/null".into(), None).check_path().unwrap_err(),
        DockerConfigError::NotAFile { .. }
    ));
}

#[test]
fn a_thousand_hosts_are_written_once_a_rotation() {
    let place = Place::new();
    let hosts: Vec<_> = (0..1000).map(|n| format!("{n:012}.dkr.ecr.eu-west-1.amazonaws.com")).collect();
    let mut file = place.file();
    for token in ["QVdT", "QVdU"] {
        let auth = token.repeat(640);
        let set = desired(&hosts.iter().map(|host| (host.as_str(), auth.as_str(), 12)).collect::<Vec<_>>());
        for expected in [Written::Changed, Written::Unchanged] {
            assert_eq!(written(&file.reconciled(&set, now())), expected);
        }
    }
}

#[test]
fn two_writers_keep_each_others_entries() {
    let place = Place::new();
    let sets = [desired(&[(A, "QVdTOm9uZQ==", 12)]), desired(&[(B, "QVdTOnR3bw==", 13)])];
    std::thread::scope(|scope| {
        for set in &sets {
            let mut file = place.file();
            let path = place.path();
            scope.spawn(move || {
                for _ in 0..200 {
                    let report = file.reconciled(set, now());
                    assert!(
                        matches!(report.result, Ok(_) | Err(DockerConfigError::Contended { .. })),
                        "{:?}",
                        report.result
                    );
                    Document::parse(&fs::read_to_string(&path).unwrap()).unwrap();
                }
            });
        }
    });
    // Between the last check and the rename a change can be lost; the next reconciliation restores it.
    for set in &sets {
        written(&place.file().reconciled(set, now()));
    }
    let text = place.text();
    assert!(text.contains(A) && text.contains(B), "{text}");
    assert_eq!(place.names(), ["config.json"]);
}
