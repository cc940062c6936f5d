//! Who is let in, and by which name.

use crate::sys::peer;
use mio::net::UnixStream;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Who may ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Takes away a socket that nobody listens on.
pub(super) fn make_room(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let Some(parent) = path.parent() else {
                return Ok(());
            };
            // What bind says of it is said then.
            match fs::create_dir(parent) {
                Err(_) | Ok(()) => Ok(()),
            }
        }
        Err(error) => Err(format!("{shown}: {error}")),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(format!("{shown} is there, and is no socket"))
        }
        // Not waited for: a daemon that hangs has it, too.
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| format!("{shown}: {error}"))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            _ => Err(format!("{shown}: another daemon listens there")),
        },
    }
}

/// Whether a peer may ask, and whether it may change something. Who is not known may neither.
pub(super) fn rights(stream: &UnixStream, allowed: Allowed) -> (bool, bool) {
    let Ok(peer) = getsockopt(&stream.as_fd(), PeerCredentials) else {
        return (false, false);
    };
    let commands = peer.uid() == 0 || peer.uid() == allowed.uid;
    let member = || {
        peer.gid() == allowed.gid
            || peer::groups(stream.as_fd()).is_ok_and(|groups| groups.contains(&allowed.gid))
    };
    (commands || member(), commands)
}
