//! Signals, reload, bad surroundings: a clear sentence, the right exit status, nothing lost.

use crate::bed::{Bed, Daemon, counts, until};
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn run(bed: &Bed) -> Daemon {
    let config = bed.path("settled.toml");
    bed.spawn(&[OsStr::new("run"), OsStr::new("-c"), config.as_os_str()])
}

/// One line on standard error, and this exit status.
fn refused(bed: &Bed, status: i32, words: &[&str]) {
    let mut daemon = run(bed);
    assert_eq!(daemon.wait().code(), Some(status), "{:?}", daemon.log());
    until("its sentence", || !daemon.log().is_empty());
    let log = daemon.log();
    assert_eq!(log.len(), 1, "{log:?}");
    for word in words {
        assert!(log[0].contains(word), "{word:?} is not in {log:?}");
    }
}

#[test]
fn a_bad_configuration_names_file_line_key_and_the_nearest_key() {
    let bed = Bed::new();
    bed.configure(&[], "concurency = 3\n");
    refused(
        &bed,
        78,
        &["settled.toml:", "[watch.w]", "concurency", "concurrency"],
    );
}

#[test]
fn no_configuration_at_all() {
    refused(&Bed::new(), 66, &["settled.toml", "No such file"]);
}

#[test]
fn a_state_directory_held_by_another_daemon() {
    let bed = Bed::new();
    bed.configure(&[], "");
    let first = bed.start();
    refused(
        &bed,
        75,
        &["in use by another settled", &first.pid().to_string()],
    );
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
}

#[test]
fn a_state_directory_that_others_may_write() {
    let bed = Bed::new();
    bed.configure(&[], "");
    fs::create_dir(bed.path("state")).expect("a directory");
    fs::set_permissions(bed.path("state"), fs::Permissions::from_mode(0o777)).expect("chmod");
    refused(&bed, 77, &["state", "written by others", "chmod"]);
}

#[test]
fn a_state_directory_that_is_a_file() {
    let bed = Bed::new();
    bed.configure(&[], "");
    fs::write(bed.path("state"), "x").expect("a file");
    refused(&bed, 73, &["state", "not a directory"]);
}

/// A small filesystem for the state; only root can mount one.
struct SmallDisk {
    at: std::path::PathBuf,
}

impl SmallDisk {
    fn mount(bed: &Bed, size: &str) -> SmallDisk {
        let at = bed.path("state");
        fs::create_dir(&at).expect("a mount point");
        let status = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=0700"),
                "small",
            ])
            .arg(&at)
            .status()
            .expect("mount");
        assert!(status.success(), "mounting a tmpfs needs root");
        SmallDisk { at }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

#[test]
fn a_state_directory_on_a_full_disk_is_refused_at_start() {
    let bed = Bed::new();
    bed.configure(&[], "");
    let _disk = SmallDisk::mount(&bed, "64k");
    refused(&bed, 73, &["No space left on device"]);
}

#[test]
fn a_disk_that_fills_up_pauses_and_goes_on_by_itself() {
    let bed = Bed::new();
    bed.configure(&[], "settle = \"0\"\n");
    let disk = SmallDisk::mount(&bed, "2m");
    let config = bed.path("settled.toml");
    // Small segments, and never a compaction.
    let daemon = bed.spawn_with(
        &["run".as_ref(), "-c".as_ref(), config.as_os_str()],
        &[("SETTLED_TEST_COMPACT_BYTES", "1000000000000")],
    );
    daemon.wait_log("ready:");
    fs::write(disk.at.join("ballast"), vec![0u8; 16 << 20])
        .expect_err("more than there is room for");
    // A few at a time: what one turn decides has to find room in the reserve of a segment this small.
    let mut written = 0;
    until("it says that it pauses", || {
        if bed.runs().len() + 10 > written {
            for _ in 0..20 {
                fs::write(bed.inside(format!("f{written:06}")), "x").expect("a file");
                written += 1;
            }
        }
        daemon.log_count("no room for the journal") > 0
    });
    fs::remove_file(disk.at.join("ballast")).expect("room");
    daemon.wait_log("going on");
    until("every file run once", || {
        counts(&bed.runs()).len() == written
    });
    assert_eq!(bed.runs().len(), written);
}

#[test]
fn a_directory_without_permission_is_a_state_not_an_end() {
    if nix::unistd::geteuid().is_root() {
        // Root may read everything: the daemon runs as nobody.
        let bed = Bed::in_dir(Path::new("/tmp"));
        bed.configure(&[], "settle = \"0\"\n");
        fs::set_permissions(bed.root(), fs::Permissions::from_mode(0o777)).expect("chmod");
        fs::set_permissions(bed.inside(""), fs::Permissions::from_mode(0o700)).expect("chmod");
        fs::copy(env!("CARGO_BIN_EXE_settled"), bed.path("settled"))
            .expect("a copy of the program");
        fs::copy(crate::bed::recorder(), bed.path("recorder")).expect("a copy of the recorder");
        let text = fs::read_to_string(bed.path("settled.toml")).expect("the configuration");
        let text = text.replace(
            &crate::bed::recorder().display().to_string(),
            &bed.path("recorder").display().to_string(),
        );
        fs::write(bed.path("settled.toml"), text).expect("the configuration");
        let mut child = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(bed.path("settled"))
            .args(["run", "-c"])
            .arg(bed.path("settled.toml"))
            .stderr(fs::File::create(bed.path("log")).expect("a log"))
            .spawn()
            .expect("setpriv (util-linux) has to be installed");
        let log = || fs::read_to_string(bed.path("log")).unwrap_or_default();
        until("it says what is wrong", || {
            log().contains("Permission denied")
        });
        fs::write(bed.inside("a"), "x").expect("a file");
        fs::set_permissions(bed.inside("a"), fs::Permissions::from_mode(0o644)).expect("chmod");
        fs::set_permissions(bed.inside(""), fs::Permissions::from_mode(0o755)).expect("chmod");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            bed.wait_runs(1);
            until("the log is written", || log().contains("CAP_LEASE"));
        }));
        let _ = child.kill();
        let _ = child.wait();
        assert!(outcome.is_ok(), "{}", log());
        // A file of somebody else: the lease cannot be asked, and it is said.
        assert!(log().contains("CAP_LEASE"), "{}", log());
    } else {
        let bed = Bed::new();
        bed.configure(&[], "settle = \"0\"\n");
        fs::set_permissions(bed.inside(""), fs::Permissions::from_mode(0o000)).expect("chmod");
        let daemon = bed.start();
        daemon.wait_log("Permission denied");
        fs::set_permissions(bed.inside(""), fs::Permissions::from_mode(0o755)).expect("chmod");
        fs::write(bed.inside("a"), "x").expect("a file");
        bed.wait_runs(1);
    }
}

#[test]
fn reload_takes_a_good_file_and_keeps_what_is_owed() {
    let bed = Bed::new();
    let go = bed.path("go");
    bed.configure(
        &[&format!("until={}", go.display())],
        "settle = \"0\"\nconcurrency = 1\ninclude = [\"*.a\"]\n",
    );
    let daemon = bed.start();
    fs::write(bed.inside("running.a"), "x").expect("a file");
    bed.wait_runs(1);
    fs::write(bed.inside("queued.a"), "x").expect("a file");
    fs::write(bed.inside("one.b"), "x").expect("a file");
    until("it is queued", || {
        daemon
            .log()
            .iter()
            .any(|line| line.contains("queued.a") && line.contains("settled"))
    });
    bed.configure(
        &[&format!("until={}", go.display())],
        "settle = \"0\"\nconcurrency = 1\ninclude = [\"*.a\", \"*.b\"]\n",
    );
    daemon.signal(libc::SIGHUP);
    daemon.wait_log("reloaded");
    fs::write(&go, "").expect("a sign");
    let mut names: Vec<_> = bed.wait_runs(3).iter().map(crate::bed::Run::name).collect();
    names.sort();
    assert_eq!(names, ["one.b", "queued.a", "running.a"]);
}

#[test]
fn reload_leaves_the_queue_of_a_watch_that_has_not_changed_alone() {
    let bed = Bed::new();
    fs::create_dir(bed.path("two")).expect("a directory");
    let go = bed.path("go");
    let text = |keys: &str| {
        format!(
            "[watch.w]\npath = {:?}\nsettle = \"0\"\nconcurrency = 1\n{}\n\
             [watch.two]\npath = {:?}\nsettle = \"0\"\n{keys}{}\n",
            bed.path("in"),
            bed.run_key(&[&format!("until={}", go.display())]),
            bed.path("two"),
            bed.run_key(&[])
        )
    };
    bed.configure_text(&text("include = [\"*.a\"]\n"));
    let daemon = bed.start();
    let names: Vec<OsString> = (0..20).rev().map(|n| format!("f{n}").into()).collect();
    for (n, name) in names.iter().enumerate() {
        fs::write(bed.inside(name), "x").expect("a file");
        until("it is queued", || daemon.log_count(" settled") == n + 1);
    }
    bed.wait_runs(1);
    bed.configure_text(&text("include = [\"*.b\"]\n"));
    daemon.signal(libc::SIGHUP);
    daemon.wait_log("reloaded");
    fs::write(bed.path("two/x.b"), "x").expect("a file");
    bed.wait_runs(2);
    let log = daemon.log();
    let after = log.iter().skip_while(|line| !line.contains("reload"));
    let about: Vec<_> = after.filter(|line| line.contains("watch=w ")).collect();
    assert!(about.is_empty(), "{about:?}");
    fs::write(&go, "").expect("a sign");
    let runs = bed.wait_runs(21);
    let own: Vec<_> = runs.iter().filter(|run| run.watch == "w").collect();
    let order: Vec<_> = own.iter().map(|run| run.name()).collect();
    assert_eq!(order, names);
    assert!(own.iter().all(|run| run.attempt == 1), "{own:?}");
}

#[test]
fn reload_of_a_bad_file_changes_nothing() {
    let bed = Bed::new();
    bed.configure(&[], "settle = \"0\"\n");
    let daemon = bed.start();
    fs::write(bed.path("settled.toml"), "[watch.w]\npth = 1\n").expect("a bad file");
    daemon.signal(libc::SIGHUP);
    daemon.wait_log("nothing changes");
    daemon.wait_log("settled.toml:2");
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
}

/// Where this machine has the place that is asked for, and where not.
#[test]
fn reload_takes_the_log_to_another_place_or_leaves_it_where_it_is() {
    for (to, socket) in [
        ("syslog", "/dev/log"),
        ("journald", "/run/systemd/journal/socket"),
    ] {
        let bed = Bed::new();
        bed.configure(&[], "settle = \"0\"\n");
        let daemon = bed.start();
        let text = fs::read_to_string(bed.path("settled.toml")).expect("a configuration");
        let other = text.replace("log = \"stderr\"", &format!("log = \"{to}\""));
        assert_ne!(other, text);
        fs::write(bed.path("settled.toml"), other).expect("a configuration");
        daemon.signal(libc::SIGHUP);
        let moves = std::os::unix::net::UnixDatagram::unbound()
            .and_then(|sender| sender.connect(socket))
            .is_ok();
        if moves {
            daemon.wait_log(&format!("the log goes on in {to}"));
        } else {
            daemon.wait_log(&format!("cannot log to {to} at {socket}"));
            daemon.wait_log("nothing changes");
        }
        fs::write(bed.inside("a"), "x").expect("a file");
        bed.wait_runs(1);
        match moves {
            true => assert_eq!(daemon.log_count(" settled"), 0),
            false => daemon.wait_log(" settled"),
        }
    }
}

#[test]
fn reload_adds_and_removes_watches() {
    let bed = Bed::new();
    fs::create_dir(bed.path("two")).expect("a directory");
    let block = |name: &str, dir: &str| {
        format!(
            "[watch.{name}]\npath = {:?}\nsettle = \"0\"\n{}\n",
            bed.path(dir),
            bed.run_key(&[])
        )
    };
    bed.configure_text(&block("one", "in"));
    let daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    bed.configure_text(&block("two", "two"));
    daemon.signal(libc::SIGHUP);
    daemon.wait_log("reloaded");
    fs::write(bed.inside("not-watched"), "x").expect("a file");
    fs::write(bed.path("two/b"), "x").expect("a file");
    let runs = bed.wait_runs(2);
    assert_eq!(runs[1].watch, "two");
    // And back: what came meanwhile runs, what was run is remembered.
    bed.configure_text(&(block("one", "in") + &block("two", "two")));
    daemon.signal(libc::SIGHUP);
    let runs = bed.wait_runs(3);
    assert_eq!(runs[2].name(), "not-watched");
    fs::write(bed.inside("last"), "x").expect("a file");
    assert_eq!(bed.wait_runs(4)[3].name(), "last");
}

#[test]
fn usr1_logs_the_state_and_usr2_lists_again() {
    let bed = Bed::new();
    bed.configure(&[], "settle = \"0\"\n");
    let daemon = bed.start();
    let writer = fs::File::create(bed.inside("held-open")).expect("a file");
    until("it is found held", || {
        daemon
            .log()
            .iter()
            .any(|line| line.contains("open for writing"))
    });
    daemon.signal(libc::SIGUSR1);
    daemon.wait_log("state: 0 running, 0 jobs owed, 1 candidates");
    daemon.wait_log("state: waits: somebody has it open for writing");
    drop(writer);
    bed.wait_runs(1);
    // A truncation by path gives no event that is watched for: only a listing finds it.
    nix::unistd::truncate(&bed.inside("held-open"), 10).expect("a truncation");
    daemon.signal(libc::SIGUSR2);
    let runs = bed.wait_runs(2);
    assert_eq!(runs[1].size, Some(10));
}

#[test]
fn watch_needs_no_configuration() {
    let bed = Bed::new();
    let home = bed.path("home");
    fs::create_dir(&home).expect("a home");
    let dir = bed.path("in");
    let recorder = crate::bed::recorder();
    let results = bed.results();
    let args = [
        OsStr::new("watch"),
        dir.as_os_str(),
        OsStr::new("--settle"),
        OsStr::new("0"),
        OsStr::new("--"),
        recorder.as_os_str(),
        results.as_os_str(),
        OsStr::new("{path}"),
    ];
    let home = home.display().to_string();
    let env = [("XDG_STATE_HOME", home.as_str())];
    fs::write(bed.inside("before"), "x").expect("a file");
    let mut daemon = bed.spawn_with(&args, &env);
    bed.wait_runs(1);
    assert_eq!(daemon.stop(), Some(0));
    let mut daemon = bed.spawn_with(&args, &env);
    fs::write(bed.inside("after"), "x").expect("a file");
    bed.wait_runs(2);
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(counts(&bed.runs()).len(), 2, "the first is remembered");
    let state: Vec<_> = fs::read_dir(bed.path("home/settled"))
        .expect("state")
        .collect();
    assert_eq!(state.len(), 1);
}

#[test]
fn ten_thousand_idle_directories_cost_no_wake_ups() {
    let bed = Bed::new();
    bed.configure(&[], "recursive = true\nsettle = \"0\"\n");
    for index in 0..10_000 {
        fs::create_dir_all(bed.inside(format!("d{:02}/e{index}", index % 100)))
            .expect("directories");
    }
    let daemon = bed.start();
    fs::write(bed.inside("d07/e7/first"), "x").expect("a file");
    bed.wait_runs(1);
    daemon.wait_log("done");
    let mut pids = vec![daemon.pid()];
    pids.extend(
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid()))
            .expect("its processes")
            .split_whitespace()
            .map(|pid| pid.parse::<i32>().expect("a pid")),
    );
    assert!(pids.len() >= 3, "daemon, spawner, scout: {pids:?}");
    let switches = || -> u64 {
        pids.iter()
            .map(|pid| {
                fs::read_to_string(format!("/proc/{pid}/status"))
                    .expect("a status")
                    .lines()
                    .filter(|line| line.contains("ctxt_switches"))
                    .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
                    .sum::<u64>()
            })
            .sum()
    };
    // Whatever the last file made them do comes to rest; then nothing may happen for two seconds.
    let mut last = switches();
    until("two seconds without a single switch", || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        let now = switches();
        std::mem::replace(&mut last, now) == now
    });
    let private: u64 = pids
        .iter()
        .map(|pid| {
            fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
                .expect("a rollup")
                .lines()
                .filter(|line| line.starts_with("Private_"))
                .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
                .sum::<u64>()
        })
        .sum();
    println!("{} processes, {private} KiB private memory", pids.len());
    // And they still watch.
    fs::write(bed.inside("d99/e9999/second"), "x").expect("a file");
    bed.wait_runs(2);
}
