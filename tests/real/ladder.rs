//! The ladder of evidence: what each rung waits for, and what dispatch keeps to.

use crate::bed::{Bed, Daemon, counts, until};
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use std::fs::{self, File};

fn watching(keys: &str) -> (Bed, Daemon) {
    let bed = Bed::new();
    bed.configure(&[], keys);
    let daemon = bed.start();
    (bed, daemon)
}

/// A file made outside and linked in, so that nothing but the lock that `hold` takes can delay it.
fn held<T>(bed: &Bed, hold: impl FnOnce(File) -> T) -> T {
    fs::write(bed.path("outside"), "x").expect("a file");
    let guard = hold(File::open(bed.path("outside")).expect("the file"));
    fs::rename(bed.path("outside"), bed.inside("a")).expect("a rename");
    guard
}

fn waits(daemon: &Daemon, for_what: &str) {
    until(for_what, || {
        daemon
            .log()
            .iter()
            .any(|line| line.contains("/in/a") && line.contains(for_what))
    });
}

#[test]
fn a_record_lock_delays() {
    let (bed, daemon) = watching("settle = \"0\"\n");
    let guard = held(&bed, |file| {
        // A read lock on a descriptor for reading: the lease sees no writer, the lock is all there is.
        let lock = libc::flock {
            l_type: libc::F_RDLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).expect("a lock");
        file
    });
    waits(&daemon, "holds a lock");
    assert!(bed.runs().is_empty());
    drop(guard);
    assert_eq!(bed.wait_runs(1)[0].name(), "a");
}

#[test]
fn a_flock_delays_where_it_is_asked() {
    let (bed, daemon) = watching("settle = \"0\"\nflock = true\n");
    let guard = held(&bed, |file| {
        Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("a flock")
    });
    waits(&daemon, "holds a flock");
    assert!(bed.runs().is_empty());
    drop(guard);
    assert_eq!(bed.wait_runs(1)[0].name(), "a");
}

#[test]
fn a_flock_is_not_asked_otherwise() {
    let (bed, _daemon) = watching("settle = \"0\"\n");
    let _guard = held(&bed, |file| {
        Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("a flock")
    });
    assert_eq!(bed.wait_runs(1)[0].name(), "a");
}

#[test]
fn names_sizes_and_patterns_select() {
    let (bed, _daemon) = watching(
        "concurrency = 1\nrecursive = true\ninclude = [\"*.csv\", \"sub/*.txt\"]\nexclude = [\"draft-*\"]\n\
         min_size = \"2\"\nmax_size = \"4\"\n",
    );
    fs::create_dir_all(bed.inside("sub/deeper")).expect("directories");
    fs::create_dir(bed.inside(".hidden")).expect("a directory");
    for (name, content) in [
        ("a.csv", "xx"),
        ("A.CSV", "xx"),
        ("small.csv", "x"),
        ("large.csv", "xxxxx"),
        ("draft-a.csv", "xx"),
        ("a.txt", "xx"),
        ("sub/a.txt", "xxx"),
        ("sub/deeper/a.txt", "xxx"),
        ("sub/deeper/b.csv", "xxxx"),
        (".hidden/a.csv", "xx"),
        ("a.csv.part", "xx"),
        ("a.csv~", "xx"),
    ] {
        fs::write(bed.inside(name), content).expect("a file");
    }
    bed.wait_runs(3);
    // The fences have to be selected, too.
    fs::write(bed.inside("fence.csv"), "xx").expect("a file");
    bed.wait_runs(4);
    fs::write(bed.inside("fence2.csv"), "xx").expect("a file");
    let mut paths: Vec<_> = bed.wait_runs(5).into_iter().map(|run| run.path).collect();
    paths.sort();
    let mut expected: Vec<_> = [
        "a.csv",
        "fence.csv",
        "fence2.csv",
        "sub/a.txt",
        "sub/deeper/b.csv",
    ]
    .iter()
    .map(|name| bed.inside(name))
    .collect();
    expected.sort();
    assert_eq!(paths, expected);
}

#[test]
fn no_more_children_than_allowed() {
    let bed = Bed::new();
    let go = bed.path("go");
    bed.configure(
        &[&format!("until={}", go.display())],
        "settle = \"0\"\nconcurrency = 2\n",
    );
    let daemon = bed.start();
    for index in 0..5 {
        fs::write(bed.inside(format!("f{index}")), "x").expect("a file");
    }
    bed.wait_runs(2);
    until("the other three are ready", || {
        daemon.signal(libc::SIGUSR1);
        daemon.log_count("state: watching, 2 running, 3 ready") > 0
    });
    assert_eq!(bed.runs().len(), 2);
    fs::write(&go, "").expect("a sign");
    assert_eq!(counts(&bed.wait_runs(5)).len(), 5);
}

#[test]
fn one_at_a_time_for_each_key_in_the_order_of_names() {
    let bed = Bed::new();
    let go = bed.path("go");
    bed.configure(
        &[&format!("until={}", go.display())],
        "recursive = true\nsettle = \"0\"\nkey = \"{dir1}\"\nserial = true\norder = \"name\"\n",
    );
    for dir in ["a", "b"] {
        fs::create_dir(bed.inside(dir)).expect("a directory");
        for index in [3, 1, 2] {
            fs::write(bed.inside(format!("{dir}/{index}")), "x").expect("a file");
        }
    }
    let daemon = bed.start();
    bed.wait_runs(2);
    until("the other four wait for their keys", || {
        daemon.signal(libc::SIGUSR1);
        daemon.log_count("state: watching, 2 running, 4 ready") > 0
    });
    fs::write(&go, "").expect("a sign");
    let runs = bed.wait_runs(6);
    for dir in ["a", "b"] {
        let names: Vec<_> = runs
            .iter()
            .filter(|run| run.path.starts_with(bed.inside(dir)))
            .map(crate::bed::Run::name)
            .collect();
        // The first to settle starts; from then on it is the names' order.
        let mut rest = names[1..].to_vec();
        rest.sort();
        assert_eq!(names[1..], rest, "{dir}: {names:?}");
    }
}

#[test]
fn templates_reach_argv_and_environment() {
    let bed = Bed::new();
    fs::create_dir_all(bed.inside("Front Door/x")).expect("directories");
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nrecursive = true\nkey = \"{{dir1|slug}}\"\n\
         run = [\"/bin/sh\", \"-c\", \"echo $0 $1 $SETTLED_KEY $EXTRA > {}\", \"{{key}}\", \"{{stem}}.{{ext}}/{{attempt}}{{{{}}}}\"]\n\
         env = {{ EXTRA = \"{{watch}}-{{size}}\" }}\n",
        bed.path("in"),
        bed.path("out").display(),
    ));
    let daemon = bed.start();
    fs::write(bed.inside("Front Door/x/a.b.csv"), "four").expect("a file");
    daemon.wait_log("done");
    assert_eq!(
        fs::read_to_string(bed.path("out")).expect("its output"),
        "front_door a.b.csv/1{} front_door w-4\n"
    );
}

#[test]
fn a_log_that_is_not_there_is_said_at_start() {
    if std::path::Path::new("/run/systemd/journal/socket").exists() {
        println!("not run: this machine has a journal");
        return;
    }
    let bed = Bed::new();
    bed.configure_text(&format!(
        "[daemon]\nstate = {:?}\nlog = \"journald\"\n[watch.w]\npath = {:?}\nrun = [\"true\"]\n",
        bed.path("state"),
        bed.path("in")
    ));
    let config = bed.path("settled.toml");
    let mut daemon = bed.spawn(&["run".as_ref(), "-c".as_ref(), config.as_os_str()]);
    assert_eq!(daemon.wait().code(), Some(69), "{:?}", daemon.log());
    until("its sentence", || {
        daemon.log_count("/run/systemd/journal/socket") == 1
    });
}
