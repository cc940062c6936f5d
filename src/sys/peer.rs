//! Who is at the other end of a unix socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The supplementary groups that the peer of a connected unix stream socket had when it connected (`SO_PEERGROUPS`,
/// unix(7)).
///
/// # Errors
/// Those of getsockopt(2); ENODATA for a socket that has no peer's credentials.
pub fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // NGROUPS_MAX is 65536; few have more than these, and the kernel says how many when they do not fit.
    let mut groups = vec![0u32; 64];
    loop {
        let room = groups.len() * size_of::<u32>();
        let mut length = room as libc::socklen_t;
        // SAFETY: `groups` has room for `length` bytes, of which the kernel writes at most as many, and any bit
        // pattern is a valid u32; both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peers_groups_are_its_own() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut seen = groups(one.as_fd()).unwrap();
        let mut own: Vec<u32> = nix::unistd::getgroups()
            .unwrap()
            .into_iter()
            .map(nix::unistd::Gid::as_raw)
            .collect();
        seen.sort_unstable();
        own.sort_unstable();
        assert_eq!(seen, own);
    }
}
