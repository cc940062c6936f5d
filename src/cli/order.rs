//! The commands that change something: retry, forget, pause, resume, rescan, reload. They need a daemon.

use super::ask::{self, Target, print, shown};
use super::{exit, fail};
use crate::control::client::{Connection, NoAnswer};
use crate::control::{DoneRow, Line, Named, Refusal, Request};
use crate::core::view::shown as as_text;
use crate::journal::history;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Their names, what they do, and what they are given.
pub(super) fn commands() -> [Command; 6] {
    let which = || {
        Arg::new("which")
            .value_name("PATH|JOB")
            .required(true)
            .action(ArgAction::Append)
            .value_parser(value_parser!(OsString))
    };
    let of_watch = || {
        Arg::new("watch")
            .long("watch")
            .value_name("NAME")
            .help("The watch that is meant, where several have the file")
    };
    let watch = |required: bool| {
        Arg::new("which")
            .value_name("WATCH")
            .required(required)
            .action(ArgAction::Append)
            .value_parser(value_parser!(OsString))
    };
    let command = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).args(ask::arguments())
    };
    [
        command(
            "retry",
            "Run a job again, or now; also a file that was concluded",
        )
        .args([which(), of_watch()]),
        command(
            "forget",
            "Give up a job that waits: no more attempts, its file stays",
        )
        .args([which(), of_watch()]),
        command("pause", "Start nothing of a watch until it is resumed").arg(watch(true)),
        command("resume", "Go on with a watch that was paused").arg(watch(true)),
        command("rescan", "List the directories of a watch again, or of all").arg(watch(false)),
        command(
            "reload",
            "Read the configuration again, and say what has changed",
        ),
    ]
}

pub(super) fn run(command: &str, given: &ArgMatches) -> ExitCode {
    match order(command, given) {
        Ok(code) | Err(code) => code,
    }
}

fn order(command: &str, given: &ArgMatches) -> Result<ExitCode, ExitCode> {
    let target = Target::of(given)?;
    let json = given.get_flag("json");
    let mut connection = target
        .connect()
        .map_err(|error| ask::fail_no_answer(command, &error))?;
    let words: Vec<OsString> = match given.try_get_many::<OsString>("which") {
        Ok(words) => words.into_iter().flatten().cloned().collect(),
        // The command is given nothing.
        Err(_) => Vec::new(),
    };
    // Of those that are given none.
    let watch = given.try_get_one::<String>("watch").ok().flatten();
    let watch = watch.map_or("", String::as_str);
    let mut code = exit::OK;
    let mut one = |word: Option<&OsString>| {
        let result = send(&mut connection, &target, command, word, watch)?;
        match result {
            Ok(lines) => {
                for (text, row) in lines {
                    let line = match (json, word) {
                        (true, _) => format!("{text}\n"),
                        (false, Some(word)) if command == "retry" || command == "forget" => {
                            format!("{}: {}\n", shown_word(word), shown(row.text.as_bytes()))
                        }
                        (false, _) => format!("{}\n", shown(row.text.as_bytes())),
                    };
                    print(command, &line)?;
                }
            }
            Err(error) => {
                // One that fails keeps nothing from the others.
                let of = word.map_or(String::new(), |word| format!("{}: ", shown_word(word)));
                let text = format!("settled {command}: {of}{}", ask::reason(&error));
                // Standard error is the last resort.
                let _ = writeln!(std::io::stderr(), "{text}");
                code = ask::exit_code(&error);
            }
        }
        Ok::<(), ExitCode>(())
    };
    match words.is_empty() {
        true => one(None)?,
        false => words.iter().try_for_each(|word| one(Some(word)))?,
    }
    Ok(ExitCode::from(code))
}

fn shown_word(word: &OsString) -> String {
    use std::os::unix::ffi::OsStrExt;
    shown(word.as_bytes())
}

type Told = Result<Vec<(String, DoneRow)>, NoAnswer>;

fn send(
    connection: &mut Connection,
    target: &Target,
    command: &str,
    word: Option<&OsString>,
    of_watch: &str,
) -> Result<Told, ExitCode> {
    let name = || word.map(|word| word.to_string_lossy().into_owned());
    let watch = || name().unwrap_or_default();
    let request = match command {
        "pause" => Request::Pause { watch: watch() },
        "resume" => Request::Resume { watch: watch() },
        "rescan" => Request::Rescan { watch: name() },
        "reload" => Request::Reload {},
        _ => {
            let job = name().filter(|name| is_job(name));
            let mut named = match &job {
                Some(job) => Named {
                    job: job.clone(),
                    ..Named::default()
                },
                None => path_of(command, word)?,
            };
            named.watch = of_watch.to_owned();
            let told = ask_for(connection, command, named);
            return Ok(match (told, job) {
                // A job that is over is known by the journal alone: its file's path is what can be run again.
                (Err(NoAnswer::Refused(refusal)), Some(job))
                    if refusal.code == "not-found" && command == "retry" =>
                {
                    match path_in_journal(target, &job) {
                        Some(Ok(named)) if of_watch.is_empty() || of_watch == named.watch => {
                            ask_for(connection, command, named)
                        }
                        Some(Err(refusal)) => Err(NoAnswer::Refused(refusal)),
                        _ => Err(NoAnswer::Refused(refusal)),
                    }
                }
                (told, _) => told,
            });
        }
    };
    Ok(answer_to(connection, &request))
}

fn ask_for(connection: &mut Connection, command: &str, named: Named) -> Told {
    let request = match command {
        "forget" => Request::Forget(named),
        _ => Request::Retry(named),
    };
    answer_to(connection, &request)
}

fn answer_to(connection: &mut Connection, request: &Request) -> Told {
    let mut rows = Vec::new();
    connection.ask(request, &mut |text, line| {
        if let Line::Done(row) = line {
            rows.push((text.to_owned(), row));
        }
        true
    })?;
    Ok(rows)
}

/// `1c6a0dc0-3`, as log, list and `SETTLED_JOB` have it.
fn is_job(word: &str) -> bool {
    word.split_once('-').is_some_and(|(journal, number)| {
        journal.len() == 8
            && journal.bytes().all(|byte| byte.is_ascii_hexdigit())
            && number.parse::<u64>().is_ok()
    })
}

fn path_of(command: &str, word: Option<&OsString>) -> Result<Named, ExitCode> {
    let path = word.map(PathBuf::from).unwrap_or_default();
    let path = ask::absolute(&path)
        .map_err(|error| fail(exit::OSERR, &format!("settled {command}: {error}")))?;
    Ok(named(&path))
}

fn named(path: &[u8]) -> Named {
    let (path, path_hex) = as_text(path);
    Named {
        path,
        path_hex,
        ..Named::default()
    }
}

/// Where the file of a job was that is over, and in which watch. Refused where a later job was of the same file: what lies
/// there now is not what this job ran on.
fn path_in_journal(target: &Target, job: &str) -> Option<Result<Named, Refusal>> {
    let seen = target.seen.as_ref()?;
    let plan = seen.plan.as_ref().ok()?;
    let state: &Path = target.state.as_deref()?;
    let (journal, number) = job.split_once('-')?;
    let mut found = None;
    let number: u64 = number.parse().ok()?;
    let (id, _) = history::jobs(state, &mut |past| {
        if past.job == number {
            found = Some((past.watch, past.rel));
        }
    })
    .ok()?;
    let (watch, rel) = found.filter(|_| format!("{id:08x}") == journal)?;
    // They come as they end: a later one may have been told of before.
    let mut later = None;
    history::jobs(state, &mut |past| {
        if past.job > number && (&past.watch, &past.rel) == (&watch, &rel) {
            later = later.max(Some(past.job));
        }
    })
    .ok()?;
    let plan = plan.watches.iter().find(|plan| plan.name == watch)?;
    let path = [&plan.path, &b"/"[..], &rel].concat();
    if let Some(later) = later {
        let text = format!(
            "job {journal}-{later} came after job {job}, of the same file {}",
            shown(&path)
        );
        let remedy = "to have what is there now run again, name the path or that job";
        return Some(Err(Refusal::new("conflict", text, remedy)));
    }
    Some(Ok(Named {
        watch,
        ..named(&path)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_told_from_paths() {
        for job in ["1c6a0dc0-3", "00000000-12345678901234567890"] {
            assert!(is_job(job), "{job}");
        }
        for path in [
            "1c6a0dc0",
            "1c6a0dc-3",
            "report-2026",
            "1c6a0dc0-",
            "/1c6a0dc0-3",
        ] {
            assert!(!is_job(path), "{path}");
        }
    }
}
