//! Flags, subcommands and exit codes, from one table ([`command`], [`EXIT_CODES`]).

mod append;
mod ask;
mod check;
mod completions;
mod explain;
mod holders;
mod journal;
mod list;
mod metrics;
mod order;
mod status;
mod top;
mod watch;

pub use check::Filesystem;

use crate::config::{self, ConfigErrors};
use crate::core::claim::KEEP;
use crate::core::delivery;
use crate::exports::Tables;
use crate::metrics::file;
use crate::{claim, daemon, deliver};
use clap::{Arg, ArgMatches, Command, value_parser};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The configuration that is read without `-c`.
pub const DEFAULT_CONFIG: &str = "/etc/settled/settled.toml";

/// The unit that runs it.
pub const DEFAULT_UNIT: &str = "settled.service";

/// Exit codes, named as in sysexits.h.
#[allow(missing_docs)]
pub mod exit {
    pub const OK: u8 = 0;
    pub const USAGE: u8 = 64;
    pub const DATAERR: u8 = 65;
    pub const NOINPUT: u8 = 66;
    pub const UNAVAILABLE: u8 = 69;
    pub const SOFTWARE: u8 = 70;
    pub const OSERR: u8 = 71;
    pub const CANTCREAT: u8 = 73;
    pub const IOERR: u8 = 74;
    pub const TEMPFAIL: u8 = 75;
    pub const NOPERM: u8 = 77;
    pub const CONFIG: u8 = 78;
}

/// Every exit code of the program, its name in sysexits.h, and when.
pub const EXIT_CODES: [(u8, &str, &str); 12] = [
    (
        exit::OK,
        "EX_OK",
        "stopped when told to, or checked and found good",
    ),
    (exit::USAGE, "EX_USAGE", "the command line is wrong"),
    (
        exit::DATAERR,
        "EX_DATAERR",
        "the journal is damaged, or was written by a newer settled",
    ),
    (
        exit::NOINPUT,
        "EX_NOINPUT",
        "the configuration file or the journal cannot be read, or what was named is not there",
    ),
    (
        exit::UNAVAILABLE,
        "EX_UNAVAILABLE",
        "the log's socket is not there, or no daemon answers where one is needed",
    ),
    (
        exit::SOFTWARE,
        "EX_SOFTWARE",
        "a process that the daemon needs has ended",
    ),
    (
        exit::OSERR,
        "EX_OSERR",
        "the system refused something that every start needs",
    ),
    (
        exit::CANTCREAT,
        "EX_CANTCREAT",
        "the state directory cannot be made",
    ),
    (
        exit::IOERR,
        "EX_IOERR",
        "the journal or standard output cannot be written",
    ),
    (
        exit::TEMPFAIL,
        "EX_TEMPFAIL",
        "another daemon holds the journal, the daemon has as many clients as it takes, or what was named is under way",
    ),
    (
        exit::NOPERM,
        "EX_NOPERM",
        "no permission for the state directory, or to ask the daemon",
    ),
    (exit::CONFIG, "EX_CONFIG", "the configuration is wrong"),
];

/// The whole command line.
pub fn command() -> Command {
    public().subcommand(append::command())
}

/// The command line without what only the daemon itself says.
fn public() -> Command {
    Command::new("settled")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Acts on files once they have settled")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(watch::command())
        .subcommand(
            Command::new("run")
                .about("Run the watches of a configuration file, in the foreground")
                .arg(config_argument()),
        )
        .subcommand(
            Command::new("check")
                .about("Check a configuration file and say how it is understood; changes nothing")
                .arg(config_argument())
                .arg(
                    Arg::new("unit")
                        .long("unit")
                        .value_name("UNIT")
                        .help("The systemd unit, or its file, that is to run it: what it cannot reach is named"),
                ),
        )
        .subcommand(status::command())
        .subcommand(top::command())
        .subcommand(list::command())
        .subcommand(explain::command())
        .subcommand(metrics::command())
        .subcommands(order::commands())
        .subcommand(journal::command())
        .subcommand(completions::command())
}

fn config_argument() -> Arg {
    Arg::new("config")
        .short('c')
        .long("config")
        .value_name("FILE")
        .help("The configuration, settled.toml(5)")
        .default_value(DEFAULT_CONFIG)
        .value_parser(value_parser!(PathBuf))
}

/// Runs the program.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    if let Some(code) = internal(&arguments) {
        return ExitCode::from(code);
    }
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            let code = if error.use_stderr() {
                exit::USAGE
            } else {
                exit::OK
            };
            // Help goes to standard output, and somebody may wait for it there.
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) if code != exit::OK => ExitCode::from(code),
                Err(_) => ExitCode::from(exit::IOERR),
            };
        }
    };
    match matches.subcommand() {
        Some(("watch", given)) => watch(given),
        Some(("run", given)) => run(&config_path(given)),
        Some(("check", given)) => {
            let unit = given.get_one::<String>("unit").map(String::as_str);
            check_file(&config_path(given), unit)
        }
        Some(("status", given)) => status::run(given),
        Some(("top", given)) => top::run(given),
        Some(("list", given)) => list::run(given),
        Some(("explain", given)) => explain::run(given),
        Some(("metrics", given)) => metrics::run(given),
        Some((
            command @ ("retry" | "forget" | "pause" | "resume" | "rescan" | "reload"),
            given,
        )) => order::run(command, given),
        Some(("journal", given)) => journal::run(given),
        Some(("completions", given)) => completions::run(given, public()),
        Some(("append-output", given)) => append::run(given),
        _ => fail(exit::USAGE, "settled: no such command"),
    }
}

/// The subcommands that only the daemon itself gives, to processes of its own.
fn internal(arguments: &[OsString]) -> Option<u8> {
    let [_, subcommand, rest @ ..] = arguments else {
        return None;
    };
    match subcommand.as_bytes() {
        delivery::DELIVER => Some(deliver::deliver_file(rest)),
        delivery::SWEEP => Some(deliver::sweep_directory(rest)),
        KEEP => Some(claim::keep_claims(rest)),
        file::WRITE => Some(file::write_textfile(rest)),
        _ => None,
    }
}

fn config_path(given: &ArgMatches) -> PathBuf {
    given
        .get_one::<PathBuf>("config")
        .cloned()
        .unwrap_or_else(|| DEFAULT_CONFIG.into())
}

/// Says why not, and ends. Standard error is the last resort: if it fails, the exit code speaks alone.
fn fail(code: u8, why: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{why}");
    ExitCode::from(code)
}

fn fail_config(errors: &ConfigErrors) -> ExitCode {
    fail(errors.exit_code(), &errors.to_string())
}

fn run(path: &Path) -> ExitCode {
    let plan = match config::load(path) {
        Ok(plan) => plan,
        Err(errors) => return fail_config(&errors),
    };
    match std::path::absolute(path) {
        Ok(absolute) => daemon::run(plan, daemon::Source::File(absolute)),
        Err(error) => fail(exit::NOINPUT, &format!("{}: {error}", path.display())),
    }
}

fn check_file(path: &Path, unit: Option<&str>) -> ExitCode {
    let mut loaded = match config::load_noting(path) {
        Ok(loaded) => loaded,
        Err(errors) => return fail_config(&errors),
    };
    let unit = match check_unit(path, unit, &mut loaded.notes) {
        Ok(unit) => unit,
        Err(error) => return fail(exit::NOINPUT, &format!("settled check: {error}")),
    };
    let tables = Tables::default();
    let mut text = check::describe(&loaded.plan, &filesystem, &tables, unit.as_ref());
    for note in &loaded.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text.push_str(&format!("{}: ok\n", path.display()));
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => fail(
            exit::IOERR,
            &format!("settled check: standard output: {error}"),
        ),
    }
}

/// The unit to check against: the one that is asked for, or the one that is installed for the configuration at its usual
/// place, if it is. That that one cannot be read is no error, but a note.
fn check_unit(
    config: &Path,
    unit: Option<&str>,
    notes: &mut Vec<String>,
) -> std::io::Result<Option<check::Unit>> {
    if let Some(unit) = unit {
        return check::Unit::load(unit).map(Some);
    }
    if config != Path::new(DEFAULT_CONFIG) {
        return Ok(None);
    }
    match check::Unit::load(DEFAULT_UNIT) {
        Ok(unit) => Ok(Some(unit)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            notes.push(format!(
                "what {DEFAULT_UNIT} can reach is not known: {error}"
            ));
            Ok(None)
        }
    }
}

/// The filesystem that `path` is on, where the mount table is read.
fn filesystem(path: &[u8]) -> Option<Filesystem> {
    let table = crate::mounts::read().ok()?;
    let mount = crate::mounts::find(&table.mounts, path)?;
    Some(Filesystem {
        fstype: mount.fstype.clone(),
        remote_writers: mount.remote_writers,
        attribute_cache_s: mount.attribute_cache_s,
    })
}

fn watch(given: &ArgMatches) -> ExitCode {
    match watch::plan(given) {
        Ok(plan) => daemon::run(plan, daemon::Source::Arguments),
        Err(lines) => {
            let lines: Vec<String> = lines
                .iter()
                .map(|l| format!("settled watch: {l}"))
                .collect();
            fail(exit::USAGE, &lines.join("\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_arguments_is_consistent() {
        command().debug_assert();
    }
}
