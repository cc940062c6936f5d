//! `settled metrics`: what the daemon does in numbers, as it has them.

use super::ask::{self, Target, print};
use super::exit;
use crate::control::{Line, Request};
use clap::{ArgMatches, Command};
use std::process::ExitCode;

pub(super) fn command() -> Command {
    let which = ask::arguments()
        .into_iter()
        .filter(|arg| arg.get_id() != "json");
    Command::new("metrics")
        .about("Print the metrics of a running daemon, settled-metrics(7), as OpenMetrics text")
        .args(which)
}

pub(super) fn run(given: &ArgMatches) -> ExitCode {
    let target = match Target::of(given) {
        Ok(target) => target,
        Err(code) => return code,
    };
    let lines = match target.ask(&Request::Metrics {}) {
        Ok(lines) => lines,
        Err(error) => return ask::fail_no_answer("metrics", &error),
    };
    let text: String = lines
        .into_iter()
        .filter_map(|(_, line)| match line {
            Line::Text(row) => Some(row.text),
            _ => None,
        })
        .collect();
    match print("metrics", &text) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(code) => code,
    }
}
