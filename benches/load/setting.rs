//! The sidecar under load, and what its readers and probes see of it.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;
use test_support::{Sidecar, free_port, http_get, pause, wait_for};

use crate::{
    LONG,
    measure::{Aws, HOST, Outcome, SIDECAR, kib, report, variables},
};

pub(crate) struct Bench {
    pub(crate) aws: Aws,
    pub(crate) folder: tempfile::TempDir,
}

/// What those who read the file found, and those who asked for its health.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) over: AtomicBool,
    pub(crate) reads: AtomicUsize,
    broken: AtomicUsize,
    pub(crate) without: AtomicUsize,
    probes: AtomicUsize,
    unanswered: AtomicUsize,
    slowest_micros: AtomicUsize,
}

impl Seen {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Reads the file again and again.
    pub(crate) fn read(&self, file: &Path) {
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
    pub(crate) fn probe(&self, health: SocketAddr) {
        while !self.is_over() {
            self.probes.fetch_add(1, Ordering::Relaxed);
            let started = Instant::now();
            let answered = http_get(health, "/livez").is_ok_and(|(status, _)| status == 200);
            let took = started.elapsed();
            let late = !answered || took > Duration::from_secs(1);
            self.unanswered.fetch_add(usize::from(late), Ordering::Relaxed);
            self.slowest_micros.fetch_max(took.as_micros() as usize, Ordering::Relaxed);
            pause(Duration::from_millis(10));
        }
    }

    pub(crate) fn count(&self, count: &AtomicUsize) -> f64 {
        count.load(Ordering::Relaxed) as f64
    }

    pub(crate) fn report_reads(&self) -> Outcome<()> {
        report("  reads meanwhile", self.count(&self.reads), "", f64::NAN);
        report("  torn or missing", self.count(&self.broken), "", 1.0);
        if self.count(&self.broken) > 0.0 { Err("a reader found a broken file".into()) } else { Ok(()) }
    }

    pub(crate) fn report_probes(&self) -> Outcome<()> {
        report("  probes", self.count(&self.probes), "", f64::NAN);
        report("  probes without an answer in 1 s", self.count(&self.unanswered), "", 1.0);
        report("  slowest answer", self.count(&self.slowest_micros) / 1e3, "ms", f64::NAN);
        if self.count(&self.unanswered) > 0.0 { Err("a probe had no answer".into()) } else { Ok(()) }
    }
}

/// A running sidecar.
pub(crate) struct Running {
    pub(crate) sidecar: Sidecar,
    pub(crate) health: SocketAddr,
}

impl Running {
    fn status(&self) -> Outcome<Value> {
        Ok(serde_json::from_str(&http_get(self.health, "/status")?.1)?)
    }

    pub(crate) fn writes(&self) -> Outcome<u64> {
        Ok(self.status()?["outputs"][0]["writes"].as_u64().ok_or("no number of writes")?)
    }

    pub(crate) fn wait_ready(&self) {
        wait_for("readiness", LONG, || {
            http_get(self.health, "/readyz").ok().filter(|(code, _)| *code == 200)
        });
    }

    pub(crate) fn peak_mib(&self) -> Outcome<f64> {
        Ok(kib(self.sidecar.pid(), "VmHWM:")? / 1024.0)
    }
}

impl Bench {
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.at("out/config.json")
    }

    /// Writes by rename, as those do who share a volume with others.
    pub(crate) fn put(&self, path: &Path, text: &str) -> Outcome<()> {
        let temporary = self.at("temporary");
        fs::File::create(&temporary)?.write_all(text.as_bytes())?;
        Ok(fs::rename(temporary, path)?)
    }

    pub(crate) fn start(&self, outputs: &str, kubeconfig: Option<&Path>) -> Outcome<Running> {
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

    pub(crate) fn start_with_file(&self) -> Outcome<Running> {
        self.start(&format!("{{type: docker-config, path: {}}}", self.file().display()), None)
    }
}

/// Ends the threads of a measurement, also when it fails.
pub(crate) struct End<'a>(pub(crate) &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// None when there is no file, or no whole one.
pub(crate) fn config(file: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

pub(crate) fn has_credential(config: &Value) -> bool {
    config["auths"][HOST]["auth"].as_str().is_some_and(|auth| auth.len() > 1000)
}
