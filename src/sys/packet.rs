//! Whole messages between processes, with descriptors, and files without a name for what is too long for one.

use super::process::checked;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// A connected pair of `SOCK_SEQPACKET` sockets (unix(7)): whole messages, in order, and an end.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [0; 2];
    // SAFETY: room for two descriptors.
    checked(unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
            0,
            pair.as_mut_ptr(),
        )
    })?;
    // SAFETY: two new descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])) })
}

/// Most descriptors that travel with one message.
pub const FDS_MAX: usize = 6;

/// Room for the control message that carries them, aligned as cmsg(3) wants it.
#[repr(C)]
union Control {
    bytes: [u8; 64],
    align: libc::cmsghdr,
}

/// Sends one message, with up to [`FDS_MAX`] descriptors, over a packet socket. `wait` decides whether a full socket is
/// waited for or is `EAGAIN`. A vanished reader is `EPIPE`, never a signal.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    wait: bool,
) -> io::Result<()> {
    let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
    if fds.len() > FDS_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut control = Control { bytes: [0; 64] };
    // SAFETY: all zero is a valid empty header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    if !fds.is_empty() {
        let length = size_of_val(fds) as u32;
        header.msg_control = (&raw mut control).cast();
        // SAFETY: CMSG_SPACE, CMSG_LEN and CMSG_FIRSTHDR compute within `control`, which is aligned and has room for
        // FDS_MAX descriptors; BorrowedFd is a transparent int.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(length) as usize;
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(length) as usize;
            ptr::copy_nonoverlapping(
                fds.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(first),
                length as usize,
            );
        }
    }
    loop {
        // SAFETY: the header points at `part` and `control`, both alive; sendmsg only reads them.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// One received message.
#[derive(Debug)]
pub struct Packet {
    /// Its length; 0 is the end of the connection.
    pub len: usize,
    /// The descriptors that came with it, closed by execve.
    pub fds: [Option<OwnedFd>; FDS_MAX],
}

/// Receives one message of a packet socket into `buffer`. With `wait` false an empty socket is `EAGAIN`.
///
/// # Errors
/// `EMSGSIZE` if the message was longer than `buffer` or carried more than [`FDS_MAX`] descriptors.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], wait: bool) -> io::Result<Packet> {
    let flags = libc::MSG_CMSG_CLOEXEC | if wait { 0 } else { libc::MSG_DONTWAIT };
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control = Control { bytes: [0; 64] };
    // SAFETY: all zero is a valid empty header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    // SAFETY: pure arithmetic.
    header.msg_controllen =
        unsafe { libc::CMSG_SPACE((FDS_MAX * size_of::<RawFd>()) as u32) } as usize;
    let len = loop {
        // SAFETY: the header points at `buffer` and `control`, both alive and writable for the lengths given.
        let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        if let Ok(len) = usize::try_from(len) {
            break len;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    let mut fds = [const { None }; FDS_MAX];
    // SAFETY: the kernel filled `control` up to the length it left in the header; the CMSG macros stay within it.
    // Every int in an SCM_RIGHTS message is a new descriptor of this process that nobody else owns.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(&raw const header);
        while !at.is_null() {
            if (*at).cmsg_level == libc::SOL_SOCKET && (*at).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*at).cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                for (n, slot) in fds.iter_mut().enumerate().take(count) {
                    let fd = libc::CMSG_DATA(at).cast::<RawFd>().add(n).read_unaligned();
                    *slot = Some(OwnedFd::from_raw_fd(fd));
                }
            }
            at = libc::CMSG_NXTHDR(&raw const header, at);
        }
    }
    if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    Ok(Packet { len, fds })
}

/// A file without a name that holds `bytes`, to be read from its beginning (memfd_create(2)).
pub fn file_of(bytes: &[u8]) -> io::Result<OwnedFd> {
    let make = |flags| {
        // SAFETY: a NUL-ended name and flags.
        checked(unsafe { libc::memfd_create(c"settled".as_ptr(), libc::MFD_CLOEXEC | flags) })
    };
    let fd = match make(libc::MFD_NOEXEC_SEAL) {
        // Before Linux 6.3 there is no such flag; since then sysctl vm.memfd_noexec may demand it.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => make(0)?,
        other => other?,
    };
    // SAFETY: a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut file = std::fs::File::from(fd);
    io::Write::write_all(&mut file, bytes)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

/// Reads such a file from its beginning into `to`, replacing what was there.
pub fn read_whole(fd: BorrowedFd<'_>, to: &mut Vec<u8>) -> io::Result<()> {
    to.clear();
    let mut piece = [0u8; 4096];
    loop {
        let at = to.len() as libc::off_t;
        // SAFETY: at most the length of `piece` is written to it.
        let read =
            unsafe { libc::pread(fd.as_raw_fd(), piece.as_mut_ptr().cast(), piece.len(), at) };
        match usize::try_from(read) {
            Ok(0) => return Ok(()),
            Ok(read) => to.extend_from_slice(&piece[..read]),
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
}
