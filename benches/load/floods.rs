//! Floods: of connections, edits, hostile documents and watch events.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use test_support::{pause, wait_for};

use crate::{
    LONG,
    cluster::Cluster,
    measure::{Outcome, on_cpu, report},
    setting::{Bench, End, Seen, config, has_credential},
};

/// How long each flood lasts.
const FLOOD: Duration = Duration::from_secs(10);
const CONNECTIONS_A_SECOND: usize = 5000;
/// So many of them are open at once.
const CROWD: usize = 5000;
const EDITS_A_SECOND: usize = 1000;
const EVENTS_A_SECOND: usize = 12_000;

impl Bench {
    /// Clients that begin a request and never finish it.
    pub(crate) fn connections(&self) -> Outcome<()> {
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
    pub(crate) fn edits(&self) -> Outcome<()> {
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
    pub(crate) fn document(&self) -> Outcome<()> {
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
    pub(crate) fn watch_events(&self) -> Outcome<()> {
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
        pause(Duration::from_micros(200));
    }
    Ok(())
}

fn raise_limit_of_files() -> Outcome<()> {
    let wanted = 2 * CROWD as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(
        Resource::Nofile,
        Rlimit { current: Some(wanted), maximum: maximum.map(|most| most.max(wanted)) },
    )?)
}
