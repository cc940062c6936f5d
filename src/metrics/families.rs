//! Every metric that there is, in the order in which they are given out: the one table that the text, the manual and the
//! dashboard are held against.

/// What kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from the daemon's start on. Its sample ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Samples end in `_bucket`, `_sum` and `_count`.
    Histogram,
    /// Always 1, for what its labels say. Its sample ends in `_info`.
    Info,
}

impl Kind {
    /// As OpenMetrics has it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        }
    }

    /// What the names of samples have behind the family's.
    pub fn suffixes(self) -> &'static [&'static str] {
        match self {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
            Kind::Info => &["_info"],
        }
    }
}

/// A metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, without the suffix of its samples. One that has a unit ends in it.
    pub name: &'static str,
    /// See [`Kind`].
    pub kind: Kind,
    /// Its labels, besides `le`.
    pub labels: &'static [&'static str],
    /// A sentence.
    pub help: &'static str,
}

impl Family {
    /// The unit that its name ends in; empty if it has none.
    pub fn unit(&self) -> &'static str {
        let units = ["seconds", "bytes"];
        let is_unit = |unit: &&str| {
            let rest = self.name.strip_suffix(unit);
            rest.is_some_and(|rest| rest.ends_with('_'))
        };
        units.into_iter().find(is_unit).unwrap_or("")
    }
}

macro_rules! families {
    ($($name:ident $kind:ident [$($label:ident)*] $help:literal;)*) => {
        /// All of them.
        pub const FAMILIES: &[Family] = &[$(
            Family {
                name: concat!("settled_", stringify!($name)),
                kind: Kind::$kind,
                labels: &[$(stringify!($label)),*],
                help: $help,
            },
        )*];

        /// Names of families.
        #[allow(non_upper_case_globals)]
        pub(super) mod names {
            $(pub(in crate::metrics) const $name: &str = concat!("settled_", stringify!($name));)*
        }
    };
}

families! {
    build Info [version] "The version of the program";
    start_time_seconds Gauge [] "When the daemon was started, in seconds since 1970";
    arrivals Counter [watch] "Versions of files that settled";
    outcomes Counter [watch outcome] "Jobs that were concluded";
    attempts_started Counter [watch] "Attempts that were begun";
    attempts Counter [watch result] "Attempts that ended";
    retries Counter [watch] "Attempts begun that were not the first of their job";
    jobs Gauge [watch state] "Jobs that are owed";
    candidates Gauge [watch] "Files that have not settled yet";
    candidate_oldest_seconds Gauge [watch] "How long the oldest of them has been known; 0 where there is none";
    settle_seconds Histogram [watch] "From the first hint of a file until it settled";
    queue_wait_seconds Histogram [watch] "From when a file settled until its first attempt was begun";
    run_seconds Histogram [watch] "How long attempts took";
    watch_root_present Gauge [watch] "1 while the directory of the watch is there and observed";
    expected_missed Counter [watch] "Times that what was expected had not come";
    directories Gauge [] "Directories that are known";
    files_remembered Gauge [] "Files that are remembered, those that are gone included";
    journal_flush_seconds Histogram [] "How long it took to make records durable";
    journal_flushed_bytes Counter [] "Bytes made durable";
    journal_records Counter [] "Records made durable";
    journal_size_bytes Gauge [] "What the next start would have to read";
    journal_live_bytes Gauge [] "The state as the last compaction wrote it";
    journal_has_room Gauge [] "1 while there is room for more records";
    loop_turns Counter [] "Turns of the loop";
    loop_longest_stall_seconds Gauge [] "The longest turn since the start, flushes left out";
    loop_recent_stall_seconds Gauge [] "The longest turn since these numbers were given out last in the same way, flushes left out";
    mount_answers Counter [mount] "Answers of the mount's scout";
    mount_slow Gauge [mount] "1 while an answer takes longer than usual";
    mount_silent Gauge [mount] "1 while the mount does not answer";
    mount_questions Gauge [mount state] "Questions that the mount's scout was asked or is to be asked";
    inotify_watches Gauge [] "inotify watches that are used";
    inotify_watches_limit Gauge [] "How many a user may have; fs.inotify.max_user_watches";
    inotify_overflows Counter [] "How often events were lost because the kernel's queue was full";
    log_lines_dropped Counter [] "Log lines that could not be written";
    alerts Counter [alert] "Alert commands that were started";
    alert_failures Counter [] "Alert commands that failed";
    memory_bytes Gauge [] "What the daemon's process has in memory";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_openmetrics_allows() {
        let mut names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
        for family in FAMILIES {
            // A name that ends like a sample of another kind would be taken for one.
            for suffix in ["_total", "_count", "_sum", "_bucket", "_info", "_created"] {
                assert!(!family.name.ends_with(suffix), "{}", family.name);
            }
            let letters = family.name.bytes();
            assert!(
                letters
                    .into_iter()
                    .all(|b| b.is_ascii_lowercase() || b == b'_')
            );
            assert!(!family.help.contains(['\\', '\n', '"']), "{}", family.name);
        }
    }
}
