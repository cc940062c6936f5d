//! The words between core and edge: facts in, wishes out.

use super::ask::{Answer, Place, Question, Version};
use super::ids::{AskId, JobId, MountId, RunId};
use super::orders::{Answered, Order};
use super::record::Record;
use crate::plan::{Level, Plan, ProcessPlan};
use std::rc::Rc;
use std::time::Duration;

/// inotify(7) event bits that the core looks at, named as there.
#[allow(missing_docs)]
pub mod mask {
    pub const CLOSE_WRITE: u32 = 0x0000_0008;
    pub const MOVED_FROM: u32 = 0x0000_0040;
    pub const MOVED_TO: u32 = 0x0000_0080;
    pub const CREATE: u32 = 0x0000_0100;
    pub const DELETE: u32 = 0x0000_0200;
    pub const DELETE_SELF: u32 = 0x0000_0400;
    pub const MOVE_SELF: u32 = 0x0000_0800;
    pub const UNMOUNT: u32 = 0x0000_2000;
    pub const IGNORED: u32 = 0x0000_8000;
    pub const ISDIR: u32 = 0x4000_0000;
    pub const ONLYDIR: u32 = 0x0100_0000;
    pub const EXCL_UNLINK: u32 = 0x0400_0000;
    /// What every directory is watched for (DESIGN, "Observe").
    pub const WATCHED: u32 = CLOSE_WRITE
        | MOVED_TO
        | MOVED_FROM
        | CREATE
        | DELETE
        | DELETE_SELF
        | MOVE_SELF
        | ONLYDIR
        | EXCL_UNLINK;
}

/// One line of `/proc/self/mountinfo`, as far as the core needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Mount id.
    pub id: MountId,
    /// Where it is mounted.
    pub point: Vec<u8>,
    /// Filesystem type, with subtype (`fuse.sshfs`).
    pub fstype: String,
    /// There may be writers that inotify and leases do not see (DESIGN, "Observe").
    pub remote_writers: bool,
    /// Longest attribute cache time of its options in seconds (nfs(5) `acregmax`, `acdirmax`, `actimeo`, `noac`; mount.cifs(8));
    /// for others 0.
    pub attribute_cache_s: u32,
}

/// Which step of starting a child failed. The numbers stand in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum StartStep {
    /// clone(2).
    Fork = 1,
    /// Standard input, output, process group, signals.
    Setup = 2,
    /// The working directory.
    Chdir = 3,
    /// Opening the file for descriptor 3.
    OpenFile = 4,
    /// execve(2).
    Exec = 5,
}

/// What a child that was not started says, or nothing if it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NotStarted {
    /// A step failed with this errno.
    Failed(StartStep, i32),
    /// The file is not there, or not the version that settled.
    NotTheFile,
    /// A writer has the file open.
    StillWritten,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEnd {
    /// It never ran its program. The number says because of which of its files.
    NotStarted(NotStarted, u32),
    /// Exit status.
    Exit(i32),
    /// Ended by a signal.
    Signal(i32),
}

/// What a person or a signal asks of the daemon.
#[derive(Clone, Debug)]
pub enum Command {
    /// SIGHUP, after the new configuration was checked.
    Reload(Box<Plan>),
    /// SIGUSR2: list everything again.
    Rescan,
    /// What a client of the control socket asks for: [`Effect::Answer`] follows.
    Asked(u64, Order),
    /// SIGUSR1: log the state.
    LogState,
    /// First SIGTERM or SIGINT.
    Drain,
    /// Second one.
    StopNow,
}

/// A fact.
#[derive(Clone, Debug)]
pub enum Input {
    /// An inotify event.
    Event {
        /// Watch descriptor.
        wd: i32,
        /// Bits, see [`mask`].
        mask: u32,
        /// Joins the two halves of a rename.
        cookie: u32,
        /// The name in the directory; empty for events of the directory itself.
        name: Vec<u8>,
    },
    /// The kernel's queue overflowed: events are missing.
    Overflow,
    /// A scout answered.
    Answer(AskId, Answer),
    /// A child ended, and its output is complete as far as it will be.
    Ended {
        /// Which.
        run: RunId,
        /// How.
        end: ChildEnd,
        /// The last bytes of its output (at most 4 KiB).
        output: Vec<u8>,
    },
    /// A worker said a line (without newline), or more than a line may have (`None`).
    WorkerLine {
        /// Which.
        run: RunId,
        /// What.
        line: Option<Vec<u8>>,
    },
    /// A worker has closed its standard input, which is found when it is written to, or its standard output: what it is
    /// fed comes to nothing. Its end may follow at once.
    WorkerDeaf {
        /// Which.
        run: RunId,
    },
    /// Whether a process of the attempt that had this slot is still there.
    Slot {
        /// Which.
        slot: u32,
        /// It is.
        taken: bool,
    },
    /// The mount table, at start and whenever it changed.
    Mounts(Vec<Mount>),
    /// A mount's scout has owed an answer for longer than any healthy mount takes (`true`), or answers again: too soon to
    /// alarm anybody, and time not to count on it.
    MountSlow(MountId, bool),
    /// A mount's scout has not answered for `mount_silent` (`true`), or answers again.
    MountSilent(MountId, bool),
    /// The same of the process that looks where a watch's root is (index in the plan).
    RootSilent(u32, bool),
    /// Whether the journal has room (`false`: intake and dispatch pause).
    JournalRoom(bool),
    /// A flush of the journal took as long as this, which is much.
    SlowFlush(Duration),
    /// See [`Command`].
    Command(Command),
}

/// One file of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnFile {
    /// Where it is.
    pub place: Place,
    /// It must still be this version.
    pub expect: Version,
    /// Ask the lease, where it can be asked.
    pub lease: bool,
}

/// What a child reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// `/dev/null`.
    Nothing,
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// What [`Effect::Feed`] brings; its standard output is lines for the core ([`Input::WorkerLine`]), and standard error
    /// alone is its output.
    Worker,
}

/// Which program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The first argument, looked for as execvp(3) does.
    Command,
    /// The daemon's own, with a subcommand of its own as the first argument after the program's name.
    Own,
}

/// A child to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnOrder {
    /// Its number.
    pub run: RunId,
    /// The jobs it runs, in the order of its files; none for a worker.
    pub jobs: Vec<JobId>,
    /// See [`Program`].
    pub program: Program,
    /// Arguments; the first is the program.
    pub argv: Vec<Vec<u8>>,
    /// Environment on top of the daemon's own.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Working directory.
    pub cwd: Vec<u8>,
    /// The files to look at again before the program is executed. A single one is passed as descriptor 3; workers
    /// have none.
    pub files: Vec<SpawnFile>,
    /// See [`Stdin`].
    pub stdin: Stdin,
    /// How the process is set up.
    pub process: Rc<ProcessPlan>,
    /// The slot whose lock it and its descendants hold; 0 is none.
    pub slot: u32,
    /// The file that its output is appended to, instead of the log.
    pub output: Option<Vec<u8>>,
    /// For log lines of its output: the watch.
    pub watch: String,
    /// For log lines of its output: the job as users see it, the first of a batch; empty for a worker.
    pub job_name: String,
    /// For log lines of its output: the number of the attempt.
    pub attempt: u32,
}

/// To whom a question goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScoutId {
    /// The scout of this mount.
    Mount(MountId),
    /// A resolver of its own for this watch (index in the plan), so that a path on a hung mount delays nothing else.
    Resolver(u32),
    /// The one that reads the export tables, which may lie on a disk that hangs, too.
    Exports,
}

/// A wish. The loop makes all records of a turn durable before it performs anything else.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Append to the journal.
    Append(Record),
    /// Ask a scout.
    Ask(AskId, ScoutId, Question),
    /// Remove an inotify watch.
    Unwatch(i32),
    /// Start a child.
    Spawn(Box<SpawnOrder>),
    /// Send a signal to a child's process group.
    Kill(RunId, i32),
    /// Give a worker these lines, each with its newline.
    Feed(RunId, Vec<u8>),
    /// The same, and before anything else that is wished after it.
    FeedFirst(RunId, Vec<u8>),
    /// Close a worker's standard input: it is to end.
    CloseInput(RunId),
    /// Find out whether a process of an attempt of an earlier life is still there: [`Input::Slot`] follows. With a
    /// signal, those that are there are sent it first.
    AskSlot(u32, Option<i32>),
    /// Tell a client what came of what it asked for.
    Answer(u64, Answered),
    /// Say something.
    Log(Level, LogLine),
    /// Everything that was to be done before readiness is done: roots are bound and listed once, or awaited.
    Ready,
    /// End the process with this exit status.
    Stop(u8),
}

/// A log line with the fields that a journal reader can select by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogLine {
    /// The sentence.
    pub text: String,
    /// Name of the watch, or empty.
    pub watch: String,
    /// Absolute path, or empty.
    pub path: Vec<u8>,
    /// Job as users see it, or empty.
    pub job: String,
}
