//! What is to be done, checked and complete: every default filled in, every limit and unit applied.
//! `config` makes it from TOML text, `cli` from the arguments of `settled watch`; the core reads it.

use crate::core::select::Select;
use crate::core::template::Template;
use std::path::PathBuf;
use std::time::Duration;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `[daemon]`.
    pub daemon: DaemonPlan,
    /// `[watch.NAME]`, in the order of their names.
    pub watches: Vec<WatchPlan>,
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
    /// The command, one template per argument; never empty.
    pub run: Vec<Template>,
    /// `{key}`.
    pub key: Option<Template>,
    /// One job at a time for each key.
    pub serial: bool,
    /// Order of starting.
    pub order: Order,
    /// Additional environment.
    pub env: Vec<(String, Template)>,
    /// Working directory of the command; `/` where `None`.
    pub cwd: Option<Vec<u8>>,
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
    /// Disposition after success.
    pub done: Disposition,
    /// Disposition after the last failure.
    pub dead: Disposition,
}

impl WatchPlan {
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
            flock: false,
            observe: Observe::Auto,
            poll: Duration::from_secs(1),
            existing: Existing::Run,
            on_ctime: OnCtime::Ignore,
            on_change: OnChange::Run,
            run: Vec::new(),
            key: None,
            serial: false,
            order: Order::Arrival,
            env: Vec::new(),
            cwd: None,
            concurrency: 1,
            timeout: None,
            kill_after: Duration::from_secs(10),
            attempts: 1,
            backoff: Backoff {
                first: Duration::from_secs(1),
                max: Duration::from_secs(600),
            },
            done: Disposition::Keep,
            dead: Disposition::Keep,
        }
    }
}
