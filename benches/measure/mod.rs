//! What the programs that measure share: the release binary, the emulated AWS next to it, what a process costs.
#![allow(dead_code, unreachable_pub, reason = "each program uses its own part of this")]

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ecr_emulator::{ACCESS_KEY_ID, Emulator, SECRET_ACCESS_KEY, Settings};

/// The registry.
pub const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
/// Where `test_support::release_program` puts what is measured: `[profile.bench]` shares its folder. The one that cargo
/// makes there next to a bench has the features of the tests' dependencies too.
pub const SIDECAR: &str = env!("CARGO_BIN_EXE_ecr-sidecar");
/// The argument by which a program that measures plays AWS.
pub const AWS: &str = "--aws";

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// The emulated AWS, in a process of its own: what is measured is started by a small one, as by a shell.
pub struct Aws {
    process: Child,
    pub endpoint: String,
    pub https_endpoint: String,
    pub ca_file: PathBuf,
}

impl Aws {
    pub fn start() -> Outcome<Self> {
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

/// Plays AWS until the end of the input.
pub fn play_aws() -> Outcome<()> {
    let emulator = Emulator::start(Settings::default())?;
    println!("{}\n{}\n{}", emulator.endpoint(), emulator.https_endpoint(), emulator.ca_file().display());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Prints a figure, and the limit that it is held to, if there is one.
pub fn report(what: &str, value: f64, unit: &str, limit: f64) {
    let limit =
        if limit.is_nan() { String::new() } else { format!("(limit {limit} {unit})").replace(" )", ")") };
    println!("{what:<36}{value:>10.2} {unit:<4}{limit:>18}");
}

/// The way to the emulated AWS.
pub fn variables(endpoint: &str) -> [(&'static str, String); 6] {
    [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_DEFAULT_REGION", "eu-west-1".to_owned()), // what the AWS CLI 1 reads
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
    ]
}

/// Time on a CPU of all threads, to the nanosecond.
pub fn on_cpu(pid: u32) -> Outcome<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += schedstat.split(' ').next().unwrap_or("0").parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

/// A line of `/proc/PID/status`, in KiB.
pub fn kib(pid: u32, key: &str) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
