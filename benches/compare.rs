//! What it costs to have this program: start-up next to the programs a user would pick instead, size, memory
//! and idle CPU, all in one run against the emulated AWS.
//!
//! `cargo bench --bench compare` (add `-- --idle 10` for a shorter idle measurement). Times are the best and
//! the median of many starts, taken in turn; only ratios mean anything on a shared machine.

mod measure;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use measure::{AWS, Aws, HOST, Outcome, SIDECAR, kib, on_cpu, play_aws, report, variables};
use test_support::{Sidecar, http_get, pause, program, release_program, wait_for};

/// What the program before left behind, such as sockets to close, is over after this time.
const SETTLE: Duration = Duration::from_millis(5);
/// Threads that have written a file are kept for 10 s (tokio's `thread_keep_alive`).
const THREADS_END: Duration = Duration::from_secs(12);
const ROUNDS: usize = 60;
const ROUNDS_OF_SLOW_PROGRAMS: usize = 5;

fn main() -> Outcome<()> {
    let arguments: Vec<_> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == AWS) {
        return play_aws();
    }
    let idle = arguments.iter().position(|argument| argument == "--idle");
    let idle = idle.and_then(|index| arguments.get(index + 1)).map_or(Ok(60), |seconds| seconds.parse())?;
    release_program();
    let emulator = Aws::start()?;
    // Memory-backed like the volume of a pod, so that no disk is measured.
    let folder = tempfile::Builder::new().tempdir_in(if Path::new("/dev/shm").is_dir() {
        "/dev/shm"
    } else {
        "/tmp"
    })?;
    start_up(&emulator, folder.path())?;
    println!();
    pull_of_a_node(&emulator, folder.path())?;
    report("release binary", fs::metadata(SIDECAR)?.len() as f64 / 1e6, "MB", 13.0);
    cost_of_running(&emulator, folder.path(), Duration::from_secs(idle))
}

/// Start to written file, or to printed credential.
fn start_up(emulator: &Aws, folder: &Path) -> Outcome<()> {
    let file = folder.join("config.json");
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    // On a disk like an image's, both written alike: how a linker left its file in the page cache is not measured.
    let installed = tempfile::tempdir()?;
    let install = |program: &Path, name| -> Outcome<PathBuf> {
        let copy = installed.path().join(name);
        fs::copy(program, &copy)?;
        Ok(copy)
    };
    let sidecar = install(Path::new(SIDECAR), "ecr-sidecar")?;
    let helper = program("docker-credential-ecr-login");
    let helper = helper.map(|helper| install(&helper, "docker-credential-ecr-login")).transpose()?;
    let aws = program("aws");
    for round in 0..ROUNDS {
        let _ = fs::remove_file(&file); // the first round has none
        let mut once = command(&sidecar, emulator, folder);
        once.args(["once", "--log", "warn", "--registries", HOST, "--docker-config"]).arg(&file);
        times.entry("ecr-sidecar once").or_default().push(millis(once, "")?);
        if let Some(helper) = &helper {
            let mut get = command(helper, emulator, folder);
            get.arg("get").env("AWS_ECR_DISABLE_CACHE", "true");
            times.entry("docker-credential-ecr-login get").or_default().push(millis(get, HOST)?);
        }
        if let Some(aws) = aws.as_ref().filter(|_| round < ROUNDS_OF_SLOW_PROGRAMS) {
            let mut password = command(aws, emulator, folder);
            password.args(["ecr", "get-login-password"]);
            match millis(password, "") {
                Ok(time) => times.entry("aws ecr get-login-password").or_default().push(time),
                // A launcher that needs the user's own home folder cannot be measured in another.
                Err(error) if round == 0 => println!("SKIPPED the AWS CLI: {error}"),
                Err(_) => {}
            }
        }
    }
    println!("{:<36}{:>10}{:>11}{:>10}", "time to a credential", "best ms", "median ms", "compared");
    times.values_mut().for_each(|times| times.sort_by(f64::total_cmp));
    let ours = times["ecr-sidecar once"][0];
    for (name, times) in &times {
        let (best, median) = (times[0], times[times.len() / 2]);
        println!("{name:<36}{best:>10.2}{median:>11.2}{:>9.1}x", best / ours);
    }
    Ok(())
}

/// What a pull of the kubelet waits for, when the token is in the cache.
fn pull_of_a_node(emulator: &Aws, folder: &Path) -> Outcome<()> {
    let request = format!(
        r#"{{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderRequest","image":"{HOST}/app:1.0"}}"#
    );
    let mut times = Vec::new();
    for _ in 0..=ROUNDS {
        let mut provider = command(Path::new(SIDECAR), emulator, folder);
        provider.arg("kubelet-credential-provider");
        times.push(millis(provider, &request)?);
    }
    times.remove(0); // it has fetched the token
    times.sort_by(f64::total_cmp);
    report("a kubelet's pull, best", times[0], "ms", 10.0);
    report("a kubelet's pull, median", times[times.len() / 2], "ms", 10.0);
    Ok(())
}

/// Memory at its peak with TLS to AWS, and CPU when nothing happens.
fn cost_of_running(emulator: &Aws, folder: &Path, idle: Duration) -> Outcome<()> {
    let file = folder.join("running.json");
    let port = test_support::free_port();
    let bundle = system_bundle_with(&emulator.ca_file, folder)?;
    let sidecar = Sidecar::spawn(Path::new(SIDECAR), |run| {
        run.args(["run", "--registries", HOST, "--docker-config"]).arg(&file);
        run.args(["--health-listen", &format!("127.0.0.1:{port}")]).envs(variables(&emulator.https_endpoint));
        run.env("AWS_CA_BUNDLE", &bundle);
    });
    let address = ([127, 0, 0, 1], port).into();
    wait_for("readiness", Duration::from_secs(20), || {
        http_get(address, "/readyz").ok().filter(|(status, _)| *status == 200)
    });
    let pid = sidecar.pid();
    // A thread that ends takes its time with it.
    pause(THREADS_END);
    let before = on_cpu(pid)?;
    pause(idle);
    let spent = on_cpu(pid)?.saturating_sub(before).as_secs_f64() * 1e3 * 60.0 / idle.as_secs_f64();
    report("peak resident, TLS", kib(pid, "VmHWM:")? / 1024.0, "MiB", 10.0);
    report("anonymous part of it now", kib(pid, "RssAnon:")? / 1024.0, "MiB", f64::NAN);
    report("idle CPU a minute", spent, "ms", 10.0);
    Ok(())
}

fn command(program: &Path, emulator: &Aws, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.envs(variables(&emulator.endpoint)).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn millis(mut command: Command, input: &str) -> Outcome<f64> {
    pause(SETTLE);
    let start = Instant::now();
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let status = child.wait()?;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    if status.success() {
        Ok(millis)
    } else {
        Err(format!("{} ended with {status}", command.get_program().display()).into())
    }
}

/// A bundle of the size that a pod has, with the emulator's authority in it.
fn system_bundle_with(ca: &Path, folder: &Path) -> Outcome<PathBuf> {
    let mut bundle = fs::read("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    bundle.extend(fs::read(ca)?);
    let path = folder.join("bundle.pem");
    fs::File::create(&path)?.write_all(&bundle)?;
    Ok(path)
}
