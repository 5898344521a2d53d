//! Kills at random moments.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::Path,
    thread,
    time::Duration,
};

use serde_json::json;
use test_support::{Signal, pause};

use crate::{
    LONG,
    measure::{Outcome, report},
    setting::{Bench, End, Seen},
};

const KILLS: usize = 400;

impl Bench {
    /// SIGKILL at random moments while there is always something to write.
    pub(crate) fn kills(&self) -> Outcome<()> {
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
                    pause(Duration::from_millis(1));
                }
            });
            for _ in 0..KILLS {
                let running = self.start(&outputs, None)?;
                pause(Duration::from_micros(fastrand::u64(0..40_000)));
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
}

/// A base of some size, so that a write takes its time.
fn large_base(number: usize) -> String {
    let entry = json!({"auth": "Zm9yZWlnbjpzZWNyZXQ="});
    let mut auths: serde_json::Map<_, _> =
        (0..1000).map(|number| (format!("r{number}.example.com"), entry.clone())).collect();
    auths.insert("number.example.com".into(), json!({"auth": "bWU6eA==", "number": number}));
    json!({ "auths": auths }).to_string()
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
