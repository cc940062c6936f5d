//! Looks at the disk by a process that may be left behind: a look at a mount that hangs cannot be ended by whoever looks
//! (nfs(5), `hard`; a FUSE request that was sent waits even after a signal), and a thread that waits there keeps its
//! process from ending.

use crate::sys::process::{Fork, exit_now, fork};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What `look` finds, if it does within [`PATIENCE`]. It runs in a copy of this process, which must have one thread only.
/// Where none can be made it runs here: whoever looks then waits as long as the look takes.
pub(super) fn in_time<T: Serialize + DeserializeOwned>(look: impl FnOnce() -> T) -> Option<T> {
    let Ok((mut told, mut tell)) = io::pipe() else {
        return Some(look());
    };
    let child = match fork() {
        Err(_) => return Some(look()),
        Ok(Fork::Child) => {
            drop(told);
            // Who reads what this program says is not to wait for one that is left behind.
            if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
                let _ = dup2_stdin(&null);
                let _ = dup2_stdout(&null);
                let _ = dup2_stderr(&null);
            }
            let found = serde_json::to_vec(&look()).unwrap_or_default();
            let _ = tell.write_all(&found);
            exit_now(0);
        }
        Ok(Fork::Parent(pid)) => Pid::from_raw(pid),
    };
    drop(tell);
    let until = Instant::now() + PATIENCE;
    let mut found = Vec::new();
    let mut part = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(told.as_fd(), PollFlags::POLLIN)], wait) {
            Err(Errno::EINTR) => continue,
            Ok(0) => {
                // It goes as soon as the place lets it; nobody waits for that.
                let _ = kill(child, Signal::SIGKILL);
                return None;
            }
            _ => {}
        }
        match told.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => found.extend_from_slice(&part[..count]),
        }
    }
    let _ = waitpid(child, None);
    serde_json::from_slice(&found).ok()
}
