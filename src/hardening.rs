//! What keeps the memory of this process, where credentials are, from others of its user.

#[cfg(target_os = "linux")]
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Makes the process not dumpable: on Linux, no other process of its user may read its memory or its environment (ptrace(2),
/// `/proc/PID/mem`, `/proc/PID/environ`), and no crash leaves a core file, nor do its children's.
///
/// Its own `/proc/self` then belongs to root; what is read there stays readable for the process itself
/// (`it_is_not_dumpable_and_knows_what_it_costs_as_any_user` in `tests/process/lifecycle.rs`).
pub(crate) fn forbid_dumps() {
    // Neither fails on Linux: the value is valid, and a limit may always be lowered. A sandbox that forbids the calls all
    // the same is no reason to leave a consumer without credentials.
    #[cfg(target_os = "linux")]
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}
