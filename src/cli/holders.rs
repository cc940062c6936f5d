//! Which processes have a file open for writing, or locked: found in `/proc` (proc_pid_fdinfo(5), proc_locks(5)), as far
//! as whoever asks may look.

use nix::sys::stat::{major, minor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Processes that hold a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Holders {
    /// Process, its name, and how it holds the file.
    pub(super) found: Vec<(i32, String, String)>,
    /// Processes that could not be looked into.
    pub(super) hidden: usize,
}

/// Which file it is, without a look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    dev: u64,
    ino: u64,
}

impl Place {
    pub(super) fn of(file: &Metadata) -> Place {
        Place {
            dev: file.dev(),
            ino: file.ino(),
        }
    }
}

/// Looks for who holds the file. Only what is on this machine, and what opens it by descriptor, mapping or lock.
pub(super) fn of(file: Place) -> Holders {
    let mut holders = Holders::default();
    let locks = locks_of(file);
    let Ok(processes) = fs::read_dir("/proc") else {
        return holders;
    };
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut locked = BTreeSet::new();
    for entry in processes.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if pid == own {
            continue;
        }
        let dir = entry.path();
        let mut hows = BTreeSet::new();
        match opens_of(&dir, file) {
            Some(opens) => hows.extend(opens),
            None => holders.hidden += 1,
        }
        for (_, kind) in locks.iter().filter(|(of, _)| *of == pid) {
            locked.insert(pid);
            hows.insert(format!("holds {kind} on it"));
        }
        let name = || {
            let text = fs::read_to_string(dir.join("comm")).unwrap_or_default();
            text.trim_end().to_owned()
        };
        let name = if hows.is_empty() {
            String::new()
        } else {
            name()
        };
        let found = hows.into_iter().map(|how| (pid, name.clone(), how));
        holders.found.extend(found);
    }
    // A lock's process may have gone, or be another machine's: the lock is there all the same.
    for (pid, kind) in locks.iter().filter(|(pid, _)| !locked.contains(pid)) {
        let how = format!("holds {kind} on it");
        holders.found.push((*pid, String::new(), how));
    }
    holders
}

/// How a process has the file open; `None`: it may not be looked into.
fn opens_of(dir: &Path, file: Place) -> Option<Vec<String>> {
    let entries = match fs::read_dir(dir.join("fdinfo")) {
        Ok(entries) => entries,
        // It has ended meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(Vec::new()),
        Err(_) => return None,
    };
    let mut hows = Vec::new();
    for entry in entries.flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else {
            continue;
        };
        // Only what has the same inode number is looked at itself: another file may lie on a mount that hangs.
        if field(&text, "ino:", 10) != Some(file.ino) {
            continue;
        }
        let same = fs::metadata(dir.join("fd").join(entry.file_name()))
            .is_ok_and(|other| (other.dev(), other.ino()) == (file.dev, file.ino));
        if !same {
            continue;
        }
        let flags = field(&text, "flags:", 8).unwrap_or(0);
        let accmode = u64::from(libc::O_ACCMODE.unsigned_abs());
        if flags & accmode != u64::from(libc::O_RDONLY.unsigned_abs()) {
            hows.push("has it open for writing".to_owned());
        }
    }
    let maps = fs::read_to_string(dir.join("maps")).unwrap_or_default();
    let device = format!("{:02x}:{:02x}", major(file.dev), minor(file.dev));
    let inode = file.ino.to_string();
    let is_it = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let rights = words.next().unwrap_or_default();
        let place = (words.nth(1), words.next());
        rights.contains('w')
            && rights.ends_with('s')
            && place == (Some(device.as_str()), Some(inode.as_str()))
    };
    if maps.lines().any(is_it) {
        hows.push("has it mapped for writing".to_owned());
    }
    Some(hows)
}

fn field(text: &str, name: &str, radix: u32) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(line.trim(), radix).ok()
}

/// Locks on the file: process, and which kind.
fn locks_of(file: Place) -> Vec<(i32, String)> {
    let place = format!(
        "{:02x}:{:02x}:{}",
        major(file.dev),
        minor(file.dev),
        file.ino
    );
    let text = fs::read_to_string("/proc/locks").unwrap_or_default();
    let of_line = |line: &str| {
        let words: Vec<&str> = line
            .split_whitespace()
            .filter(|word| *word != "->")
            .collect();
        match words.as_slice() {
            [_, class, _, access, pid, at, ..] if *at == place => {
                let kind = match *class {
                    "FLOCK" => "a flock",
                    "LEASE" => "a lease",
                    _ => "a lock",
                };
                let kind = format!("{kind} for {}", access.to_lowercase());
                Some((pid.parse().ok()?, kind))
            }
            _ => None,
        }
    };
    text.lines().filter_map(of_line).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn who_writes_and_who_locks_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "x").unwrap();
        let metadata = fs::metadata(&path).unwrap();
        // Others of the same test program look at their own files only.
        assert_eq!(of(Place::of(&metadata)).found, []);
        let mut shell = Command::new("sh")
            .args(["-c", "exec 3>>\"$1\"; echo ready; read x", "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let mut out = shell.stdout.take().unwrap();
        out.read_exact(&mut ready).unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        let found = of(Place::of(&metadata)).found;
        drop(shell.stdin.take());
        shell.wait().unwrap();
        let how = "has it open for writing".to_owned();
        assert_eq!(found, [(pid, "sh".to_owned(), how)]);
        assert_eq!(of(Place::of(&metadata)).found, []);
    }
}
