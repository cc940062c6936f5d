//! What is to be done, checked and complete: every default filled in, every limit and unit applied.
//! `config` makes it from TOML text, `cli` from the arguments of `settled watch`; the core reads it.

use crate::core::select::Select;
use crate::core::template::Template;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `[daemon]`.
    pub daemon: DaemonPlan,
    /// `[watch.NAME]`, in the order of their names.
    pub watches: Vec<WatchPlan>,
    /// `[alert]`.
    pub alert: Option<AlertPlan>,
}

/// `[alert]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertPlan {
    /// The command; never empty.
    pub run: Vec<Vec<u8>>,
    /// So many dead jobs of a watch since the last time; 0 is never.
    pub dead: u32,
    /// A file has waited so long to settle; zero is never.
    pub waiting: Duration,
    /// A mount has not answered for so long; zero is never.
    pub mount_silent: Duration,
    /// A flush of the journal took so long; zero is never.
    pub slow_flush: Duration,
    /// The same is told again after this at the earliest.
    pub every: Duration,
    /// Longest run of the command.
    pub timeout: Duration,
}

/// `expect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectPlan {
    /// Until when.
    pub when: When,
    /// How many; at least 1.
    pub count: u32,
}

/// Until when something is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// So long after what came last.
    Every(Duration),
    /// At a time of day.
    By {
        /// In seconds after midnight.
        by_s: u32,
        /// What comes before this time does not count; the time before `by_s` on that day, or on the day before.
        from_s: Option<u32>,
        /// On these days; bit 0 is Monday. Never 0.
        days: u8,
    },
}

/// What to do about a damaged journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// Do not start.
    #[default]
    Stop,
    /// Keep the damaged files aside and go on with what can be read: files may be run again.
    Continue,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTo {
    /// The native journald socket.
    Journald,
    /// syslog(3)'s socket.
    Syslog,
    /// Standard error.
    Stderr,
}

impl fmt::Display for LogTo {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            LogTo::Journald => "journald",
            LogTo::Syslog => "syslog",
            LogTo::Stderr => "standard error",
        })
    }
}

/// Log levels, most urgent first; a level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something needs a person.
    Error,
    /// Something may.
    Warning,
    /// Decisions: what ran, how it ended.
    Info,
    /// Evidence: why something waits.
    Debug,
}

/// `[daemon]`.
#[derive(Clone, Debug)]
pub struct DaemonPlan {
    /// The state directory, absolute.
    pub state: PathBuf,
    /// The control socket, absolute.
    pub socket: PathBuf,
    /// Whose members may ask there, besides root and the daemon's user; the daemon's own group where `None`.
    pub socket_group: Option<u32>,
    /// Take a state directory on a filesystem where a flush, a lock or a mapped file cannot be relied on.
    pub state_force: bool,
    /// What to do when something in the journal that was flushed cannot be read.
    pub on_damage: OnDamage,
    /// Where log lines go.
    pub log: LogTo,
    /// Which are written.
    pub log_level: Level,
    /// Children at once, over all watches; at least 1.
    pub concurrency: u32,
    /// How long a concluded file that is gone is remembered.
    pub remember: Duration,
    /// How long running children may go on after SIGTERM.
    pub drain: Duration,
    /// A mount that has not answered for this long is said to be silent.
    pub mount_silent: Duration,
    /// The file that the metrics are written to, absolute.
    pub metrics_textfile: Option<PathBuf>,
    /// How often.
    pub metrics_every: Duration,
}

/// How a directory tree is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observe {
    /// inotify; polled as well where the filesystem has writers that inotify cannot see.
    Auto,
    /// inotify alone.
    Inotify,
    /// Listing alone.
    Poll,
    /// inotify, and listing as well.
    Both,
}

/// What happens to files that are there when a watch first starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They are arrivals.
    Run,
    /// They are remembered and left.
    Skip,
}

/// What a moved ctime with the same size and mtime means, when no close-write was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCtime {
    /// Nothing.
    Ignore,
    /// A new arrival.
    Run,
}

/// What it means that a file changed while its own job ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// A new arrival.
    Run,
    /// The job did it: what is there when it ends is concluded.
    Accept,
}

/// In which order ready jobs of a watch start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In the order of settling.
    Arrival,
    /// By path below the root.
    Name,
    /// By modification time.
    Mtime,
}

/// What happens to a file after its last attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It stays.
    Keep,
    /// It is unlinked.
    Delete,
    /// It is moved.
    Move {
        /// Target directory, absolute after expansion.
        to: Template,
        /// Drop the path below the root, keep the name only.
        flatten: bool,
    },
}

/// What is done with a settled file.
#[derive(Clone, Debug)]
pub enum Action {
    /// `run`: a child per job, or per batch; one template per argument, never empty.
    Run(Vec<Template>),
    /// `worker`: long-lived children that are fed jobs.
    Worker(WorkerPlan),
    /// `deliver`: a copy into another directory.
    Deliver(DeliverPlan),
}

/// `worker`, `workers`, `window`, `ready`.
#[derive(Clone, Debug)]
pub struct WorkerPlan {
    /// The command; of the fields, only `{watch}` may be used. Never empty.
    pub argv: Vec<Template>,
    /// How many; at least 1.
    pub workers: u32,
    /// Jobs that each may have unanswered; at least 1.
    pub window: u32,
    /// A worker is fed only once it has said that it is ready, and ended if it has not within this time.
    pub ready: Option<Duration>,
}

/// What happens when the target of a delivery exists and is another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// The new one gets a number before its extension.
    Rename,
    /// The new one takes its place.
    Replace,
    /// The old one stays, and the job is done.
    Skip,
    /// The old one stays, and the job is dead.
    Fail,
}

/// How a delivered copy is compared with its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliverCheck {
    /// Its size.
    Size,
    /// Its size and its SHA-256, read back.
    Sha256,
}

/// `deliver`.
#[derive(Clone, Debug)]
pub struct DeliverPlan {
    /// Target directory, absolute after expansion.
    pub to: Template,
    /// Drop the path below the root, keep the name only.
    pub flatten: bool,
    /// See [`DeliverCheck`].
    pub verify: DeliverCheck,
    /// Permission bits of the copy; those of the source where `None`.
    pub mode: Option<u32>,
    /// Owner and group of the copy by number.
    pub owner: (Option<u32>, Option<u32>),
    /// The copy gets the source's times.
    pub keep_times: bool,
    /// See [`OnConflict`].
    pub on_conflict: OnConflict,
}

/// `claim`, `claim_done`: several machines work on one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPlan {
    /// The claim directory, absolute.
    pub dir: Vec<u8>,
    /// It was named, and holds marks of conclusions.
    pub marks: bool,
    /// The directory of slots in the state directory.
    pub slots: Vec<u8>,
}

/// `batch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// Most jobs in one; at least 1.
    pub max: u32,
    /// How long the first waits for others.
    pub wait: Duration,
    /// The jobs of a batch that failed are run each alone, and the batch's failure is not counted against them.
    pub split: bool,
    /// The paths go to standard input, each ended by NUL.
    pub stdin: bool,
}

/// What a dead job means for those after it with the same key, or in the same watch where it has no serial key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDead {
    /// Nothing.
    Continue,
    /// They wait, and the dead job stays, until its file is taken away or replaced, or the plan says otherwise.
    Halt,
}

/// What is promised of an attempt that was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is repeated, and marked.
    AtLeastOnce,
    /// Its job is held for the operator. Only what asks to be tried again is.
    AtMostOnce,
}

/// What happens to a process of an attempt that outlived the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphans {
    /// Its job waits for it.
    Wait,
    /// It is ended.
    Kill,
}

/// `rate`: so many starts in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// Not zero.
    pub per: Duration,
}

/// `user`, `group`, looked up when the configuration was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// For `HOME`, `USER` and `LOGNAME`; empty where only a group was named.
    pub name: String,
    /// See `name`.
    pub home: String,
}

/// How the processes of a watch are set up.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessPlan {
    /// As whom; as the daemon where `None`.
    pub identity: Option<Identity>,
    /// umask(2).
    pub umask: Option<u32>,
    /// setpriority(2), absolute.
    pub nice: Option<i32>,
    /// ioprio_set(2): class and level as one number.
    pub ionice: Option<u16>,
    /// setrlimit(2): resource, and soft and hard limit.
    pub limits: Vec<(u32, u64)>,
}

/// `backoff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failure; doubles with each further one.
    pub first: Duration,
    /// Longest wait.
    pub max: Duration,
}

/// `[watch.NAME]`.
#[derive(Clone, Debug)]
pub struct WatchPlan {
    /// The block's name.
    pub name: String,
    /// The name under which the journal knows its history.
    pub formerly: Option<String>,
    /// Absolute path of the root, without `.`, `..`, doubled or trailing slashes.
    pub path: Vec<u8>,
    /// Directories below the root that are left out of the watch with all that is in them, as paths
    /// below the root: targets of moves (of any watch) and the state directory. Sorted; compared as
    /// text, so a target reached through a symbolic link is not among them.
    pub excluded: Vec<Vec<u8>>,
    /// Directories below the root too.
    pub recursive: bool,
    /// Which names.
    pub select: Select,
    /// Quiet time; `None` is the ladder's default, see `core::settle`.
    pub settle: Option<Duration>,
    /// Whether NFS clients write to it through this machine's server; as the export tables say where `None`.
    pub exported: Option<bool>,
    /// Ask `flock` too.
    pub flock: bool,
    /// How.
    pub observe: Observe,
    /// Interval of listings, where listed; also how often a missing root is looked for.
    pub poll: Duration,
    /// Files that are there at the first start.
    pub existing: Existing,
    /// See [`OnCtime`].
    pub on_ctime: OnCtime,
    /// See [`OnChange`].
    pub on_change: OnChange,
    /// See [`Action`].
    pub action: Action,
    /// See [`BatchPlan`].
    pub batch: Option<BatchPlan>,
    /// `{key}`.
    pub key: Option<Template>,
    /// One job at a time for each key.
    pub serial: bool,
    /// Jobs at once for each key, where not `serial`.
    pub key_concurrency: Option<u32>,
    /// See [`OnDead`].
    pub on_dead: OnDead,
    /// See [`Rate`].
    pub rate: Option<Rate>,
    /// Order of starting.
    pub order: Order,
    /// Additional environment.
    pub env: Vec<(String, Template)>,
    /// Working directory of the command; `/` where `None`.
    pub cwd: Option<Vec<u8>>,
    /// See [`ProcessPlan`].
    pub process: Rc<ProcessPlan>,
    /// File that the output is appended to, instead of the log.
    pub output: Option<Vec<u8>>,
    /// See [`Orphans`].
    pub orphans: Orphans,
    /// See [`Delivery`].
    pub delivery: Delivery,
    /// Exit statuses that mean dead at once, besides 65.
    pub permanent: Vec<i32>,
    /// Exit statuses that mean try again, besides 75, even where `permanent` or the manual says otherwise.
    pub temporary: Vec<i32>,
    /// A job is not tried again when it settled longer ago than this.
    pub max_age: Option<Duration>,
    /// Children at once in this watch; at least 1.
    pub concurrency: u32,
    /// Longest run of one attempt.
    pub timeout: Option<Duration>,
    /// Between SIGTERM and SIGKILL.
    pub kill_after: Duration,
    /// Counted attempts before a job is dead; at least 1.
    pub attempts: u32,
    /// Waits between them.
    pub backoff: Backoff,
    /// See [`ClaimPlan`].
    pub claim: Option<ClaimPlan>,
    /// See [`ExpectPlan`].
    pub expect: Option<ExpectPlan>,
    /// Disposition after success.
    pub done: Disposition,
    /// Disposition after the last failure.
    pub dead: Disposition,
}

impl WatchPlan {
    /// Jobs at once for each key, if that is bounded.
    pub fn per_key(&self) -> Option<u32> {
        if self.serial {
            Some(1)
        } else {
            self.key_concurrency
        }
    }

    /// The command that is executed: none for a delivery.
    pub fn argv(&self) -> &[Template] {
        match &self.action {
            Action::Run(argv) => argv,
            Action::Worker(worker) => &worker.argv,
            Action::Deliver(_) => &[],
        }
    }

    /// The plan of a watch that only the journal knows: it does nothing.
    pub fn placeholder(name: &str) -> WatchPlan {
        WatchPlan {
            name: name.to_owned(),
            formerly: None,
            path: b"/".to_vec(),
            excluded: Vec::new(),
            recursive: false,
            select: Select::default(),
            settle: None,
            exported: None,
            flock: false,
            observe: Observe::Auto,
            poll: Duration::from_secs(1),
            existing: Existing::Run,
            on_ctime: OnCtime::Ignore,
            on_change: OnChange::Run,
            action: Action::Run(Vec::new()),
            batch: None,
            key: None,
            serial: false,
            key_concurrency: None,
            on_dead: OnDead::Continue,
            rate: None,
            order: Order::Arrival,
            env: Vec::new(),
            cwd: None,
            process: Rc::default(),
            output: None,
            orphans: Orphans::Wait,
            delivery: Delivery::AtLeastOnce,
            permanent: Vec::new(),
            temporary: Vec::new(),
            max_age: None,
            concurrency: 1,
            timeout: None,
            kill_after: Duration::from_secs(10),
            attempts: 1,
            backoff: Backoff {
                first: Duration::from_secs(1),
                max: Duration::from_secs(600),
            },
            claim: None,
            expect: None,
            done: Disposition::Keep,
            dead: Disposition::Keep,
        }
    }
}
