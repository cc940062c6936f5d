//! `settled journal`: looks into a state directory. Read only, beside a running daemon or on a copy.

use super::{DEFAULT_CONFIG, exit, fail};
use crate::config;
use crate::journal::error::Damage;
use crate::journal::inspect::{self, DumpError, Stat};
use crate::journal::{JournalError, format::Role};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The subcommand with its three.
pub(super) fn command() -> Command {
    let place = [
        Arg::new("config")
            .short('c')
            .long("config")
            .value_name("FILE")
            .help("The configuration that names the state directory")
            .default_value(DEFAULT_CONFIG)
            .value_parser(value_parser!(PathBuf)),
        Arg::new("state")
            .long("state")
            .value_name("DIR")
            .help("The state directory itself, or a copy of it")
            .value_parser(value_parser!(PathBuf)),
    ];
    Command::new("journal")
        .about("Look into the journal, beside a running daemon or in a copy of it; changes nothing")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(
            Command::new("stat")
                .about("What the journal consists of")
                .args(place.clone()),
        )
        .subcommand(
            Command::new("verify")
                .about("Read everything and name what is damaged")
                .args(place.clone()),
        )
        .subcommand(
            Command::new("dump")
                .about("One line for each record")
                .args(place)
                .arg(
                    Arg::new("json")
                        .long("json")
                        .action(ArgAction::SetTrue)
                        .help("A JSON object for each record"),
                ),
        )
}

/// Runs one of them.
pub(super) fn run(given: &ArgMatches) -> ExitCode {
    let Some((verb, given)) = given.subcommand() else {
        return fail(exit::USAGE, "settled journal: stat, verify or dump");
    };
    let dir = match state_directory(given) {
        Ok(dir) => dir,
        Err(code) => return code,
    };
    let done = match verb {
        "stat" => stat(&dir),
        "verify" => verify(&dir),
        _ => dump(&dir, given.get_flag("json")),
    };
    match done {
        Ok(damage) if damage.is_empty() => ExitCode::from(exit::OK),
        Ok(_) => ExitCode::from(exit::DATAERR),
        Err(DumpError::Journal(error)) => {
            let code = match &error {
                JournalError::Newer { .. }
                | JournalError::UnknownKind { .. }
                | JournalError::Damaged(_) => exit::DATAERR,
                JournalError::Storage(_)
                | JournalError::Directory(..)
                | JournalError::NotAJournal(_) => exit::NOINPUT,
                _ => exit::IOERR,
            };
            fail(code, &format!("settled journal {verb}: {error}"))
        }
        // Whoever read the first lines has seen enough.
        Err(DumpError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::from(exit::OK)
        }
        Err(DumpError::Output(error)) => fail(
            exit::IOERR,
            &format!("settled journal {verb}: standard output: {error}"),
        ),
    }
}

fn state_directory(given: &ArgMatches) -> Result<PathBuf, ExitCode> {
    if let Some(dir) = given.get_one::<PathBuf>("state") {
        return Ok(dir.clone());
    }
    match config::load(&super::config_path(given)) {
        Ok(plan) => Ok(plan.daemon.state),
        Err(errors) => Err(super::fail_config(&errors)),
    }
}

fn print(text: &str) -> Result<(), DumpError> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(DumpError::Output)
}

fn stat(dir: &Path) -> Result<Vec<Damage>, DumpError> {
    let stat = inspect::stat(dir).map_err(DumpError::Journal)?;
    print(&describe(&stat))?;
    Ok(stat.damage)
}

fn describe(stat: &Stat) -> String {
    let mut text = format!("journal {:08x}, next record {}\n", stat.id, stat.next_seq);
    let mut line = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    for file in &stat.files {
        line(format!(
            "{}: {}, {} of {} bytes used, {} records",
            file.path,
            match file.role {
                Role::Base => "base",
                Role::Log => "segment",
            },
            file.used,
            file.size,
            file.records
        ));
    }
    for (kind, count) in &stat.kinds {
        line(format!("{kind}: {count}"));
    }
    if stat.unproven + stat.cut_bytes > 0 {
        line(format!(
            "not known flushed: {} records, {} bytes behind them",
            stat.unproven, stat.cut_bytes
        ));
    }
    for damage in &stat.damage {
        line(format!("damage: {damage}"));
    }
    text
}

fn verify(dir: &Path) -> Result<Vec<Damage>, DumpError> {
    let damage = inspect::verify(dir).map_err(DumpError::Journal)?;
    if damage.is_empty() {
        print(&format!("{}: good\n", dir.display()))?;
    }
    for place in &damage {
        print(&format!("damage: {place}\n"))?;
    }
    Ok(damage)
}

fn dump(dir: &Path, json: bool) -> Result<Vec<Damage>, DumpError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let damage = inspect::dump(dir, json, &mut out)?;
    out.flush().map_err(DumpError::Output)?;
    for place in &damage {
        // Not among the records: whoever reads those as data must not meet it there.
        let _ = writeln!(io::stderr(), "damage: {place}");
    }
    Ok(damage)
}
