//! What it costs to have this program: start-up beside the programs a user would pick instead, size, memory
//! and idle CPU, all in one run against the emulated AWS.
//!
//! `cargo bench --bench compare` (add `-- --idle 10` for a shorter idle measurement). Times are the best and
//! the median of many starts, taken in turn; only ratios mean anything on a shared machine.
//!
//! What is measured is the binary of `cargo build --release`, which is made first: the one that cargo makes beside
//! a bench has the features of the tests' dependencies too.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ecr_emulator::{ACCESS_KEY_ID, Emulator, SECRET_ACCESS_KEY, Settings};
use test_support::{Sidecar, http_get, program, wait_for};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
/// Where cargo puts the release binary: `[profile.bench]` shares its folder.
const SIDECAR: &str = env!("CARGO_BIN_EXE_ecr-sidecar");
/// The argument by which this program plays AWS.
const AWS: &str = "--aws";
/// What the program before left behind, such as sockets to close, is over after this time.
const SETTLE: Duration = Duration::from_millis(5);
const ROUNDS: usize = 60;
const ROUNDS_OF_SLOW_PROGRAMS: usize = 5;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<_> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == AWS) {
        return play_aws();
    }
    let idle = arguments.iter().position(|argument| argument == "--idle");
    let idle = idle.and_then(|index| arguments.get(index + 1)).map_or(Ok(60), |seconds| seconds.parse())?;
    build_release()?;
    let emulator = Aws::start()?;
    // Memory-backed like the volume of a pod, so that no disk is measured.
    let folder = tempfile::Builder::new().tempdir_in(if Path::new("/dev/shm").is_dir() {
        "/dev/shm"
    } else {
        "/tmp"
    })?;
    start_up(&emulator, folder.path())?;
    println!();
    report("release binary", fs::metadata(SIDECAR)?.len() as f64 / 1e6, "MB", 13.0);
    cost_of_running(&emulator, folder.path(), Duration::from_secs(idle))
}

fn build_release() -> Outcome<()> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "ecr-sidecar", "--bin", "ecr-sidecar"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    status.success().then_some(()).ok_or_else(|| format!("the release build ended with {status}").into())
}

/// The emulated AWS, in a process of its own: what is measured is started by a small one, as by a shell.
struct Aws {
    process: Child,
    endpoint: String,
    https_endpoint: String,
    ca_file: PathBuf,
}

impl Aws {
    fn start() -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(AWS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().ok_or("no output")?).lines();
        let mut line =
            || lines.next().ok_or("the emulated AWS did not start")?.map_err(Box::<dyn Error>::from);
        let (endpoint, https_endpoint, ca_file) = (line()?, line()?, line()?.into());
        Ok(Self { process, endpoint, https_endpoint, ca_file })
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        drop(self.process.stdin.take()); // the end of its input is the sign to end
        let _ = self.process.wait();
    }
}

fn play_aws() -> Outcome<()> {
    let emulator = Emulator::start(Settings::default())?;
    println!("{}\n{}\n{}", emulator.endpoint(), emulator.https_endpoint(), emulator.ca_file().display());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
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
    println!("{:<34}{:>9}{:>11}{:>16}{:>14}", "start-up", "best ms", "median ms", "ratio of best", "wanted");
    times.values_mut().for_each(|times| times.sort_by(f64::total_cmp));
    let ours = times["ecr-sidecar once"][0];
    for (name, times) in &times {
        let (best, median) = (times[0], times[times.len() / 2]);
        let wanted = match *name {
            "docker-credential-ecr-login get" => "≥ 1.7",
            "aws ecr get-login-password" => "≥ 100",
            _ => "",
        };
        println!("{name:<34}{best:>9.2}{median:>11.2}{:>16.2}{wanted:>14}", best / ours);
    }
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
    let before = on_cpu(pid)?;
    std::thread::sleep(idle);
    let spent = (on_cpu(pid)? - before).as_secs_f64() * 1e3 * 60.0 / idle.as_secs_f64();
    report("peak resident, TLS", kib(pid, "VmHWM:")? / 1024.0, "MiB", 10.0);
    report("anonymous part of it now", kib(pid, "RssAnon:")? / 1024.0, "MiB", f64::NAN);
    report("idle CPU a minute", spent, "ms", 10.0);
    Ok(())
}

fn report(what: &str, value: f64, unit: &str, limit: f64) {
    let wanted = if limit.is_nan() { String::new() } else { format!("< {limit} {unit}") };
    println!("{what:<34}{value:>9.2} {unit:<10}{:>16}{wanted:>14}", "");
}

fn command(program: &Path, emulator: &Aws, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.envs(variables(&emulator.endpoint)).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn variables(endpoint: &str) -> [(&'static str, String); 6] {
    [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_DEFAULT_REGION", "eu-west-1".to_owned()), // what the AWS CLI 1 reads
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
    ]
}

fn millis(mut command: Command, input: &str) -> Outcome<f64> {
    std::thread::sleep(SETTLE);
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

/// Time on a CPU of all threads, to the nanosecond.
fn on_cpu(pid: u32) -> Outcome<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += schedstat.split(' ').next().unwrap_or("0").parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

fn kib(pid: u32, key: &str) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
