//! Deliveries: into another directory, whole or not at all, whatever is killed meanwhile.

use crate::bed::{Bed, bytes, fnv, until, until_in};
use crate::kit::{self, SLOW, job, put, wait_concluded};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// `deliver = { to = ..., rest }`.
fn to(dir: &Path, rest: &str) -> String {
    format!("deliver = {{ to = {dir:?}{rest} }}")
}

/// All files below a directory: path below it and content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Ok(content) = fs::read(&path) {
                found.insert(path.strip_prefix(dir).expect("below").to_owned(), content);
            }
        }
    }
    found
}

/// Something that says which file it is, larger than one copying step.
fn content(name: &str, bytes: usize) -> String {
    let mut text = format!("{name} ").repeat(bytes / (name.len() + 1));
    text.push_str("end");
    text
}

#[test]
fn a_tree_is_delivered_with_names_times_and_permissions_and_taken_away_here() {
    let bed = Bed::new();
    fs::create_dir_all(bed.inside("a/b c")).expect("directories");
    fs::create_dir(bed.path("out")).expect("a directory");
    let names = [
        bytes(b"plain"),
        bytes(b"caf\xe9\n.txt"),
        bytes(b"-rf"),
        bytes(b"a/b c/deep.tar.gz"),
    ];
    let at = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789);
    for (number, name) in names.iter().enumerate() {
        let outside = bed.path("outside");
        fs::write(&outside, content("x", 1000 * number)).expect("a file");
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o604)).expect("chmod");
        let file = fs::File::options()
            .write(true)
            .open(&outside)
            .expect("the file");
        file.set_modified(at).expect("its time");
        drop(file);
        fs::rename(outside, bed.inside(name)).expect("a rename");
    }
    let expected = files(&bed.path("in"));
    let out = bed.path("out");
    kit::configure(&bed, &to(&out, ""), "recursive = true\ndone = \"delete\"\n");
    let _daemon = kit::start(&bed);
    let jobs = wait_concluded(&bed, names.len());
    assert_eq!(
        kit::outcomes(&jobs),
        BTreeMap::from([("done".into(), names.len())])
    );
    assert_eq!(files(&out), expected);
    for name in expected.keys() {
        let meta = fs::metadata(out.join(name)).expect("a copy");
        assert_eq!(meta.permissions().mode() & 0o7777, 0o604);
        assert_eq!(meta.modified().expect("its time"), at);
    }
    until("all are taken away", || files(&bed.path("in")).is_empty());
}

#[test]
fn the_other_side_sees_each_once_and_whole() {
    const FILES: usize = 200;
    let bed = Bed::new();
    // Another filesystem: it has to be copied.
    let other = tempfile::tempdir_in("/dev/shm").expect("another filesystem");
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nsettle = \"0\"\ndone = \"delete\"\n{}\n[watch.other]\npath = {:?}\nsettle = \"0\"\n{}",
        bed.path("in"),
        to(other.path(), ""),
        other.path(),
        bed.run_key(&[]),
    ));
    let _daemon = kit::start(&bed);
    for number in 0..FILES {
        put(
            &bed,
            format!("f{number}"),
            &content(&format!("f{number}"), 50_000),
        );
    }
    let runs = bed.wait_runs_in(SLOW, FILES);
    wait_concluded(&bed, 2 * FILES);
    assert_eq!(bed.runs().len(), FILES);
    for run in &runs {
        let name = run.name().into_string().expect("a plain name");
        assert_eq!(run.watch, "other");
        assert_eq!(
            run.hash,
            fnv(content(&name, 50_000).as_bytes()),
            "{name} was not whole"
        );
    }
}

#[test]
fn killed_again_and_again_it_leaves_nothing_visible_or_the_whole_file() {
    const FILES: usize = 120;
    const BYTES: usize = 300_000;
    let bed = Bed::new();
    let out = bed.path("out");
    fs::create_dir(&out).expect("a directory");
    kit::configure(&bed, &to(&out, ""), "done = \"delete\"\nconcurrency = 4\n");
    for number in 0..FILES {
        put(
            &bed,
            format!("f{number:03}"),
            &content(&format!("f{number:03}"), BYTES),
        );
    }
    let whole = |visible_only: bool| {
        let mut count = 0;
        for (path, found) in files(&out) {
            let name = path.to_str().expect("a plain name").to_owned();
            if name.starts_with(".settled-") {
                assert!(visible_only, "{name} was left");
                continue;
            }
            assert!(
                found == content(&name, BYTES).as_bytes(),
                "{name} is not whole"
            );
            count += 1;
        }
        count
    };
    for target in [5, 20, 40, 60, 80, 100] {
        let mut daemon = kit::start(&bed);
        until_in(SLOW, "progress", || whole(true) >= target);
        daemon.kill();
        whole(true);
    }
    let mut daemon = kit::start(&bed);
    let jobs = wait_concluded(&bed, FILES);
    assert_eq!(
        kit::outcomes(&jobs),
        BTreeMap::from([("done".into(), FILES)])
    );
    until("all are taken away here", || {
        files(&bed.path("in")).is_empty()
    });
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(whole(false), FILES, "each once, under its own name");
}

#[test]
fn what_a_killed_delivery_left_is_swept_at_the_next_start() {
    let bed = Bed::new();
    let out = bed.path("out");
    fs::create_dir(&out).expect("a directory");
    kit::configure(
        &bed,
        &to(&out, ""),
        "done = \"delete\"\norphans = \"kill\"\nkill_after = \"100ms\"\n",
    );
    let mut daemon = kit::start(&bed);
    let big = "x".repeat(40 << 20);
    let mut left = false;
    for number in 0..20 {
        put(&bed, format!("big{number}"), &big);
        let hidden = || {
            files(&out)
                .keys()
                .any(|path| path.to_string_lossy().starts_with(".settled-"))
        };
        until("it is being delivered, or was", || {
            hidden() || out.join(format!("big{number}")).exists()
        });
        for pid in kit::children_with(&daemon, "deliver-file") {
            kit::kill(pid);
        }
        daemon.kill();
        left = hidden();
        if left {
            // Nobody asks for it any more: what cleans up is the start.
            fs::remove_file(bed.inside(format!("big{number}"))).expect("the file");
            daemon = kit::start(&bed);
            break;
        }
        daemon = kit::start(&bed);
    }
    assert!(left, "no delivery was met in its middle");
    until("what it left is taken away", || {
        files(&out)
            .keys()
            .all(|path| !path.to_string_lossy().starts_with(".settled-"))
    });
    drop(daemon);
}

#[test]
fn a_name_that_is_taken() {
    for (rule, outcome, theirs, ours) in [
        ("rename", "done", "theirs", Some("a.1.csv")),
        ("replace", "done", "ours", Some("a.csv")),
        ("skip", "done", "theirs", None),
        ("fail", "dead", "theirs", None),
    ] {
        let bed = Bed::new();
        let out = bed.path("out");
        fs::create_dir(&out).expect("a directory");
        fs::write(out.join("a.csv"), "theirs").expect("a file");
        put(&bed, "a.csv", "ours");
        let action = to(&out, &format!(", on_conflict = {rule:?}"));
        kit::configure(&bed, &action, "attempts = 3\n");
        let _daemon = kit::start(&bed);
        wait_concluded(&bed, 1);
        let job = job(&bed, "a.csv");
        assert_eq!(
            (job.outcome(), job.started.len()),
            (Some(outcome), 1),
            "{rule}: {job:?}"
        );
        let found = files(&out);
        assert_eq!(found[Path::new("a.csv")], theirs.as_bytes(), "{rule}");
        assert_eq!(
            found.len(),
            1 + usize::from(ours == Some("a.1.csv")),
            "{rule}: {found:?}"
        );
        if let Some(name) = ours {
            assert_eq!(found[Path::new(name)], b"ours", "{rule}");
        }
        assert!(bed.inside("a.csv").exists());
    }
}

#[test]
fn mode_owner_and_flatten_are_as_the_plan_says() {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: this needs root");
        return;
    }
    let bed = Bed::new();
    let out = bed.path("out");
    fs::create_dir(&out).expect("a directory");
    fs::create_dir_all(bed.inside("d/e")).expect("directories");
    put(&bed, "d/e/f", "x");
    let action = to(
        &out,
        ", mode = \"0640\", owner = \"nobody:12345\", flatten = true, keep_times = false",
    );
    kit::configure(&bed, &action, "recursive = true\n");
    let _daemon = kit::start(&bed);
    wait_concluded(&bed, 1);
    let meta = fs::metadata(out.join("f")).expect("the copy");
    assert_eq!(meta.permissions().mode() & 0o7777, 0o640);
    assert_eq!((meta.uid(), meta.gid()), (65534, 12345));
}

#[test]
fn a_full_disk_costs_the_file_its_attempts_and_leaves_nothing() {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: this needs root");
        return;
    }
    let bed = Bed::new();
    let out = bed.path("out");
    let small = kit::Small::mount(out.clone(), "1m");
    put(&bed, "big", &content("big", 3 << 20));
    kit::configure(
        &bed,
        &to(&out, ""),
        "done = \"delete\"\nattempts = 2\nconcurrency = 1\n",
    );
    let daemon = kit::start(&bed);
    wait_concluded(&bed, 1);
    assert_eq!(job(&bed, "big").outcome(), Some("dead"));
    assert!(job(&bed, "big").output.contains("No space left on device"));
    assert!(bed.inside("big").exists());
    put(&bed, "little", "x");
    wait_concluded(&bed, 2);
    assert_eq!(
        files(&out),
        BTreeMap::from([(PathBuf::from("little"), b"x".to_vec())])
    );
    drop(daemon);
    drop(small);
}
