//! What the sidecar withstands, in figures: kills amid its writes, a flood of connections, a process that overwrites
//! its file without end, a hostile document, a flood of watch events. All against the release program.
//!
//! `cargo bench --bench load`. It fails when a reader ever found a torn or a missing file, or a probe no answer.

mod cluster;
mod floods;
mod kills;
#[path = "../measure/mod.rs"]
mod measure;
mod setting;

use std::time::Duration;

use measure::{AWS, Aws, Outcome, play_aws};
use test_support::release_program;

use setting::Bench;

const LONG: Duration = Duration::from_secs(60);

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
