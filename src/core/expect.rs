//! `expect`: what should have arrived. A window of time is open for each watch; what settles in it is counted, and when
//! it closes with too little in it that is told, once.
//!
//! Where a window stands is a record: it is written when the window opens, when it is found that too little came, and
//! when that was told. In between the records of what settled are enough to count again after a restart.

use super::Core;
use super::alert::{Alarm, Raised};
use super::record::{Record, Told};
use super::time::{Now, Wall, civil_date};
use super::timers::Timer;
use super::view::ExpectRow;
use super::watch::Watch;
use crate::plan::{ExpectPlan, Level, When};
use std::time::Duration;

const DAY_S: i64 = 86_400;
const SECOND: i64 = 1_000_000_000;

/// The clock may be set, and what is far away need not be known exactly: it is looked again after this.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// As long before a time of day as this its zone may be changed over, and that at a quarter of an hour.
const CHANGES_WITHIN: i64 = 3 * 3600;
const QUARTER_S: i64 = 900;

/// What came while the daemon was down is found by the first listing, and has to settle: so long after a start nothing is
/// called missing...
const GRACE: Duration = Duration::from_secs(10);
/// ... and longer, while that listing has not ended. But a directory that is not there gets no files.
const GRACE_MAX: Duration = Duration::from_secs(600);

/// A window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// What settled before does not count.
    pub(super) opens: Wall,
    /// The local day on which it closes, in days since 1970; 0 where it is bounded by a duration.
    pub(super) day: i32,
    /// What settled in it so far.
    pub(super) count: u32,
    /// That too little came.
    pub(super) told: Told,
}

/// What was found when a window closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    closed: Wall,
    count: u32,
    enough: bool,
}

impl Judged {
    fn of(window: &Window, plan: &ExpectPlan, now: Now) -> Judged {
        Judged {
            closed: window.closes(plan, now),
            count: window.count,
            enough: window.count >= plan.count,
        }
    }
}

/// `1 by 06:00, mon,tue`, or `1 every 24h`.
pub fn expect_words(plan: &ExpectPlan) -> String {
    let count = plan.count;
    match plan.when {
        When::Every(every) => format!("{count} every {}", span_words(every)),
        When::By { by_s, from_s, days } => {
            let time = |s: u32| format!("{:02}:{:02}", s / 3600, s / 60 % 60);
            let from = from_s.map_or_else(String::new, |from| format!(" from {}", time(from)));
            let words = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
            let named = words.iter().enumerate().filter(|(n, _)| days >> n & 1 == 1);
            let named: Vec<&str> = named.map(|(_, word)| *word).collect();
            let days = match named.len() {
                7 => "every day".to_owned(),
                _ => named.join(","),
            };
            format!("{count}{from} by {}, {days}", time(by_s))
        }
    }
}

/// As it is written in settled.toml(5), in the largest unit that divides it.
fn span_words(span: Duration) -> String {
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ];
    let ms = span.as_millis();
    let unit = units.iter().find(|(unit, _)| ms.is_multiple_of(*unit));
    unit.map_or_else(
        || format!("{ms}ms"),
        |(unit, word)| format!("{}{word}", ms / unit),
    )
}

fn local_s(now: Now) -> i64 {
    now.wall.0.div_euclid(SECOND) + i64::from(now.utc_offset_s)
}

/// Whether a day since 1970 is among `days`, of which bit 0 is Monday.
fn is_among(days: u8, day: i32) -> bool {
    // The first of them was a Thursday.
    days >> (day + 3).rem_euclid(7) & 1 == 1
}

/// The nearest day among `days` after this one, or before it.
fn neighbour(days: u8, day: i32, step: i32) -> i32 {
    let mut near = (1..=7).map(|n| day + n * step);
    near.find(|near| is_among(days, *near))
        .unwrap_or(day + step)
}

/// The point of the clock at which it shows this local time, by today's offset.
fn wall_of(local_s: i64, now: Now) -> Wall {
    Wall((local_s - i64::from(now.utc_offset_s)).saturating_mul(SECOND))
}

impl Window {
    /// One that opens now; where it closes at a time of day, the first of those to come.
    fn first(plan: &ExpectPlan, now: Now) -> Window {
        let mut window = Window {
            opens: now.wall,
            day: 0,
            count: 0,
            told: Told::Not,
        };
        if let When::By { days, .. } = plan.when {
            let today = i32::try_from(local_s(now).div_euclid(DAY_S)).unwrap_or(0);
            window.day = neighbour(days, today - 1, 1);
            if window.closes(plan, now) <= now.wall {
                window.day = neighbour(days, window.day, 1);
            }
            window.open_late(plan, now);
        }
        window
    }

    /// When it closes, as far as is known now.
    pub(super) fn closes(&self, plan: &ExpectPlan, now: Now) -> Wall {
        match plan.when {
            When::Every(every) => self.opens.after(every),
            When::By { by_s, .. } => wall_of(i64::from(self.day) * DAY_S + i64::from(by_s), now),
        }
    }

    /// With `from` a window opens at that time of day.
    fn open_late(&mut self, plan: &ExpectPlan, now: Now) {
        if let When::By {
            by_s,
            from_s: Some(from_s),
            ..
        } = plan.when
        {
            let before = if from_s >= by_s { DAY_S } else { 0 };
            let opens = i64::from(self.day) * DAY_S + i64::from(from_s) - before;
            self.opens = wall_of(opens, now);
        }
    }

    /// The window after the last one that has closed by now.
    fn next(&self, plan: &ExpectPlan, now: Now) -> Window {
        let When::By { days, .. } = plan.when else {
            return Window {
                told: Told::Told,
                ..*self
            };
        };
        let mut next = Window {
            opens: self.closes(plan, now),
            day: neighbour(days, self.day, 1),
            count: 0,
            told: Told::Not,
        };
        while next.closes(plan, now) <= now.wall {
            next.opens = next.closes(plan, now);
            next.day = neighbour(days, next.day, 1);
        }
        next.open_late(plan, now);
        next
    }

    /// After a long time without a look only the last window that has closed can still be judged.
    fn catch_up(&mut self, plan: &ExpectPlan, now: Now) {
        let When::By { days, .. } = plan.when else {
            return;
        };
        let next = self.next(plan, now);
        let last = neighbour(days, next.day, -1);
        if last > self.day {
            let before = Window {
                day: neighbour(days, last, -1),
                ..*self
            };
            *self = Window {
                opens: before.closes(plan, now),
                day: last,
                count: 0,
                told: Told::Not,
            };
            self.open_late(plan, now);
        }
    }

    /// A file settled. Whether that ends a wait for it which was told.
    pub(super) fn arrived(&mut self, plan: &ExpectPlan, at: Wall) -> bool {
        if at < self.opens {
            return false;
        }
        self.count = self.count.saturating_add(1);
        if self.count < plan.count || !matches!(plan.when, When::Every(_)) {
            return false;
        }
        let late = self.told != Told::Not;
        *self = Window {
            opens: at,
            day: 0,
            count: 0,
            told: Told::Not,
        };
        late
    }

    /// No clock that is right opens this one now: it was opened while the clock was wrong, and nothing that comes would
    /// count before the clock has come there. Where it was set back over the end of a window the next one is open rightly.
    fn is_far_ahead(&self, plan: &ExpectPlan, now: Now) -> bool {
        let next = Window::first(plan, now).next(plan, now);
        let latest = next.closes(plan, now).0.saturating_add(DAY_S * SECOND);
        self.closes(plan, now).0 > latest
    }

    /// How long until it is to be looked at again.
    fn wait(&self, plan: &ExpectPlan, now: Now) -> Duration {
        let left = self.closes(plan, now).since(now.wall);
        if matches!(plan.when, When::By { .. }) && left.as_secs() < CHANGES_WITHIN as u64 {
            let second = now.wall.0.div_euclid(SECOND);
            let quarter = (second.div_euclid(QUARTER_S) + 1) * QUARTER_S;
            return left.min(Wall(quarter * SECOND).since(now.wall));
        }
        let until_near = left.saturating_sub(Duration::from_secs(CHANGES_WITHIN as u64));
        let near = match plan.when {
            When::By { .. } => until_near.max(Duration::from_secs(1)),
            When::Every(_) => left,
        };
        near.min(LOOK_EVERY)
    }

    fn fits(&self, plan: &ExpectPlan) -> bool {
        match plan.when {
            When::Every(_) => self.day == 0,
            When::By { days, .. } => self.day != 0 && is_among(days, self.day),
        }
    }
}

impl Core {
    /// At start, after a reload and whenever it is time: looks whether what is expected has come.
    pub(super) fn expect_due(&mut self, watch: u32) {
        self.timers.clear(Timer::Expect(watch));
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        let before = state.window;
        let plan = state.plan.expect.filter(|_| state.active);
        let Some(plan) = plan else {
            (state.judged, state.came) = (None, None);
            state.window = None;
            if before.is_some() {
                self.forget_alerts(Alarm::Expected, u64::from(watch));
                self.record_window(watch);
            }
            return;
        };
        let now = self.now;
        let fits = before.filter(|window| window.fits(&plan));
        if fits.is_none() {
            state.judged = None;
        }
        // One that is being told of stays until it is.
        let ahead = fits
            .filter(|window| window.told != Told::Owed && window.is_far_ahead(&plan, now))
            .is_some();
        let fits = fits.filter(|_| !ahead);
        if ahead {
            // Neither is what that clock said of before.
            state.judged = None;
            state.came = state.came.filter(|came| *came <= now.wall);
        }
        let mut window = fits.unwrap_or_else(|| Window::first(&plan, now));
        if window.told == Told::Not {
            window.catch_up(&plan, now);
            if window.opens > now.wall {
                // Its zone may have been changed over since.
                window.open_late(&plan, now);
            }
        }
        let mut wait = window.wait(&plan, now);
        if window.closes(&plan, now) <= now.wall {
            let enough = window.count >= plan.count;
            if window.told == Told::Not && enough {
                self.judge_window(watch, &plan, &window);
                window = window.next(&plan, now);
            } else if window.told == Told::Not && self.is_settling_in(watch) {
                self.keep_window(watch, window, before);
                let at = self.now.mono.after(Duration::from_secs(1));
                self.timers.set(Timer::Expect(watch), at);
                return;
            } else if window.told != Told::Told {
                window.told = Told::Owed;
                self.keep_window(watch, window, before);
                if !self.is_alerting(Alarm::Expected, u64::from(watch)) {
                    self.miss(watch, &plan, window);
                }
                return;
            } else {
                // Nothing happens before something comes, but that the clock is set back.
                self.keep_window(watch, window, before);
                self.timers
                    .set(Timer::Expect(watch), self.now.mono.after(LOOK_EVERY));
                return;
            }
            wait = window.wait(&plan, now);
        }
        self.keep_window(watch, window, before);
        self.timers
            .set(Timer::Expect(watch), self.now.mono.after(wait));
    }

    /// What came while the daemon was down may not have been found yet, or not settled.
    fn is_settling_in(&self, watch: u32) -> bool {
        let Some(state) = self.watches.get(watch as usize) else {
            return false;
        };
        let up = self.now.mono.since(self.started);
        let quiet = state.plan.settle.unwrap_or(super::QUIET_EXPORTED);
        up < GRACE + quiet || (!state.scanned && up < GRACE_MAX)
    }

    fn keep_window(&mut self, watch: u32, window: Window, before: Option<Window>) {
        if let Some(state) = self.watches.get_mut(watch as usize) {
            state.window = Some(window);
        }
        if before != Some(window) {
            self.record_window(watch);
        }
    }

    fn judge_window(&mut self, watch: u32, plan: &ExpectPlan, window: &Window) {
        let judged = Judged::of(window, plan, self.now);
        if let Some(state) = self.watches.get_mut(watch as usize) {
            state.judged = Some(judged);
        }
    }

    /// Where a watch stands with what is expected of it.
    pub(super) fn expect_row(&self, state: &Watch) -> Option<ExpectRow> {
        let (plan, window) = state.plan.expect.as_ref().zip(state.window)?;
        let ns = |at: Option<Wall>| at.map_or(0, |at| at.0);
        Some(ExpectRow {
            text: expect_words(plan),
            count: u64::from(plan.count),
            came: u64::from(window.count),
            opens_ns: window.opens.0,
            closes_ns: window.closes(plan, self.now).0,
            missed: window.told != Told::Not,
            last_ns: ns(state.came),
            judged_ns: ns(state.judged.map(|judged| judged.closed)),
            judged_came: state.judged.map_or(0, |judged| u64::from(judged.count)),
            judged_missed: state.judged.is_some_and(|judged| !judged.enough),
        })
    }

    fn record_window(&mut self, watch: u32) {
        if let Some(record) = self.watches.get(watch as usize).and_then(window_record) {
            self.append(record);
        }
    }

    /// Too little has come.
    fn miss(&mut self, watch: u32, plan: &ExpectPlan, window: Window) {
        self.judge_window(watch, plan, &window);
        let came = window.count;
        let text = match plan.when {
            When::Every(every) => format!(
                "expected, and has not come: {came} of {} in {} s",
                plan.count,
                every.as_secs()
            ),
            When::By { by_s, .. } => {
                let at = window.closes(plan, self.now);
                format!(
                    "expected, and has not come: {came} of {} by {:02}:{:02} on {}",
                    plan.count,
                    by_s / 3600,
                    by_s / 60 % 60,
                    civil_date(at, self.now.utc_offset_s)
                )
            }
        };
        self.count(watch, |counts| counts.missed += 1);
        let Some(state) = self.watches.get(watch as usize) else {
            return;
        };
        let (name, path) = (state.plan.name.clone(), state.plan.path.clone());
        self.log(Level::Error, |line| {
            line.text.clone_from(&text);
            line.watch.clone_from(&name);
            line.path.clone_from(&path);
        });
        let raised = Raised {
            watch: name,
            path,
            text,
            ..Raised::default()
        };
        if !self.raise(Alarm::Expected, u64::from(watch), raised) {
            self.missing_told(watch);
        }
    }

    /// Whoever is to know was told, or there is nobody.
    pub(super) fn missing_told(&mut self, watch: u32) {
        let now = self.now;
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        let Some((plan, window)) = state.plan.expect.zip(state.window) else {
            return;
        };
        if window.told == Told::Owed {
            state.window = Some(window.next(&plan, now));
            self.record_window(watch);
        }
        self.expect_due(watch);
    }

    /// A file of a watch settled.
    pub(super) fn expect_arrival(&mut self, watch: u32) {
        let at = self.now.wall;
        let Some(late) = self
            .watches
            .get_mut(watch as usize)
            .and_then(|state| state.arrived(at))
        else {
            return;
        };
        if late {
            // It need not be told any more, unless that is being done.
            self.forget_alerts(Alarm::Expected, u64::from(watch));
            let name = self.watch_name(watch);
            self.log(Level::Warning, |line| {
                line.text = "what was expected has come after all".into();
                line.watch = name;
            });
            self.expect_due(watch);
        }
    }
}

impl Watch {
    /// A file settled: see [`Window::arrived`]. `None` if none is expected.
    pub(super) fn arrived(&mut self, at: Wall) -> Option<bool> {
        let plan = self.plan.expect?;
        self.came = self.came.max(Some(at));
        Some(self.window.as_mut()?.arrived(&plan, at))
    }
}

/// Where a watch's window stands.
pub(super) fn window_record(watch: &Watch) -> Option<Record> {
    (watch.id.0 != 0).then(|| {
        let none = Window {
            opens: Wall(0),
            day: 0,
            count: 0,
            told: Told::Not,
        };
        let window = watch.window.unwrap_or(none);
        Record::Expected {
            watch: watch.id,
            opens: window.opens,
            day: window.day,
            count: window.count,
            told: window.told,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: i64 = 3600;

    fn by(by: &str, from: Option<&str>, days: u8) -> ExpectPlan {
        let s = |text: &str| {
            let (h, m) = text.split_once(':').unwrap();
            h.parse::<u32>().unwrap() * 3600 + m.parse::<u32>().unwrap() * 60
        };
        ExpectPlan {
            when: When::By {
                by_s: s(by),
                from_s: from.map(s),
                days,
            },
            count: 1,
        }
    }

    fn at(utc_s: i64, offset_s: i64) -> Now {
        Now {
            wall: Wall(utc_s * SECOND),
            utc_offset_s: offset_s as i32,
            ..Now::default()
        }
    }

    const ALL: u8 = 0x7f;
    const WORKDAYS: u8 = 0x1f;
    /// Sunday 2026-03-29, 00:00 UTC: Berlin changes from UTC+1 to UTC+2 an hour later.
    const SPRING: i64 = 1_774_742_400;
    /// Sunday 2026-10-25, 00:00 UTC: back again, an hour later.
    const AUTUMN: i64 = 1_792_886_400;

    fn berlin(utc_s: i64) -> i64 {
        if (SPRING + H..AUTUMN + H).contains(&utc_s) {
            2 * H
        } else {
            H
        }
    }

    /// Looks at a window from `from` on, whenever it wants to be looked at: when it is found closed, and how often it was
    /// looked at.
    fn closed(plan: &ExpectPlan, from: i64, zone: fn(i64) -> i64) -> (i64, u32) {
        let mut ns = from * SECOND;
        let window = Window::first(plan, at(from, zone(from)));
        for looks in 1.. {
            let now = Now {
                wall: Wall(ns),
                utc_offset_s: zone(ns.div_euclid(SECOND)) as i32,
                ..Now::default()
            };
            if window.closes(plan, now) <= now.wall {
                return (ns.div_euclid(SECOND), looks);
            }
            ns += i64::try_from(window.wait(plan, now).as_nanos()).unwrap();
        }
        unreachable!()
    }

    #[test]
    fn the_time_of_day_is_kept_over_both_changes_of_the_clock() {
        let six = by("06:00", None, ALL);
        // From Saturday noon: by 06:00 on Sunday, which is 04:00 UTC, and not 05:00 as on Saturday.
        let (closes, looks) = closed(&six, SPRING - 13 * H, berlin);
        assert_eq!(closes, SPRING + 4 * H);
        assert!(looks < 50, "{looks}");
        assert_eq!(closed(&six, AUTUMN - 13 * H, berlin).0, AUTUMN + 5 * H);
        // A time that there is not on that day has come when the clock jumps over it; of two the first counts.
        let half_past_two = by("02:30", None, ALL);
        assert_eq!(
            closed(&half_past_two, SPRING - 13 * H, berlin).0,
            SPRING + H
        );
        let (closes, _) = closed(&half_past_two, AUTUMN - 13 * H, berlin);
        assert_eq!(closes, AUTUMN + H / 2);
        // The second is not the next day's: that has another date.
        let now = at(closes, berlin(closes));
        let next =
            Window::first(&half_past_two, at(AUTUMN - 13 * H, 2 * H)).next(&half_past_two, now);
        let again = at(AUTUMN + 3 * H / 2, H);
        assert!(next.closes(&half_past_two, again) > again.wall);
        assert_eq!(
            next.closes(&half_past_two, again),
            Wall((AUTUMN + 25 * H + H / 2) * SECOND)
        );
    }

    #[test]
    fn only_the_days_of_the_calendar_count() {
        let plan = by("06:00", None, WORKDAYS);
        // Saturday 2026-03-28, noon UTC, in UTC: Monday's is the first.
        let saturday = SPRING - 12 * H;
        let window = Window::first(&plan, at(saturday, 0));
        assert_eq!(
            window.closes(&plan, at(saturday, 0)),
            Wall((SPRING + 30 * H) * SECOND)
        );
        // After Friday's comes Monday's.
        let friday = SPRING - 42 * H;
        let window = Window::first(&plan, at(friday - 1, 0));
        assert_eq!(window.closes(&plan, at(friday, 0)), Wall(friday * SECOND));
        let next = window.next(&plan, at(friday, 0));
        assert_eq!(
            next.closes(&plan, at(friday, 0)),
            Wall((SPRING + 30 * H) * SECOND)
        );
        assert_eq!(next.opens, Wall(friday * SECOND));
    }

    #[test]
    fn from_opens_the_window_on_the_day_or_the_evening_before() {
        let midnight = at(SPRING - 48 * H, 0);
        let day = by("06:00", Some("02:00"), ALL);
        let window = Window::first(&day, midnight);
        assert_eq!(
            window.opens,
            midnight.wall.after(Duration::from_secs(2 * 3600))
        );
        let evening = by("06:00", Some("18:00"), ALL);
        let mut window = Window::first(&evening, midnight);
        assert_eq!(
            window.opens,
            midnight.wall.before(Duration::from_secs(6 * 3600))
        );
        let too_early = window.opens.before(Duration::from_secs(1));
        window.arrived(&evening, too_early);
        assert_eq!(window.count, 0);
        window.arrived(&evening, midnight.wall);
        assert_eq!(window.count, 1);
    }

    #[test]
    fn after_days_without_a_look_the_last_window_alone_is_judged() {
        let plan = by("06:00", None, ALL);
        let mut window = Window::first(&plan, at(SPRING - 48 * H, 0));
        window.count = 1;
        let now = at(SPRING + 7 * H, 0);
        window.catch_up(&plan, now);
        assert_eq!(window.closes(&plan, now), Wall((SPRING + 6 * H) * SECOND));
        assert_eq!(window.opens, Wall((SPRING - 18 * H) * SECOND));
        assert_eq!(window.count, 0, "that was of another day");
        let next = window.next(&plan, now);
        assert_eq!(next.closes(&plan, now), Wall((SPRING + 30 * H) * SECOND));
    }

    #[test]
    fn a_window_of_a_clock_that_was_wrong_is_not_one_of_a_clock_that_is_set_back_a_little() {
        let every = |s| ExpectPlan {
            when: When::Every(Duration::from_secs(s)),
            count: 1,
        };
        let plans = [
            by("06:00", None, ALL),
            by("06:00", Some("18:00"), WORKDAYS),
            by("06:00", None, 1),
            every(60),
            every(40 * 86_400),
        ];
        for plan in plans {
            for back in [0, 60, 3600, 20 * H] {
                // Over the end of a window, and elsewhere.
                for from in [SPRING + 6 * H, SPRING + 30 * H + 60, SPRING + 33 * H] {
                    let window = Window::first(&plan, at(from, 0));
                    let now = at(from - back, 0);
                    assert!(!window.is_far_ahead(&plan, now), "{plan:?} {back}");
                }
            }
            let window = Window::first(&plan, at(SPRING + 4 * 365 * 24 * H, 0));
            assert!(window.is_far_ahead(&plan, at(SPRING, 0)), "{plan:?}");
        }
    }

    #[test]
    fn a_duration_begins_anew_with_what_completes_the_count() {
        let plan = ExpectPlan {
            when: When::Every(Duration::from_secs(100)),
            count: 2,
        };
        let mut window = Window::first(&plan, at(1000, 0));
        assert!(!window.arrived(&plan, Wall(1050 * SECOND)));
        assert_eq!(window.closes(&plan, at(1050, 0)), Wall(1100 * SECOND));
        assert!(!window.arrived(&plan, Wall(1060 * SECOND)));
        assert_eq!(window.closes(&plan, at(1060, 0)), Wall(1160 * SECOND));
        window.told = Told::Owed;
        let mut told = window.next(&plan, at(1170, 0));
        assert_eq!(told.told, Told::Told);
        assert!(!told.arrived(&plan, Wall(1200 * SECOND)));
        assert!(
            told.arrived(&plan, Wall(1201 * SECOND)),
            "it has come after all"
        );
        assert_eq!((told.told, told.count), (Told::Not, 0));
    }
}
