//! The journal's words: what the core wishes to remember, and is told again at start.
//! Their bytes are `journal::format`'s affair and `settled-journal(5)`'s.

use super::ask::Version;
use super::ids::{DirId, JobId, WatchId};
use super::time::Wall;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The child exited with this status.
    Exit(i32),
    /// The child was ended by this signal.
    Signal(i32),
    /// The daemon ended it because `timeout` had passed.
    TimedOut,
    /// The child could not be started: which step, and the errno.
    NotStarted {
        /// See [`super::StartStep`].
        step: u8,
        /// errno(3).
        errno: i32,
    },
    /// The look before the attempt found another version, or none: costs no attempt.
    NotTheFile,
    /// The look before the attempt found a writer: costs no attempt.
    StillWritten,
    /// The daemon was stopped or crashed meanwhile: costs no attempt, and the next one is marked.
    CutShort,
    /// It failed together with others, and nobody knows because of which: costs no attempt, and from now on the job
    /// is run alone.
    Together,
    /// Its worker asked for it to be tried again.
    AskedRetry,
    /// Its worker said that it is dead.
    AskedDead,
    /// Its worker said that it is done.
    SaidDone,
    /// Its worker ended without having answered.
    WorkerLost,
    /// There was none here: another machine made it.
    Elsewhere,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its command succeeded.
    Done,
    /// Its command failed for good.
    Dead,
    /// The file was replaced or changed before its job had succeeded with it.
    Superseded,
    /// The file was taken away before its job had run.
    Gone,
    /// Nothing is run for it without a person's word: its own job changed it too many times in a row, or its attempt
    /// was cut short and is promised to be made once at most.
    Held,
}

/// What happens to a file after its last attempt, with the target fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// It stays.
    Keep,
    /// It stays, and other machines are told how its job ended before that is history.
    Mark,
    /// It is unlinked.
    Delete,
    /// It goes to `dir/rel`.
    Move {
        /// Absolute directory, expanded.
        dir: Vec<u8>,
        /// Path below it, without leading slash.
        rel: Vec<u8>,
    },
}

/// How a disposition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisposedHow {
    /// As recorded.
    Done,
    /// The file was no longer there.
    Gone,
    /// Another version lay there; it was left.
    Changed,
}

/// Whether it was told that something expected has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// There is nothing to be told.
    Not,
    /// It is to be told.
    Owed,
    /// It was.
    Told,
}

/// An attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When it was begun.
    pub started: Wall,
    /// How it ended and when.
    pub end: Option<(AttemptEnd, Wall)>,
    /// The last of its output.
    pub output: Vec<u8>,
}

/// What is known of an arrival and its job. Nothing is decided by it: it is for those who ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The job.
    pub job: JobId,
    /// The watch.
    pub watch: WatchId,
    /// The directory in which this version of the file is remembered, or in which it waits; else 0.
    pub dir: DirId,
    /// The path below the watch's root, as it was last.
    pub rel: Vec<u8>,
    /// Digest of its version: the one that was there when the job ended.
    pub version: u64,
    /// Bytes, when it settled.
    pub size: u64,
    /// Modification time when it settled, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// How the job ended and when.
    pub concluded: Option<(Outcome, Wall)>,
    /// What was to happen to the file; a move with its last target.
    pub disposal: Disposal,
    /// Whether that was done, and when.
    pub disposed: Option<(DisposedHow, Wall)>,
    /// Its last attempts, in order.
    pub attempts: Vec<Attempt>,
    /// Names that it had, the first first, and until when.
    pub before: Vec<(Vec<u8>, Wall)>,
}

impl Summary {
    /// When nothing of it was left to do.
    pub fn over(&self) -> Option<Wall> {
        match self.disposal {
            Disposal::Keep => self.concluded.map(|(_, at)| at),
            _ => self.disposed.map(|(_, at)| at),
        }
    }
}

/// One journal record. Times in it are wall times; the record's own time is in its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A watch and its number.
    Watch {
        /// The number.
        watch: WatchId,
        /// The name in the configuration.
        name: String,
    },
    /// A directory that holds something to be remembered. Roots have parent 0 and an empty name.
    /// Said again with the same id, it was renamed.
    Dir {
        /// The directory.
        dir: DirId,
        /// The watch that sees it.
        watch: WatchId,
        /// Its parent, recorded before it.
        parent: DirId,
        /// Its name in its parent.
        name: Vec<u8>,
        /// Its inode number.
        ino: u64,
        /// Its birth time, or 0.
        btime_ns: i64,
    },
    /// A directory and everything below it is gone; its id may be used again.
    DirGone {
        /// The directory.
        dir: DirId,
    },
    /// A version of a file settled: a job is owed. With directory 0 it only says which job number was the last
    /// one given; compaction writes that.
    Settled {
        /// The job.
        job: JobId,
        /// The file's directory.
        dir: DirId,
        /// The file's name.
        name: Vec<u8>,
        /// What settled.
        version: Version,
        /// Its change time.
        ctime_ns: i64,
        /// How many jobs in a row changed their own file before this one.
        reruns: u8,
    },
    /// A file that was there before and is not to be run (`existing = "skip"`).
    Baseline {
        /// The file's directory.
        dir: DirId,
        /// The file's name.
        name: Vec<u8>,
        /// What is there.
        version: Version,
        /// Its change time.
        ctime_ns: i64,
    },
    /// A child for the job is about to be started.
    Started {
        /// The job.
        job: JobId,
        /// Number of the attempt, from 1, cut-short ones included.
        attempt: u32,
        /// The slot whose lock its processes hold; 0 is none.
        slot: u32,
    },
    /// The attempt ended and the job goes on.
    Ended {
        /// The job.
        job: JobId,
        /// Number of the attempt.
        attempt: u32,
        /// How it ended.
        end: AttemptEnd,
        /// Attempts that count against `attempts`, this one included.
        counted: u32,
        /// Not to be tried again before.
        not_before: Wall,
        /// The last output, for the operator.
        output: Vec<u8>,
    },
    /// The job ended; nothing is run for it again.
    Concluded {
        /// The job.
        job: JobId,
        /// How.
        outcome: Outcome,
        /// The last attempt's end, where there was one.
        end: Option<AttemptEnd>,
        /// What is to happen to the file.
        disposal: Disposal,
        /// The version that is there when the job ends (differs from the settled one only with
        /// `on_change = "accept"`).
        version: Version,
        /// Its change time.
        ctime_ns: i64,
        /// The last output of an attempt that did not end well.
        output: Vec<u8>,
    },
    /// The disposition's target was taken: this one is used from now on.
    Retarget {
        /// The job.
        job: JobId,
        /// The new path below the same directory.
        rel: Vec<u8>,
    },
    /// The disposition is complete; the job is history.
    Disposed {
        /// The job.
        job: JobId,
        /// How.
        how: DisposedHow,
    },
    /// A remembered file, its candidate and its job go by another name now.
    Renamed {
        /// Old directory.
        dir: DirId,
        /// Hash of the old name.
        name_hash: [u8; 12],
        /// New directory.
        to_dir: DirId,
        /// New name.
        to_name: Vec<u8>,
    },
    /// A remembered file was seen gone.
    Gone {
        /// Its directory.
        dir: DirId,
        /// Hash of its name, see [`super::files::name_hash`].
        name_hash: [u8; 12],
    },
    /// The first listing of a watch is complete: what comes from now on is an arrival, whatever `existing` says.
    Scanned {
        /// The watch.
        watch: WatchId,
    },
    /// The serial key of a job, before its first attempt: it keeps it, however its file is renamed meanwhile.
    Key {
        /// The job.
        job: JobId,
        /// The key.
        key: Vec<u8>,
    },
    /// A person paused a watch, or resumed it.
    Paused {
        /// The watch.
        watch: WatchId,
        /// Nothing of it is started.
        paused: bool,
    },
    /// A person asked for a job to be tried again: its attempts are counted anew, and nothing is waited for.
    Retried {
        /// The job.
        job: JobId,
    },
    /// A person asked for a remembered file to be run again: what is there now, whatever it is, makes a job. The next
    /// `Settled` of it is no arrival that was expected; `Remembered` takes the order back, `Gone` ends it.
    Forgotten {
        /// Its directory.
        dir: DirId,
        /// Hash of its name.
        name_hash: [u8; 12],
    },
    /// Where a watch stands with what is expected of it. What settles afterwards counts.
    Expected {
        /// The watch.
        watch: WatchId,
        /// What settled before does not count; 0 where nothing is expected any more.
        opens: Wall,
        /// The local day on which it is to be there, in days since 1970; 0 where it is due after a time.
        day: i32,
        /// How many have come.
        count: u32,
        /// See [`Told`].
        told: Told,
    },
    /// One remembered file, as compaction writes it: the state after all of its records.
    Remembered {
        /// Its directory.
        dir: DirId,
        /// Hash of its name, see [`super::files::FileKey`].
        name_hash: [u8; 12],
        /// Digest of its version.
        version: u64,
        /// Digest of its change time.
        ctime: u32,
        /// State bits.
        state: u8,
        /// When it was last concluded or seen gone.
        at: Wall,
    },
    /// What became of one arrival, as compaction carries it over. The record's own time is when the file settled.
    Summary(Box<Summary>),
}
