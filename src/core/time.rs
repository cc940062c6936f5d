//! Time as the core knows it: always an argument, never read here.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A point of `CLOCK_BOOTTIME`, in nanoseconds. Waits are measured with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(pub u64);

impl Mono {
    /// This point plus `wait`, saturating at the end of time.
    pub fn after(self, wait: Duration) -> Mono {
        Mono(
            self.0
                .saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Wall time: nanoseconds since 1970-01-01 UTC. Durable deadlines and file times use it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Wall(pub i64);

impl Wall {
    /// This time plus `wait`, saturating.
    pub fn after(self, wait: Duration) -> Wall {
        Wall(
            self.0
                .saturating_add(i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX)),
        )
    }

    /// This time less `wait`, saturating.
    pub fn before(self, wait: Duration) -> Wall {
        Wall(
            self.0
                .saturating_sub(i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX)),
        )
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Both clocks, read once a turn by the loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// `CLOCK_BOOTTIME`.
    pub mono: Mono,
    /// `CLOCK_REALTIME`.
    pub wall: Wall,
    /// Seconds east of UTC at `wall` in the daemon's time zone, for `{date}`.
    pub utc_offset_s: i32,
}

/// The civil date of `wall` at `utc_offset_s` seconds east of UTC, as `YYYY-MM-DD`.
pub fn civil_date(wall: Wall, utc_offset_s: i32) -> String {
    let days = (wall.0.div_euclid(1_000_000_000) + i64::from(utc_offset_s)).div_euclid(86_400);
    // Days since 0000-03-01 in the proleptic Gregorian calendar, whose 400-year eras have
    // 146,097 days; March-based years put the leap day last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn civil_dates_at_the_edges() {
        for (seconds, offset, date) in [
            (0, 0, "1970-01-01"),
            (-1, 0, "1969-12-31"),
            (951_782_399, 0, "2000-02-28"),
            (951_782_400, 0, "2000-02-29"),
            (951_868_800, 0, "2000-03-01"),
            (1_735_689_599, 0, "2024-12-31"),
            (1_735_689_599, 3600, "2025-01-01"),
            (4_107_542_400, 0, "2100-03-01"),
        ] {
            assert_eq!(civil_date(Wall(seconds * 1_000_000_000), offset), date);
        }
    }
}
