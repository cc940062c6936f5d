//! What the daemon itself takes, for the state in words.

use std::io;

/// The calling process's resident memory in KiB (proc_pid_status(5), `VmRSS`).
///
/// # Errors
/// Those of reading the file; `InvalidData` if it has no such line.
pub fn resident_kib() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    field(&status, "VmRSS:").ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_name() {
        let status = "Name:\tsettled\nVmHWM:\t  900 kB\nVmRSS:\t    5120 kB\n";
        assert_eq!(field(status, "VmRSS:"), Some(5120));
        assert_eq!(field("VmRSS:\n", "VmRSS:"), None);
        assert_eq!(field("", "VmRSS:"), None);
    }
}
