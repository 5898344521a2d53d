//! What the sidecar withstands, in figures: kills amid its writes, a flood of connections, a process that overwrites
//! its file without end, a hostile document, a flood of watch events. All against the release program.
//!
//! `cargo bench --bench load`. It fails when a reader ever found a torn or a missing file, or a probe no answer.

mod cluster;
#[path = "../measure/mod.rs"]
mod measure;

use std::{
    fs,
    io::{ErrorKind, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use measure::{AWS, Aws, HOST, Outcome, SIDECAR, kib, on_cpu, play_aws, report, variables};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use test_support::{Sidecar, Signal, free_port, http_get, release_program, wait_for};

use cluster::Cluster;

const KILLS: usize = 400;
const LONG: Duration = Duration::from_secs(60);
/// How long each flood lasts.
const FLOOD: Duration = Duration::from_secs(10);
const CONNECTIONS_A_SECOND: usize = 5000;
/// So many of them are open at once.
const CROWD: usize = 5000;
const EDITS_A_SECOND: usize = 1000;
const EVENTS_A_SECOND: usize = 12_000;

fn main() -> Outcome<()> {
    if std::env::args().nth(1).is_some_and(|argument| argument == AWS) {
        return play_aws();
    }
    release_program();
    let bench = Bench { aws: Aws::start()?, folder: tempfile::tempdir()? };
    bench.kills()?;
    bench.connections()?;
    bench.edits()?;
    bench.document()?;
    bench.watch_events()
}

struct Bench {
    aws: Aws,
    folder: tempfile::TempDir,
}

/// What those who read the file found, and those who asked for its health.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    reads: AtomicUsize,
    broken: AtomicUsize,
    without: AtomicUsize,
    probes: AtomicUsize,
    unanswered: AtomicUsize,
    slowest_micros: AtomicUsize,
}

impl Seen {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Reads the file again and again.
    fn read(&self, file: &Path) {
        while !self.is_over() {
            self.reads.fetch_add(1, Ordering::Relaxed);
            match config(file) {
                None => self.broken.fetch_add(1, Ordering::Relaxed),
                Some(config) if !has_credential(&config) => self.without.fetch_add(1, Ordering::Relaxed),
                Some(_) => 0,
            };
        }
    }

    /// Probes as a kubelet does that is in a hurry: a hundred times a second, with a second to answer.
    fn probe(&self, health: SocketAddr) {
        while !self.is_over() {
            self.probes.fetch_add(1, Ordering::Relaxed);
            let started = Instant::now();
            let answered = http_get(health, "/livez").is_ok_and(|(status, _)| status == 200);
            let took = started.elapsed();
            let late = !answered || took > Duration::from_secs(1);
            self.unanswered.fetch_add(usize::from(late), Ordering::Relaxed);
            self.slowest_micros.fetch_max(took.as_micros() as usize, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn count(&self, count: &AtomicUsize) -> f64 {
        count.load(Ordering::Relaxed) as f64
    }

    fn report_reads(&self) -> Outcome<()> {
        report("  reads meanwhile", self.count(&self.reads), "", f64::NAN);
        report("  torn or missing", self.count(&self.broken), "", 1.0);
        if self.count(&self.broken) > 0.0 { Err("a reader found a broken file".into()) } else { Ok(()) }
    }

    fn report_probes(&self) -> Outcome<()> {
        report("  probes", self.count(&self.probes), "", f64::NAN);
        report("  probes without an answer in 1 s", self.count(&self.unanswered), "", 1.0);
        report("  slowest answer", self.count(&self.slowest_micros) / 1e3, "ms", f64::NAN);
        if self.count(&self.unanswered) > 0.0 { Err("a probe had no answer".into()) } else { Ok(()) }
    }
}

/// A running sidecar.
struct Running {
    sidecar: Sidecar,
    health: SocketAddr,
}

impl Running {
    fn status(&self) -> Outcome<Value> {
        Ok(serde_json::from_str(&http_get(self.health, "/status")?.1)?)
    }

    fn writes(&self) -> Outcome<u64> {
        Ok(self.status()?["outputs"][0]["writes"].as_u64().ok_or("no number of writes")?)
    }

    fn wait_ready(&self) {
        wait_for("readiness", LONG, || {
            http_get(self.health, "/readyz").ok().filter(|(code, _)| *code == 200)
        });
    }

    fn peak_mib(&self) -> Outcome<f64> {
        Ok(kib(self.sidecar.pid(), "VmHWM:")? / 1024.0)
    }
}

impl Bench {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.at("out/config.json")
    }

    /// Writes by rename, as those do who share a volume with others.
    fn put(&self, path: &Path, text: &str) -> Outcome<()> {
        let temporary = self.at("temporary");
        fs::File::create(&temporary)?.write_all(text.as_bytes())?;
        Ok(fs::rename(temporary, path)?)
    }

    fn start(&self, outputs: &str, kubeconfig: Option<&Path>) -> Outcome<Running> {
        let configuration = self.at("ecr-sidecar.yaml");
        let text = format!("registries: [{{host: {HOST}}}]\noutputs: [{outputs}]\n");
        self.put(&configuration, &text)?;
        let health = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let sidecar = Sidecar::spawn(Path::new(SIDECAR), |run| {
            run.arg("run").arg("--config").arg(&configuration);
            run.args(["--health-listen", &format!("0.0.0.0:{}", health.port())]);
            run.envs(variables(&self.aws.endpoint));
            run.envs(kubeconfig.map(|path| ("KUBECONFIG", path)));
        });
        Ok(Running { sidecar, health })
    }

    fn start_with_file(&self) -> Outcome<Running> {
        self.start(&format!("{{type: docker-config, path: {}}}", self.file().display()), None)
    }

    /// SIGKILL at random moments while there is always something to write.
    fn kills(&self) -> Outcome<()> {
        let (base, file, seen) = (self.at("base.json"), self.file(), Seen::default());
        let outputs = format!("{{type: docker-config, path: {}, base: {}}}", file.display(), base.display());
        self.put(&base, &large_base(0))?;
        self.start(&outputs, None)?.wait_ready();
        let mut amid_a_write = 0;
        thread::scope(|scope| -> Outcome<()> {
            let _end = End(&seen.over);
            scope.spawn(|| seen.read(&file));
            scope.spawn(|| {
                for number in 1.. {
                    let written = self.put_base(&base, number);
                    if seen.is_over() || written.is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
            for _ in 0..KILLS {
                let running = self.start(&outputs, None)?;
                thread::sleep(Duration::from_micros(fastrand::u64(0..40_000)));
                running.sidecar.signal(Signal::KILL);
                running.sidecar.wait_exit(LONG);
                amid_a_write += usize::from(has_temporary_file(&self.at("out"))?);
            }
            Ok(())
        })?;
        println!("{KILLS} kills at random moments");
        report("  amid a write", amid_a_write as f64, "", f64::NAN);
        report("  reads without a credential", seen.count(&seen.without), "", 1.0);
        if seen.count(&seen.without) > 0.0 {
            return Err("a kill cost the credential".into());
        }
        seen.report_reads()
    }

    fn put_base(&self, base: &Path, number: usize) -> std::io::Result<()> {
        let temporary = self.at("temporary-base");
        fs::File::create(&temporary)?.write_all(large_base(number).as_bytes())?;
        fs::rename(temporary, base)
    }

    /// Clients that begin a request and never finish it.
    fn connections(&self) -> Outcome<()> {
        let running = self.start_with_file()?; // before this process's limit is raised, which it would inherit
        running.wait_ready();
        raise_limit_of_files()?;
        let (seen, mut opened) = (Seen::default(), 0);
        thread::scope(|scope| -> Outcome<()> {
            let _end = End(&seen.over);
            scope.spawn(|| seen.probe(running.health));
            let mut crowd = std::collections::VecDeque::new();
            at_a_pace(CONNECTIONS_A_SECOND, |number| {
                // Other addresses of loopback: one has not enough ports for so many.
                let address = ([127, 0, 1, (number % 200) as u8 + 1], running.health.port());
                let mut client = TcpStream::connect(SocketAddr::from(address))?;
                let _ = client.write_all(b"GET /livez HTTP/1.1\r\nx-a: "); // some are driven out already
                crowd.push_back(client);
                if crowd.len() > CROWD {
                    crowd.pop_front();
                }
                opened += 1;
                Ok(())
            })
        })?;
        println!("connections that never finish a request");
        report("  a second", opened as f64 / FLOOD.as_secs_f64(), "", f64::NAN);
        report("  peak resident", running.peak_mib()?, "MiB", 20.0);
        seen.report_probes()
    }

    /// Another process that puts a file without our entry in the place of ours.
    fn edits(&self) -> Outcome<()> {
        let running = self.start_with_file()?;
        running.wait_ready();
        let (file, seen, mut edits) = (self.file(), Seen::default(), 0);
        let (writes, lines) = (running.writes()?, running.sidecar.log_lines().len());
        thread::scope(|scope| -> Outcome<()> {
            let _end = End(&seen.over);
            scope.spawn(|| seen.read(&file));
            scope.spawn(|| seen.probe(running.health));
            at_a_pace(EDITS_A_SECOND, |number| {
                edits += 1;
                self.put(&file, &json!({"auths": {}, "edit": number}).to_string())
            })
        })?;
        let ended = Instant::now();
        wait_for("the credential", LONG, || config(&file).filter(has_credential));
        println!("edits of another process");
        report("  a second", edits as f64 / FLOOD.as_secs_f64(), "", f64::NAN);
        report(
            "  written by us a second",
            (running.writes()? - writes) as f64 / FLOOD.as_secs_f64(),
            "",
            5.0,
        );
        let lines = running.sidecar.log_lines().len() - lines;
        report("  lines of log a second", lines as f64 / FLOOD.as_secs_f64(), "", 10.0);
        let without = 100.0 * seen.count(&seen.without) / seen.count(&seen.reads).max(1.0);
        report("  reads without our credential", without, "%", f64::NAN);
        report("  in order after the last", ended.elapsed().as_secs_f64(), "s", 3.0);
        report("  peak resident", running.peak_mib()?, "MiB", 20.0);
        seen.report_reads()?;
        seen.report_probes()
    }

    /// A document of a hundred thousand entries, none of which a client takes.
    fn document(&self) -> Outcome<()> {
        const TOUCHES: usize = 5;
        let running = self.start_with_file()?;
        running.wait_ready();
        let (peak, pid) = (running.peak_mib()?, running.sidecar.pid());
        let lines = running.sidecar.log_lines().len();
        let mut costliest = Duration::ZERO;
        let mut size = 0;
        for touch in 0..TOUCHES {
            let entries: Vec<_> = (0..100_000).map(|number| format!("\"{number:x}\":{touch}")).collect();
            let text = format!("{{\"auths\":{{{}}}}}", entries.join(","));
            size = text.len();
            let (before, writes) = (on_cpu(pid)?, running.writes()?);
            self.put(&self.file(), &text)?;
            wait_for("the entry", LONG, || running.writes().is_ok_and(|now| now > writes).then_some(()));
            costliest = costliest.max(on_cpu(pid)?.saturating_sub(before));
        }
        println!("a hostile document of {} kB, {TOUCHES} times", size / 1000);
        report("  processor time, the costliest", costliest.as_secs_f64() * 1e3, "ms", 200.0);
        report("  more memory at the peak", running.peak_mib()? - peak, "MiB", 20.0);
        let lines = running.sidecar.log_lines().len() - lines;
        report("  lines of log, total", lines as f64, "", 21.0 + 2.0 * TOUCHES as f64);
        Ok(())
    }

    /// A Secret of ours that another process touches without end; none of its changes concerns us.
    fn watch_events(&self) -> Outcome<()> {
        let cluster = Cluster::start(self.folder.path())?;
        let output = "{type: docker-config-secret, name: ecr, namespaces: {names: [bench]}}";
        let running = self.start(output, Some(cluster.kubeconfig()))?;
        running.wait_ready();
        let (seen, pid) = (Seen::default(), running.sidecar.pid());
        let (writes, before) = (cluster.writes(), on_cpu(pid)?);
        thread::scope(|scope| -> Outcome<()> {
            let _end = End(&seen.over);
            scope.spawn(|| seen.probe(running.health));
            at_a_pace(EVENTS_A_SECOND / 100, |_| {
                cluster.touch(100);
                Ok(())
            })
        })?;
        println!("watch events");
        let sent = cluster.sent() as f64;
        report("  a second", sent / FLOOD.as_secs_f64(), "", f64::NAN);
        let spent = on_cpu(pid)?.saturating_sub(before);
        report("  processor time for one", spent.as_secs_f64() * 1e6 / sent, "µs", f64::NAN);
        report("  written by us", (cluster.writes() - writes) as f64, "", 1.0);
        report("  peak resident", running.peak_mib()?, "MiB", 25.0);
        seen.report_probes()
    }
}

/// Ends the threads of a measurement, also when it fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Does something so often a second, for as long as a flood lasts.
fn at_a_pace(a_second: usize, mut work: impl FnMut(usize) -> Outcome<()>) -> Outcome<()> {
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < FLOOD {
        let due = (started.elapsed().as_secs_f64() * a_second as f64) as usize;
        while done < due && started.elapsed() < FLOOD {
            work(done)?;
            done += 1;
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// A base of some size, so that a write takes its time.
fn large_base(number: usize) -> String {
    let entry = json!({"auth": "Zm9yZWlnbjpzZWNyZXQ="});
    let mut auths: serde_json::Map<_, _> =
        (0..1000).map(|number| (format!("r{number}.example.com"), entry.clone())).collect();
    auths.insert("number.example.com".into(), json!({"auth": "bWU6eA==", "number": number}));
    json!({ "auths": auths }).to_string()
}

/// None when there is no file, or no whole one.
fn config(file: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn has_credential(config: &Value) -> bool {
    config["auths"][HOST]["auth"].as_str().is_some_and(|auth| auth.len() > 1000)
}

fn has_temporary_file(folder: &Path) -> Outcome<bool> {
    for entry in fs::read_dir(folder)? {
        let name = match entry {
            Ok(entry) => entry.file_name(),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        if name.to_string_lossy().ends_with(".tmp") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn raise_limit_of_files() -> Outcome<()> {
    let wanted = 2 * CROWD as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(
        Resource::Nofile,
        Rlimit { current: Some(wanted), maximum: maximum.map(|most| most.max(wanted)) },
    )?)
}
