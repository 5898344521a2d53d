//! How the process starts, listens to signals, and ends, whatever hangs.

use std::{fs, net::TcpListener};

use ecr_emulator::{Fault, Service};
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use test_support::{
    Harness, Signal,
    files::{auth, names, wait_auth},
    harness::{DEADLINE, HOST, SIBLING, configured_by},
    root, skip, wait_for,
};

use crate::BINARY;

/// Longer than the end takes, shorter than the 15 seconds that a call to AWS may take.
const END: std::time::Duration = std::time::Duration::from_secs(10);

/// A volume that gives no answer: a FUSE mount that no process serves, as long as the process has file 3.
pub(crate) const HANGING_MOUNT: &str = "exec 3<>/dev/fuse\n\
    mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none";

const STOPS: [Signal; 2] = [Signal::TERM, Signal::INT];

pub(crate) fn fuse() -> bool {
    if !root() {
        return false;
    }
    let there = fs::exists("/dev/fuse").unwrap_or(false);
    if !there {
        skip("a volume that hangs takes /dev/fuse");
    }
    there
}

#[test]
fn sigterm_and_sigint_end_it_with_status_0_and_leave_the_file() {
    for signal in STOPS {
        let harness = Harness::new(BINARY);
        let sidecar = harness.run(|_| {});
        sidecar.wait_ready();
        sidecar.signal(signal);
        assert_eq!(sidecar.wait_exit(END).code(), Some(0));
        assert!(auth(&harness.file(), HOST).is_some());
        assert_eq!(names(&harness.at("out")), ["config.json"]);
    }
}

#[test]
fn it_ends_while_aws_hangs() {
    for signal in STOPS {
        let harness = Harness::new(BINARY);
        harness.emulator.set_fault(Service::Ecr, Fault::Hang);
        let sidecar = harness.run(|_| {});
        wait_for("a call that hangs", DEADLINE, || (harness.emulator.count(Service::Ecr) > 0).then_some(()));
        assert_eq!(sidecar.get("/livez").0, 200);
        sidecar.signal(signal);
        assert_eq!(sidecar.wait_exit(END).code(), Some(0));
    }
}

#[test]
fn a_volume_that_hangs_from_the_start_holds_up_neither_health_nor_the_end() {
    if !fuse() {
        return;
    }
    for signal in STOPS {
        let harness = Harness::new(BINARY);
        fs::create_dir(harness.at("out")).unwrap();
        let sidecar = harness.run_with_mounts(&format!("{HANGING_MOUNT} out"), |_| {});
        assert_eq!(sidecar.get("/livez").0, 200);
        wait_for("a token", DEADLINE, || (harness.emulator.count(Service::Ecr) > 0).then_some(()));
        let (code, body) = sidecar.get("/readyz");
        assert!(code == 503 && body.contains(HOST), "{code} {body}");
        sidecar.signal(signal);
        assert_eq!(sidecar.wait_exit(END).code(), Some(0));
    }
}

#[test]
fn a_volume_that_begins_to_hang_is_reported_and_holds_up_neither_health_nor_the_end() {
    if !fuse() {
        return;
    }
    let harness = Harness::new(BINARY);
    let sidecar = harness.run_with_mounts("mkdir out", |_| {});
    sidecar.wait_ready();
    let mount = format!(
        "{HANGING_MOUNT} {}\necho mounted >&2\nexec sleep infinity 3<&3",
        harness.at("out").display()
    );
    let mount = test_support::Process::spawn(std::process::Command::new("nsenter").args([
        "--target",
        &sidecar.pid().to_string(),
        "--mount",
        "sh",
        "-e",
        "-c",
        &mount,
    ]));
    mount.wait_log("mounted", DEADLINE);
    sidecar.signal(Signal::HUP);
    // /readyz stays: what was in the file is not known to be gone.
    let status = sidecar.wait_status("the hanging output in the status", |status| {
        status["outputs"][0]["last_error"]["message"]
            .as_str()
            .is_some_and(|m| m.contains("has not responded"))
    });
    let remedy = &status["outputs"][0]["last_error"]["remedy"];
    assert!(remedy.as_str().unwrap().contains("check the volume"), "{remedy}");
    assert_eq!(sidecar.get("/livez").0, 200);
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.wait_exit(END).code(), Some(0));
    assert_eq!(sidecar.count_log("stopping with a write under way"), 1);
}

/// Both signals are there before it handles one, so that the first one's time to drain cannot be over by chance.
#[test]
fn a_second_signal_ends_it_at_once() {
    if !fuse() {
        return;
    }
    let harness = Harness::new(BINARY);
    fs::create_dir(harness.at("out")).unwrap();
    let sidecar = harness.run_with_mounts(&format!("{HANGING_MOUNT} out"), |_| {});
    sidecar.health();
    sidecar.signal(Signal::HUP);
    sidecar.wait_log("SIGHUP", DEADLINE); // it has started
    sidecar.signal(Signal::STOP);
    sidecar.signal(Signal::TERM);
    sidecar.signal(Signal::INT);
    sidecar.signal(Signal::CONT);
    assert_eq!(sidecar.wait_exit(END).code(), Some(0));
    assert_eq!(sidecar.count_log("\"stopping\""), 1);
    assert_eq!(sidecar.count_log("stopping with a write under way"), 0);
}

#[test]
fn as_pid_1_it_listens_to_every_signal() {
    if !root() {
        return;
    }
    for signal in STOPS {
        let harness = Harness::new(BINARY);
        let unshare = harness.spawn("unshare", |command| {
            command.args(["--pid", "--fork", "--kill-child", BINARY, "run"]);
        });
        unshare.wait_ready();
        let pid = unshare.pid();
        let child = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let child = child.trim();
        let namespaced = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
        let ids = namespaced.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        assert!(ids.ends_with("\t1"), "{ids}");
        let child = Pid::from_raw(child.parse().unwrap()).unwrap();

        kill_process(child, Signal::HUP).unwrap();
        unshare.wait_log("SIGHUP", DEADLINE);
        kill_process(child, signal).unwrap();
        assert_eq!(unshare.wait_exit(END).code(), Some(0));
    }
}

#[test]
fn sighup_asks_aws_once_more_and_publishes_the_answer() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run(|_| {});
    let first = wait_auth(&harness.file(), HOST);
    sidecar.wait_ready();
    assert_eq!(harness.emulator.count(Service::Ecr), 1);
    sidecar.signal(Signal::HUP);
    wait_for("another token in the file", DEADLINE, || {
        auth(&harness.file(), HOST).filter(|auth| *auth != first)
    });
    assert_eq!(harness.emulator.count(Service::Ecr), 2);
}

#[test]
fn a_health_port_that_is_taken_is_a_sentence_and_status_64() {
    let harness = Harness::new(BINARY);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let sidecar = harness.run(|command| {
        command.env("ECR_SIDECAR_HEALTH_LISTEN", &address);
    });
    assert_eq!(sidecar.wait_exit(END).code(), Some(64));
    let said = sidecar.stderr();
    for part in [address.as_str(), "in use", "health.listen", "ECR_SIDECAR_HEALTH_LISTEN"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert_eq!(harness.emulator.count(Service::Ecr), 0);
}

#[test]
fn the_first_line_shows_version_registries_identities_and_outputs() {
    let harness = Harness::new(BINARY);
    let sidecar = harness.run_with_file(&format!(
        "identities: {{billing: {{source: environment}}}}\n\
         registries: [{{host: {HOST}}}, {{host: public.ecr.aws, identity: billing}}]\n\
         outputs: [{{type: docker-config, path: {}}}]\n",
        harness.file().display()
    ));
    sidecar.wait_ready();
    let line: Value = serde_json::from_str(&sidecar.log_lines()[0]).unwrap();
    assert_eq!(line["message"], "ecr-sidecar starts");
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(line["registries"], format!("{HOST}, public.ecr.aws"));
    assert_eq!(line["identities"], "billing, default");
    assert_eq!(line["outputs"], format!("docker-config {}", harness.file().display()));
}

#[test]
fn off_a_terminal_every_line_is_json_and_only_edges_are_logged() {
    let harness = Harness::new(BINARY);
    harness.emulator.set_fault(Service::Ecr, Fault::Status(500));
    let sidecar = harness.run(|_| {});
    sidecar.wait_status("four failures in a row", |status| {
        status["tokens"][0]["failures_in_a_row"].as_u64().unwrap() >= 4
    });
    assert_eq!(sidecar.count_log("token refresh failed"), 1);
    harness.emulator.clear_faults();
    sidecar.wait_ready();
    sidecar.wait_log("ready: every required", DEADLINE);
    sidecar.signal(Signal::TERM);
    assert!(sidecar.wait_exit(END).success());

    let lines: Vec<Value> =
        sidecar.log_lines().iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let reported: Vec<_> = lines
        .iter()
        .map(|line| (line["level"].as_str().unwrap(), line["message"].as_str().unwrap()))
        .collect();
    assert_eq!(
        reported,
        [
            ("INFO", "ecr-sidecar starts"),
            ("WARN", "token refresh failed"),
            ("INFO", "token refreshed"),
            ("INFO", "output written"),
            ("INFO", "ready: every required registry has a credential in every output"),
            ("INFO", "stopping"),
        ]
    );
    assert!(lines.iter().all(|line| line["timestamp"].is_string()));
    assert!(lines[1]["remedy"].is_string() && lines[1]["next_attempt"].is_string(), "{}", lines[1]);
    assert!(lines[2]["failures_before"].as_u64().unwrap() >= 4, "{}", lines[2]);
}

/// The files of nine identities hang, more than ever were read at a time: the tenth has its token, and its refreshes.
#[test]
fn key_files_that_hang_are_reported_and_hold_up_no_other_identity() {
    if !fuse() {
        return;
    }
    let harness = Harness::new(BINARY);
    let mut file = "identities:\n".to_owned();
    let mut registries = format!("- {{host: {HOST}}}\n");
    for n in 0..9 {
        let key = harness.at(&format!("hung/key-{n}"));
        file += &format!(
            "  stuck-{n}: {{source: static, accessKeyIdFile: '{}', secretAccessKeyFile: /etc/hostname}}\n",
            key.display()
        );
        registries +=
            &format!("- {{host: 21098765432{n}.dkr.ecr.eu-west-1.amazonaws.com, identity: stuck-{n}}}\n");
    }
    file += &format!(
        "registries:\n{registries}outputs: [{{type: docker-config, path: '{}'}}]\n",
        harness.file().display()
    );
    let config = harness.put("ecr-sidecar.yaml", &file);
    fs::create_dir(harness.at("hung")).unwrap();
    let mounts = format!("{HANGING_MOUNT} hung");
    let sidecar = harness.run_with_mounts(&mounts, |command| configured_by(command, &config));
    wait_auth(&harness.file(), HOST);
    for n in 0..9 {
        sidecar.wait_log(&format!("hung/key-{n}: its volume does not respond within 5 s"), DEADLINE);
    }
    let calls = harness.emulator.count(Service::Ecr);
    sidecar.signal(Signal::HUP);
    wait_for("a refresh", DEADLINE, || (harness.emulator.count(Service::Ecr) > calls).then_some(()));
    assert_eq!(sidecar.get("/livez").0, 200);
    let (code, body) = sidecar.get("/readyz");
    assert!(code == 503 && body.contains(SIBLING) && !body.contains(HOST), "{code} {body}");
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.wait_exit(END).code(), Some(0));
}

/// The file is a link, as kubelet makes it: it changes to a pipe, to a good file, and to one on a volume that hangs.
#[test]
fn a_configuration_file_that_cannot_be_read_any_more_is_reported_and_holds_up_nothing() {
    if !fuse() {
        return;
    }
    let harness = Harness::new(BINARY);
    let text = |hosts: &str| {
        format!(
            "registries: [{hosts}]\noutputs: [{{type: docker-config, path: '{}'}}]\n",
            harness.file().display()
        )
    };
    let good = harness.put("good.yaml", &text(&format!("{{host: {HOST}}}")));
    fs::create_dir(harness.at("hung")).unwrap();
    let link = harness.at("ecr-sidecar.yaml");
    let point = |target: &std::path::Path| {
        std::os::unix::fs::symlink(target, harness.at("link")).unwrap();
        fs::rename(harness.at("link"), &link).unwrap();
    };
    point(&good);
    let sidecar = harness.run_with_mounts(&format!("{HANGING_MOUNT} hung"), |command| {
        configured_by(command, &link);
    });
    sidecar.wait_ready();
    let refreshes = || {
        let calls = harness.emulator.count(Service::Ecr);
        sidecar.signal(Signal::HUP);
        wait_for("a refresh", DEADLINE, || (harness.emulator.count(Service::Ecr) > calls).then_some(()));
        assert_eq!(sidecar.get("/livez").0, 200);
    };
    point(&harness.hanging_file("pipe"));
    sidecar.wait_log("a file that cannot be read: it is a FIFO, not a regular file", DEADLINE);
    refreshes();
    point(&harness.put("better.yaml", &text(&format!("{{host: {HOST}}}, {{host: {SIBLING}}}"))));
    wait_auth(&harness.file(), SIBLING);
    point(&harness.at("hung/config.yaml"));
    refreshes();
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.wait_exit(END).code(), Some(0));
}
