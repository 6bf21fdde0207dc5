//! The key lives in this process's memory and nowhere else: no core dump holds it, and no other process of the same user
//! may look at it.

/// From now on. A program that is started from this one begins anew.
///
/// # Errors
/// When the system refuses.
#[cfg(target_os = "linux")]
pub fn keep() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

    // The limit alone does not keep a dump from a program that dumps are piped to (core(5)); it is seen from outside.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // Also closes /proc/PID/mem and ptrace to others of the same user (PR_SET_DUMPABLE(2const)).
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Elsewhere there are no pods.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn keep() -> std::io::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    #[test]
    fn nothing_of_this_process_is_dumped() {
        super::keep().expect("allowed to everybody");
        assert_eq!(dumpable_behavior().expect("known"), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
