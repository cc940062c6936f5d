//! The built daemon over a mount that hangs, errs, lies and goes away: a FUSE filesystem that does so when it is told
//! to (`liar/main.rs`). `cargo test --test fuse`, and a part of a test's name for some.
//!
//! A program of its own without the usual harness: only when it runs is it known whether this machine has FUSE and
//! this user may mount. Where not, the tests are counted as ignored and the reason is said.

#[allow(dead_code)]
#[path = "../real/bed.rs"]
mod bed;
#[allow(dead_code)]
#[path = "../real/kit.rs"]
mod kit;
mod mount;
#[allow(dead_code)]
#[path = "../real/telling.rs"]
mod telling;

mod alerts;
mod comings;
mod errors;
mod explain;
mod hung;
mod polled;

use bed::{Bed, until};
use mount::{Liar, Refused};
use std::fs;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

/// One test: its name, itself, and why it is left out where it is.
type Test = (&'static str, fn(), Option<&'static str>);

/// Names of functions, each a test.
#[macro_export]
macro_rules! tests {
    ($($(#[ignore = $why:literal])? $name:ident),* $(,)?) => {
        /// All of this module.
        pub const TESTS: &[$crate::Test] = &[$((
            concat!(module_path!(), "::", stringify!($name)),
            $name,
            // The last of what is there.
            [None::<&str>, $(Some($why))?].last().copied().expect("one at least"),
        )),*];
    };
}

/// How many at a time: they wait more than they work.
const AT_ONCE: usize = 4;

fn main() -> ExitCode {
    let (options, words): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|word| word.starts_with('-'));
    let asked = |option: &str| options.iter().any(|given| given == option);
    let all_tests = [
        polled::TESTS,
        hung::TESTS,
        errors::TESTS,
        explain::TESTS,
        comings::TESTS,
        alerts::TESTS,
    ];
    let chosen: Vec<&Test> = all_tests
        .into_iter()
        .flatten()
        .filter(|(name, _, _)| {
            words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
        })
        .collect();
    if asked("--list") {
        chosen
            .iter()
            .for_each(|(name, _, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    let refused = refused();
    let mut run = Vec::new();
    let mut ignored = 0;
    for &&(name, test, why) in &chosen {
        let why = match &refused {
            Some(refused) => Some(refused.as_str()),
            None if asked("--include-ignored") => None,
            None if asked("--ignored") => why.is_none().then_some("only the others were asked for"),
            None => why,
        };
        match why {
            Some(why) => {
                println!("test {name} ... ignored, {why}");
                ignored += 1;
            }
            None => run.push((name, test)),
        }
    }
    nix::sys::prctl::set_child_subreaper(true).expect("prctl");
    let count = run.len();
    let failed = all(run);
    for name in &failed {
        println!("    {name}");
    }
    let left = left();
    if let Some(left) = &left {
        println!("left behind: {left}");
    }
    let good = failed.is_empty() && left.is_none();
    println!(
        "\ntest result: {}. {} passed; {} failed; {ignored} ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
        if good { "ok" } else { "FAILED" },
        count - failed.len(),
        failed.len() + usize::from(left.is_some()),
        begun.elapsed().as_secs_f64(),
    );
    ExitCode::from(u8::from(!good) * 101)
}

/// Why nothing can be mounted here, if so.
fn refused() -> Option<String> {
    let bed = Bed::new();
    match Liar::try_mount(&bed.path("behind"), &bed.path("in")) {
        Ok(_) => None,
        Err(Refused(why)) => Some(format!("no FUSE filesystem can be mounted: {why}")),
    }
}

/// Runs them; the names of those that failed.
fn all(tests: Vec<(&'static str, fn())>) -> Vec<&'static str> {
    let next = Mutex::new(tests.into_iter());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((name, test)) = next.lock().expect("no panic here").next() else {
                        break;
                    };
                    let passed = catch_unwind(test).is_ok();
                    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
                    if !passed {
                        failed.lock().expect("no panic here").push(name);
                    }
                }
            });
        }
    });
    failed.into_inner().expect("no panic here")
}

/// Mounts and processes that the tests left behind, if any stay: orphans are handed to this process.
fn left() -> Option<String> {
    use nix::sys::wait::{WaitPidFlag, waitpid};
    let found = || {
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {
        }
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc");
        let own: Vec<&str> = mounts
            .lines()
            .filter(|line| {
                line.contains(" fuse.liar ") && line.contains(env!("CARGO_TARGET_TMPDIR"))
            })
            .collect();
        let any = !children.trim().is_empty() || !own.is_empty();
        any.then(|| format!("children {children:?}, mounts {own:?}"))
    };
    let start = Instant::now();
    while let Some(left) = found() {
        if start.elapsed() > bed::DEADLINE {
            return Some(left);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    None
}

/// A watch `name` over `path` of the bed, run by a recorder with these words; `keys` are more lines.
fn watch(bed: &Bed, name: &str, path: &str, words: &[&str], keys: &str) -> String {
    let run = bed.run_key(words);
    format!("[watch.{name}]\npath = {:?}\n{run}{keys}\n", bed.path(path))
}

/// The daemon's part of a configuration, with what is said of mounts soon.
fn daemon(bed: &Bed, keys: &str) -> String {
    format!(
        "[daemon]\nstate = {:?}\nlog = \"stderr\"\nlog_level = \"debug\"\nmount_silent = \"1s\"\n{keys}\n",
        bed.path("state")
    )
}

/// Files whose record says that they were seen gone.
fn gone(bed: &Bed) -> usize {
    let dump = std::process::Command::new(env!("CARGO_BIN_EXE_settled"))
        .args(["journal", "dump", "--json", "--state"])
        .arg(bed.path("state"))
        .output()
        .expect("the built program");
    assert!(dump.status.success(), "{dump:?}");
    let text = String::from_utf8_lossy(&dump.stdout);
    text.lines()
        .filter(|line| line.contains("\"kind\":\"gone\""))
        .count()
}

/// Waits until the daemon's log has this, said since it was `from` lines long.
fn wait_log_since(daemon: &bed::Daemon, from: usize, text: &str) {
    until(
        &format!("a log line with {text:?} after the first {from}"),
        || {
            daemon
                .log()
                .iter()
                .skip(from)
                .any(|line| line.contains(text))
        },
    );
}

/// The runs so far, when everything that another party wrote before has been listed twice more and was run. `name` may
/// be one in a directory.
fn fence(bed: &Bed, liar: &Liar, name: &str) -> Vec<bed::Run> {
    let mut runs = Vec::new();
    let last = name.rsplit('/').next().unwrap_or_default();
    for number in 1..=2 {
        liar.put(&format!("{name}.{number}"), "fence");
        until("the fence's run", || {
            runs = bed.runs();
            runs.iter()
                .any(|run| run.name() == *format!("{last}.{number}"))
        });
    }
    runs.retain(|run| (1..=2).all(|number| run.name() != *format!("{last}.{number}")));
    runs
}

/// Each of these was run once, and nothing else was.
fn assert_once<'a>(runs: &[bed::Run], names: impl IntoIterator<Item = &'a str>) {
    let wanted = names.into_iter().map(|name| (name.into(), 1)).collect();
    assert_eq!(bed::counts(runs), wanted, "{runs:?}");
}
