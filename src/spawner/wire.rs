//! The messages between the daemon, the spawner and its launchers. They live as long as one daemon, so they have no version.

use crate::core::NotStarted;
use crate::core::ask::Version;
use crate::core::ids::RunId;
use crate::plan::ProcessPlan;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ffi::CStr;

/// Longest message sent as such; a longer order travels in a file in memory, whose descriptor is sent.
/// Well below the default size of a socket's buffer (unix(7), `wmem_default`).
pub(crate) const PACKET_MAX: usize = 32 * 1024;

/// Daemon to spawner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Make a scout; its socket comes along. The number comes back with the answer.
    Scout(u64),
    /// One launcher has ended itself: make another.
    Launcher,
}

/// Spawner to daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// A launcher with this pid has been made.
    Launcher(i32),
    /// The scout's pid, or the errno of clone(2).
    Scout(u64, Result<i32, i32>),
}

/// What the message of an order begins with. Its descriptors: the child's output, and in this order those named here.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) run: RunId,
    /// A worker's standard input and standard output.
    pub(crate) worker: bool,
    /// Standard input.
    pub(crate) stdin: bool,
    /// The lock on a slot.
    pub(crate) slot: bool,
    /// The order does not follow here: it was too long, and is in this file.
    pub(crate) in_file: bool,
}

/// Daemon to launcher: start this.
/// `P` is a `Place`, owned or borrowed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order<'a, P> {
    pub(crate) run: RunId,
    /// Strings, each ended by NUL, so that they need not be copied for execve(2).
    #[serde(with = "serde_bytes")]
    pub(crate) argv: &'a [u8],
    /// `NAME=value`, likewise.
    #[serde(with = "serde_bytes")]
    pub(crate) env: &'a [u8],
    /// Likewise; one string.
    #[serde(with = "serde_bytes")]
    pub(crate) cwd: &'a [u8],
    pub(crate) files: Vec<(P, Version, bool)>,
    /// The daemon's own program instead of the one that `argv` names.
    pub(crate) own: bool,
    pub(crate) process: Cow<'a, ProcessPlan>,
}

/// Launcher or child to daemon.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The run's child has this pid, and leads a process group of that number. Said a second time, perhaps when the child
    /// has already been reaped, if it was killed before it could execute its program.
    Made(RunId, i32),
    /// The run's child will not execute its program, because of which of its files. Said after `Made` if there is a child,
    /// before it ends.
    NotStarted(RunId, NotStarted, u32),
}

/// The strings of a field of [`Order`].
pub(crate) fn strings(mut bytes: &[u8]) -> impl Iterator<Item = &CStr> {
    std::iter::from_fn(move || {
        let string = CStr::from_bytes_until_nul(bytes).ok()?;
        bytes = bytes.get(string.to_bytes_with_nul().len()..)?;
        Some(string)
    })
}

/// Appends a string in the form that [`strings`] reads; `None` if it has a NUL in it, which no program can be given.
pub(crate) fn push_string(to: &mut Vec<u8>, parts: &[&[u8]]) -> Option<()> {
    for part in parts {
        if part.contains(&0) {
            return None;
        }
        to.extend_from_slice(part);
    }
    to.push(0);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_back() {
        let mut bytes = Vec::new();
        for parts in [
            &[b"a".as_slice(), b"=", b""],
            &[b"", b"", b""],
            &[b"\xff", b"\n", b""],
        ] {
            assert_eq!(push_string(&mut bytes, parts), Some(()));
        }
        assert_eq!(push_string(&mut bytes.clone(), &[b"a\0b"]), None);
        let back: Vec<&[u8]> = strings(&bytes).map(CStr::to_bytes).collect();
        assert_eq!(back, [b"a=".as_slice(), b"", b"\xff\n"]);
        assert_eq!(strings(b"never ended").count(), 0);
    }
}
