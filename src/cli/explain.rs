//! `settled explain PATH`: what is known of one path, from the daemon, the journal, the configuration and the disk.

mod json;
mod text;

use super::ask::{self, Target, print, shown, stamp};
use super::holders::{self, Holders};
use super::{exit, fail};
use crate::config;
use crate::control::client::NoAnswer;
use crate::control::{Line, Request};
use crate::core::view::{Fact, Finding, Nearest, shown as as_text};
use crate::journal::history::{self, OfPath, Past};
use crate::plan::Plan;
use clap::{Arg, ArgMatches, Command, value_parser};
use serde::Serialize;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
#[derive(Serialize)]
struct Disk {
    /// `file`, `directory`, `link`, `other`, `missing` or `unknown`.
    kind: &'static str,
    text: String,
    size: u64,
    mtime_ns: i64,
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
    disk: Option<Disk>,
    holders: Option<Holders>,
    past: Option<OfPath>,
    notes: Vec<String>,
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
        known if known.findings.is_empty() => match real(&path) {
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

/// The path with the links on the way to it followed.
fn real(path: &[u8]) -> Option<Vec<u8>> {
    let path = Path::new(OsStr::from_bytes(path));
    let dir = fs::canonicalize(path.parent()?).ok()?;
    Some(dir.join(path.file_name()?).as_os_str().as_bytes().to_vec())
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
    let mut slow = false;
    match target.ask(&request) {
        Ok(lines) => {
            for (_, line) in lines {
                match line {
                    Line::Finding(finding) => known.findings.push(*finding),
                    Line::Nearest(nearest) => known.nearest = Some(nearest),
                    _ => {}
                }
            }
            if state.is_none() || target.note.is_some() {
                state = daemon_state(target).or(state);
            }
            let silent = |fact: &Fact| fact.text.contains("does not answer");
            slow = (known.findings.iter()).any(|found| found.waits.iter().any(silent));
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
    match slow {
        // Looking at it would hang, too.
        true => known.notes.push("the disk was not looked at".into()),
        false => {
            let (disk, holders) = on_disk(path);
            known.disk = Some(disk);
            known.holders = holders;
        }
    }
    if let Some(state) = state {
        let roots = |watch: &str| -> Option<Vec<u8>> {
            let by_daemon = known.findings.iter().find(|found| found.watch == watch);
            by_daemon
                .map(|found| found.root.as_bytes().to_vec())
                .or_else(|| {
                    let mut watches = plan?.watches.iter();
                    Some(watches.find(|plan| plan.name == watch)?.path.clone())
                })
        };
        let is = |watch: &str, rel: &[u8]| match roots(watch) {
            Some(root) => config::below(path, &root) == Some(rel),
            // A watch that is not configured any more: its root is not known.
            None => path
                .strip_suffix(rel)
                .is_some_and(|above| above.ends_with(b"/")),
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

fn daemon_state(target: &Target) -> Option<PathBuf> {
    let lines = target.ask(&Request::Status {}).ok()?;
    lines.into_iter().find_map(|(_, line)| match line {
        Line::Daemon(row) => Some(row.state.into()),
        _ => None,
    })
}

/// What a daemon with this configuration would select.
fn by_configuration(plan: &Plan, path: &[u8], known: &mut Known) {
    for watch in &plan.watches {
        let Some(rel) = config::below(path, &watch.path) else {
            continue;
        };
        let mut found = Finding {
            watch: watch.name.clone(),
            root: as_text(&watch.path).0,
            rel: as_text(rel).0,
            state: "not watching: no daemon answers".into(),
            ..Finding::default()
        };
        crate::core::query::judge(watch, rel, false, &mut found);
        known.findings.push(found);
    }
    if known.findings.is_empty() {
        known.nearest = crate::core::query::nearest(plan.watches.iter(), path);
    }
}

fn on_disk(path: &[u8]) -> (Disk, Option<Holders>) {
    let mut disk = Disk {
        kind: "missing",
        text: "nothing has this name".into(),
        size: 0,
        mtime_ns: 0,
    };
    match fs::symlink_metadata(Path::new(OsStr::from_bytes(path))) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (disk, None),
        Err(error) => {
            disk.kind = "unknown";
            disk.text = format!("it cannot be looked at: {error}");
            (disk, None)
        }
        Ok(metadata) => {
            let kind = metadata.file_type();
            disk.size = metadata.size();
            disk.mtime_ns = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
            (disk.kind, disk.text) = if kind.is_file() {
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
            let holders = kind.is_file().then(|| holders::of(&metadata));
            (disk, holders)
        }
    }
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

fn is_there(path: &[u8]) -> bool {
    fs::symlink_metadata(Path::new(OsStr::from_bytes(path))).is_ok()
}
