//! `settled explain PATH`: what is known of one path, from the daemon, the journal, the configuration and the disk.

mod json;
mod patience;
mod text;

use super::ask::{self, Target, print, shown, stamp};
use super::holders::{self, Holders, Place};
use super::{exit, fail};
use crate::config;
use crate::control::client::NoAnswer;
use crate::control::{Line, Request};
use crate::core::ask::Version;
use crate::core::files::{CTIME_UNKNOWN, ctime_digest, version_digest};
use crate::core::view::{Finding, Nearest, bytes_of, shown as as_text};
use crate::journal::history::{self, OfPath, Past};
use crate::plan::Plan;
use clap::{Arg, ArgMatches, Command, value_parser};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

pub(super) fn command() -> Command {
    Command::new("explain")
        .about("Say what is known of a path, seen or not: what was observed, decided and done, and what it waits for")
        .args(ask::arguments())
        .arg(
            Arg::new("path")
                .value_name("PATH")
                .required(true)
                .value_parser(value_parser!(PathBuf)),
        )
}

/// What there is on the disk.
#[derive(Serialize, Deserialize)]
struct Disk {
    /// `file`, `directory`, `link`, `other`, `missing` or `unknown`.
    kind: Cow<'static, str>,
    text: String,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

/// What a look at a path found.
#[derive(Default, Serialize, Deserialize)]
struct Look {
    /// The path with the links on the way to it followed.
    real: Option<Vec<u8>>,
    /// Nothing of what was asked about where that does not answer.
    disk: Option<Disk>,
    /// Digest of the version, of a file that is known by its birth time.
    version: Option<String>,
    /// Which one it is, of a regular file.
    file: Option<Place>,
}

pub(super) fn run(given: &ArgMatches) -> ExitCode {
    match explain(given) {
        Ok(code) | Err(code) => code,
    }
}

/// Everything that was found out, before it is told.
#[derive(Default)]
struct Known {
    findings: Vec<Finding>,
    nearest: Option<Nearest>,
    /// The daemon was not asked, or did not answer.
    no_daemon: Option<String>,
    look: Look,
    holders: Option<Holders>,
    past: Option<OfPath>,
    notes: Vec<String>,
    /// Mounts that the daemon has found not to answer: whoever looks at something there waits, and nothing ends that.
    silent: Vec<Vec<u8>>,
    /// What was asked about lies where it does not answer.
    hangs: bool,
}

impl Known {
    /// Whether what was concluded lies there with another change time, which nobody takes for a new arrival.
    fn ctime_moved(&self, found: &Finding) -> bool {
        let Some(disk) = self.look.disk.as_ref() else {
            return false;
        };
        found.ignores_ctime
            && found.candidate.is_none()
            && found.job.is_none()
            && found.ctime != CTIME_UNKNOWN
            && self.look.version.as_deref() == Some(&*found.version)
            && ctime_digest(disk.ctime_ns) != found.ctime
    }

    /// Whether there is something at a path; `None` where that is not looked at.
    fn is_there(&self, path: &[u8]) -> Option<bool> {
        let found = || fs::symlink_metadata(Path::new(OsStr::from_bytes(path))).is_ok();
        // Where that is is not always known; and what becomes of a file is often beside it.
        let waits = self.hangs || lies_below(path, &self.silent);
        let look = || {
            let to = real(path, &self.silent);
            let silent = to.is_some_and(|to| lies_below(&to, &self.silent));
            (!silent).then(found)
        };
        match waits {
            true => None,
            false => patience::in_time(look).flatten(),
        }
    }
}

fn explain(given: &ArgMatches) -> Result<ExitCode, ExitCode> {
    let target = Target::of(given)?;
    let path = given
        .get_one::<PathBuf>("path")
        .cloned()
        .unwrap_or_default();
    let path = ask::absolute(&path)
        .map_err(|error| fail(exit::OSERR, &format!("settled explain: {error}")))?;
    let (path, known) = match find_out(&target, &path)? {
        // A link on the way may hide that it lies in a watch.
        known if known.findings.is_empty() => match known.look.real.clone() {
            Some(other) if other != path => {
                let mut through = find_out(&target, &other)?;
                match through.findings.is_empty() {
                    true => (path, known),
                    false => {
                        let text = format!("{} leads to {}", shown(&path), shown(&other));
                        through.notes.insert(0, text);
                        (other, through)
                    }
                }
            }
            _ => (path, known),
        },
        known => (path, known),
    };
    let text = match given.get_flag("json") {
        true => json::as_json(&path, &known),
        false => text::describe(&target, &path, &known),
    };
    print("explain", &text)?;
    Ok(ExitCode::from(match known.no_daemon {
        None => exit::OK,
        Some(_) => exit::UNAVAILABLE,
    }))
}

/// The path with the links on the way to it followed, as far as that takes no look at anything below these places.
fn real(path: &[u8], silent: &[Vec<u8>]) -> Option<Vec<u8>> {
    let path = Path::new(OsStr::from_bytes(path));
    let last = path.file_name()?;
    let mut left: Vec<OsString> = parts(path.parent()?);
    left.reverse();
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(name) = left.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        if lies_below(next.as_os_str().as_bytes(), silent) {
            left.push(name);
            break;
        }
        match fs::read_link(&next) {
            Ok(target) => {
                links += 1;
                // As many as a lookup follows (path_resolution(7)).
                if links > 40 {
                    return None;
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                left.extend(parts(&target).into_iter().rev());
            }
            // What is no link (readlink(2)); and what is not there leads nowhere else.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => at = next,
            Err(_) => return None,
        }
    }
    at.extend(left.into_iter().rev());
    Some(at.join(last).as_os_str().as_bytes().to_vec())
}

/// The names of a path.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

/// Whether a path is one of these places, or below one.
fn lies_below(path: &[u8], places: &[Vec<u8>]) -> bool {
    places
        .iter()
        .any(|place| config::below(path, place).is_some())
}

fn find_out(target: &Target, path: &[u8]) -> Result<Known, ExitCode> {
    let mut known = Known::default();
    let (text, hex) = as_text(path);
    let request = Request::Explain {
        path: text,
        path_hex: hex,
    };
    let mut state = target.state.clone();
    let plan = target
        .seen
        .as_ref()
        .and_then(|seen| seen.plan.as_ref().ok());
    match target.ask(&request) {
        Ok(lines) => {
            for (_, line) in lines {
                match line {
                    Line::Finding(finding) => known.findings.push(*finding),
                    Line::Nearest(nearest) => known.nearest = Some(nearest),
                    _ => {}
                }
            }
            let (of_daemon, mounts) = places(target);
            if state.is_none() || target.note.is_some() {
                state = of_daemon.or(state);
            }
            known.silent = mounts;
            known.hangs = known.findings.iter().any(|found| found.silent)
                || known.nearest.as_ref().is_some_and(|near| near.silent);
        }
        Err(error @ NoAnswer::Nobody(..)) => known.no_daemon = Some(ask::reason(&error)),
        Err(error) => return Err(ask::fail_no_answer("explain", &error)),
    }
    if known.no_daemon.is_some() {
        match plan {
            Some(plan) => by_configuration(plan, path, &mut known),
            None => known
                .notes
                .push("without a daemon and a configuration nothing can be said of watches".into()),
        }
    }
    if let Some(note) = &target.note {
        known.notes.push(format!("the configuration: {note}"));
    }
    if !known.hangs {
        // Nobody may have noticed yet that it does not answer.
        known.look = patience::in_time(|| look_at(path, &known.silent)).unwrap_or_default();
        known.hangs = known.look.disk.is_none();
        known.holders = known.look.file.map(holders::of);
    }
    if known.hangs {
        known.notes.push(
            "the disk was not looked at: where it is does not answer, and who looks there waits"
                .into(),
        );
    }
    if let Some(state) = state {
        let is = |watch: &str, rel: &[u8]| {
            // The daemon knows by which other path its root may be reached.
            if let Some(found) = known.findings.iter().find(|found| found.watch == watch) {
                return bytes_of(&found.rel, &found.rel_hex) == rel;
            }
            let mut watches = plan.iter().flat_map(|plan| &plan.watches);
            match watches.find(|plan| plan.name == watch) {
                Some(plan) => config::below(path, &plan.path) == Some(rel),
                // A watch that is not configured any more: its root is not known.
                None => path
                    .strip_suffix(rel)
                    .is_some_and(|above| above.ends_with(b"/")),
            }
        };
        match history::of_path(&state, path, &is) {
            Ok(past) => known.past = Some(past),
            Err(error) => known.notes.push(format!(
                "the journal cannot be read, so what was done is not told: {error}"
            )),
        }
    } else {
        known
            .notes
            .push("where the journal is is not known, so what was done is not told".into());
    }
    Ok(known)
}

/// The state directory of the daemon that answers, and the mounts that it has found not to answer.
fn places(target: &Target) -> (Option<PathBuf>, Vec<Vec<u8>>) {
    let (mut state, mut silent) = (None, Vec::new());
    for (_, line) in target.ask(&Request::Status {}).unwrap_or_default() {
        match line {
            Line::Daemon(row) => state = Some(row.state.into()),
            Line::Mount(row) if row.silent => silent.push(bytes_of(&row.path, &row.path_hex)),
            _ => {}
        }
    }
    (state, silent)
}

/// What a daemon with this configuration would select.
fn by_configuration(plan: &Plan, path: &[u8], known: &mut Known) {
    for watch in &plan.watches {
        let Some(rel) = config::below(path, &watch.path) else {
            continue;
        };
        let (text, hex) = as_text(rel);
        let mut found = Finding {
            watch: watch.name.clone(),
            root: as_text(&watch.path).0,
            rel: text,
            rel_hex: hex,
            state: "not watching: no daemon answers".into(),
            ..Finding::default()
        };
        crate::core::query::judge(watch, rel, false, 0, &mut found);
        known.findings.push(found);
    }
    if known.findings.is_empty() {
        known.nearest = crate::core::query::nearest(plan.watches.iter(), path);
    }
}

/// A look at a path, but at nothing where the links lead to one of these places.
fn look_at(path: &[u8], silent: &[Vec<u8>]) -> Look {
    let mut look = Look {
        real: real(path, silent),
        ..Look::default()
    };
    let real = look.real.as_deref();
    if !real.is_some_and(|to| lies_below(to, silent)) {
        on_disk(path, &mut look);
    }
    look
}

fn on_disk(path: &[u8], look: &mut Look) {
    let disk = look.disk.insert(Disk {
        kind: "missing".into(),
        text: "nothing has this name".into(),
        size: 0,
        mtime_ns: 0,
        ctime_ns: 0,
    });
    match fs::symlink_metadata(Path::new(OsStr::from_bytes(path))) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            disk.kind = "unknown".into();
            disk.text = format!("it cannot be looked at: {error}");
        }
        Ok(metadata) => {
            let kind = metadata.file_type();
            disk.size = metadata.size();
            disk.mtime_ns = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
            disk.ctime_ns = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
            look.version = digest_of(&metadata);
            look.file = kind.is_file().then(|| Place::of(&metadata));
            let (word, text) = if kind.is_file() {
                let text = format!(
                    "a regular file of {} bytes, modified {}",
                    disk.size,
                    stamp(disk.mtime_ns)
                );
                ("file", text)
            } else if kind.is_dir() {
                ("directory", "a directory".into())
            } else if kind.is_symlink() {
                let text = "a symbolic link, which is not followed: no regular file";
                ("link", text.into())
            } else {
                let what = match () {
                    () if kind.is_fifo() => "a named pipe",
                    () if kind.is_socket() => "a socket",
                    () => "a device",
                };
                ("other", format!("{what}: no regular file"))
            };
            (disk.kind, disk.text) = (word.into(), text);
        }
    }
}

/// What stands for a version of a file. Without a birth time its generation would be asked for, which takes opening it.
fn digest_of(metadata: &fs::Metadata) -> Option<String> {
    let born = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let version = Version {
        ino: metadata.ino(),
        btime_ns: i64::try_from(born.as_nanos()).ok()?,
        generation: 0,
        size: metadata.size(),
        mtime_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
    };
    Some(format!("{:016x}", version_digest(&version)))
}

/// What becomes, or became, of the file.
fn disposition(past: &Past) -> String {
    use crate::core::record::{Disposal, DisposedHow};
    let Some((outcome, _)) = past.concluded else {
        return String::new();
    };
    let target = past.target().map(|path| shown(&path)).unwrap_or_default();
    let what = match &past.disposal {
        // Of a file that is not there nothing can be kept.
        Disposal::Keep if outcome == crate::core::record::Outcome::Gone => return String::new(),
        Disposal::Keep | Disposal::Mark => return "kept where it is".into(),
        Disposal::Delete => "deleted".to_owned(),
        Disposal::Move { .. } => format!("moved to {target}"),
    };
    match past.disposed {
        None => format!("to be {what}"),
        Some((DisposedHow::Done, _)) => what,
        Some((DisposedHow::Gone, _)) => format!("not {what}: it was no longer there"),
        Some((DisposedHow::Changed, _)) => format!("not {what}: another version lay there"),
    }
}
