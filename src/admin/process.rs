//! What this process costs: read from `/proc/self`, under the names that every Prometheus client uses.
//!
//! A figure that cannot be read is left out. `proc` is no volume: reading it does not block.

use std::{fs, time::Duration};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use crate::log_queue::LOG;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProcessMetrics {
    /// Processor time, of the program and of the kernel for it.
    pub cpu: Option<Duration>,
    pub resident_memory: Option<u64>,
    pub virtual_memory: Option<u64>,
    pub open_fds: Option<u64>,
    /// How many there may be; `None` too when there is no limit.
    pub max_fds: Option<u64>,
    pub log_lines_dropped: u64,
}

impl ProcessMetrics {
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // One of them is the folder, open to be read.
        let open_fds =
            fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1));
        let max_fds = getrlimit(Resource::Nofile).current;
        let log_lines_dropped = LOG.dropped();
        Self {
            open_fds,
            max_fds,
            log_lines_dropped,
            ..Self::of_stat(&stat, clock_ticks_per_second(), page_size() as u64)
        }
    }

    /// Those of proc_pid_stat(5).
    fn of_stat(stat: &str, ticks_per_second: u64, page_size: u64) -> Self {
        // The second field is the program's name in parentheses, with any character in it.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let fields: Vec<_> = after_name.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14).zip(field(15)).map(|(user, system)| user + system);
        Self {
            cpu: ticks.map(|ticks| Duration::from_millis(ticks * 1000 / ticks_per_second)),
            resident_memory: field(24).map(|pages| pages * page_size),
            virtual_memory: field(23),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_stat_are_found_whatever_the_program_is_called() {
        let rest =
            "S 1 2 3 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 3 0 8000 12345678 777 18446744073709551615 1";
        for name in ["(ecr-sidecar)", "(a) b (c)"] {
            let figures = ProcessMetrics::of_stat(&format!("42 {name} {rest}"), 100, 4096);
            assert_eq!(figures.cpu, Some(Duration::from_secs(2)));
            assert_eq!(figures.resident_memory, Some(777 * 4096));
            assert_eq!(figures.virtual_memory, Some(12_345_678));
        }
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        for stat in ["", "42", "42 (x)", "42 (x) S 1"] {
            assert_eq!(ProcessMetrics::of_stat(stat, 100, 4096), ProcessMetrics::default(), "{stat:?}");
        }
    }

    #[test]
    fn this_process_has_figures() {
        let figures = ProcessMetrics::read();
        assert!(figures.resident_memory > Some(100_000) && figures.virtual_memory > figures.resident_memory);
        assert!(figures.open_fds >= Some(3) && figures.cpu.is_some(), "{figures:?}");
    }
}
