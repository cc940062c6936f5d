//! Questions about a path.

use crate::core::ask::{Place, Version};
use crate::core::{NotStarted, StartStep};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

/// Opens the file if it is still this version.
pub fn open_expected(place: &Place, expect: &Version, _lease: bool) -> Result<OwnedFd, NotStarted> {
    let failed = |error: std::io::Error| {
        NotStarted::Failed(StartStep::OpenFile, error.raw_os_error().unwrap_or(0))
    };
    let path = std::ffi::OsString::from_vec(place.path());
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => NotStarted::NotTheFile,
            _ => failed(error),
        })?;
    let meta = file.metadata().map_err(failed)?;
    let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    if (meta.ino(), meta.size(), mtime_ns) != (expect.ino, expect.size, expect.mtime_ns) {
        return Err(NotStarted::NotTheFile);
    }
    Ok(file.into())
}
