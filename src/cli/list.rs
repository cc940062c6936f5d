//! `settled list`: files that something is to happen to, from the daemon; what became of others, from the journal.

use super::ask::{self, Target, ago, print, shown_path, span};
use super::{exit, fail};
use crate::config;
use crate::control::client::NoAnswer;
use crate::control::{Line, Request};
use crate::core::select::Pattern;
use crate::core::view::{FileRow, shown};
use crate::core::words::{STATES, attempt_words, outcome_word};
use crate::journal::history::{self, Past};
use crate::sys::clock;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// States of what is over, in the words of outcomes.
pub(super) const OUTCOMES: [&str; 5] = ["done", "dead", "superseded", "gone", "held"];

pub(super) fn command() -> Command {
    let words = STATES.iter().map(|(word, _)| *word).chain(OUTCOMES);
    let age = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("DURATION")
            .help(help)
            .value_parser(config::duration)
    };
    Command::new("list")
        .about(
            "List files that wait, run or are disposed of; with --state also what became of others",
        )
        .args(ask::arguments())
        .arg(
            Arg::new("watch")
                .long("watch")
                .value_name("NAME")
                .action(ArgAction::Append)
                .help("Of this watch only; can be given more than once"),
        )
        .arg(
            Arg::new("state")
                .long("state")
                .value_name("STATE")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .value_parser(clap::builder::PossibleValuesParser::new(words))
                .help("In this state only; can be given more than once"),
        )
        .arg(
            Arg::new("name")
                .long("name")
                .value_name("GLOB")
                .action(ArgAction::Append)
                .help("Only files that this matches; can be given more than once"),
        )
        .arg(age(
            "older-than",
            "Only what came, or ended, longer ago than this",
        ))
        .arg(age(
            "newer-than",
            "Only what came, or ended, within this time",
        ))
}

/// What is asked for.
struct Wanted {
    watches: BTreeSet<String>,
    live: BTreeSet<String>,
    over: BTreeSet<String>,
    names: Vec<Pattern>,
    before_ns: Option<i64>,
    after_ns: Option<i64>,
}

impl Wanted {
    fn of(given: &ArgMatches) -> Result<Wanted, String> {
        let many = |name: &str| -> BTreeSet<String> {
            let values = given.get_many::<String>(name);
            values.into_iter().flatten().cloned().collect()
        };
        let (over, live) = many("state")
            .into_iter()
            .partition(|word| OUTCOMES.contains(&word.as_str()));
        let now = clock::wall();
        let age = |name: &str| {
            let span = given.get_one::<std::time::Duration>(name)?;
            Some(now.before(*span).0)
        };
        let names = many("name").into_iter().map(|text| {
            Pattern::parse(&text, false).map_err(|what| format!("--name {text:?}: {what}"))
        });
        Ok(Wanted {
            watches: many("watch"),
            live,
            over,
            names: names.collect::<Result<_, _>>()?,
            before_ns: age("older-than"),
            after_ns: age("newer-than"),
        })
    }

    /// The daemon is asked for what is under way, unless only what is over is wanted.
    fn wants_live(&self) -> bool {
        !self.live.is_empty() || self.over.is_empty()
    }

    fn request(&self) -> Request {
        // One plain pattern is matched where the files are; others here.
        let name = match self.names.as_slice() {
            [one] => Some(one.text().to_owned()).filter(|text| {
                text.len() <= 128 && !text.contains(['?', '[', ']', '{', '}', '\\', '/'])
            }),
            _ => None,
        };
        Request::List {
            watches: self.watches.iter().cloned().collect(),
            states: self.live.iter().cloned().collect(),
            name,
            before_ns: self.before_ns,
            after_ns: self.after_ns,
        }
    }

    /// The same on this side, for rows of the journal and patterns that are not matched there.
    fn wants(&self, row: &FileRow, rel: &[u8], came_ns: i64) -> bool {
        (self.watches.is_empty() || self.watches.contains(&row.watch))
            && self.is_named(rel)
            && self.before_ns.is_none_or(|at| came_ns < at)
            && self.after_ns.is_none_or(|at| came_ns > at)
    }

    fn is_named(&self, rel: &[u8]) -> bool {
        self.names.is_empty() || self.names.iter().any(|pattern| pattern.matches(rel))
    }
}

pub(super) fn run(given: &ArgMatches) -> ExitCode {
    match list(given) {
        Ok(code) | Err(code) => code,
    }
}

fn list(given: &ArgMatches) -> Result<ExitCode, ExitCode> {
    let target = Target::of(given)?;
    let wanted =
        Wanted::of(given).map_err(|text| fail(exit::USAGE, &format!("settled list: {text}")))?;
    let json = given.get_flag("json");
    let plan = target
        .seen
        .as_ref()
        .and_then(|seen| seen.plan.as_ref().ok());
    let mut roots: Roots = (plan.into_iter().flat_map(|plan| &plan.watches))
        .map(|watch| (watch.name.clone(), watch.path.clone()))
        .collect();
    let mut state = target.state.clone();
    if plan.is_none() {
        // Where nobody answers, that is said below.
        if let Ok((known, daemons)) = by_daemon(&target) {
            state = known.or(state);
            roots = daemons;
        }
    }
    let mut nobody = None;
    let mut code = exit::OK;
    if wanted.wants_live() || state.is_none() {
        match live(&target, &wanted, &roots, json) {
            Ok(printed) => printed?,
            Err(error @ NoAnswer::Nobody(..)) if state.is_some() => nobody = Some(error),
            Err(error) => return Err(ask::fail_no_answer("list", &error)),
        }
    }
    if let Some(error) = &nobody {
        say(&format!(
            "{}; what follows is from the journal, as the last daemon left it",
            ask::reason(error)
        ));
        code = exit::UNAVAILABLE;
    }
    if (nobody.is_some() || !wanted.over.is_empty())
        && let Some(state) = &state
    {
        past(state, &wanted, &roots, nobody.is_some(), json)?;
    }
    Ok(ExitCode::from(code))
}

/// What the daemon has, row by row as it comes. The inner result is that of printing.
fn live(
    target: &Target,
    wanted: &Wanted,
    roots: &Roots,
    json: bool,
) -> Result<Result<(), ExitCode>, NoAnswer> {
    let mut printed = Ok(());
    // Candidates come first, and in no order that means anything; jobs in the order in which they settled.
    let mut candidates: Vec<(i64, Vec<u8>, String)> = Vec::new();
    target
        .connect()?
        .ask(&wanted.request(), &mut |text, line| {
            if let Line::File(row) = line {
                let path = crate::core::view::bytes_of(&row.path, &row.path_hex);
                let rel = roots
                    .get(&row.watch)
                    .and_then(|root| config::below(&path, root))
                    .unwrap_or(path.as_slice());
                if wanted.is_named(rel) {
                    let line = match json {
                        true => format!("{text}\n"),
                        false => describe(&row),
                    };
                    if row.job.is_empty() {
                        candidates.push((row.since_ns, path, line));
                    } else {
                        printed = print_oldest_first(&mut candidates);
                        if printed.is_ok() {
                            printed = print("list", &line);
                        }
                    }
                }
            }
            printed.is_ok()
        })?;
    if printed.is_ok() {
        printed = print_oldest_first(&mut candidates);
    }
    Ok(printed)
}

/// Those who have waited for longest first; of the same age by path.
fn print_oldest_first(candidates: &mut Vec<(i64, Vec<u8>, String)>) -> Result<(), ExitCode> {
    candidates.sort_unstable();
    let mut lines = candidates.drain(..);
    lines.try_for_each(|(_, _, line)| print("list", &line))
}

/// The roots of watches by their names.
type Roots = BTreeMap<String, Vec<u8>>;

/// Where the daemon keeps its journal, and its roots.
fn by_daemon(target: &Target) -> Result<(Option<PathBuf>, Roots), NoAnswer> {
    let (mut state, mut roots) = (None, Roots::new());
    for (_, line) in target.ask(&Request::Status {})? {
        match line {
            Line::Daemon(row) => state = Some(row.state.into()),
            Line::Watch(row) => {
                let root = crate::core::view::bytes_of(&row.path, &row.path_hex);
                roots.insert(row.watch, root);
            }
            _ => {}
        }
    }
    Ok((state, roots))
}

/// What the journal has.
fn past(
    state: &Path,
    wanted: &Wanted,
    roots: &Roots,
    no_daemon: bool,
    json: bool,
) -> Result<(), ExitCode> {
    let mut printed = Ok(());
    let mut rows = Vec::new();
    let read = history::jobs(state, &mut |past| {
        let over = past.concluded.is_some();
        let asked = match past.concluded {
            Some((outcome, _)) => wanted.over.contains(outcome_word(outcome)),
            None => no_daemon && wanted.wants_live(),
        };
        if !asked {
            return;
        }
        let row = row(&past, roots);
        let states = over || wanted.live.is_empty() || wanted.live.contains(&row.state);
        if states && wanted.wants(&row, &past.rel, row.since_ns) {
            rows.push((past.job, row));
        }
    });
    let (id, damage) = read.map_err(|error| {
        let text = format!("settled list: the journal cannot be read: {error}");
        fail(exit::NOINPUT, &text)
    })?;
    for place in &damage {
        say(&format!("damage: {place}"));
    }
    rows.sort_by_key(|(_, row)| row.since_ns);
    for (job, mut row) in rows {
        row.job = format!("{id:08x}-{job}");
        let line = match json {
            // The same rows as the daemon's.
            true => serde_json::to_string(&Line::File(Box::new(row)))
                .map_or_else(|error| error.to_string(), |text| format!("{text}\n")),
            false => describe(&row),
        };
        if printed.is_ok() {
            printed = print("list", &line);
        }
    }
    printed
}

/// A job of the journal as a row.
fn row(past: &Past, roots: &Roots) -> FileRow {
    let path = match roots.get(&past.watch) {
        Some(root) => [root, &b"/"[..], &past.rel].concat(),
        None => past.rel.clone(),
    };
    let (path, path_hex) = shown(&path);
    let last = past.attempts.last();
    let how = last.and_then(|made| made.end).map(|(end, _)| end);
    let (state, since, text) = match past.concluded {
        Some((outcome, at)) => {
            let word = outcome_word(outcome);
            let text = match how {
                Some(end) if word != "done" => format!("{word}: {}", attempt_words(end)),
                _ => word.to_owned(),
            };
            (word, at, text)
        }
        None => match last {
            None => ("ready", past.settled, "ready".to_owned()),
            Some(made) => match made.end {
                None => (
                    "running",
                    made.started,
                    format!("attempt {} was begun", made.number),
                ),
                Some((end, at)) => ("backoff", at, attempt_words(end)),
            },
        },
    };
    FileRow {
        watch: past.watch.clone(),
        path,
        path_hex,
        state: state.into(),
        text,
        since_ns: since.0,
        attempt: last.map_or(0, |made| made.number),
        size: past.size,
        mtime_ns: past.mtime_ns,
        settled_ns: past.settled.0,
        ..FileRow::default()
    }
}

/// `STATE AGE WATCH JOB PATH: words`.
pub(super) fn describe(row: &FileRow) -> String {
    let mut out = format!(
        "{:<9} {:>11} {} {}{}{}: {}",
        row.state,
        span(ago(row.since_ns)),
        row.watch,
        row.job,
        if row.job.is_empty() { "" } else { " " },
        shown_path(&row.path, &row.path_hex),
        ask::shown(row.text.as_bytes()),
    );
    if row.pid != 0 {
        out.push_str(&format!(", process {}", row.pid));
    }
    out.push('\n');
    out
}

/// A word beside the rows: not among them.
fn say(text: &str) {
    // Standard error is the last resort.
    let _ = writeln!(std::io::stderr(), "settled list: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::record::Outcome;

    #[test]
    fn every_outcome_can_be_asked_for() {
        let all = [
            Outcome::Done,
            Outcome::Dead,
            Outcome::Superseded,
            Outcome::Gone,
            Outcome::Held,
        ];
        assert_eq!(all.map(outcome_word), OUTCOMES);
    }
}
