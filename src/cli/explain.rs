//! `settled explain PATH`: what is known of one path, from the daemon, the journal, the configuration and the disk.

use super::ask::{self, Target, ago, print, shown, span, stamp};
use super::holders::{self, Holders};
use super::{exit, fail};
use crate::config::{self, WatchRules};
use crate::control::client::NoAnswer;
use crate::control::{Line, Request};
use crate::core::view::{Fact, FileRow, Finding, Nearest, shown as as_text};
use crate::core::words::{attempt_words, outcome_word};
use crate::journal::history::{self, OfPath, Past};
use crate::plan::Plan;
use clap::{Arg, ArgMatches, Command, value_parser};
use serde::Serialize;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Jobs of one path that are told of in full; the latest.
const JOBS_MAX: usize = 3;
/// Lines of output that are shown of an attempt; the last.
const OUTPUT_LINES: usize = 5;

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

#[derive(Serialize)]
struct AttemptRow {
    attempt: u32,
    started_ns: i64,
    ended_ns: i64,
    end: String,
    output: String,
}

/// A job as the journal has it.
#[derive(Serialize)]
struct PastRow {
    watch: String,
    job: String,
    path: String,
    settled_ns: i64,
    size: u64,
    attempts: Vec<AttemptRow>,
    outcome: String,
    concluded_ns: i64,
    disposition: String,
    target: String,
    target_is_there: Option<bool>,
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
        true => as_json(&path, &known),
        false => describe(&target, &path, &known),
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

// ---- JSON ----

fn as_json(path: &[u8], known: &Known) -> String {
    let mut out = String::new();
    let mut push = |name: &str, value: serde_json::Result<serde_json::Value>| {
        // Rows of text and numbers: nothing in them that JSON has not.
        if let Ok(value) = value {
            let _ = writeln!(out, "{}", serde_json::json!({ name: value }));
        }
    };
    let (text, hex) = as_text(path);
    let mut asked = serde_json::json!({"path": text, "daemon": known.no_daemon.is_none()});
    if let (false, Some(object)) = (hex.is_empty(), asked.as_object_mut()) {
        object.insert("path_hex".into(), hex.into());
    }
    push("asked", Ok(asked));
    for finding in &known.findings {
        push("finding", serde_json::to_value(finding));
    }
    if let Some(nearest) = &known.nearest {
        push("nearest", serde_json::to_value(nearest));
    }
    if let Some(disk) = &known.disk {
        push("disk", serde_json::to_value(disk));
    }
    if let Some(holders) = &known.holders {
        for (pid, name, how) in &holders.found {
            push(
                "holder",
                Ok(serde_json::json!({"pid": pid, "name": name, "how": how})),
            );
        }
    }
    if let Some(past) = &known.past {
        for (kind, jobs) in [("job", &past.jobs), ("brought", &past.brought)] {
            for job in jobs {
                push(kind, serde_json::to_value(past_row(past.id, job)));
            }
        }
    }
    for note in &known.notes {
        push("note", Ok(note.as_str().into()));
    }
    out
}

fn past_row(id: u32, past: &Past) -> PastRow {
    let attempts = past.attempts.iter().map(|made| AttemptRow {
        attempt: made.number,
        started_ns: made.started.0,
        ended_ns: made.end.map_or(0, |(_, at)| at.0),
        end: made
            .end
            .map(|(end, _)| attempt_words(end))
            .unwrap_or_default(),
        output: String::from_utf8_lossy(&made.output).into_owned(),
    });
    let target = past.target();
    PastRow {
        watch: past.watch.clone(),
        job: format!("{id:08x}-{}", past.job),
        path: as_text(&past.rel).0,
        settled_ns: past.settled.0,
        size: past.size,
        attempts: attempts.collect(),
        outcome: past
            .concluded
            .map_or("", |(outcome, _)| outcome_word(outcome))
            .into(),
        concluded_ns: past.concluded.map_or(0, |(_, at)| at.0),
        disposition: disposition(past),
        target: target
            .as_deref()
            .map(|path| as_text(path).0)
            .unwrap_or_default(),
        target_is_there: target.map(|path| is_there(&path)),
    }
}

// ---- text ----

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

/// Lines with their names in a column.
struct Text(String);

impl Text {
    fn line(&mut self, name: &str, text: impl AsRef<str>) {
        let name = match name {
            "" => String::new(),
            name => format!("{name}:"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "  {name:<10} {}", shown(text.as_ref().as_bytes()));
    }

    fn fact(&mut self, name: &str, fact: &Fact) {
        self.line(name, format!("{}  {}", stamp(fact.at_ns), fact.text));
    }
}

fn describe(target: &Target, path: &[u8], known: &Known) -> String {
    let mut out = Text(format!("{}\n", shown(path)));
    if let Some(reason) = &known.no_daemon {
        out.line("daemon", reason);
    }
    for found in &known.findings {
        let rules = (target.seen.as_ref()).and_then(|seen| seen.rules.get(&found.watch));
        finding(&mut out, found, rules);
    }
    if let Some(near) = &known.nearest {
        out.line("watch", "none has this path");
        out.line(
            "nearest",
            format!("{} at {}: {}", near.watch, near.root, near.text),
        );
    }
    if let Some(disk) = &known.disk {
        out.line("on disk", &disk.text);
    }
    if let Some(holders) = &known.holders {
        held(&mut out, holders, known);
    }
    if let Some(past) = &known.past {
        history_of(&mut out, past, known);
    }
    for note in &known.notes {
        out.line("note", note);
    }
    out.0
}

fn finding(out: &mut Text, found: &Finding, rules: Option<&WatchRules>) {
    let at = rules.map_or(String::new(), |rules| format!(" ({})", rules.block));
    out.line(
        "watch",
        format!("{} at {}, {}{at}", found.watch, found.root, found.state),
    );
    out.line("selected", selected(found, rules));
    if found.selected {
        if !found.limits.is_empty() {
            out.line("", format!("if {}", found.limits));
        }
        if !found.directory.is_empty() {
            out.line("directory", &found.directory);
        }
    }
    for fact in &found.evidence {
        out.fact("evidence", fact);
    }
    for row in [&found.candidate, &found.job].into_iter().flatten() {
        now(out, row);
    }
    // The first of a candidate's is what `now` has said.
    let said = |fact: &&Fact| (found.candidate.as_ref()).is_none_or(|row| row.text != fact.text);
    for fact in found.waits.iter().filter(said) {
        match ago(fact.at_ns).is_zero() {
            true => out.fact("due", fact),
            false => out.line("because", &fact.text),
        }
    }
    if found.gone_ns > 0 {
        out.line("gone", format!("{}  seen gone", stamp(found.gone_ns)));
    }
    if found.away {
        out.line("away", "another directory lies where it was");
    }
}

/// What happens to it now.
fn now(out: &mut Text, row: &FileRow) {
    let mut text = format!(
        "{}  {}, for {}",
        stamp(row.since_ns),
        row.text,
        span(ago(row.since_ns))
    );
    if row.pid != 0 {
        let _ = write!(text, ", process {}", row.pid);
    }
    if !row.job.is_empty() {
        let _ = write!(text, " (job {}", row.job);
        if !row.key.is_empty() {
            let _ = write!(text, ", key {:?}", row.key);
        }
        text.push(')');
    }
    out.line("now", text);
}

/// By which rule, and where that is written.
fn selected(found: &Finding, rules: Option<&WatchRules>) -> String {
    let written = |list: &[(String, String)]| {
        let mut places = list.iter().filter(|(text, _)| *text == found.pattern);
        match (places.next(), rules) {
            (Some((_, place)), _) => format!(" ({place})"),
            (None, Some(_)) => {
                " (not in the configuration any more; settled reload reads it)".to_owned()
            }
            (None, None) => String::new(),
        }
    };
    let key = |name: &str| match rules.and_then(|rules| rules.keys.get(name)) {
        Some(place) => format!(" ({place})"),
        None => String::new(),
    };
    let on_the_way = match found.at.as_str() {
        "" => String::new(),
        at => format!("its directory {at} is left out: "),
    };
    match found.rule.as_str() {
        "" if found.is_directory => "yes, as a directory: its files are judged each".into(),
        "" => match rules {
            Some(rules) if rules.include.is_empty() => {
                "yes: every name is, that no rule excludes".into()
            }
            Some(rules) => {
                let which = rules.include.iter().find(|(text, _)| {
                    crate::core::select::Pattern::parse(text, true)
                        .is_ok_and(|pattern| pattern.matches(found.rel.as_bytes()))
                });
                match which {
                    Some((text, place)) => format!("yes, by include {text:?} ({place})"),
                    None => "yes".into(),
                }
            }
            None => "yes".into(),
        },
        "built-in" => format!(
            "no: {on_the_way}{:?} of the built-in list of names used while writing matches it; builtin_excludes = false \
             takes that list away{}",
            found.pattern,
            key("builtin_excludes")
        ),
        "exclude" => format!(
            "no: {on_the_way}exclude {:?} matches it{}",
            found.pattern,
            rules.map_or(String::new(), |rules| written(&rules.exclude))
        ),
        "include" => {
            let list = rules.map_or(&[][..], |rules| &rules.include);
            let list: Vec<String> = list
                .iter()
                .map(|(text, place)| format!("{text:?} ({place})"))
                .collect();
            match list.is_empty() {
                true => "no: no pattern of include matches it".into(),
                false => format!("no: no pattern of include matches it: {}", list.join(", ")),
            }
        }
        "own" => format!(
            "no: {} is settled's own: a target of a disposition or a delivery, an output, or its state",
            found.pattern
        ),
        "private" => {
            "no: it is a private name of settled's, of a file that is being moved or deleted".into()
        }
        "recursive" => format!(
            "no: it lies in the directory {}, and the watch is not recursive{}",
            found.at,
            key("recursive")
        ),
        "not-configured" => "no: the watch is not in the configuration any more".into(),
        other => format!("no: {other}"),
    }
}

/// Who holds it; only where that matters.
fn held(out: &mut Text, holders: &Holders, known: &Known) {
    let matters = known
        .findings
        .iter()
        .any(|found| found.candidate.is_some() || found.selected && known.no_daemon.is_some());
    for (pid, name, how) in &holders.found {
        let name = match name.as_str() {
            "" => String::new(),
            name => format!(" ({name})"),
        };
        out.line("held", format!("process {pid}{name} {how}"));
    }
    if matters && holders.hidden > 0 {
        out.line(
            "",
            format!(
                "{} other processes could not be looked into{}",
                holders.hidden,
                match nix::unistd::geteuid().is_root() {
                    true => "",
                    false => "; ask as root",
                }
            ),
        );
    }
}

fn history_of(out: &mut Text, past: &OfPath, known: &Known) {
    let skipped = past.jobs.len().saturating_sub(JOBS_MAX);
    if skipped > 0 {
        out.line(
            "earlier",
            format!("{skipped} jobs before these; --json has all"),
        );
    }
    for job in past.jobs.iter().skip(skipped) {
        one_job(out, past.id, job);
    }
    for job in &past.brought {
        let when = job.disposed.map(|(_, at)| stamp(at.0)).unwrap_or_default();
        out.line(
            "from",
            format!(
                "{when}  brought here by job {:08x}-{} of watch {}, as {} below its root",
                past.id,
                job.job,
                job.watch,
                shown(&job.rel)
            ),
        );
    }
    if past.jobs.is_empty() {
        let told = [
            (
                &past.concluded,
                "concluded; what was run is not kept that long",
            ),
            (
                &past.baseline,
                "there before the watch was: left (existing = \"skip\")",
            ),
            (&past.gone, "seen gone"),
        ];
        for (what, text) in told {
            if let Some((watch, at)) = what {
                out.line(
                    "history",
                    format!("{}  {text} (watch {watch})", stamp(at.0)),
                );
            }
        }
        let live = |found: &Finding| {
            found.candidate.is_some() || found.job.is_some() || found.concluded_ns > 0
        };
        let nothing = past.concluded.is_none() && past.baseline.is_none() && past.gone.is_none();
        if nothing && past.brought.is_empty() && !known.findings.iter().any(live) {
            out.line("history", "never seen to settle");
        }
    }
    for damage in &past.damage {
        out.line("damage", damage.to_string());
    }
}

fn one_job(out: &mut Text, id: u32, past: &Past) {
    out.line(
        "job",
        format!(
            "{}  {id:08x}-{} settled with {} bytes (watch {})",
            stamp(past.settled.0),
            past.job,
            past.size,
            past.watch
        ),
    );
    for (name, until) in &past.before {
        let text = format!("{}  renamed; before it was {}", stamp(until.0), shown(name));
        out.line("", text);
    }
    for made in &past.attempts {
        let (took, end) = match made.end {
            Some((end, at)) => (
                format!("after {}", span(at.since(made.started))),
                attempt_words(end),
            ),
            None => (String::new(), "not ended".into()),
        };
        out.line(
            &format!("attempt {}", made.number),
            format!("{}  {end} {took}", stamp(made.started.0)),
        );
        let output = String::from_utf8_lossy(&made.output);
        let lines: Vec<&str> = output.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(OUTPUT_LINES)) {
            out.line("", format!("| {line}"));
        }
    }
    if let Some((outcome, at)) = past.concluded {
        out.line(
            "outcome",
            format!("{}  {}", stamp(at.0), outcome_word(outcome)),
        );
        let text = disposition(past);
        if !text.is_empty() {
            let there = match past.target() {
                Some(target) if past.disposed.is_some() => match is_there(&target) {
                    true => " (it is there)",
                    false => " (it is not there any more, or cannot be looked at)",
                },
                _ => "",
            };
            out.line("file", format!("{text}{there}"));
        }
    }
}
