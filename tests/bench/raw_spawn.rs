//! `raw-spawn`, the yardstick: raw inotify, an unbounded queue in memory, `posix_spawn` of at most 4 handlers, no
//! state. It is what the work costs when nothing is remembered, checked or recovered: watches are added for the
//! directories there at start, an overflow is ignored, and a file that is closed twice is handled twice.

use crate::Res;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::collections::{HashMap, VecDeque};
use std::ffi::{CString, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const CHILDREN_MAX: usize = 4;

/// `ROOT HANDLER RESULTS`; never returns but by a signal or an error.
pub(crate) fn run(args: &[OsString]) -> Res<()> {
    let [root, handler, results] = args else {
        return Err("raw-spawn: ROOT HANDLER RESULTS".into());
    };
    let handler = CString::new(handler.as_bytes())?;
    let results = CString::new(results.as_bytes())?;

    let mut chld = SigSet::empty();
    chld.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&chld), None)?;
    let signals = SignalFd::with_flags(&chld, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    attributes.set_sigmask(&SigSet::empty())?;
    let actions = PosixSpawnFileActions::init()?;

    let mut inotify = Inotify::init()?;
    let mut directories = HashMap::new();
    add_tree(&inotify, PathBuf::from(root), &mut directories)?;

    let mut queue: VecDeque<CString> = VecDeque::new();
    let mut children = 0usize;
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        {
            let mut ready = [
                PollFd::new(inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut ready, PollTimeout::NONE)?;
        }
        loop {
            match inotify.read_events(&mut buffer) {
                Ok(events) => {
                    for event in events {
                        let (Some(name), Some(directory)) =
                            (event.name, directories.get(&event.wd))
                        else {
                            continue;
                        };
                        if event.mask.contains(EventMask::ISDIR)
                            || name.as_bytes().first() == Some(&b'.')
                        {
                            continue;
                        }
                        queue.push_back(CString::new(
                            directory.join(name).into_os_string().into_vec(),
                        )?);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        while signals.read_signal()?.is_some() {}
        while children > 0 {
            match waitpid(None, Some(WaitPidFlag::WNOHANG))? {
                WaitStatus::StillAlive => break,
                _ => children -= 1,
            }
        }
        while children < CHILDREN_MAX {
            let Some(path) = queue.pop_front() else { break };
            let argv = [handler.as_c_str(), results.as_c_str(), path.as_c_str()];
            let environment: [&std::ffi::CStr; 0] = [];
            posix_spawn(
                handler.as_c_str(),
                &actions,
                &attributes,
                &argv,
                &environment,
            )?;
            children += 1;
        }
    }
}

/// Watches the directory and all below it.
pub(crate) fn add_tree(
    inotify: &Inotify,
    top: PathBuf,
    into: &mut HashMap<WatchDescriptor, PathBuf>,
) -> Res<()> {
    let mut left = vec![top];
    while let Some(directory) = left.pop() {
        let wd = inotify.watches().add(
            &directory,
            WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::ONLYDIR,
        )?;
        left.extend(subdirectories(&directory)?);
        into.insert(wd, directory);
    }
    Ok(())
}

fn subdirectories(of: &Path) -> Res<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(of)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
