//! Several machines work on one share: each file is worked on by one of them at a time, and concluded once. Two daemons
//! with a state directory each stand for two machines: the locks are between processes.

mod breaks;

use crate::bed::{Bed, Daemon, until, until_in};
use crate::kit::{self, SLOW, alive, env_number, ledger, put, wait_ledger};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What a job of these tests does: says who it is, whether the process of another attempt at its file is there, and when it
/// is over; `$then` in between.
fn action(bed: &Bed, then: &str) -> String {
    let text = format!(
        "ledger=$1 path=$2 name=${{2##*/}} go={}\n\
         wait_for() {{ while [ ! -e \"$1\" ]; do sleep 0.02; done; }}\n\
         lives() {{ [ -n \"$1\" ] && grep -q '^State:.[^Z]' /proc/$1/status 2>/dev/null; }}\n\
         old=$(cat \"$ledger.$name\" 2>/dev/null); lives $old && beside=1 || beside=0\n\
         echo $$ > \"$ledger.$name\"\n\
         echo \"begin $name $SETTLED_JOB $SETTLED_ATTEMPT ${{SETTLED_RECOVERED:-0}} $beside $$\" >> \"$ledger\"\n\
         {then}\n\
         rm -f \"$ledger.$name\"\n\
         echo \"end $name $SETTLED_JOB\" >> \"$ledger\"\n",
        bed.path("go").display()
    );
    kit::shell_key(bed, &text, &["{path}"])
}

/// One machine: its own state directory and configuration.
struct Machine<'a> {
    bed: &'a Bed,
    name: &'static str,
}

impl Machine<'_> {
    fn state(&self) -> PathBuf {
        self.bed.path(&format!("state-{}", self.name))
    }

    fn config(&self) -> PathBuf {
        self.bed.path(&format!("{}.toml", self.name))
    }

    /// Over `in`, with these keys.
    fn configure(&self, concurrency: usize, keys: &str) {
        let text = format!(
            "[daemon]\nstate = {:?}\nlog = \"stderr\"\nlog_level = \"debug\"\nconcurrency = {concurrency}\n\n\
             [watch.w]\npath = {:?}\nsettle = \"0\"\nbackoff = {{ first = \"10ms\", max = \"10ms\" }}\nclaim = \"lock\"\n{keys}\n",
            self.state(),
            self.bed.path("in"),
        );
        fs::write(self.config(), text).expect("a configuration");
    }

    fn start(&self) -> Daemon {
        let daemon = self.bed.spawn_with(
            &[
                OsStr::new("run"),
                OsStr::new("-c"),
                self.config().as_os_str(),
            ],
            &[("SETTLED_TEST_COMPACT_BYTES", "1000000000000")],
        );
        daemon.wait_log("ready:");
        daemon
    }

    /// A person asks this machine for a file that is over.
    fn retry(&self, name: &str) {
        let said = Command::new(env!("CARGO_BIN_EXE_settled"))
            .arg("retry")
            .arg("-c")
            .arg(self.config())
            .arg(self.bed.inside(name))
            .output()
            .expect("the built program");
        assert!(said.status.success(), "{said:?}");
    }

    /// Outcome and last attempt's end of each job in its journal, by name.
    fn concluded(&self) -> Vec<(String, String, String)> {
        let dump = Command::new(env!("CARGO_BIN_EXE_settled"))
            .args(["journal", "dump", "--json", "--state"])
            .arg(self.state())
            .output()
            .expect("the built program");
        assert!(dump.status.success(), "{dump:?}");
        let mut names = BTreeMap::new();
        let mut found = Vec::new();
        for line in dump.stdout.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let row: serde_json::Value = serde_json::from_slice(line).expect("JSON");
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let job = row["job"].as_u64().unwrap_or_default();
            match text("kind").as_str() {
                "settled" => {
                    names.insert(job, text("name"));
                }
                "concluded" | "concluded-mark" => {
                    let name = names.get(&job).cloned().unwrap_or_default();
                    found.push((name, text("outcome"), text("end")));
                }
                _ => {}
            }
        }
        found
    }

    fn outcome_of(&self, name: &str) -> Option<(String, String)> {
        let all = self.concluded();
        let mut of = all.into_iter().filter(|(of, ..)| of == name);
        let found = of.next().map(|(_, outcome, end)| (outcome, end));
        assert!(of.next().is_none(), "{name} was concluded twice");
        found
    }

    fn wait_outcome(&self, name: &str) -> (String, String) {
        let mut found = None;
        until_in(SLOW, &format!("{name} concluded by {}", self.name), || {
            std::thread::sleep(Duration::from_millis(50));
            found = self.outcome_of(name);
            found.is_some()
        });
        found.expect("just seen")
    }
}

fn two(bed: &Bed) -> (Machine<'_>, Machine<'_>) {
    let a = Machine { bed, name: "a" };
    let b = Machine { bed, name: "b" };
    (a, b)
}

/// One begun attempt, as it wrote itself down.
#[derive(Clone, Debug)]
struct Begun {
    name: String,
    /// The machine: the first half of the job's name.
    by: String,
    attempt: u32,
    recovered: bool,
    beside: bool,
    pid: i32,
}

fn begun(bed: &Bed) -> Vec<Begun> {
    let lines = ledger(bed);
    let begun = lines.iter().filter_map(|line| line.strip_prefix("begin "));
    begun
        .map(|line| {
            let f: Vec<&str> = line.split(' ').collect();
            Begun {
                name: f[0].into(),
                by: f[1].split('-').next().expect("a journal's id").into(),
                attempt: f[2].parse().expect("a number"),
                recovered: f[3] == "1",
                beside: f[4] == "1",
                pid: f[5].parse().expect("a pid"),
            }
        })
        .collect()
}

/// How often each name ended well.
fn ended(bed: &Bed) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in ledger(bed) {
        if let Some(rest) = line.strip_prefix("end ") {
            let name = rest.split(' ').next().unwrap_or_default();
            *counts.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

/// No attempt was begun beside another at the same file, and none repeated without saying so.
fn assert_one_at_a_time(bed: &Bed) {
    let mut before: BTreeMap<String, Begun> = BTreeMap::new();
    for one in begun(bed) {
        assert!(!one.beside, "begun beside another: {one:?}");
        if let Some(first) = before.get(&one.name) {
            assert!(one.recovered, "repeated unmarked: {first:?}, {one:?}");
        }
        before.insert(one.name.clone(), one);
    }
}

fn wait_empty(bed: &Bed) {
    until_in(SLOW, "nothing left in the directory", || {
        std::thread::sleep(Duration::from_millis(20));
        names_in(bed).is_empty()
    });
}

fn names_in(bed: &Bed) -> Vec<String> {
    let entries = fs::read_dir(bed.path("in")).expect("the directory");
    entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !name.starts_with(".settled"))
        .collect()
}

/// What is left in the claim directory.
fn notes(bed: &Bed, dir: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(bed.path(dir))
        .expect("the claim directory")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name != "locks")
        .collect();
    names.sort();
    names
}

/// Those who kept claims may take a moment longer than their daemons.
fn wait_no_notes(bed: &Bed) {
    until("no note is left", || {
        notes(bed, "in/.settled-claims").is_empty()
    });
}

const DELETE: &str = "done = \"delete\"\ndead = \"delete\"";

#[test]
fn two_machines_share_the_work_and_each_file_is_run_once() {
    let bed = Bed::new();
    let (a, b) = two(&bed);
    for machine in [&a, &b] {
        machine.configure(4, &format!("{}\n{DELETE}", action(&bed, "sleep 0.02")));
    }
    let (mut one, mut other) = (a.start(), b.start());
    for number in 0..200 {
        put(&bed, format!("f{number}"), "x");
    }
    wait_empty(&bed);
    assert_eq!(one.stop(), Some(0));
    assert_eq!(other.stop(), Some(0));
    let all = begun(&bed);
    assert_eq!(all.len(), 200, "each once");
    assert!(all.iter().all(|one| !one.recovered && one.attempt == 1));
    assert_one_at_a_time(&bed);
    let mut shares = BTreeMap::new();
    for one in all {
        *shares.entry(one.by).or_insert(0) += 1;
    }
    assert_eq!(shares.len(), 2, "both had a share: {shares:?}");
    wait_no_notes(&bed);
}

/// Half-way one daemon is killed while its children run; they go on. `SETTLED_CLAIM_FILES` says how many files.
#[test]
fn one_is_killed_half_way_and_nothing_is_lost_or_repeated_unmarked() {
    let files = env_number("SETTLED_CLAIM_FILES", 300);
    let bed = Bed::new();
    let (a, b) = two(&bed);
    for machine in [&a, &b] {
        machine.configure(8, &format!("{}\n{DELETE}", action(&bed, "sleep 0.05")));
    }
    let since = std::time::Instant::now();
    let (mut one, mut other) = (a.start(), b.start());
    for number in 0..files {
        put(&bed, format!("f{number}"), "x");
    }
    until_in(SLOW * 4, "half of them", || {
        std::thread::sleep(Duration::from_millis(20));
        ended(&bed).len() >= files / 2
    });
    one.kill();
    let log = one.log();
    let id = |line: &String| Some(line.split("job=").nth(1)?.split('-').next()?.to_owned());
    let killed = log.iter().find_map(id).expect("a job's name");
    until_in(SLOW * 4, "nothing left in the directory", || {
        std::thread::sleep(Duration::from_millis(50));
        names_in(&bed).is_empty()
    });
    let took = since.elapsed();
    let repeated: Vec<Begun> = begun(&bed).into_iter().filter(|b| b.recovered).collect();
    let mut shares = BTreeMap::new();
    for one in begun(&bed) {
        *shares.entry(one.by).or_insert(0) += 1;
    }
    // The killed one comes back, and finds nothing to do.
    let before = begun(&bed).len();
    let mut again = a.start();
    until("its jobs are over", || {
        again.signal(libc::SIGUSR1);
        std::thread::sleep(Duration::from_millis(50));
        again.log_count(" 0 jobs owed") > 0
    });
    assert_eq!(again.stop(), Some(0));
    assert_eq!(other.stop(), Some(0));
    assert_eq!(begun(&bed).len(), before, "it ran nothing");
    assert_one_at_a_time(&bed);
    let ended = ended(&bed);
    assert_eq!(ended.len(), files, "every file was worked on to its end");
    let twice = ended.values().filter(|count| **count > 1).count();
    assert!(twice <= repeated.len());
    assert_eq!(shares.len(), 2, "both had a share: {shares:?}");
    eprintln!(
        "{files} files, one of two killed half-way: {took:.1?}; attempts {before}, marked repetitions {}, twice to the \
         end {twice}, shares {shares:?}",
        repeated.len()
    );
    // Killed after its file was taken away, and before its claim was let go of: such notes stay, of that machine alone.
    until("no other notes are left", || {
        let names = notes(&bed, "in/.settled-claims");
        let of_killed = |name: &String| {
            let note = fs::read_to_string(bed.path("in/.settled-claims").join(name));
            note.is_ok_and(|text| text.contains(&format!("\"job\":\"{killed}-")))
        };
        names.len() <= 16 && names.iter().all(of_killed)
    });
}

#[test]
fn what_outlives_its_daemon_keeps_its_claim_and_is_repeated_marked_if_it_dies() {
    let bed = Bed::new();
    let (a, b) = two(&bed);
    for machine in [&a, &b] {
        machine.configure(
            4,
            &format!("{}\n{DELETE}", action(&bed, "wait_for \"$go\"")),
        );
    }
    let mut one = a.start();
    put(&bed, "f", "x");
    wait_ledger(&bed, "begin", 1);
    one.kill();
    let other = b.start();
    // It has asked for it, and was refused, more than once: the child is alive.
    until_in(SLOW, "refused three times", || {
        other.log_count("another machine has claimed it") >= 3
    });
    assert_eq!(begun(&bed).len(), 1);
    let pid = begun(&bed)[0].pid;
    kit::kill(pid);
    until("it is dead", || !alive(pid));
    other.wait_log("it is taken over unless");
    wait_ledger(&bed, "begin", 2);
    fs::write(bed.path("go"), "").expect("a sign");
    wait_empty(&bed);
    let all = begun(&bed);
    assert!(all[1].recovered && !all[1].beside, "{all:?}");
    assert_ne!(all[0].by, all[1].by);
    assert_eq!(b.wait_outcome("f").0, "done");
    let _again = a.start();
    assert_eq!(a.wait_outcome("f").0, "gone");
    assert_eq!(begun(&bed).len(), 2);
}

#[test]
fn at_most_once_is_held_by_whoever_comes_next() {
    let bed = Bed::new();
    let (a, b) = two(&bed);
    let keys = format!(
        "{}\n{DELETE}\ndelivery = \"at-most-once\"",
        action(&bed, "wait_for \"$go\"")
    );
    for machine in [&a, &b] {
        machine.configure(4, &keys);
    }
    let mut one = a.start();
    put(&bed, "f", "x");
    wait_ledger(&bed, "begin", 1);
    one.kill();
    kit::kill(begun(&bed)[0].pid);
    let _other = b.start();
    let held = ("held".to_owned(), "cut short".to_owned());
    assert_eq!(b.wait_outcome("f"), held);
    let again = a.start();
    assert_eq!(a.wait_outcome("f").0, "held");
    assert_eq!(begun(&bed).len(), 1);
    assert_eq!(notes(&bed, "in/.settled-claims").len(), 1, "it says so");

    // The person for whom it is held has it run again, where it was not.
    drop(again);
    fs::write(bed.path("go"), "").expect("a file");
    b.retry("f");
    let all = wait_ledger(&bed, "begin", 2);
    assert_eq!(all.len(), 2);
    wait_ledger(&bed, "end", 1);
    wait_empty(&bed);
    wait_no_notes(&bed);
}

#[test]
fn files_that_stay_are_concluded_once_by_marks() {
    let bed = Bed::new();
    let (a, b) = two(&bed);
    fs::create_dir(bed.path("in/marks")).expect("a directory for marks");
    let keys = format!(
        "{}\nclaim_done = {:?}\nattempts = 1",
        action(&bed, "case $name in bad*) exit 65;; esac"),
        bed.path("in/marks")
    );
    for machine in [&a, &b] {
        machine.configure(4, &keys);
    }
    let (mut one, mut other) = (a.start(), b.start());
    for number in 0..40 {
        put(&bed, format!("f{number}"), "x");
    }
    put(&bed, "bad", "x");
    for number in 0..40 {
        let name = format!("f{number}");
        let ends = [a.wait_outcome(&name), b.wait_outcome(&name)];
        let mut ends: Vec<&str> = ends
            .iter()
            .map(|(outcome, end)| {
                assert_eq!(outcome, "done", "{name}");
                end.as_str()
            })
            .collect();
        ends.sort_unstable();
        assert_eq!(ends, ["elsewhere", "exit 0"], "{name}");
    }
    assert_eq!(a.wait_outcome("bad").0, "dead");
    assert_eq!(b.wait_outcome("bad").0, "dead");
    assert_eq!(begun(&bed).len(), 41, "each once");
    // A third one, which has never seen them, and the first two again.
    one.kill();
    other.kill();
    let c = Machine {
        bed: &bed,
        name: "c",
    };
    c.configure(4, &keys);
    let mut daemons = [a.start(), b.start(), c.start()];
    for number in 0..40 {
        let end = c.wait_outcome(&format!("f{number}"));
        assert_eq!(end, ("done".to_owned(), "elsewhere".to_owned()));
    }
    // What comes now is run, once, and so is another version of what was.
    put(&bed, "new", "x");
    put(&bed, "f0", "another");
    until("both are run", || begun(&bed).len() >= 43);
    for machine in [&a, &b, &c] {
        machine.wait_outcome("new");
    }
    assert_eq!(begun(&bed).len(), 43);
    assert_one_at_a_time_but(&bed, "f0");
    // However it ended, and wherever: who is asked for it runs it again, and the others do not.
    let by = |name: &str| begun(&bed).iter().filter(|one| one.name == name).count();
    b.retry("bad");
    until("it is run again", || by("bad") == 2);
    c.retry("f1");
    until("and so is this", || by("f1") == 2);
    until("its end", || ended(&bed).get("f1") == Some(&2));
    assert_eq!(begun(&bed).len(), 45);
    // A stop waits for the mark that is being written.
    for daemon in &mut daemons {
        assert_eq!(daemon.stop(), Some(0));
    }
    let marks = notes(&bed, "in/marks");
    assert_eq!(
        marks.iter().filter(|name| name.ends_with(".done")).count(),
        43
    );
    assert_eq!(marks.len(), 43, "nothing else is left: {marks:?}");
}

fn assert_one_at_a_time_but(bed: &Bed, but: &str) {
    assert!(begun(bed).iter().all(|one| !one.beside));
    let names: Vec<String> = begun(bed).into_iter().map(|one| one.name).collect();
    let mut twice = names.clone();
    twice.sort();
    twice.dedup();
    assert_eq!(
        names.len() - twice.len(),
        1,
        "all but {but} once: {names:?}"
    );
}

#[test]
fn a_conclusion_is_marked_even_if_its_daemon_dies_before() {
    let bed = Bed::new();
    let (a, b) = two(&bed);
    let marks = bed.path("marks");
    let keys = format!(
        "{}\nclaim_done = {marks:?}",
        action(&bed, "wait_for \"$go\"")
    );
    for machine in [&a, &b] {
        machine.configure(4, &keys);
    }
    fs::create_dir(&marks).expect("a directory for marks");
    let one = a.start();
    put(&bed, "f", "x");
    // The mark cannot be written: its name is a directory's.
    let hindered = wait_for_begun_note(&bed).replace(".begun", ".done.new");
    fs::create_dir(marks.join(&hindered)).expect("a hindrance");
    fs::write(bed.path("go"), "").expect("a sign");
    one.wait_log("the mark of its conclusion cannot be written");
    let mut one = one;
    one.kill();
    fs::remove_dir(marks.join(&hindered)).expect("no hindrance");
    let _again = a.start();
    until("its mark", || {
        notes(&bed, "marks")
            .iter()
            .any(|name| name.ends_with(".done"))
    });
    assert_eq!(
        a.wait_outcome("f"),
        ("done".to_owned(), "exit 0".to_owned())
    );
    let _other = b.start();
    let elsewhere = ("done".to_owned(), "elsewhere".to_owned());
    assert_eq!(b.wait_outcome("f"), elsewhere);
    assert_eq!(begun(&bed).len(), 1);
}

/// The note of what was begun, once it is there.
fn wait_for_begun_note(bed: &Bed) -> String {
    let mut found = None;
    until("a note", || {
        let names = notes(bed, "marks");
        found = names.into_iter().find(|name| name.ends_with(".begun"));
        found.is_some()
    });
    found.expect("just seen")
}

#[test]
fn jobs_of_one_key_run_one_after_another_over_both() {
    const KEYS: usize = 12;
    let bed = Bed::new();
    let (a, b) = two(&bed);
    let then = "key=${name%%-*}; mkdir \"$ledger.key.$key\" 2>/dev/null || echo \"together $name\" >> \"$ledger\"\n\
                sleep 0.02; rmdir \"$ledger.key.$key\"";
    let keys = format!(
        "{}\n{DELETE}\nkey = \"{{dir1}}\"\nserial = true\nrecursive = true",
        action(&bed, then)
    );
    // Each begins at another end: what they do not do together they leave to each other.
    a.configure(4, &keys);
    b.configure(4, &format!("{keys}\norder = \"name\""));
    for key in 0..KEYS {
        fs::create_dir(bed.inside(format!("k{key}"))).expect("a directory");
    }
    let (mut one, mut other) = (a.start(), b.start());
    for number in 0..10 * KEYS {
        let key = number % KEYS;
        put(&bed, format!("k{key}/k{key}-{}", 1000 - number), "x");
    }
    wait_ledger(&bed, "end", 10 * KEYS);
    assert_eq!(one.stop(), Some(0));
    assert_eq!(other.stop(), Some(0));
    assert_eq!(begun(&bed).len(), 10 * KEYS);
    let together: Vec<String> = ledger(&bed)
        .into_iter()
        .filter(|line| line.starts_with("together"))
        .collect();
    assert_eq!(together, [""; 0]);
    let mut shares = BTreeMap::new();
    for one in begun(&bed) {
        *shares.entry(one.by).or_insert(0) += 1;
    }
    assert_eq!(shares.len(), 2, "both had a share: {shares:?}");
}

#[test]
fn workers_share_too() {
    let bed = Bed::new();
    let (a, b) = two(&bed);
    let script = kit::script(
        &bed,
        "worker.py",
        "import json, sys, time\n\
         for line in sys.stdin:\n    job = json.loads(line)\n    time.sleep(0.01)\n\
         \x20   with open(sys.argv[1], 'a') as out: out.write('end %s %s\\n' % (job['name'], job['job']))\n\
         \x20   print(json.dumps({'job': job['job'], 'result': 'done'}), flush=True)\n",
    );
    let words = [
        "python3".to_owned(),
        script,
        bed.path("ledger").display().to_string(),
    ];
    for machine in [&a, &b] {
        machine.configure(
            4,
            &format!("worker = {words:?}\nworkers = 2\nwindow = 4\n{DELETE}"),
        );
    }
    let (mut one, mut other) = (a.start(), b.start());
    for number in 0..200 {
        put(&bed, format!("f{number}"), "x");
    }
    wait_empty(&bed);
    assert_eq!(one.stop(), Some(0));
    assert_eq!(other.stop(), Some(0));
    let ended = ended(&bed);
    assert_eq!(ended.len(), 200);
    assert!(ended.values().all(|count| *count == 1), "{ended:?}");
    let by: std::collections::BTreeSet<String> = ledger(&bed)
        .iter()
        .filter_map(|line| {
            line.rsplit(' ')
                .next()?
                .split('-')
                .next()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(by.len(), 2, "both had a share");
}

/// A job that fails keeps its claim until its next attempt, and what is dead is so for both.
#[test]
fn a_retry_is_made_by_the_same_machine() {
    let bed = Bed::new();
    let (a, b) = two(&bed);
    let then = "[ $SETTLED_ATTEMPT -ge 3 ] || exit 1\ncase $name in bad*) exit 65;; esac";
    for machine in [&a, &b] {
        machine.configure(4, &format!("{}\n{DELETE}", action(&bed, then)));
    }
    let daemons = [a.start(), b.start()];
    for number in 0..20 {
        put(&bed, format!("f{number}"), "x");
        put(&bed, format!("bad{number}"), "x");
    }
    wait_empty(&bed);
    drop(daemons);
    let mut by: BTreeMap<String, Vec<Begun>> = BTreeMap::new();
    for one in begun(&bed) {
        by.entry(one.name.clone()).or_default().push(one);
    }
    assert_eq!(by.len(), 40);
    for (name, attempts) in by {
        let numbers: Vec<u32> = attempts.iter().map(|one| one.attempt).collect();
        assert_eq!(numbers, [1, 2, 3], "{name}");
        assert!(
            attempts.iter().all(|one| one.by == attempts[0].by),
            "{name}"
        );
        assert!(attempts.iter().all(|one| !one.recovered), "{name}");
    }
}
