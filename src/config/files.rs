//! The files of a configuration: which they are, and whether they can be trusted.

use super::units::show_size;
use crate::core::select::Pattern;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// No configuration is larger; something else was named by mistake.
const LARGEST: u64 = 4 << 20;

/// The files that `pattern` names, relative to `dir`. Only the last component may be a pattern; names
/// that begin with a dot must be named.
pub(super) fn matching(dir: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let (inner, name) = match pattern.rsplit_once('/') {
        Some(("", name)) => (Path::new("/"), name),
        Some((inner, name)) => (Path::new(inner), name),
        None => (Path::new(""), pattern),
    };
    let special = ['*', '?', '[', ']', '{', '}', '\\'];
    if pattern.contains('\0') || name.is_empty() {
        return Err("names no file; write a path, as in \"conf.d/*.toml\"".into());
    }
    if inner.to_string_lossy().contains(special) {
        return Err("only the last part can be a pattern; write the directories out".into());
    }
    let dir = dir.join(inner);
    if !name.contains(special) {
        return Ok(vec![dir.join(name)]);
    }
    let glob = Pattern::parse(name, false)?;
    let listed = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &dir
    };
    let failed = |error: std::io::Error| format!("cannot list {}: {error}", listed.display());
    let entries = match listed.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let found = entry.map_err(failed)?.file_name();
        let hidden = found.as_bytes().first() == Some(&b'.') && !name.starts_with('.');
        if !hidden && glob.matches(found.as_bytes()) {
            files.push(dir.join(found));
        }
    }
    files.sort();
    Ok(files)
}

/// A file's text and which file it is.
pub(super) struct FileText {
    pub(super) text: Vec<u8>,
    /// Device and inode.
    pub(super) identity: (u64, u64),
}

/// Why a file was not taken.
pub(super) struct FileError {
    pub(super) what: String,
    /// It could not be read at all.
    pub(super) unreadable: bool,
}

/// Reads a regular file that nobody but root and this user can change.
pub(super) fn read_file(path: &Path) -> Result<FileText, FileError> {
    let unreadable = |what: String| FileError {
        what,
        unreadable: true,
    };
    let failed = |error: std::io::Error| unreadable(format!("cannot be read: {error}"));
    if path.as_os_str().as_bytes().contains(&0) || path == OsStr::new("") {
        return Err(unreadable("is not the name of a file".into()));
    }
    // A FIFO must not hold the start: without a writer it would block here.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(unreadable("is a directory; name a file".into()));
    }
    if !metadata.is_file() {
        return Err(unreadable("is not a regular file; name one".into()));
    }
    if let Err(what) = safe(&metadata, nix::unistd::geteuid().as_raw()) {
        return Err(FileError {
            what,
            unreadable: false,
        });
    }
    let mut text = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > LARGEST {
        return Err(unreadable(format!(
            "is larger than {}; is it a configuration?",
            show_size(LARGEST)
        )));
    }
    Ok(FileText {
        text,
        identity: (metadata.dev(), metadata.ino()),
    })
}

/// Whoever can write a configuration chooses the commands that this user runs.
fn safe(metadata: &Metadata, me: u32) -> Result<(), String> {
    let owner = metadata.uid();
    if owner != 0 && owner != me {
        return Err(format!(
            "belongs to user {owner}, who could make user {me} run anything; chown it to root or to {me}"
        ));
    }
    let mode = metadata.permissions().mode();
    if mode & 0o022 != 0 {
        return Err(format!(
            "can be written by others (mode {:04o}); chmod go-w",
            mode & 0o7777
        ));
    }
    Ok(())
}
