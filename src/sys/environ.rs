//! Changing the environment.

use std::io;

/// Removes variables from the environment of this process (unsetenv(3)).
///
/// # Errors
/// `ErrorKind::Other` without having changed anything if the process has more than one thread (another one
/// might be reading the environment), or whatever reading `/proc/self/task` gave.
pub fn remove(names: &[&str]) -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other(
            "the environment is changed only while the process has one thread",
        ));
    }
    for name in names {
        // SAFETY: remove_var is unsound only while another thread reads or writes the environment. There
        // is none: it was counted just now, and a lone thread that is here starts no other.
        unsafe { std::env::remove_var(name) }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    use std::process::Command;

    #[test]
    fn refused_beside_other_threads() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert!(remove(&["PATH"]).is_err());
        assert!(std::env::var_os("PATH").is_some());
        go.send(()).unwrap();
        other.join().unwrap().unwrap();
    }

    /// Runs in a process of its own, see below.
    #[test]
    #[ignore = "asked for by removed_when_alone"]
    fn remove_in_a_fork() {
        let set = |name: &str| std::env::var_os(name).is_some();
        assert!(set("SETTLED_TEST_GONE") && set("SETTLED_TEST_KEPT"));
        // SAFETY: the process's other thread only waits for this test, so it holds none of the locks that
        // the child takes; the child ends by _exit.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let done = remove(&["SETTLED_TEST_GONE", "SETTLED_TEST_NEVER"]).is_ok();
                let right = done && !set("SETTLED_TEST_GONE") && set("SETTLED_TEST_KEPT");
                // SAFETY: _exit(2) only ends the process.
                unsafe { libc::_exit(if right { 42 } else { 1 }) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 42)));
            }
        }
    }

    #[test]
    fn removed_when_alone() {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sys::environ::tests::remove_in_a_fork"])
            .args(["--ignored", "--nocapture"])
            .env("SETTLED_TEST_GONE", "1")
            .env("SETTLED_TEST_KEPT", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && text.contains("1 passed"), "{text}");
    }
}
