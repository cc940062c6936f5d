//! The state directory itself: made where it is missing, and refused where it cannot be relied on.

use super::error::{BadDirectory, JournalError};
use super::segment::fault;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes the directory and those above it that are missing, all for their owner alone, and their names
/// durable: a journal whose directory a power cut takes away is no journal.
pub(super) fn make(path: &Path) -> Result<(), JournalError> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
        .collect();
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(refused(path, BadDirectory::NotADirectory));
        }
        other => other.map_err(|error| fault("create", path, &error))?,
    }
    for dir in missing {
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(|error| fault("flush", parent, &error))?;
    }
    Ok(())
}

/// Refuses a directory that others may write to, that somebody else owns or, unless `force`, whose filesystem cannot be
/// relied on; else the type number of its filesystem.
pub(super) fn check(path: &Path, dir: &OwnedFd, force: bool) -> Result<u64, JournalError> {
    let found = nix::sys::stat::fstat(dir).map_err(|errno| fault("stat", path, &errno.into()))?;
    let mode = found.st_mode & 0o7777;
    if mode & 0o022 != 0 {
        return Err(refused(path, BadDirectory::Writable(mode)));
    }
    let owner = found.st_uid;
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(refused(path, BadDirectory::Owner(owner)));
    }
    let kind = filesystem(path, dir)?;
    match untrusted(kind) {
        Some(name) if !force => Err(refused(path, BadDirectory::Filesystem(name))),
        _ => Ok(kind),
    }
}

/// The type number that statfs(2) gives.
fn filesystem(path: &Path, dir: &OwnedFd) -> Result<u64, JournalError> {
    let found =
        nix::sys::statfs::fstatfs(dir).map_err(|errno| fault("statfs", path, &errno.into()))?;
    // The numbers have 32 bits; the field's type differs between architectures.
    #[allow(clippy::unnecessary_cast)]
    Ok((found.filesystem_type().0 as u64) & 0xffff_ffff)
}

pub(super) fn refused(path: &Path, bad: BadDirectory) -> JournalError {
    JournalError::Directory(path.display().to_string(), bad)
}

/// The type number of btrfs.
pub(super) const BTRFS_MAGIC: u64 = 0x9123_683e;

/// The name of a filesystem type on which the state directory is refused: one whose files other machines
/// change, or that nothing here can know.
fn untrusted(magic: u64) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x6573_5546 => "FUSE",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x0102_1997 => "9p",
        0x7461_636f => "OCFS2",
        0x0116_1970 => "GFS2",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x0187 => "autofs",
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn network_filesystems_are_named() {
        assert_eq!(untrusted(0x6969), Some("NFS"));
        assert_eq!(untrusted(0xff53_4d42), Some("SMB"));
        for local in [0xef53, 0x0102_1994, 0x5846_5342, BTRFS_MAGIC, 0x794c_7630] {
            assert_eq!(untrusted(local), None, "{local:#x}");
        }
    }
}
