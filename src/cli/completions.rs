//! `settled completions SHELL`: what a shell needs to complete the command line, made from the same table that reads it.

use super::{exit, fail};
use clap::{Arg, ArgMatches, Command};
use clap_complete::{Shell, generate};
use std::io::{self, Write};
use std::process::ExitCode;

/// The subcommand.
pub(super) fn command() -> Command {
    Command::new("completions")
        .about("Print completions for a shell: bash, zsh or fish")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(["bash", "zsh", "fish"]),
        )
}

/// Prints them.
pub(super) fn run(given: &ArgMatches, mut of: Command) -> ExitCode {
    let shell = match given.get_one::<String>("shell").map(String::as_str) {
        Some("bash") => Shell::Bash,
        Some("zsh") => Shell::Zsh,
        Some("fish") => Shell::Fish,
        _ => return fail(exit::USAGE, "settled completions: bash, zsh or fish"),
    };
    let mut script = Vec::new();
    generate(shell, &mut of, "settled", &mut script);
    match io::stdout().write_all(&script) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => fail(
            exit::IOERR,
            &format!("settled completions: standard output: {error}"),
        ),
    }
}
