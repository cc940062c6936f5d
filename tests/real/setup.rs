//! How processes are set up: user, groups, limits, priorities; and where their output goes.

use crate::bed::{Bed, until};
use crate::kit::{self, job, put, wait_concluded};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn text_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect(program);
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("not run: this needs root");
    }
    root
}

/// Others may go in and write the ledger.
fn open_to_all(bed: &Bed) {
    for path in [bed.root().to_owned(), bed.path("in")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    fs::write(bed.path("ledger"), "").expect("a ledger");
    fs::set_permissions(bed.path("ledger"), fs::Permissions::from_mode(0o666)).expect("chmod");
}

const WHO: &str = "{ id -u; id -g; id -G; echo $HOME $USER $LOGNAME; umask; cat <&3; } >> \"$1\"\n";

#[test]
fn a_command_runs_as_its_user_with_all_groups_and_sees_its_file() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    open_to_all(&bed);
    let run = kit::shell_key(&bed, WHO, &["{path}"]);
    kit::configure(
        &bed,
        &run,
        "user = \"nobody\"\numask = \"027\"\nattempts = 1\n",
    );
    let _daemon = kit::start(&bed);
    put(&bed, "a", "its text\n");
    wait_concluded(&bed, 1);
    let entry = text_of("getent", &["passwd", "nobody"]);
    let home = entry.split(':').nth(5).expect("a home");
    let groups: BTreeSet<String> = text_of("id", &["-G", "nobody"])
        .split(' ')
        .map(str::to_owned)
        .collect();
    let said: Vec<String> = fs::read_to_string(bed.path("ledger"))
        .expect("the ledger")
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(said[0], text_of("id", &["-u", "nobody"]));
    assert_eq!(said[1], text_of("id", &["-g", "nobody"]));
    assert_eq!(
        said[2]
            .split(' ')
            .map(str::to_owned)
            .collect::<BTreeSet<_>>(),
        groups
    );
    assert_eq!(said[3], format!("{home} nobody nobody"));
    assert_eq!(said[4], "0027");
    assert_eq!(said[5], "its text");
}

#[test]
fn a_user_and_a_group_by_number_and_its_own_environment() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    open_to_all(&bed);
    let run = kit::shell_key(&bed, WHO, &["{path}"]);
    kit::configure(
        &bed,
        &run,
        "user = 12345\ngroup = 54321\nattempts = 1\nenv = { HOME = \"/somewhere\", USER = \"me\" }\n",
    );
    let _daemon = kit::start(&bed);
    put(&bed, "a", "x");
    wait_concluded(&bed, 1);
    let said = fs::read_to_string(bed.path("ledger")).expect("the ledger");
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said[..3], ["12345", "54321", "54321"]);
    assert!(said[3].starts_with("/somewhere me"), "{}", said[3]);
}

#[test]
fn a_file_that_the_user_may_not_read_is_not_opened_for_it() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    open_to_all(&bed);
    let run = kit::shell_key(&bed, "echo run >> \"$1\"\n", &["{path}"]);
    kit::configure(&bed, &run, "user = \"nobody\"\nattempts = 2\n");
    let daemon = kit::start(&bed);
    fs::write(bed.path("outside"), "x").expect("a file");
    fs::set_permissions(bed.path("outside"), fs::Permissions::from_mode(0o600)).expect("chmod");
    fs::rename(bed.path("outside"), bed.inside("secret")).expect("a rename");
    daemon.wait_log("the file cannot be opened: Permission denied");
    wait_concluded(&bed, 1);
    assert_eq!(job(&bed, "secret").outcome(), Some("dead"));
    assert!(kit::ledger(&bed).is_empty());
}

#[test]
fn a_user_is_refused_to_those_who_cannot_give_it() {
    if !is_root() {
        return;
    }
    let bed = Bed::in_dir(std::path::Path::new("/tmp"));
    open_to_all(&bed);
    kit::configure(&bed, "run = [\"true\"]", "user = \"daemon\"\n");
    let config = bed.path("settled.toml");
    let program = bed.path("settled");
    fs::copy(env!("CARGO_BIN_EXE_settled"), &program).expect("a copy of the program");
    let output = Command::new("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .arg(&program)
        .args(["check", "-c"])
        .arg(&config)
        .output()
        .expect("setpriv");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("user") && said.contains("root"), "{said}");
}

#[test]
fn limits_and_priorities_are_those_of_the_watch() {
    let bed = Bed::new();
    let run = kit::shell_key(
        &bed,
        "{ ulimit -n; ulimit -Hn; ulimit -c; ulimit -f; ulimit -t; nice; ionice; umask; pwd; } >> \"$1\"\n",
        &["{path}"],
    );
    kit::configure(
        &bed,
        &run,
        "limits = { nofile = 100, core = 0, fsize = \"1MiB\", cpu = \"10m\" }\nnice = 7\nionice = \"idle\"\numask = \"077\"\ncwd = \"/usr\"\n",
    );
    let _daemon = kit::start(&bed);
    put(&bed, "a", "x");
    wait_concluded(&bed, 1);
    assert_eq!(job(&bed, "a").outcome(), Some("done"));
    // dash counts files in blocks of 512 bytes.
    assert_eq!(
        kit::ledger(&bed),
        [
            "100", "100", "0", "2048", "600", "7", "idle", "0077", "/usr"
        ]
    );
}

#[test]
fn a_limit_that_is_reached_ends_the_command_and_nobody_else() {
    let bed = Bed::new();
    let run = kit::shell_key(
        &bed,
        "case $2 in */big) exec head -c 3000000 /dev/zero > \"$1.big\";; esac\n",
        &["{path}"],
    );
    kit::configure(&bed, &run, "attempts = 1\nlimits = { fsize = \"1MiB\" }\n");
    let _daemon = kit::start(&bed);
    put(&bed, "big", "x");
    put(&bed, "small", "x");
    wait_concluded(&bed, 2);
    assert_eq!(job(&bed, "big").outcome(), Some("dead"));
    assert_eq!(job(&bed, "small").outcome(), Some("done"));
}

#[test]
fn a_worker_is_set_up_as_its_watch_says() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    open_to_all(&bed);
    let text = "id -u >> \"$1\"; umask >> \"$1\"\nwhile IFS= read -r line; do job=${line#*\\\"job\\\":\\\"} job=${job%%\\\"*}\n\
                printf '{\"job\":\"%s\",\"result\":\"done\"}\\n' \"$job\"; done\n";
    let argv = [
        "/bin/sh".to_owned(),
        kit::script(&bed, "worker.sh", text),
        bed.path("ledger").display().to_string(),
    ];
    kit::configure(
        &bed,
        &format!("worker = {argv:?}"),
        "user = \"nobody\"\numask = \"037\"\n",
    );
    let _daemon = kit::start(&bed);
    put(&bed, "a", "x");
    wait_concluded(&bed, 1);
    assert_eq!(
        kit::ledger(&bed),
        [text_of("id", &["-u", "nobody"]), "0037".into()]
    );
}

#[test]
fn output_goes_to_a_file_whole_lines_at_a_time_and_not_to_the_log() {
    const FILES: usize = 40;
    let bed = Bed::new();
    let run = kit::shell_key(
        &bed,
        "for n in 1 2 3 4 5; do printf '%s says ' \"${2##*/}\"; sleep 0.01; echo $n; echo \"${2##*/} errs $n\" >&2; done\n",
        &["{path}"],
    );
    let output = bed.path("out.log");
    kit::configure(
        &bed,
        &run,
        &format!("output = {output:?}\nconcurrency = 8\n"),
    );
    let mut daemon = kit::start(&bed);
    for number in 0..FILES {
        put(&bed, format!("f{number}"), "x");
    }
    wait_concluded(&bed, FILES);
    assert_eq!(daemon.stop(), Some(0));
    let text = fs::read_to_string(&output).expect("the output");
    let lines: BTreeSet<&str> = text.lines().collect();
    assert_eq!(text.lines().count(), FILES * 10);
    for number in 0..FILES {
        for n in 1..=5 {
            assert!(lines.contains(format!("f{number} says {n}").as_str()));
            assert!(lines.contains(format!("f{number} errs {n}").as_str()));
        }
    }
    assert_eq!(daemon.log_count(" says ") + daemon.log_count(" errs "), 0);
    let mode = fs::metadata(&output)
        .expect("the output")
        .permissions()
        .mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn output_is_opened_again_on_hup_and_nothing_of_it_is_lost() {
    const FILES: usize = 60;
    let bed = Bed::new();
    let run = kit::shell_key(&bed, "echo \"line of ${2##*/}\"\n", &["{path}"]);
    let output = bed.path("out.log");
    kit::configure(&bed, &run, &format!("output = {output:?}\n"));
    let mut daemon = kit::start(&bed);
    let mut rotated = Vec::new();
    for turn in 0..3 {
        for number in 0..FILES / 3 {
            put(&bed, format!("f{turn}-{number}"), "x");
        }
        until("the file is there", || output.exists());
        let aside = bed.path(&format!("out.log.{turn}"));
        fs::rename(&output, &aside).expect("a rename");
        rotated.push(aside);
        daemon.signal(libc::SIGHUP);
        until("it is opened again", || {
            put(&bed, "again", &format!("{turn}"));
            std::thread::sleep(std::time::Duration::from_millis(50));
            output.exists()
        });
    }
    until("all have run", || {
        kit::jobs(&bed)
            .iter()
            .filter(|job| job.name != "again" && job.outcome() == Some("done"))
            .count()
            == FILES
    });
    assert_eq!(daemon.stop(), Some(0));
    rotated.push(output);
    let mut all = Vec::new();
    for file in rotated {
        let text = fs::read_to_string(file).expect("an output");
        all.extend(
            text.lines()
                .filter(|line| !line.ends_with("again"))
                .map(str::to_owned),
        );
    }
    let once: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), once.len()), (FILES, FILES));
}

#[test]
fn the_last_output_of_what_failed_is_kept_though_it_goes_to_a_file() {
    let bed = Bed::new();
    let run = kit::shell_key(&bed, "echo the reason is this; exit 1\n", &["{path}"]);
    let output = bed.path("out.log");
    kit::configure(&bed, &run, &format!("output = {output:?}\nattempts = 1\n"));
    let _daemon = kit::start(&bed);
    put(&bed, "a", "x");
    wait_concluded(&bed, 1);
    assert!(job(&bed, "a").output.contains("the reason is this"));
    until("it is in the file, too", || {
        fs::read_to_string(&output).is_ok_and(|text| text == "the reason is this\n")
    });
}
