//! What was found out, in plain lines.

use super::{Known, disposition};
use crate::cli::ask::{Target, ago, shown, span, stamp};
use crate::cli::holders::Holders;
use crate::config::WatchRules;
use crate::core::view::{Fact, FileRow, Finding, bytes_of};
use crate::core::words::{attempt_words, outcome_word};
use crate::journal::history::{OfPath, Past};
use std::fmt::Write as _;

/// Jobs of one path that are told of in full; the latest.
const JOBS_MAX: usize = 3;
/// Lines of output that are shown of an attempt; the last.
const OUTPUT_LINES: usize = 5;

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

pub(super) fn describe(target: &Target, path: &[u8], known: &Known) -> String {
    let mut out = Text(format!("{}\n", shown(path)));
    if let Some(reason) = &known.no_daemon {
        out.line("daemon", reason);
    }
    for found in &known.findings {
        let rules = (target.seen.as_ref()).and_then(|seen| seen.rules.get(&found.watch));
        finding(&mut out, found, known.ctime_moved(found), rules);
    }
    if let Some(near) = &known.nearest {
        out.line("watch", "none has this path");
        out.line(
            "nearest",
            format!("{} at {}: {}", near.watch, near.root, near.text),
        );
    }
    if let Some(disk) = &known.look.disk {
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

fn finding(out: &mut Text, found: &Finding, ctime_moved: bool, rules: Option<&WatchRules>) {
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
    if ctime_moved {
        let place = rules.and_then(|rules| rules.keys.get("on_ctime"));
        let place = place.map_or("the default".to_owned(), ToString::to_string);
        out.line(
            "changed",
            format!(
                "its change time has moved since it was concluded, its size and modification time have not: left, by \
                 on_ctime = \"ignore\" ({place})"
            ),
        );
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
                        .is_ok_and(|pattern| pattern.matches(&bytes_of(&found.rel, &found.rel_hex)))
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
        one_job(out, known, past.id, job);
    }
    // Only the daemon remembers it: what was run is not in the journal any more, or not under this path.
    let told = past.jobs.is_empty() && past.concluded.is_none();
    for at in known.findings.iter().map(|found| found.concluded_ns) {
        if told && at > 0 {
            out.line("history", format!("{}  concluded", stamp(at)));
        }
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
                "counts as concluded; what was run, if anything was, is not kept that long",
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

fn one_job(out: &mut Text, known: &Known, id: u32, past: &Past) {
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
                Some(target) if past.disposed.is_some() => match known.is_there(&target) {
                    Some(true) => " (it is there)",
                    Some(false) => " (it is not there any more, or cannot be looked at)",
                    None => " (not looked at: a mount does not answer)",
                },
                _ => "",
            };
            out.line("file", format!("{text}{there}"));
        }
    }
}
