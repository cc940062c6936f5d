//! What a terminal can be asked.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Rows and columns (`TIOCGWINSZ`, ioctl_tty(2)); `None` where it is no terminal, or does not know.
pub fn size(terminal: BorrowedFd<'_>) -> Option<(usize, usize)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the request writes one winsize, for which there is room, and which outlives the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    let (rows, columns) = (usize::from(size.ws_row), usize::from(size.ws_col));
    (result == 0 && rows > 0 && columns > 0).then_some((rows, columns))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_file_has_no_size_of_a_terminal() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(size(file.as_fd()), None);
    }
}
