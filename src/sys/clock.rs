//! The clocks. The loop reads them once a turn; nothing below it reads any.

use crate::core::time::{Mono, Wall};
use nix::time::{ClockId, clock_gettime};
use std::sync::Once;

/// Nanoseconds of `clock`. The clocks asked for here exist in every kernel that this program runs on
/// (clock_gettime(2)), so the error has no caller that could do anything about it: it reads as 0.
fn nanoseconds(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |t| {
        t.tv_sec()
            .saturating_mul(1_000_000_000)
            .saturating_add(t.tv_nsec())
    })
}

/// `CLOCK_BOOTTIME`: never set, and goes on while the machine is suspended (clock_gettime(2)).
pub fn boottime() -> Mono {
    Mono(u64::try_from(nanoseconds(ClockId::CLOCK_BOOTTIME)).unwrap_or(0))
}

/// `CLOCK_REALTIME`: may jump.
pub fn wall() -> Wall {
    Wall(nanoseconds(ClockId::CLOCK_REALTIME))
}

/// `CLOCK_MONOTONIC` in microseconds, as sd_notify(3) wants it with `RELOADING=1`.
pub fn monotonic_us() -> u64 {
    u64::try_from(nanoseconds(ClockId::CLOCK_MONOTONIC) / 1_000).unwrap_or(0)
}

unsafe extern "C" {
    // tzset(3); the libc crate has no declaration of it for Linux.
    fn tzset();
}

/// Reads `TZ` or `/etc/localtime` again (tzset(3)). [`utc_offset`] does so once by itself; call this at a
/// reload, so that a changed time zone is noticed.
pub fn read_zone() {
    // SAFETY: tzset takes nothing, returns nothing and guards its own state with a lock. It reads the
    // environment, which this process changes only while it has one thread (`sys::environ`).
    unsafe { tzset() }
}

/// Seconds east of UTC at `at` in the local time zone; 0 for a year that localtime_r(3) cannot express.
/// Costs well under a microsecond: the zone's file is read once, not per call.
pub fn utc_offset(at: Wall) -> i32 {
    static ZONE: Once = Once::new();
    ZONE.call_once(read_zone);
    let seconds: libc::time_t = at.0.div_euclid(1_000_000_000);
    // SAFETY: `tm` is plain integers and a pointer, for all of which zero is a valid value.
    let mut out: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals of the right type; localtime_r keeps neither. `tm_zone`,
    // the one pointer it stores, is never read here.
    let done = unsafe { libc::localtime_r(&seconds, &mut out) };
    if done.is_null() {
        return 0;
    }
    i32::try_from(out.tm_gmtoff).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::SystemTime;

    #[test]
    fn clocks_agree_with_the_kernels_own_word() {
        let uptime = || -> f64 {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        };
        // /proc/uptime is CLOCK_BOOTTIME in hundredths, cut off.
        let (before, here, after) = (uptime(), boottime().0 as f64 / 1e9, uptime());
        assert!(before - 0.011 <= here && here <= after + 0.011, "{here}");

        let unix = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            i64::try_from(since.unwrap().as_nanos()).unwrap()
        };
        let (before, here, after) = (unix(), wall().0, unix());
        assert!(before <= here && here <= after);
        let first = monotonic_us();
        assert!(first > 0 && first <= monotonic_us());
    }

    /// Runs in a process of its own, see below.
    #[test]
    #[ignore = "asked for by offset_follows_the_zone with TZ set"]
    fn print_offsets() {
        for seconds in [1_767_225_600, 1_782_864_000, -1] {
            println!("offset {}", utc_offset(Wall(seconds * 1_000_000_000)));
        }
    }

    #[test]
    fn offset_follows_the_zone() {
        // A POSIX zone with its rule in it needs no zone files on the machine.
        for (zone, winter, summer) in [
            ("UTC0", 0, 0),
            ("CET-1CEST,M3.5.0,M10.5.0/3", 3600, 7200),
            ("<-0330>3:30", -12600, -12600),
        ] {
            let out = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "sys::clock::tests::print_offsets"])
                .args(["--ignored", "--nocapture"])
                .env("TZ", zone)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let seen: Vec<i32> = text
                .split("offset ")
                .skip(1)
                .map(|rest| rest.split_whitespace().next().unwrap().parse().unwrap())
                .collect();
            assert_eq!(seen, [winter, summer, winter], "{zone}: {text}");
        }
    }
}
