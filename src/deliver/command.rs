//! `settled deliver-file` and `settled sweep`: arguments in, an exit status and one sentence on standard error out.

use super::{Delivered, Deliverer, Undelivered, sweep};
use crate::cli::exit;
use crate::core::delivery::{DeliverOrder, SweepOrder};
use crate::log::escape;
use crate::mover::Failure;
use crate::sys::file;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The descriptor that a job's file is open on.
const SOURCE: i32 = 3;

fn bytes(arguments: &[OsString]) -> Vec<&[u8]> {
    arguments.iter().map(|arg| arg.as_bytes()).collect()
}

/// Says something, and ends with this code, which speaks alone if nobody reads.
fn say(code: u8, sentence: &str) -> u8 {
    let _ = writeln!(std::io::stderr(), "{sentence}");
    code
}

fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    escape(&mut text, path, false);
    text
}

fn below(dir: &[u8], rel: &[u8]) -> String {
    let slash: &[u8] = if dir.ends_with(b"/") { b"" } else { b"/" };
    shown(&[dir, slash, rel].concat())
}

fn why(failure: &Failure) -> String {
    format!("{}: {}", failure.step, failure.errno.desc())
}

/// `settled deliver-file`; `arguments` are what follows that. The exit status: 0 done, 75 try again, 65 a conflict that is
/// an error, 64 called in a wrong way.
pub fn deliver_file(arguments: &[OsString]) -> u8 {
    let order = match DeliverOrder::parse(&bytes(arguments)) {
        Ok(order) => order,
        Err(why) => return say(exit::USAGE, &format!("settled deliver-file: {why}")),
    };
    let Ok(source) = file::inherited(SOURCE) else {
        let why = "settled deliver-file: no file is open on descriptor 3";
        return say(exit::USAGE, why);
    };
    let target = below(&order.to, &order.rel);
    let from = match std::fs::read_link(format!("/proc/self/fd/{SOURCE}")) {
        Ok(path) => shown(&path.into_os_string().into_vec()),
        Err(_) => "a file".into(),
    };
    match Deliverer::new(|_| {}).deliver(source.as_fd(), &order) {
        Ok(Delivered::As(rel)) if rel == order.rel => exit::OK,
        Ok(Delivered::As(rel)) => {
            let name = below(&order.to, &rel);
            say(
                exit::OK,
                &format!("{target} exists: {from} is delivered as {name}"),
            )
        }
        Ok(Delivered::Before(rel)) => {
            let name = below(&order.to, &rel);
            say(
                exit::OK,
                &format!("{from} was delivered as {name} by an earlier attempt"),
            )
        }
        Ok(Delivered::Skipped) => say(
            exit::OK,
            &format!("{target} exists: {from} is not delivered, and done"),
        ),
        Err(Undelivered::Conflict) => say(
            exit::DATAERR,
            &format!("{target} exists: {from} is not delivered"),
        ),
        Err(Undelivered::Changed) => say(
            exit::TEMPFAIL,
            &format!("{from} changed before it was delivered to {target}"),
        ),
        Err(Undelivered::Differs(what)) => say(
            exit::TEMPFAIL,
            &format!("the copy of {from} for {target} has another {what}: it was removed"),
        ),
        Err(Undelivered::Failed(failure)) => say(
            exit::TEMPFAIL,
            &format!("cannot deliver {from} to {target}: {}", why(&failure)),
        ),
    }
}

/// `settled sweep`; `arguments` are what follows that. The exit status: 0 done, 75 something failed, 64 called in a wrong
/// way.
pub fn sweep_directory(arguments: &[OsString]) -> u8 {
    let order = match SweepOrder::parse(&bytes(arguments)) {
        Ok(order) => order,
        Err(why) => return say(exit::USAGE, &format!("settled sweep: {why}")),
    };
    let dir = shown(&order.dir);
    match sweep(&order) {
        Ok(swept) if (swept.removed, swept.left) == (0, 0) => exit::OK,
        Ok(swept) => say(
            exit::OK,
            &format!(
                "{dir}: of what deliveries left, {} removed and {} still in use",
                swept.removed, swept.left
            ),
        ),
        Err(failure) => say(
            exit::TEMPFAIL,
            &format!(
                "{dir}: cannot be cleaned of what deliveries left: {}",
                why(&failure)
            ),
        ),
    }
}
