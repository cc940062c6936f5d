//! What is done with a file, in words.

use super::{argument, line, shown};
use crate::config::{show_duration, show_ionice, show_limit};
use crate::core::template::Template;
use crate::plan::{
    Action, BatchPlan, DeliverCheck, DeliverPlan, Delivery, Disposition, OnConflict, OnDead, Order,
    Orphans, ProcessPlan, Rate, WatchPlan, WorkerPlan,
};
use std::fmt::Write;

/// From what is run to how often.
pub(super) fn describe(out: &mut String, watch: &WatchPlan) {
    let command: Vec<String> = watch.argv().iter().map(argument).collect();
    let command = command.join(" ");
    match &watch.action {
        Action::Run(_) => line(out, "run", command),
        Action::Worker(worker) => {
            line(out, "worker", command);
            line(out, "workers", workers(worker));
        }
        Action::Deliver(plan) => {
            line(out, "deliver", place(plan));
            line(out, "copy", copy(plan));
        }
    }
    if let Some(batch) = &watch.batch {
        line(out, "batch", batched(batch, &watch.action));
    }
    if let Some(cwd) = &watch.cwd {
        line(out, "cwd", shown(cwd));
    }
    for (name, value) in &watch.env {
        line(out, "env", format!("{name}={}", argument(value)));
    }
    let process = process(&watch.process);
    if !process.is_empty() {
        line(out, "process", process.join("; "));
    }
    if let Some(output) = &watch.output {
        line(out, "output", format!("appended to {}", shown(output)));
    }
    if let Some(claim) = &watch.claim {
        let marks = if claim.marks {
            ", with marks of conclusions"
        } else {
            ""
        };
        let text = format!(
            "each file is claimed before it is run, in {}{marks}",
            shown(&claim.dir)
        );
        line(out, "claim", text);
    }
    if let Some(key) = &watch.key {
        let each = match watch.per_key() {
            None => String::new(),
            Some(1) => ", one at a time for each".into(),
            Some(n) => format!(", {n} at once for each"),
        };
        line(out, "key", format!("{}{each}", key.text()));
    }
    line(out, "jobs", jobs(watch));
    for text in failures(watch) {
        line(out, "failure", text);
    }
}

/// Where files of this watch are brought.
pub(super) fn targets(watch: &WatchPlan) -> impl Iterator<Item = &Template> {
    let delivered = match &watch.action {
        Action::Deliver(plan) => Some(&plan.to),
        _ => None,
    };
    let moved =
        [&watch.done, &watch.dead]
            .into_iter()
            .filter_map(|disposition| match disposition {
                Disposition::Move { to, .. } => Some(to),
                _ => None,
            });
    delivered.into_iter().chain(moved)
}

fn workers(worker: &WorkerPlan) -> String {
    let ready = worker.ready.map_or_else(String::new, |within| {
        format!(
            "; fed when it has said that it is ready, ended if it has not within {}",
            show_duration(within)
        )
    });
    format!(
        "{}, with up to {} unanswered jobs each{ready}",
        worker.workers, worker.window
    )
}

fn place(plan: &DeliverPlan) -> String {
    let below = if plan.flatten {
        "name only"
    } else {
        "with the path below the root"
    };
    let conflict = match plan.on_conflict {
        OnConflict::Rename => "the copy gets a number where its name is taken",
        OnConflict::Replace => "the copy replaces a file of its name",
        OnConflict::Skip => "a file whose name is taken there is not delivered, and done",
        OnConflict::Fail => "a file whose name is taken there is dead",
    };
    format!("to {}, {below}; {conflict}", plan.to.text())
}

fn copy(plan: &DeliverPlan) -> String {
    let mut text: String = match plan.verify {
        DeliverCheck::Size => "compared by size".into(),
        DeliverCheck::Sha256 => "compared by size and SHA-256".into(),
    };
    match plan.mode {
        Some(mode) => {
            let _ = write!(text, "; mode {mode:04o}");
        }
        None => text.push_str("; the file's own mode"),
    }
    for (id, what) in [(plan.owner.0, "owner"), (plan.owner.1, "group")] {
        if let Some(id) = id {
            let _ = write!(text, "; {what} {id}");
        }
    }
    text.push_str(if plan.keep_times {
        "; times kept"
    } else {
        "; times of the delivery"
    });
    text
}

fn batched(batch: &BatchPlan, action: &Action) -> String {
    let how = match action {
        Action::Worker(_) => "in one line",
        _ if batch.stdin => "on standard input, each ended by NUL",
        _ => "as arguments",
    };
    let split = if batch.split {
        "; one that fails is run again file by file"
    } else {
        ""
    };
    format!(
        "up to {} files {how}; the first waits {} for others{split}",
        batch.max,
        show_duration(batch.wait)
    )
}

fn process(process: &ProcessPlan) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(identity) = &process.identity {
        let name = if identity.name.is_empty() {
            String::new()
        } else {
            format!(" ({})", identity.name)
        };
        let groups: Vec<String> = identity.groups.iter().map(u32::to_string).collect();
        facts.push(format!(
            "user {}{name}, group {}, groups {}",
            identity.uid,
            identity.gid,
            groups.join(" ")
        ));
    }
    if let Some(umask) = process.umask {
        facts.push(format!("umask {umask:03o}"));
    }
    if let Some(nice) = process.nice {
        facts.push(format!("nice {nice}"));
    }
    if let Some(ionice) = process.ionice {
        facts.push(format!("I/O class {}", show_ionice(ionice)));
    }
    facts.extend(
        process
            .limits
            .iter()
            .map(|limit| format!("limit {}", show_limit(*limit))),
    );
    facts
}

fn jobs(watch: &WatchPlan) -> String {
    let order = match watch.order {
        Order::Arrival => "arrival",
        Order::Name => "name",
        Order::Mtime => "mtime",
    };
    let timeout = watch.timeout.map_or_else(
        || "no time limit".into(),
        |t| {
            format!(
                "SIGTERM after {}, SIGKILL {} later",
                show_duration(t),
                show_duration(watch.kill_after)
            )
        },
    );
    let at_once = match &watch.action {
        Action::Worker(_) => String::new(),
        _ => format!("{} at once, ", watch.concurrency),
    };
    let rate = watch.rate.map(rate).unwrap_or_default();
    let age = watch.max_age.map_or_else(String::new, |age| {
        format!(", none later than {} after it settled", show_duration(age))
    });
    format!(
        "{at_once}in order of {order}{rate}; {timeout}; {} attempts, {} to {} between them{age}",
        watch.attempts,
        show_duration(watch.backoff.first),
        show_duration(watch.backoff.max)
    )
}

fn rate(rate: Rate) -> String {
    let per = match rate.per.as_secs() {
        1 => "a second".into(),
        60 => "a minute".into(),
        3600 => "an hour".into(),
        _ => format!("in {}", show_duration(rate.per)),
    };
    format!(", {} {per} at most", rate.count)
}

/// What differs from what every watch does.
fn failures(watch: &WatchPlan) -> Vec<String> {
    let mut facts = Vec::new();
    for (codes, meaning) in [
        (&watch.temporary, "tried again"),
        (&watch.permanent, "dead at once"),
    ] {
        if !codes.is_empty() {
            let codes: Vec<String> = codes.iter().map(i32::to_string).collect();
            facts.push(format!("exit status {}: {meaning}", codes.join(", ")));
        }
    }
    if watch.on_dead == OnDead::Halt {
        let what = if watch.serial {
            "the jobs of its key"
        } else {
            "the jobs of this watch"
        };
        facts.push(format!(
            "a dead job halts {what} until its file is taken away or replaced"
        ));
    }
    if watch.delivery == Delivery::AtMostOnce {
        facts.push("an attempt that was cut short is not repeated: its job is held".into());
    }
    if watch.orphans == Orphans::Kill {
        facts.push("what outlived an earlier daemon is ended before its job runs again".into());
    }
    facts
}
