//! One file that fails whatever is done with it, among many, in every way in which files are given out: it alone dies,
//! the others are done, and order holds in its key.
//!
//! `SETTLED_POISONED_FILES` says how many others there are: 1,000 if it is not set; 10,000 is the full measure.

use crate::bed::Bed;
use crate::kit::{self, ledger, put, wait_concluded, wait_ledger};
use std::collections::BTreeMap;
use std::fs;

const KEYS: usize = 4;
const ORDERED: &str =
    "recursive = true\nkey = \"{dir1}\"\nserial = true\norder = \"name\"\nattempts = 2\n";

/// The first of each key is held until all others are ready, so that there is an order to be kept. The ledger has a line
/// `got _ NAME` for each time that a file was given out, NAME as `name` makes it.
fn among_many(action: &dyn Fn(&Bed) -> String, keys: &str, name: &dyn Fn(&str) -> String) {
    let files = kit::env_number("SETTLED_POISONED_FILES", 1000);
    let bed = Bed::new();
    for key in 0..KEYS {
        fs::create_dir(bed.inside(format!("k{key}"))).expect("a directory");
    }
    kit::configure(&bed, &action(&bed), &format!("{ORDERED}{keys}"));
    let daemon = kit::start(&bed);
    for key in 0..KEYS {
        put(&bed, format!("k{key}/0gate-{key}"), "x");
    }
    wait_ledger(&bed, "got", KEYS);
    // In no order of any kind.
    let mut number = 0;
    for _ in 0..files {
        number = (number + 7919) % files.next_multiple_of(10).max(7920);
        let key = number % KEYS;
        put(&bed, format!("k{key}/f{number:06}"), "x");
    }
    let poison = format!("f{:06}x-poison", files / 2);
    put(&bed, format!("k1/{poison}"), "x");
    kit::wait_state(&daemon, &format!("{} ready", files + 1));
    fs::write(bed.path("go"), "").expect("a sign");
    let jobs = wait_concluded(&bed, files + 1 + KEYS);

    let counts = kit::outcomes(&jobs);
    assert_eq!(
        counts,
        BTreeMap::from([("dead".into(), 1), ("done".into(), files + KEYS)])
    );
    let mut of_key: BTreeMap<char, Vec<String>> = BTreeMap::new();
    let key_of: BTreeMap<String, usize> = (0..KEYS)
        .flat_map(|key| {
            let entries = fs::read_dir(bed.inside(format!("k{key}"))).expect("a directory");
            entries.map(move |entry| {
                let entry = entry.expect("an entry");
                (entry.file_name().into_string().expect("plain names"), key)
            })
        })
        .collect();
    for job in &jobs {
        let poisoned = job.name == *poison;
        assert_eq!(
            job.outcome(),
            Some(if poisoned { "dead" } else { "done" }),
            "{job:?}"
        );
        let counted = job
            .ended
            .iter()
            .map(|(_, _, counted)| *counted)
            .max()
            .unwrap_or(0);
        assert_eq!(counted, u64::from(poisoned), "{job:?}");
    }
    // The last time that each was given out is when its job was concluded: in the order of names in each key.
    let mut last = BTreeMap::new();
    for (at, line) in ledger(&bed).iter().enumerate() {
        if let Some(given) = line.strip_prefix("got ") {
            last.insert(name(given.split(' ').nth(1).expect("a name")), at);
        }
    }
    let mut order: Vec<_> = last.into_iter().map(|(name, at)| (at, name)).collect();
    order.sort();
    for (_, name) in order {
        let key =
            char::from_digit(u32::try_from(key_of[&name]).expect("few"), 10).expect("a digit");
        of_key.entry(key).or_default().push(name);
    }
    assert_eq!(
        of_key.values().map(Vec::len).sum::<usize>(),
        files + 1 + KEYS
    );
    for (key, names) in of_key {
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(names, sorted, "key {key}");
    }
}

/// Says what it was given, and does what is said of gates and poison.
fn text(bed: &Bed) -> String {
    format!(
        "ledger=$1; shift\nlines= bad=0 gate=0\nfor path; do name=${{path##*/}}; lines=\"${{lines}}got - $name\n\"\n\
         case $name in *poison) bad=1;; 0gate*) gate=1;; esac; done\nprintf %s \"$lines\" >> \"$ledger\"\n\
         if [ $gate = 1 ]; then while [ ! -e {} ]; do sleep 0.02; done; fi\nexit $bad\n",
        bed.path("go").display()
    )
}

#[test]
fn a_command_for_each_file() {
    let action = |bed: &Bed| kit::shell_key(bed, &text(bed), &["{path}"]);
    among_many(&action, "concurrency = 4\n", &str::to_owned);
}

#[test]
fn a_command_for_each_batch() {
    let action = |bed: &Bed| kit::shell_key(bed, &text(bed), &["{path}"]);
    let keys = "batch = { max = 50, wait = \"50ms\", split = true }\n";
    among_many(&action, keys, &str::to_owned);
}

#[test]
fn a_worker() {
    let action = |bed: &Bed| {
        let go = format!("until={}", bed.path("go").display());
        crate::workers::python(bed, &[&go, "poison"])
    };
    among_many(&action, "window = 8\n", &|hex| {
        kit::unhex(hex).into_string().expect("plain names")
    });
}
