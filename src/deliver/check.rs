//! Whether a copy is like its source: what is on disk counts, not what is in memory.

use crate::mover::Failure;
use crate::mover::bytes::{BUFFER_BYTES, read_full};
use crate::mover::name::at;
use crate::probe::reopen;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};
use nix::unistd::fsync;
use sha2::{Digest as _, Sha256};
use std::os::fd::{AsFd, BorrowedFd};

/// Length and SHA-256.
pub(super) type Digest = (u64, [u8; 32]);

/// Of all that `file` can be read.
pub(super) fn digest(file: BorrowedFd<'_>) -> Result<Digest, Failure> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut length = 0;
    loop {
        let filled = read_full(file, &mut buffer, length)?;
        if filled == 0 {
            return Ok((length, hash.finalize().into()));
        }
        hash.update(buffer.get(..filled).unwrap_or_default());
        length += filled as u64;
    }
}

/// Of a file that is durable, as it is on disk, or on its server.
pub(super) fn digest_from_disk(file: BorrowedFd<'_>) -> Result<Digest, Failure> {
    // Clean pages are given up, so that what follows is read again. An advice that is not taken costs this check some
    // of its worth, and nothing else.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    // Opening is what makes an NFS client ask its server (nfs(5), "close-to-open").
    match reopen(file) {
        Ok(open) => {
            // Else reading would change the time of access that was just set.
            let _ = fcntl(open.as_fd(), FcntlArg::F_SETFL(OFlag::O_NOATIME));
            digest(open.as_fd())
        }
        // The copy's mode or owner may keep us out.
        Err(Errno::EACCES) => digest(file),
        Err(errno) => Err(at("open copy")(errno)),
    }
}

/// Makes durable what `held` stands for (`O_PATH`), and compares it.
pub(super) fn is_durable_copy(held: BorrowedFd<'_>, own: Digest) -> Result<bool, Failure> {
    let open = match reopen(held) {
        Ok(open) => open,
        // What cannot be read, or is being written, cannot be ours.
        Err(Errno::EACCES | Errno::EAGAIN) => return Ok(false),
        Err(errno) => return Err(at("open target")(errno)),
    };
    fsync(open.as_fd()).map_err(at("fsync target"))?;
    Ok(digest_from_disk(open.as_fd())? == own)
}
