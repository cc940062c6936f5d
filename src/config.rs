//! TOML text to a checked [`Plan`]: every default, limit and unit, and errors with file, line and key.
//!
//! All errors of all files are reported at once. Nothing in a file is silently ignored: a key that
//! this version does not know is an error, and one that it accepts without using is a note.

mod alert;
mod error;
mod files;
mod own;
mod paths;
mod read;
mod rules;
mod units;
mod values;
mod watch;

pub use error::{ConfigError, ConfigErrors};
pub use rules::{Rules, WatchRules};
pub use units::{duration, show_duration, show_size, size};

pub(crate) use error::{At, Problems, Spot};
pub(crate) use own::fixed_dir;
pub(crate) use paths::{absolute, below};
pub(crate) use read::{choice, template};
pub(crate) use values::{
    SHORTEST_BACKOFF, backoff_of, disposition_argument, output_file, parse_key, root_argument,
    variable_name,
};
pub(crate) use watch::{
    EXISTING, MOST_ATTEMPTS, MOST_CHILDREN, OBSERVE, ON_DEAD, ORDER, RawWatch, SHORTEST_POLL,
    limit_is_above_own, parse_rate, show_ionice, show_limit,
};

use crate::core::template::nearest;
use crate::plan::{AlertPlan, DaemonPlan, Level, LogTo, OnDamage, Plan};
use files::{matching, read_file};
use own::Places;
use read::{Reader, Source, Value};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// The keys of `[daemon]`.
const DAEMON_KEYS: [&str; 14] = [
    "state",
    "state_force",
    "on_damage",
    "socket",
    "socket_group",
    "log",
    "log_level",
    "concurrency",
    "remember",
    "drain",
    "mount_silent",
    "metrics_textfile",
    "metrics_every",
    "include",
];
const DAEMON_TO_COME: [&str; 0] = [];
const SECTIONS: [&str; 4] = ["daemon", "defaults", "watch", "alert"];
const SECTIONS_TO_COME: [&str; 1] = ["tail"];

/// The words of `log_level`.
pub(crate) const LEVELS: [(&str, Level); 4] = [
    ("error", Level::Error),
    ("warning", Level::Warning),
    ("info", Level::Info),
    ("debug", Level::Debug),
];
const LOGS: [(&str, LogTo); 3] = [
    ("journald", LogTo::Journald),
    ("syslog", LogTo::Syslog),
    ("stderr", LogTo::Stderr),
];

const ON_DAMAGE: [(&str, OnDamage); 2] =
    [("stop", OnDamage::Stop), ("continue", OnDamage::Continue)];

/// A plan and what is to be said about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The plan.
    pub plan: Plan,
    /// Sentences about what was accepted and has no effect, each with file and line.
    pub notes: Vec<String>,
}

/// What there is to be known of a configuration without being the daemon: whoever asks one may not be allowed to run
/// it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `[daemon]`, as far as it was understood.
    pub daemon: DaemonPlan,
    /// Everything, or what is wrong with it for this user.
    pub plan: Result<Plan, ConfigErrors>,
    /// Where the rules of each watch were written.
    pub rules: Rules,
}

/// Reads a configuration for a client.
///
/// # Errors
/// The file itself cannot be read, or is not to be trusted.
pub fn look(path: &Path) -> Result<Seen, ConfigErrors> {
    let loader = read_all(path)?;
    let rules = rules::rules(&loader.blocks, &loader.defaults);
    let (daemon, plan) = loader.finish(path);
    let plan = plan.map(|loaded| loaded.plan);
    Ok(Seen {
        daemon,
        plan,
        rules,
    })
}

/// Reads and checks a configuration with the files that it includes.
///
/// # Errors
/// Everything that is wrong with any of the files.
pub fn load(path: &Path) -> Result<Plan, ConfigErrors> {
    load_noting(path).map(|loaded| loaded.plan)
}

/// The same, with notes for a person.
///
/// # Errors
/// Everything that is wrong with any of the files.
pub fn load_noting(path: &Path) -> Result<Loaded, ConfigErrors> {
    let (_, plan) = read_all(path)?.finish(path);
    plan
}

/// Reads the text of all files.
fn read_all(path: &Path) -> Result<Loader, ConfigErrors> {
    let mut loader = Loader::default();
    match read_file(path) {
        Ok(read) => {
            loader.seen.push(read.identity);
            loader.main(path, &read.text);
            Ok(loader)
        }
        Err(error) => {
            let main = Spot {
                file: Some(path.into()),
                line: 0,
            };
            loader.problems.add(&main, "", "", error.what);
            Err(loader.problems.into_errors(error.unreadable))
        }
    }
}

/// The plan of these watches; what is wrong is noted, and then there may be none.
pub(crate) fn assemble(
    daemon: DaemonPlan,
    blocks: BTreeMap<String, (Spot, RawWatch)>,
    defaults: &RawWatch,
    problems: &mut Problems,
) -> Option<Plan> {
    former_names(&blocks, problems);
    let whole = blocks.len();
    let mut plan = Plan {
        daemon,
        watches: Vec::with_capacity(whole),
        alert: None,
    };
    let mut places = Vec::with_capacity(whole);
    for (name, (spot, raw)) in blocks {
        macro_rules! place {
            ($key:ident) => {
                raw.$key
                    .as_ref()
                    .map(|at| &at.spot)
                    .or(defaults.$key.as_ref().map(|at| &at.spot))
                    .unwrap_or(&spot)
                    .clone()
            };
        }
        let place = Places {
            path: place!(path),
            done: place!(done),
            dead: place!(dead),
            deliver: place!(deliver),
            output: place!(output),
            claim: place!(claim),
            claim_done: place!(claim_done),
            cycle: raw
                .cycle
                .as_ref()
                .or(defaults.cycle.as_ref())
                .is_some_and(|c| c.value),
        };
        if let Some(watch) = raw.finish(&name, &spot, defaults, plan.daemon.concurrency, problems) {
            plan.watches.push(watch);
            places.push(place);
        }
    }
    own::settle_own_paths(&mut plan, &places, problems);
    (plan.watches.len() == whole).then_some(plan)
}

/// `formerly` must name a watch that is no more, and only one watch can take its history.
fn former_names(blocks: &BTreeMap<String, (Spot, RawWatch)>, problems: &mut Problems) {
    let mut heirs: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, (_, raw)) in blocks {
        let Some(formerly) = &raw.formerly else {
            continue;
        };
        let section = format!("watch.{name}");
        let old = formerly.value.as_str();
        if blocks.contains_key(old) {
            let what = format!("a watch of the name {old} is still there; remove one of them");
            problems.add(&formerly.spot, &section, "formerly", what);
        } else if let Some(heir) = heirs.insert(old, name) {
            let what =
                format!("watch {heir} takes the history of {old} already; remove one of them");
            problems.add(&formerly.spot, &section, "formerly", what);
        }
    }
}

/// What `[daemon]` said.
#[derive(Debug, Default)]
struct RawDaemon {
    state: Option<Vec<u8>>,
    socket: Option<Vec<u8>>,
    socket_group: Option<u32>,
    state_force: bool,
    on_damage: OnDamage,
    log: Option<LogTo>,
    log_level: Option<Level>,
    concurrency: Option<u32>,
    remember: Option<Duration>,
    drain: Option<Duration>,
    mount_silent: Option<Duration>,
    metrics_textfile: Option<Vec<u8>>,
    metrics_every: Option<Duration>,
}

impl RawDaemon {
    fn with_defaults(self) -> DaemonPlan {
        let state = self.state.unwrap_or_else(|| DEFAULT_STATE.into());
        let mut plan = daemon_defaults(OsString::from_vec(state).into());
        if let Some(socket) = self.socket {
            plan.socket = OsString::from_vec(socket).into();
        }
        plan.socket_group = self.socket_group;
        plan.state_force = self.state_force;
        plan.on_damage = self.on_damage;
        plan.log = self.log.unwrap_or(plan.log);
        plan.log_level = self.log_level.unwrap_or(plan.log_level);
        plan.concurrency = self.concurrency.unwrap_or(plan.concurrency);
        plan.remember = self.remember.unwrap_or(plan.remember);
        plan.drain = self.drain.unwrap_or(plan.drain);
        plan.mount_silent = self.mount_silent.unwrap_or(plan.mount_silent);
        let textfile = self.metrics_textfile;
        plan.metrics_textfile = textfile.map(|path| OsString::from_vec(path).into());
        plan.metrics_every = self.metrics_every.unwrap_or(plan.metrics_every);
        plan
    }
}

/// `[daemon]` without a word in it, and this state directory.
pub(crate) fn daemon_defaults(state: PathBuf) -> DaemonPlan {
    DaemonPlan {
        socket: default_socket(&state),
        socket_group: None,
        state,
        state_force: false,
        on_damage: OnDamage::Stop,
        log: default_log(),
        log_level: Level::Info,
        concurrency: 16,
        remember: Duration::from_secs(30 * 86_400),
        drain: Duration::from_secs(60),
        mount_silent: Duration::from_secs(60),
        metrics_textfile: None,
        metrics_every: Duration::from_secs(15),
    }
}

/// The state directory that a daemon has without being told.
pub const DEFAULT_STATE: &str = "/var/lib/settled";
/// The control socket of that one.
pub const DEFAULT_SOCKET: &str = "/run/settled/control.sock";

/// The control socket of a daemon with this state directory, if it was not told another.
pub(crate) fn default_socket(state: &Path) -> PathBuf {
    match state == Path::new(DEFAULT_STATE) {
        true => DEFAULT_SOCKET.into(),
        false => state.join("control.sock"),
    }
}

/// journald if standard error is a stream to it, else standard error. `JOURNAL_STREAM` is inherited by
/// processes whose standard error went elsewhere: it counts only if it names this one's (systemd.exec(5)).
fn default_log() -> LogTo {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return LogTo::Stderr;
    };
    let metadata: std::io::Result<Metadata> = std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|fd| File::from(fd).metadata());
    match metadata {
        Ok(meta) if stream == format!("{}:{}", meta.dev(), meta.ino()) => LogTo::Journald,
        _ => LogTo::Stderr,
    }
}

/// Reads the files of one configuration.
#[derive(Default)]
struct Loader {
    problems: Problems,
    /// Device and inode of every file read.
    seen: Vec<(u64, u64)>,
    blocks: BTreeMap<String, (Spot, RawWatch)>,
    defaults: RawWatch,
    daemon: RawDaemon,
    alert: Option<AlertPlan>,
    notes: Vec<String>,
}

impl Loader {
    /// What the texts come to.
    fn finish(self, path: &Path) -> (DaemonPlan, Result<Loaded, ConfigErrors>) {
        let Loader {
            mut problems,
            blocks,
            defaults,
            daemon,
            alert,
            notes,
            ..
        } = self;
        if blocks.is_empty() && problems.is_empty() {
            problems.add(
                &Spot {
                    file: Some(path.into()),
                    line: 1,
                },
                "",
                "",
                "no watch; add a block [watch.NAME] with path = \"/DIR\" and run = [\"/PROGRAM\", \"{path}\"]",
            );
        }
        let daemon = daemon.with_defaults();
        let plan = match assemble(daemon.clone(), blocks, &defaults, &mut problems) {
            Some(plan) if problems.is_empty() => Ok(Loaded {
                plan: Plan { alert, ..plan },
                notes,
            }),
            _ => Err(problems.into_errors(false)),
        };
        (daemon, plan)
    }

    /// The file that was named, and those it includes.
    fn main(&mut self, path: &Path, text: &[u8]) {
        let source = Source::new(path, text);
        let mut includes = Vec::new();
        let Some(text) = self.utf8(&source, text) else {
            return;
        };
        let Some(table) = self.parse(&source, text) else {
            return;
        };
        for (key, value) in &table {
            match key.get_ref().as_ref() {
                "daemon" => {
                    let mut reader = self.reader(&source, "daemon");
                    if let Some(block) = reader.table("", value, "[daemon]") {
                        includes = self.daemon(&source, block);
                    }
                }
                "defaults" => {
                    let mut reader = self.reader(&source, "defaults");
                    if let Some(block) = reader.table("", value, "[defaults]") {
                        let raw = RawWatch::read(&mut reader, block);
                        if let Some(formerly) = &raw.formerly {
                            let what = "belongs to one watch; move it there";
                            reader
                                .problems
                                .add(&formerly.spot, "defaults", "formerly", what);
                        }
                        self.defaults = raw;
                    }
                }
                "watch" => self.watches(&source, value),
                "alert" => {
                    let spot = source.spot(key.span().start);
                    let mut reader = self.reader(&source, "alert");
                    if let Some(block) = reader.table("", value, "[alert]") {
                        self.alert = alert::alert(&mut reader, block, &spot);
                    }
                }
                _ => self.unknown_section(&source, key),
            }
        }
        for include in includes {
            self.include(path, &include);
        }
    }

    fn reader<'p>(&'p mut self, source: &'p Source, section: &str) -> Reader<'p> {
        Reader {
            source,
            problems: &mut self.problems,
            section: section.escape_debug().to_string(),
        }
    }

    fn utf8<'t>(&mut self, source: &Source, text: &'t [u8]) -> Option<&'t str> {
        match std::str::from_utf8(text) {
            Ok(text) => Some(text),
            Err(error) => {
                let spot = source.spot(error.valid_up_to());
                self.problems
                    .add(&spot, "", "", "is not UTF-8 from here; TOML is UTF-8 text");
                None
            }
        }
    }

    /// The top table; syntax errors are noted, and then nothing else of the file is judged.
    fn parse<'t>(&mut self, source: &Source, text: &'t str) -> Option<DeTable<'t>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let spot = source.spot(error.span().map_or(0, |span| span.start));
            self.problems
                .add(&spot, "", "", format!("not TOML: {}", error.message()));
        }
        errors.is_empty().then(|| table.into_inner())
    }

    /// A block or a bare key at the top that is none of ours.
    fn unknown_section(&mut self, source: &Source, key: &Spanned<DeString>) {
        let name: &str = key.get_ref();
        let what = if SECTIONS_TO_COME.contains(&name) {
            "not built in this version; remove it".to_owned()
        } else {
            let near = nearest(name, SECTIONS.iter().chain(&SECTIONS_TO_COME).copied());
            format!("unknown block (nearest known block [{near}])")
        };
        let section = name.escape_debug().to_string();
        let spot = source.spot(key.span().start);
        self.problems.add(&spot, &section, "", what);
    }

    /// `[daemon]`; returns the patterns of `include`.
    fn daemon(&mut self, source: &Source, block: &DeTable) -> Vec<At<String>> {
        let mut raw = RawDaemon::default();
        let mut includes = Vec::new();
        for (key, value) in block {
            let mut reader = self.reader(source, "daemon");
            let name: &str = key.get_ref();
            match name {
                "state" => raw.state = plain(reader.path(name, value)),
                "socket" => raw.socket = plain(reader.path(name, value)),
                "socket_group" => {
                    raw.socket_group = plain(watch::group(&mut reader, name, value));
                }
                "state_force" => {
                    raw.state_force = plain(reader.flag(name, value)).unwrap_or(false);
                }
                "on_damage" => {
                    raw.on_damage =
                        plain(reader.choice(name, value, &ON_DAMAGE)).unwrap_or_default();
                }
                "log" => raw.log = plain(reader.choice(name, value, &LOGS)),
                "log_level" => raw.log_level = plain(reader.choice(name, value, &LEVELS)),
                "concurrency" => raw.concurrency = plain(reader.count(name, value, MOST_CHILDREN)),
                "remember" => raw.remember = plain(reader.duration(name, value, Duration::ZERO)),
                "drain" => raw.drain = plain(reader.duration(name, value, Duration::ZERO)),
                "mount_silent" => {
                    raw.mount_silent = plain(reader.duration(name, value, Duration::from_secs(1)));
                }
                "metrics_textfile" => {
                    raw.metrics_textfile = plain(values::output(&mut reader, name, value));
                }
                "metrics_every" => {
                    raw.metrics_every = plain(reader.duration(name, value, Duration::from_secs(1)));
                }
                "include" => {
                    if let Some(list) = reader.strings(name, value, "[\"conf.d/*.toml\"]") {
                        includes = list.value;
                    }
                }
                _ => reader.unknown(key, &DAEMON_KEYS, &DAEMON_TO_COME),
            }
        }
        self.daemon = raw;
        includes
    }

    /// Every `[watch.NAME]` of a file.
    fn watches(&mut self, source: &Source, value: &Value) {
        let mut reader = self.reader(source, "watch");
        let Some(table) = reader.table("", value, "[watch.NAME]") else {
            return;
        };
        for (key, value) in table {
            let name: &str = key.get_ref();
            let spot = source.spot(key.span().start);
            let mut reader = self.reader(source, &format!("watch.{name}"));
            if let Err(what) = values::watch_name(name) {
                reader.problems.add(&spot, "watch", "", what);
            }
            let DeValue::Table(block) = value.get_ref() else {
                reader.problems.add(
                    &spot,
                    "watch",
                    name,
                    "is not a block; keys belong into a block with a name, [watch.NAME]",
                );
                continue;
            };
            let raw = RawWatch::read(&mut reader, block);
            if let Some((first, _)) = self.blocks.get(name) {
                let what = format!(
                    "there is a watch of this name in {}:{} already; rename one of them",
                    first.file.as_deref().unwrap_or(Path::new("")).display(),
                    first.line
                );
                self.problems.add(&spot, &format!("watch.{name}"), "", what);
                continue;
            }
            self.blocks.insert(name.to_owned(), (spot, raw));
        }
    }

    /// The files of one pattern of `include`, in the order of their names.
    fn include(&mut self, main: &Path, pattern: &At<String>) {
        let dir = main.parent().unwrap_or(Path::new(""));
        let files = match matching(dir, &pattern.value) {
            Ok(files) => files,
            Err(what) => {
                let what = format!("{:?}: {what}", pattern.value);
                return self.problems.add(&pattern.spot, "daemon", "include", what);
            }
        };
        if files.is_empty() {
            self.notes.push(format!(
                "{}:{}: [daemon] include: {:?} matches no file",
                main.display(),
                pattern.spot.line,
                pattern.value
            ));
        }
        for path in files {
            match read_file(&path) {
                // Two patterns may name one file: it is read once.
                Ok(read) if self.seen.contains(&read.identity) => {}
                Ok(read) => {
                    self.seen.push(read.identity);
                    self.included(&path, &read.text);
                }
                Err(error) => {
                    let spot = Spot {
                        file: Some(path.as_path().into()),
                        line: 0,
                    };
                    self.problems.add(&spot, "", "", error.what);
                }
            }
        }
    }

    /// A file that is not the first: watches only.
    fn included(&mut self, path: &Path, text: &[u8]) {
        let source = Source::new(path, text);
        let Some(text) = self.utf8(&source, text) else {
            return;
        };
        let Some(table) = self.parse(&source, text) else {
            return;
        };
        for (key, value) in &table {
            match key.get_ref().as_ref() {
                "watch" => self.watches(&source, value),
                name @ ("daemon" | "defaults" | "alert") => {
                    let spot = source.spot(key.span().start);
                    let what = "belongs to the file that includes this one; move it there";
                    self.problems.add(&spot, name, "", what);
                }
                _ => self.unknown_section(&source, key),
            }
        }
    }
}

fn plain<T>(at: Option<At<T>>) -> Option<T> {
    at.map(|at| at.value)
}
