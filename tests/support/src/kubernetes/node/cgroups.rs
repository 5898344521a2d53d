//! Which processes are theirs? And away with the groups when they have ended. Of cgroup versions 1 and 2.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Pid;

/// What a container may use, and has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// In bytes.
    pub memory_limit: u64,
    /// The most that it ever had, in bytes, its volumes in memory and what the kernel caches of its files included.
    pub memory_peak: u64,
    /// Processor time of all its processes, those of `exec` included.
    pub cpu: Duration,
}

const MOUNTED: &str = "/sys/fs/cgroup";

/// Makes `cgroup` in every hierarchy.
pub(super) fn create(cgroup: &str) {
    for hierarchy in hierarchies() {
        let folder = below(&hierarchy, cgroup);
        fs::create_dir(&folder).unwrap_or_else(|e| panic!("can't make {}: {e}", folder.display()));
    }
}

/// Whether nothing is left of `cgroup`, in any hierarchy. It is removed as far as it has no processes.
pub(super) fn remove(cgroup: &str) -> bool {
    // All of them, not the first that can't be.
    let left = hierarchies().filter(|hierarchy| !remove_tree(&below(hierarchy, cgroup)));
    left.count() == 0
}

/// The processes in the group `name` somewhere below `cgroup`, by the ids that this machine knows them by.
pub(super) fn processes(cgroup: &str, name: &str) -> Vec<Pid> {
    let folder = hierarchies().find_map(|hierarchy| find(&below(&hierarchy, cgroup), name));
    let ids = folder.and_then(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok());
    let ids = ids.unwrap_or_default();
    ids.lines().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}

/// What the group `name` somewhere below `cgroup` may use and has used; `None` when there is none.
pub(super) fn usage(cgroup: &str, name: &str) -> Option<Usage> {
    let folders: Vec<_> =
        hierarchies().filter_map(|hierarchy| find(&below(&hierarchy, cgroup), name)).collect();
    // Of version 1 first, in nanoseconds and bytes, then of version 2.
    let read = |file: &str| folders.iter().find_map(|folder| fs::read_to_string(folder.join(file)).ok());
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let of_stat = || {
        let stat = read("cpu.stat")?;
        let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        Some(micros.parse::<u64>().ok()? * 1000)
    };
    Some(Usage {
        memory_limit: number("memory.limit_in_bytes").or_else(|| number("memory.max"))?,
        memory_peak: number("memory.max_usage_in_bytes").or_else(|| number("memory.peak"))?,
        cpu: Duration::from_nanos(number("cpuacct.usage").or_else(of_stat)?),
    })
}

/// Lets the group `name` somewhere below `cgroup` have no more memory than that, in bytes.
pub(super) fn limit_memory(cgroup: &str, name: &str, bytes: u64) -> io::Result<()> {
    let folders = hierarchies().filter_map(|hierarchy| find(&below(&hierarchy, cgroup), name));
    let files =
        folders.flat_map(|folder| ["memory.limit_in_bytes", "memory.max"].map(|file| folder.join(file)));
    let file = files.into_iter().find(|file| file.exists()).ok_or(io::ErrorKind::NotFound)?;
    #[expect(clippy::disallowed_methods, reason = "not a file that anybody reads half of")]
    fs::write(file, bytes.to_string())
}

/// The one hierarchy of version 2, or all of version 1 and the one that is mounted next to them.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let is_one = |folder: &PathBuf| folder.join("cgroup.procs").exists();
    let whole = Some(PathBuf::from(MOUNTED)).filter(is_one);
    let parts = if whole.is_some() { Vec::new() } else { folders(Path::new(MOUNTED)) };
    whole.into_iter().chain(parts.into_iter().filter(is_one))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let inner = folders(folder);
    let found = inner.iter().find(|folder| folder.ends_with(name)).cloned();
    found.or_else(|| inner.iter().find_map(|folder| find(folder, name)))
}

fn remove_tree(folder: &Path) -> bool {
    for inner in folders(folder) {
        remove_tree(&inner);
    }
    fs::remove_dir(folder).is_ok() || !folder.exists()
}

/// None in what is not there.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    // Not what symbolic links lead to: `cpu,cpuacct` has two of them.
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn below(hierarchy: &Path, cgroup: &str) -> PathBuf {
    hierarchy.join(cgroup.trim_start_matches('/'))
}
