//! `settled status`: the daemon, its watches and mounts.

use super::ask::{self, Target, ago, print, shown_path, span, stamp};
use super::exit;
use crate::control::{Line, Request};
use crate::core::view::{DaemonRow, ExpectRow, MountRow, WatchRow};
use clap::{ArgMatches, Command};
use std::fmt::Write;
use std::process::ExitCode;

pub(super) fn command() -> Command {
    Command::new("status")
        .about("Say what a running daemon watches and what it is about")
        .args(ask::arguments())
}

pub(super) fn run(given: &ArgMatches) -> ExitCode {
    let target = match Target::of(given) {
        Ok(target) => target,
        Err(code) => return code,
    };
    let lines = match target.ask(&Request::Status {}) {
        Ok(lines) => lines,
        Err(error) => return ask::fail_no_answer("status", &error),
    };
    let text = match given.get_flag("json") {
        true => lines.iter().map(|(text, _)| format!("{text}\n")).collect(),
        false => describe(&lines),
    };
    match print("status", &text) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(code) => code,
    }
}

/// Watches first, then mounts: the rows come as the daemon has them at hand.
pub(super) fn describe(lines: &[(String, Line)]) -> String {
    let mut out = String::new();
    for (_, line) in lines {
        if let Line::Daemon(row) = line {
            daemon(&mut out, row);
        }
    }
    for (_, line) in lines {
        if let Line::Watch(row) = line {
            watch(&mut out, row);
            if let Some(row) = &row.expected {
                expected(&mut out, row);
            }
        }
    }
    for (_, line) in lines {
        if let Line::Mount(row) = line {
            mount(&mut out, row);
        }
    }
    out
}

// Writing to a string cannot fail.

pub(super) fn daemon(out: &mut String, row: &DaemonRow) {
    let started = stamp(row.started_ns);
    let _ = writeln!(
        out,
        "settled {}, process {}, started {started} ({} ago), {}",
        row.version,
        row.pid,
        span(ago(row.started_ns)),
        row.mode
    );
    if !row.config.is_empty() {
        let config = ask::shown(row.config.as_bytes());
        let _ = writeln!(out, "{config}, read {}", stamp(row.loaded_ns));
    }
    let _ = writeln!(
        out,
        "{} running, {} jobs owed, {} candidates, {} directories, {} inotify watches, {} files remembered ({} of \
         them gone), {} questions outstanding",
        row.running,
        row.owed,
        row.candidates,
        row.directories,
        row.inotify_watches,
        row.remembered,
        row.gone,
        row.questions
    );
    let _ = writeln!(
        out,
        "{:.1} MiB of memory; the longest turn of the loop took {:.1} ms ({}), the longest flush of the journal {:.1} ms",
        row.memory_kib as f64 / 1024.0,
        row.longest_turn_us as f64 / 1e3,
        stamp(row.longest_turn_ns),
        row.longest_flush_us as f64 / 1e3
    );
    if row.no_room {
        out.push_str("no room for the journal: nothing new is started until there is\n");
    }
    if row.dropped_log_lines > 0 {
        let _ = writeln!(out, "dropped lines: {}", row.dropped_log_lines);
    }
}

pub(super) fn watch(out: &mut String, row: &WatchRow) {
    let _ = write!(
        out,
        "watch {} {}: {}, {} running, {} ready",
        row.watch,
        shown_path(&row.path, &row.path_hex),
        row.state,
        row.running,
        row.ready
    );
    if row.paused {
        out.push_str(", paused");
    }
    if row.halted > 0 {
        let _ = write!(out, ", {} dead hold up others", row.halted);
    }
    if row.listing {
        out.push_str(", listing");
    }
    // It has a mount's type in it, and a part of that is the text of whoever mounted it (fuse(8), "subtype").
    let _ = writeln!(out, ", {}", ask::shown(row.observed.as_bytes()));
}

/// What was found when the last time was over, how it stands now, and what came last.
fn expected(out: &mut String, row: &ExpectRow) {
    let came = |came: u64| format!("{came} of {} had come", row.count);
    let _ = writeln!(out, "  expected: {}", row.text);
    if row.judged_ns != 0 {
        let word = match row.judged_missed {
            true => "missed:  ",
            false => "in time: ",
        };
        let at = stamp(row.judged_ns);
        let _ = writeln!(out, "  {word} by {at}, {}", came(row.judged_came));
    }
    // Missed, and nothing new is due before something comes: that is told above.
    if !row.missed || row.judged_ns == 0 {
        let until = stamp(row.closes_ns);
        let text = match (row.missed, row.came >= row.count) {
            (true, _) => "missed:  ",
            (false, true) => "come:    ",
            (false, false) => "awaited: ",
        };
        let _ = writeln!(out, "  {text} {} of {} by {until}", row.came, row.count);
    }
    match row.last_ns {
        0 => out.push_str("  last:     none that is remembered\n"),
        at => {
            let _ = writeln!(out, "  last:     {} ({} ago)", stamp(at), span(ago(at)));
        }
    }
}

pub(super) fn mount(out: &mut String, row: &MountRow) {
    let _ = writeln!(
        out,
        "mount {} ({}): {}, {} questions asked, {} to be asked",
        shown_path(&row.path, &row.path_hex),
        ask::shown(row.fstype.as_bytes()),
        row.state,
        row.asked,
        row.waiting
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mount_is_called_steers_no_terminal() {
        let fstype = "fuse.\x1b]0;owned\x07\nmount /srv (ext4): answers";
        let mut out = String::new();
        mount(
            &mut out,
            &MountRow {
                fstype: fstype.into(),
                ..MountRow::default()
            },
        );
        watch(
            &mut out,
            &WatchRow {
                observed: format!("by inotify ({fstype})"),
                ..WatchRow::default()
            },
        );
        assert!(out.contains("owned"), "{out:?}");
        assert_eq!(out.lines().count(), 2, "{out:?}");
        assert!(!out.contains(['\x1b', '\x07']), "{out:?}");
    }
}
