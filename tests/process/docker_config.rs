//! The docker config.json that the running sidecar keeps: put back, carried along, whole at any time.

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use ecr_emulator::{Service, Settings};
use serde_json::{Value, json};
use test_support::{
    Harness, Signal,
    files::{auth, config, mode, names, overwrite, replace, wait_auth},
    harness::{DEADLINE, HOST, configured_by},
    http, install, root,
    wait::spin_for,
    wait_for,
};

use crate::BINARY;

const FOREIGN: &str = "Zm9yZWlnbjpzZWNyZXQ="; // foreign:secret

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, DEADLINE, || holds().then_some(()));
}

/// A file that names registries and outputs, for `run_with_file`.
fn yaml(outputs: &[&str]) -> String {
    let outputs: String =
        outputs.iter().map(|output| format!("- {{type: docker-config, {output}}}\n")).collect();
    format!("registries: [{{host: {HOST}}}]\noutputs:\n{outputs}")
}

#[test]
fn whatever_happens_to_the_file_it_comes_back() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let file = harness.file();
    let folder = harness.at("out");
    let credential = wait_auth(&file, HOST);
    let forged = json!({"auths": {HOST: {"auth": FOREIGN}}}).to_string();

    type Harm<'a> = (&'a str, &'a dyn Fn());
    let harms: [Harm<'_>; 10] = [
        ("deleted", &|| fs::remove_file(&file).unwrap()),
        ("emptied", &|| drop(File::create(&file).unwrap())),
        ("edited in place", &|| overwrite(&file, &forged)),
        ("edited by rename", &|| replace(&file, &forged)),
        ("emptied of entries", &|| replace(&file, "{\"auths\":{}}")),
        ("garbled", &|| overwrite(&file, "}{")),
        ("closed to the group", &|| fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap()),
        ("opened to everyone", &|| fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap()),
        // It may be at work there still.
        ("its directory removed", &|| {
            wait_until("the directory gone", || fs::remove_dir_all(&folder).is_ok() || !folder.exists());
        }),
        ("its directory replaced", &|| {
            fs::rename(&folder, harness.at("before")).unwrap();
            fs::create_dir_all(&folder).unwrap(); // it may be there again
        }),
    ];
    for (harm, inflict) in harms {
        inflict();
        wait_until(&format!("the file back that was {harm}"), || {
            auth(&file, HOST).as_ref() == Some(&credential) && mode(&file) == 0o640
        });
        // Each of them is noticed again.
        sidecar.wait_status("the output in order", |status| status["outputs"][0]["last_error"].is_null());
    }
    assert_eq!(names(&folder), ["config.json"]);
    assert_eq!(harness.emulator.count(Service::Ecr), 1, "none of this concerns AWS");
    assert_eq!(sidecar.get("/readyz").0, 200);
}

/// Opened to everyone the moment that it has its name: faster than the sidecar can check what it has written.
#[test]
fn a_mode_that_another_process_sets_at_once_is_not_taken_for_that_of_the_file_system() {
    /// Fewer than make a conflict.
    const TIMES: usize = 15;
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    let file = harness.file();
    for time in 0..TIMES {
        spin_for(&format!("the mode back, time {time}"), DEADLINE, || (mode(&file) == 0o640).then_some(()));
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    }
    wait_until("the mode back", || mode(&file) == 0o640);
    assert_eq!(sidecar.count_log("does not keep the mode"), 0);
}

#[test]
fn a_file_that_is_no_docker_config_is_set_aside_and_reported() {
    let harness = Harness::new(BINARY);
    replace(&harness.file(), "not json");
    let sidecar = harness.run(|_| {});
    sidecar.wait_ready();
    assert!(auth(&harness.file(), HOST).is_some());
    assert_eq!(fs::read_to_string(harness.at("out/config.json.invalid")).unwrap(), "not json");
    sidecar.wait_log("was set aside as", DEADLINE);
}

#[test]
fn a_changed_base_is_merged_and_a_lost_one_keeps_its_last_entries() {
    let harness = Harness::new(BINARY);
    let base = harness.put("base/base.json", &json!({"auths": {"ghcr.io": {"auth": FOREIGN}}}).to_string());
    let file = harness.file();
    let sidecar =
        harness.run_with_file(&yaml(&[&format!("path: {}, base: {}", file.display(), base.display())]));
    sidecar.wait_ready();
    assert_eq!(auth(&file, "ghcr.io").as_deref(), Some(FOREIGN));
    let credential = auth(&file, HOST);

    replace(&base, &json!({"auths": {"docker.io": {"auth": FOREIGN}}, "psFormat": "x"}).to_string());
    wait_until("the new base", || auth(&file, "docker.io").is_some());
    let merged = config(&file).unwrap();
    assert_eq!(merged["psFormat"], "x");
    assert_eq!(auth(&file, "ghcr.io"), None, "what the base no longer has goes");
    assert_eq!(auth(&file, HOST), credential);

    fs::remove_file(&base).unwrap();
    sidecar.wait_log("the entries that it had last are kept", DEADLINE);
    assert_eq!(config(&file), Some(merged));
    assert_eq!(sidecar.get("/readyz").0, 200);

    replace(&base, "{}");
    wait_until("the emptied base", || auth(&file, "docker.io").is_none());
    assert_eq!(auth(&file, HOST), credential);
}

#[test]
fn what_is_not_ours_survives_rotations_and_what_would_win_over_us_goes() {
    let harness = Harness::new(BINARY);
    let foreign = json!({
        "auths": {
            "ghcr.io": {"auth": FOREIGN, "email": "a@example.com", "x": {"deep": [1, 2.50, null]}},
            "https://index.docker.io/v1/": {"identitytoken": "t"},
        },
        "credHelpers": {"gcr.io": "gcloud"},
        "HttpHeaders": {"X-Meta": "y"},
        "futureKey": [true, 12345678901234567890u64],
    });
    let mut before = foreign.clone();
    before["auths"][format!("https://{HOST}")] = json!({"auth": FOREIGN});
    before["credHelpers"][HOST] = json!("ecr-login");
    replace(&harness.file(), &before.to_string());

    let sidecar = harness.run(|_| {});
    let mut credentials = BTreeSet::new();
    for rotation in 0..3 {
        if rotation > 0 {
            sidecar.signal(Signal::HUP);
        }
        let credential = wait_for("another credential", DEADLINE, || {
            auth(&harness.file(), HOST).filter(|auth| !credentials.contains(auth))
        });
        let mut expected = foreign.clone();
        expected["auths"][HOST] = json!({"auth": credential});
        assert_eq!(config(&harness.file()), Some(expected), "rotation {rotation}");
        credentials.insert(credential);
        sidecar.wait_ready();
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 3);
}

#[test]
fn an_output_that_fails_delays_no_other_and_heals() {
    let harness = Harness::new(BINARY);
    let blocker = harness.put("blocker", "a file where a directory should be");
    let (good, bad) = (harness.file(), blocker.join("config.json"));
    let sidecar = harness
        .run_with_file(&yaml(&[&format!("path: {}", bad.display()), &format!("path: {}", good.display())]));
    let first = wait_auth(&good, HOST);
    sidecar.wait_status("two failures and a success", |status| {
        status["outputs"][0]["failed"].as_u64().unwrap() >= 2
            && status["outputs"][1]["in_place"][HOST].is_string()
    });
    let (code, body) = sidecar.get("/readyz");
    assert_eq!(code, 503);
    assert!(body.contains(&bad.display().to_string()) && body.contains("not a directory"), "{body}");
    assert!(!body.contains(&good.display().to_string()), "{body}");
    assert_eq!(sidecar.count_log("output not written"), 1, "edges, not noise");

    // It still follows what happens to its file and to the token.
    fs::remove_file(&good).unwrap();
    wait_until("the good file back", || auth(&good, HOST).as_ref() == Some(&first));
    sidecar.signal(Signal::HUP);
    wait_until("the next credential", || auth(&good, HOST).is_some_and(|auth| auth != first));

    fs::remove_file(&blocker).unwrap();
    sidecar.wait_ready();
    assert_eq!(auth(&bad, HOST), auth(&good, HOST));
    sidecar.wait_log("output in sync again", DEADLINE);
}

#[test]
fn a_directory_of_another_user_is_reported_with_its_owner_and_the_remedy() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    // Neither the folder nor the program's own place need be open to others.
    fs::set_permissions(harness.at("."), Permissions::from_mode(0o755)).unwrap();
    let own = harness.at("ecr-sidecar");
    install(BINARY, &own);
    for folder in ["out", "mine"] {
        fs::create_dir(harness.at(folder)).unwrap();
    }
    chown(harness.at("mine"), Some(65534), Some(65534)).unwrap();
    let file = harness.put(
        "ecr-sidecar.yaml",
        &yaml(&[
            &format!("path: {}", harness.file().display()),
            &format!("path: {}", harness.at("mine/config.json").display()),
        ]),
    );
    let sidecar = harness.spawn("setpriv", |command| {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&own).arg("run");
        configured_by(command, &file);
    });
    wait_auth(&harness.at("mine/config.json"), HOST);
    let line = sidecar.wait_log("output not written", DEADLINE);
    for part in ["uid 65534", "belongs to 0:0 with mode 0755", "runAsUser", "fsGroup"] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    chown(harness.at("out"), Some(65534), None).unwrap();
    sidecar.wait_ready();
}

#[test]
fn a_full_volume_keeps_the_old_file_and_readiness_until_its_expiry_and_recovers() {
    if !root() {
        return;
    }
    let harness =
        Harness::with(BINARY, Settings { token_lifetime: Duration::from_secs(15), ..Settings::default() });
    let sidecar = harness.run_with_mounts("mkdir out\nmount -t tmpfs -o size=64k none out", |_| {});
    sidecar.wait_ready();
    let file = sidecar.inside(&harness.file());
    let filler = sidecar.inside(&harness.at("out/filler"));
    fill(&filler);
    // A refresh in between would have been another file.
    let old = fs::read(&file).unwrap();
    let end = in_place_until(&sidecar.status());

    let line = sidecar.wait_log("output not written", DEADLINE); // at the next refresh
    for part in ["the volume is full", "free space", "emptyDir.sizeLimit"] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    let body = wait_for("the end of readiness", DEADLINE, || {
        assert_eq!(fs::read(&file).unwrap(), old);
        let (code, body) = sidecar.get("/readyz");
        assert!(code == 200 || now() >= end, "false before its time: {body}");
        (code == 503).then_some(body)
    });
    assert!(body.contains("expired at") && body.contains("the volume is full"), "{body}");
    assert_eq!(names(file.parent().unwrap()), ["config.json", "filler"], "no temporary file is left");

    fs::remove_file(filler).unwrap();
    sidecar.wait_ready();
    assert_ne!(fs::read(&file).unwrap(), old);
    sidecar.wait_log("output in sync again", DEADLINE);
}

fn fill(path: &Path) {
    let mut filler = File::create(path).unwrap();
    while filler.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
}

/// When the credential in the first output ends.
fn in_place_until(status: &Value) -> SystemTime {
    let end = status["outputs"][0]["in_place"][HOST].as_str().unwrap();
    end.parse::<jiff::Timestamp>().unwrap().into()
}

#[expect(clippy::disallowed_methods, reason = "an expiry is a time of day")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[test]
fn a_volume_that_turns_read_only_keeps_the_old_file_and_recovers() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    let sidecar = harness.run_with_mounts("mkdir out\nmount -t tmpfs none out", |_| {});
    sidecar.wait_ready();
    let file = sidecar.inside(&harness.file());
    let old = auth(&file, HOST);
    let out = harness.at("out");
    sidecar.in_its_mounts(&format!("mount -o remount,ro {}", out.display()));
    sidecar.signal(Signal::HUP);
    let line = sidecar.wait_log("output not written", DEADLINE);
    assert!(line.contains("mounted read-only") && line.contains("readOnly: true"), "{line}");
    assert_eq!(auth(&file, HOST), old);
    assert_eq!(sidecar.get("/readyz").0, 200, "the old credential is as good as before");

    sidecar.in_its_mounts(&format!("mount -o remount,rw {}", out.display()));
    wait_until("the new credential", || auth(&file, HOST).is_some_and(|auth| Some(auth) != old));
}

#[test]
fn a_read_only_volume_delays_no_other_output() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    let good = harness.at("good/config.json");
    let file = harness.put(
        "ecr-sidecar.yaml",
        &yaml(&[&format!("path: {}", harness.file().display()), &format!("path: {}", good.display())]),
    );
    let mounts = "mkdir out\nmount -t tmpfs -o ro none out";
    let sidecar = harness.run_with_mounts(mounts, |command| configured_by(command, &file));
    wait_auth(&good, HOST);
    let line = sidecar.wait_log("output not written", DEADLINE);
    assert!(line.contains("mounted read-only"), "{line}");
    sidecar.in_its_mounts(&format!("mount -o remount,rw {}", harness.at("out").display()));
    sidecar.wait_ready();
}

#[test]
fn a_single_file_mount_is_rejected_with_the_sentence_that_explains_it() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    let mounts = "mkdir out\necho {} > source\ntouch out/config.json\nmount --bind source out/config.json";
    let sidecar = harness.run_with_mounts(mounts, |_| {});
    assert_eq!(sidecar.wait_exit(DEADLINE).code(), Some(64));
    let said = sidecar.stderr();
    for part in [
        harness.file().to_str().unwrap(),
        "is itself a mount point",
        "readers would keep the old file",
        "subPath",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 0);
    assert_eq!(fs::read_to_string(harness.at("source")).unwrap(), "{}\n");
}

#[test]
fn a_path_that_can_never_be_a_file_is_rejected() {
    let harness = Harness::new(BINARY);
    fs::create_dir_all(harness.file().join("x")).unwrap();
    for command_name in ["run", "once"] {
        let sidecar = harness.spawn(BINARY, |command| {
            command.arg(command_name);
        });
        assert_eq!(sidecar.wait_exit(DEADLINE).code(), Some(64), "{command_name}");
        let said = sidecar.stderr();
        assert!(said.contains("is a directory, not a file"), "{said}");
        assert!(said.contains(harness.file().join("config.json").to_str().unwrap()), "the remedy: {said}");
    }
    assert_eq!(names(&harness.file()), ["x"]);
}

#[test]
fn mode_and_group_do_not_depend_on_the_umask() {
    for umask in ["000", "022", "077", "777"] {
        for (wanted, bits) in [(None, 0o640), (Some("0600"), 0o600), (Some("0644"), 0o644)] {
            let harness = Harness::new(BINARY);
            fs::create_dir(harness.at("out")).unwrap(); // with the umask 777 only root could use its own
            let sidecar = harness.spawn("sh", |command| {
                command.args(["-c", &format!("umask {umask}; exec {BINARY} once")]);
                command.envs(wanted.map(|mode| ("ECR_SIDECAR_FILE_MODE", mode)));
            });
            assert!(sidecar.wait_exit(DEADLINE).success());
            assert_eq!(mode(&harness.file()), bits, "umask {umask}, {wanted:?}");
        }
    }
}

#[test]
fn the_file_gets_the_group_of_a_setgid_directory_or_the_one_that_is_configured() {
    if !root() {
        return;
    }
    let harness = Harness::new(BINARY);
    fs::create_dir(harness.at("out")).unwrap();
    chown(harness.at("out"), None, Some(1234)).unwrap();
    fs::set_permissions(harness.at("out"), Permissions::from_mode(0o2775)).unwrap();
    let other = harness.at("other/config.json");
    let sidecar = harness.run_with_file(&yaml(&[
        &format!("path: {}", harness.file().display()),
        &format!("path: {}, group: 4321", other.display()),
    ]));
    sidecar.wait_ready();
    let group = |path: &Path| fs::metadata(path).unwrap().gid();
    assert_eq!((group(&harness.file()), mode(&harness.file())), (1234, 0o640));
    assert_eq!((group(&other), mode(&other)), (4321, 0o640));
    chown(harness.file(), None, Some(0)).unwrap();
    wait_until("the group back", || group(&harness.file()) == 1234);
}

/// A base of some size, so that a write takes its time, and whose number shows in the output.
fn numbered_base(number: usize) -> String {
    let mut auths: serde_json::Map<_, _> =
        (0..1000).map(|n| (format!("r{n}.example.com"), json!({"auth": FOREIGN}))).collect();
    auths.insert("number.example.com".into(), json!({"number": number, "auth": FOREIGN}));
    json!({ "auths": auths }).to_string()
}

/// Asks the registry whether the credential is one that AWS gave.
fn is_admitted(registry: &str, auth: &str) -> bool {
    let headers = [("Authorization", &*format!("Basic {auth}"))];
    http::get_with(http::address(registry), "/v2/", &headers).code == 200
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_file_with_a_good_credential() {
    const KILLS: usize = 200;
    let harness = Harness::new(BINARY);
    let registry = harness.emulator.add_registry("eu-west-1");
    let base = harness.put("base.json", &numbered_base(0));
    let file = harness.file();
    let yaml = yaml(&[&format!("path: {}, base: {}", file.display(), base.display())]);
    let is_temp = |name: &String| name.starts_with(".config.json.ecr-sidecar-");
    let temps = || names(&harness.at("out")).into_iter().filter(is_temp).count();

    harness.run_with_file(&yaml).wait_ready();
    let number = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let mut left_over = 0;
    thread::scope(|scope| {
        // Something to write at any time.
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let next = number.fetch_add(1, Ordering::AcqRel) + 1;
                let seen =
                    || config(&file).map(|config| config["auths"]["number.example.com"]["number"].clone());
                let before = seen();
                replace(&base, &numbered_base(next));
                // The file of a dead sidecar stays as it is.
                wait_until("a change or the end", || seen() != before || over.load(Ordering::Acquire));
            }
        });
        for kill in 0..KILLS {
            let sidecar = harness.run_with_file(&yaml);
            // At its first write, amid a write, or just after one.
            let moment = fastrand::usize(0..3);
            if moment > 0 {
                sidecar.wait_log("output written", DEADLINE);
                let inode = || fs::metadata(&file).unwrap().ino();
                let before = inode();
                spin_until(|| if moment == 1 { temps() > 0 } else { inode() != before });
            } else {
                spin_until(|| temps() > 0);
            }
            (0..fastrand::u32(0..20_000)).for_each(|_| std::hint::spin_loop());
            sidecar.signal(Signal::KILL);
            sidecar.wait_exit(DEADLINE);
            left_over += usize::from(temps() > 0);
            let auth = auth(&file, HOST).unwrap_or_else(|| panic!("kill {kill}: no whole file"));
            assert!(is_admitted(&registry, &auth), "kill {kill}: a credential that AWS did not give");
            assert_eq!(mode(&file), 0o640, "kill {kill}");
        }
        over.store(true, Ordering::Release);
    });
    assert!(left_over > 0, "none of the kills came amid a write: this shows nothing");

    let sidecar = harness.run_with_file(&yaml);
    sidecar.wait_ready();
    assert_eq!(names(&harness.at("out")), ["config.json"], "what {left_over} kills left is gone");
}

/// Looks as often as it can; a missed moment is not waited for for long.
fn spin_until(mut holds: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
    }
}

#[test]
fn a_reader_in_a_tight_loop_never_sees_a_torn_missing_empty_or_wrongly_moded_file() {
    const READS: usize = 10_000;
    const REWRITES: usize = 300;
    let harness = Harness::new(BINARY);
    let base = harness.put("base.json", &numbered_base(0));
    let file = harness.file();
    let sidecar =
        harness.run_with_file(&yaml(&[&format!("path: {}, base: {}", file.display(), base.display())]));
    sidecar.wait_ready();
    let credential = auth(&file, HOST).unwrap();
    let over = AtomicBool::new(false);
    let (reads, seen) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut seen) = (0, BTreeSet::new());
            while reads < READS || !over.load(Ordering::Acquire) {
                let mut opened = File::open(&file).expect("a file at any time");
                let metadata = opened.metadata().unwrap();
                let mut text = String::new();
                opened.read_to_string(&mut text).unwrap();
                assert_eq!(metadata.mode() & 0o7777, 0o640);
                assert_eq!(metadata.len(), text.len() as u64);
                let config: Value = serde_json::from_str(&text).expect("a whole file");
                assert_eq!(config["auths"][HOST]["auth"], credential);
                let auths = &config["auths"];
                assert_eq!(auths.as_object().unwrap().len(), 1002);
                seen.insert(auths["number.example.com"]["number"].as_u64().unwrap());
                reads += 1;
            }
            (reads, seen.len())
        });
        for number in 1..=REWRITES {
            replace(&base, &numbered_base(number));
            wait_until("the next file", || {
                assert!(!reader.is_finished(), "the reader has seen something wrong");
                config(&file).unwrap()["auths"]["number.example.com"]["number"] == number
            });
        }
        over.store(true, Ordering::Release);
        reader.join().unwrap()
    });
    assert!(reads >= READS);
    assert!(seen > REWRITES / 2, "the reader saw {seen} of {REWRITES} files");
    assert_eq!(names(&harness.at("out")), ["config.json"]);
}
