//! Processes, as the kernel makes and ends them: the spawner and its children, with real programs.

#![allow(clippy::unwrap_used)]

mod facts;
mod house;
mod setup;
mod worker;

use house::{DEADLINE, House, is_gone, spawners_of, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use settled::core::ids::RunId;
use settled::core::{ChildEnd, NotStarted, StartStep};
use settled::sys::packet;
use settled::sys::process;
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

const KILL: i32 = Signal::SIGKILL as i32;
const TERM: i32 = Signal::SIGTERM as i32;

fn failed(step: StartStep, errno: nix::errno::Errno) -> ChildEnd {
    ChildEnd::NotStarted(NotStarted::Failed(step, errno as i32), 0)
}

#[test]
fn output_and_status_come_back() {
    let mut house = House::new();
    let run = house.sh("echo hello; echo oops >&2; cat <&3; printf end; exit 7");
    let (end, output) = house.end(run);
    assert_eq!(end, ChildEnd::Exit(7));
    assert_eq!(output, b"hello\noops\ncontent\nend");
    assert_eq!(house.said(run), output);
    assert_eq!(house.children.running(), 0);
    let run = house.sh("kill -USR1 $$");
    assert_eq!(house.end(run).0, ChildEnd::Signal(Signal::SIGUSR1 as i32));
}

#[test]
fn arguments_and_environment_are_bytes() {
    let mut house = House::new();
    let script = b"cat /proc/$$/cmdline >args; cat /proc/$$/environ >env";
    let odd: [&[u8]; 8] = [
        b"-rf",
        b"a\nb",
        b"\"'",
        b"$(touch pwned)`touch pwned`",
        b"\xff\xfe\x80",
        b"",
        b"*",
        b" ; ",
    ];
    let argv = [[b"/bin/sh".as_slice(), b"-c", script].as_slice(), &odd].concat();
    let mut order = house.order(&argv);
    order.cwd = house.dir.path().as_os_str().as_bytes().to_vec();
    // PATH is the daemon's and replaced by this one; it is used to find cat, not to find the shell.
    order.env = vec![
        (b"SETTLED_PATH".to_vec(), b"/x/\xff\n$(y)=".to_vec()),
        (b"EMPTY".to_vec(), b"".to_vec()),
        (b"PATH".to_vec(), b"/usr/bin:/bin:/odd\n".to_vec()),
    ];
    let run = house.spawn(order);
    assert_eq!(house.end(run), (ChildEnd::Exit(0), vec![]));
    let expected: Vec<u8> = argv
        .iter()
        .flat_map(|arg| [arg, b"\0".as_slice()].concat())
        .collect();
    assert_eq!(
        std::fs::read(house.dir.path().join("args")).unwrap(),
        expected
    );
    let env = std::fs::read(house.dir.path().join("env")).unwrap();
    let env: Vec<&[u8]> = env.split(|&byte| byte == 0).collect();
    for entry in [
        b"SETTLED_PATH=/x/\xff\n$(y)=".as_slice(),
        b"EMPTY=",
        b"PATH=/usr/bin:/bin:/odd\n",
    ] {
        assert!(env.contains(&entry), "{env:?}");
    }
    assert_eq!(
        env.iter()
            .filter(|entry| entry.starts_with(b"PATH="))
            .count(),
        1
    );
    for (name, value) in std::env::vars_os().filter(|(name, _)| name != "PATH") {
        let entry = [name.as_bytes(), b"=", value.as_bytes()].concat();
        assert!(
            env.contains(&entry.as_slice()),
            "the daemon's own {entry:?}"
        );
    }
    assert!(!house.dir.path().join("pwned").exists());
}

#[test]
fn long_orders_arrive_whole() {
    let mut house = House::new();
    let long = vec![b'x'; 100_000];
    let order = house.order(&[b"/bin/sh", b"-c", b"echo ${#1} ${#2}", b"sh", &long, &long]);
    let run = house.spawn(order);
    assert_eq!(
        house.end(run),
        (ChildEnd::Exit(0), b"100000 100000\n".to_vec())
    );
    // The launcher that had it serves others again.
    let run = house.sh("exit 4");
    assert_eq!(house.end(run).0, ChildEnd::Exit(4));
}

#[test]
fn a_child_starts_clean() {
    // What this process blocks and ignores (the runtime ignores SIGPIPE) is not handed down.
    let mut blocked = nix::sys::signal::SigSet::empty();
    blocked.add(Signal::SIGUSR2);
    blocked.add(Signal::SIGCHLD);
    blocked.thread_block().unwrap();
    let leaked = std::fs::File::open("/dev/zero").unwrap();
    process::put_at(leaked.as_fd(), 77).unwrap();
    let mut house = House::new();
    let order = house.order(&[b"cat", b"/proc/self/status"]);
    let run = house.spawn(order);
    let (end, output) = house.end(run);
    assert_eq!(end, ChildEnd::Exit(0));
    let text = String::from_utf8(output).unwrap();
    for name in ["SigPnd", "SigBlk", "SigIgn", "SigCgt"] {
        assert!(
            text.contains(&format!("{name}:\t0000000000000000\n")),
            "{text}"
        );
    }
    let run = house.sh(
        "for fd in /proc/$$/fd/*; do [ -h $fd ] && echo ${fd##*/} $(readlink $fd); done; \
         echo cwd $PWD; cut -d' ' -f1,5 /proc/$$/stat; umask",
    );
    let (_, output) = house.end(run);
    let text = String::from_utf8(output).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0 /dev/null");
    assert!(lines[1].starts_with("1 pipe:"), "{text}");
    assert_eq!(lines[2], lines[1].replacen('1', "2", 1));
    assert_eq!(
        lines[3],
        format!("3 {}", house.dir.path().join("file").display())
    );
    assert_eq!(lines[4], "cwd /", "descriptors beyond 3: {text}");
    let (pid, group) = lines[5].split_once(' ').unwrap();
    assert_eq!(pid, group, "leads its own process group");
    let own_umask = std::fs::read_to_string("/proc/self/status").unwrap();
    let own_umask = own_umask
        .lines()
        .find_map(|line| line.strip_prefix("Umask:\t"))
        .unwrap();
    assert_eq!(lines[6], own_umask);
}

#[test]
fn what_cannot_be_executed_says_why() {
    use nix::errno::Errno;
    let mut house = House::new();
    let dir = house.dir.path().as_os_str().as_bytes().to_vec();
    let text = house.file(b"text", b"no magic number\n");
    let no_interpreter = house.file(b"script", b"#!/nonexistent/interpreter\n");
    for path in [&text, &no_interpreter] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let plain = house.file(b"plain", b"#!/bin/sh\n");
    std::fs::set_permissions(&plain, PermissionsExt::from_mode(0o644)).unwrap();
    let too_long = vec![b'x'; 200_000];
    let in_dir = |name: &[u8]| [dir.as_slice(), b"/", name].concat();
    let cases: [(&[&[u8]], StartStep, Errno); 9] = [
        (
            &[b"settled-no-such-program"],
            StartStep::Exec,
            Errno::ENOENT,
        ),
        (&[b"/nonexistent/program"], StartStep::Exec, Errno::ENOENT),
        (&[b""], StartStep::Exec, Errno::ENOENT),
        (&[&in_dir(b"file/x")], StartStep::Exec, Errno::ENOTDIR),
        (&[&in_dir(b"plain")], StartStep::Exec, Errno::EACCES),
        (&[&in_dir(b"text")], StartStep::Exec, Errno::ENOEXEC),
        (&[&in_dir(b"script")], StartStep::Exec, Errno::ENOENT),
        (&[b"/bin/true", &too_long], StartStep::Exec, Errno::E2BIG),
        (&[b"/bin/true", b"a\0b"], StartStep::Setup, Errno::EINVAL),
    ];
    for (argv, step, errno) in cases {
        let order = house.order(argv);
        let run = house.spawn(order);
        assert_eq!(house.end(run), (failed(step, errno), vec![]), "{argv:?}");
    }
    let mut order = house.order(&[b"/bin/true"]);
    order.cwd = b"/nonexistent".to_vec();
    let run = house.spawn(order);
    assert_eq!(house.end(run).0, failed(StartStep::Chdir, Errno::ENOENT));
    assert_eq!(house.children.running(), 0);
    let run = house.sh("exit 3");
    assert_eq!(house.end(run).0, ChildEnd::Exit(3));
}

#[test]
fn another_file_is_not_run() {
    let mut house = House::new();
    let marker = house.dir.path().join("ran");
    let touch = marker.as_os_str().as_bytes().to_vec();
    let changed = house.order(&[b"touch", &touch]);
    house.file(b"file", b"another content\n");
    let changed = house.spawn(changed);
    assert_eq!(
        house.end(changed).0,
        ChildEnd::NotStarted(NotStarted::NotTheFile, 0)
    );
    let removed = house.order(&[b"touch", &touch]);
    std::fs::remove_file(house.dir.path().join("file")).unwrap();
    let removed = house.spawn(removed);
    assert_eq!(
        house.end(removed).0,
        ChildEnd::NotStarted(NotStarted::NotTheFile, 0)
    );
    assert!(!marker.exists());
}

#[test]
fn a_deaf_group_is_killed_whole() {
    let mut house = House::new();
    let run = house.sh(
        "trap 'echo heard' TERM; (trap '' TERM; exec sleep 1000) & echo $!; echo up; \
         while :; do wait; done",
    );
    house.until("up", |house| house.said(run).ends_with(b"up"));
    let grandchild = first_number(&house.said(run));
    house.children.kill(RunId(run), TERM);
    house.until("heard", |house| house.said(run).ends_with(b"heard"));
    assert!(!house.ended.contains_key(&run) && !is_gone(grandchild));
    house.children.kill(RunId(run), KILL);
    assert_eq!(house.end(run).0, ChildEnd::Signal(KILL));
    wait_until("the grandchild's end", || is_gone(grandchild));
}

#[test]
fn what_a_signalled_leader_leaves_behind_is_killed() {
    let mut house = House::new();
    let run = house.sh(
        "trap 'exit 9' TERM; (trap '' TERM; exec sleep 1000) & echo $!; echo up; while :; do wait; done",
    );
    house.until("up", |house| house.said(run).ends_with(b"up"));
    let grandchild = first_number(&house.said(run));
    house.children.kill(RunId(run), TERM);
    assert_eq!(house.end(run).0, ChildEnd::Exit(9));
    wait_until("the grandchild's end", || is_gone(grandchild));
}

#[test]
fn a_run_can_be_killed_before_it_has_a_pid() {
    let mut house = House::new();
    for _ in 0..20 {
        let run = house.sh("exec sleep 1000");
        assert_eq!(house.children.pid(RunId(run)), None);
        house.children.kill(RunId(run), KILL);
        assert_eq!(house.end(run).0, ChildEnd::Signal(KILL));
    }
    let run = house.sh("exit 6");
    assert_eq!(house.end(run).0, ChildEnd::Exit(6));
}

#[test]
fn a_flood_holds_nothing_up() {
    let mut house = House::new();
    let floods = [house.sh("exec yes ''"), house.sh("exec cat /dev/zero")];
    house.until("flood", |house| {
        floods.iter().all(|run| house.lines.contains_key(run))
    });
    for _ in 0..20 {
        let run = house.sh("echo through");
        assert_eq!(house.end(run), (ChildEnd::Exit(0), b"through\n".to_vec()));
    }
    for run in floods {
        house.children.kill(RunId(run), KILL);
        let (end, output) = house.end(run);
        assert_eq!(
            (end, output.len()),
            (ChildEnd::Signal(KILL), settled::child::TAIL_MAX)
        );
        assert!(
            house.lines[&run]
                .iter()
                .all(|line| line.len() <= settled::child::LINE_MAX)
        );
    }
    assert!(
        house.lines_a_turn_max <= 1024 + 4096,
        "{}",
        house.lines_a_turn_max
    );
}

#[test]
fn all_that_a_child_wrote_is_read() {
    let mut house = House::new();
    let run = house.sh("seq 1 20000");
    let (end, _) = house.end(run);
    let expected: Vec<Vec<u8>> = (1..=20000)
        .map(|n: u32| n.to_string().into_bytes())
        .collect();
    assert_eq!((end, &house.lines[&run]), (ChildEnd::Exit(0), &expected));
}

#[test]
fn a_child_may_close_its_output() {
    let mut house = House::new();
    let fifo = house.dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "echo bye; exec >&- 2>&-; read line <{}; exit 5",
        fifo.display()
    );
    let run = house.sh(&script);
    house.until("bye", |house| !house.said(run).is_empty());
    let mut writer = std::fs::File::options().write(true).open(&fifo).unwrap();
    assert!(!house.ended.contains_key(&run));
    writer.write_all(b"go\n").unwrap();
    assert_eq!(house.end(run), (ChildEnd::Exit(5), b"bye\n".to_vec()));
}

#[test]
fn a_grandchild_may_keep_the_output() {
    let mut house = House::new();
    let run = house.sh("yes still here & echo $!; exit 3");
    let (end, _) = house.end(run);
    assert_eq!(end, ChildEnd::Exit(3));
    // It was not signalled, so it lives, until it writes to the pipe that nobody reads any more.
    let grandchild = house.lines[&run]
        .iter()
        .find_map(|line| String::from_utf8_lossy(line).parse().ok())
        .unwrap();
    wait_until("the grandchild's SIGPIPE", || is_gone(grandchild));
    let run = house.sh("sleep 1000 & echo $!");
    let (end, output) = house.end(run);
    assert_eq!(end, ChildEnd::Exit(0));
    let grandchild = first_number(&output);
    assert!(!is_gone(grandchild));
    kill(Pid::from_raw(grandchild), Signal::SIGKILL).unwrap();
}

#[test]
fn two_hundred_at_once() {
    let mut house = House::new();
    let fifo = house.dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let open = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&fifo)
        .unwrap();
    let script = format!("exec 4<{}; echo up; read line <&4; exit 8", fifo.display());
    // Twenty kilobytes each: far more than the socket holds.
    let runs: Vec<u64> = (0..200)
        .map(|_| {
            let mut order = house.order(&[b"/bin/sh", b"-c", script.as_bytes()]);
            order.env = vec![(b"BALLAST".to_vec(), vec![b'x'; 20_000])];
            house.spawn(order)
        })
        .collect();
    // The last one cannot have been sent yet, and is not started at all.
    let last = runs[199];
    house.children.kill(RunId(last), TERM);
    assert_eq!(house.end(last), (ChildEnd::Signal(TERM), vec![]));
    let runs = &runs[..199];
    house.until("all up", |house| {
        runs.iter().all(|&run| house.said(run) == b"up")
    });
    assert_eq!(
        (house.children.running(), house.children.adopted_count()),
        (199, 199)
    );
    drop(open);
    for &run in runs {
        assert_eq!(house.end(run).0, ChildEnd::Exit(8));
    }
    assert_eq!(
        (house.children.running(), house.children.adopted_count()),
        (0, 0)
    );
}

/// A write lease on a program makes its execve wait, as a dead server would: fcntl(2), `F_SETLEASE`.
fn hold_up(program: &std::path::Path) -> std::process::Child {
    let mut holder = Command::new("perl")
        .args(["-e", "$SIG{IO}='IGNORE'; $|=1; open F,'<',$ARGV[0] or die; fcntl(F,1024,1) or die; print 'held'; <STDIN>"])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 4];
    holder
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    holder
}

#[test]
fn an_exec_that_hangs_holds_nobody_else() {
    let mut house = House::new();
    let program = house.dir.path().join("program");
    std::fs::copy("/bin/true", &program).unwrap();
    let mut holder = hold_up(&program);
    let argv = program.as_os_str().as_bytes().to_vec();
    let stuck: Vec<u64> = (0..5)
        .map(|_| {
            let order = house.order(&[&argv]);
            house.spawn(order)
        })
        .collect();
    for _ in 0..5 {
        let run = house.sh("exit 2");
        assert_eq!(house.end(run).0, ChildEnd::Exit(2));
    }
    house.until("all known", |house| house.children.adopted_count() == 5);
    for &run in &stuck[1..] {
        house.children.kill(RunId(run), KILL);
        assert_eq!(house.end(run).0, ChildEnd::Signal(KILL));
    }
    // The mount answers again.
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert_eq!(house.end(stuck[0]).0, ChildEnd::Exit(0));
    let run = house.sh("exit 2");
    assert_eq!(house.end(run).0, ChildEnd::Exit(2));
}

#[test]
fn launchers_do_not_grow() {
    let mut house = House::new();
    let memory = |house: &House| -> u64 {
        let own = "settled-spawner";
        let mut most = 0;
        for pid in spawners_of(std::process::id()) {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if status.contains(own) && session(pid) == house.spawner_pid {
                let line = status
                    .lines()
                    .find_map(|line| line.strip_prefix("RssAnon:"));
                let kib =
                    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
                most = most.max(kib.unwrap_or(0));
            }
        }
        most
    };
    let many = |house: &mut House| {
        let (mut ran, mut held) = (0, 0);
        while ran < 500 {
            let mut order = house.order(&[b"/bin/true", &[b'x'; 1000]]);
            order.env = vec![(b"A".to_vec(), vec![b'y'; 1000]); 10];
            order.stdin = settled::core::Stdin::Bytes(vec![b'z'; 1000]);
            order.slot = 1;
            order.process = std::rc::Rc::new(settled::plan::ProcessPlan {
                limits: vec![(libc::RLIMIT_CORE, 0); 16],
                identity: nix::unistd::geteuid()
                    .is_root()
                    .then(|| settled::plan::Identity {
                        groups: vec![0; 1000],
                        home: "x".repeat(1000),
                        ..settled::plan::Identity::default()
                    }),
                ..settled::plan::ProcessPlan::default()
            });
            // Copies of this process that other tests make hold it for a moment too.
            wait_until("the slot", || setup::ask(house, 1, None).taken == Ok(false));
            let run = house.spawn(order);
            match house.end(run).0 {
                // One was made after that.
                ChildEnd::NotStarted(NotStarted::Failed(StartStep::Setup, libc::EAGAIN), _)
                    if held < 100 =>
                {
                    held += 1;
                }
                end => {
                    assert_eq!(end, ChildEnd::Exit(0));
                    ran += 1;
                }
            }
        }
    };
    many(&mut house);
    let before = memory(&house);
    many(&mut house);
    let after = memory(&house);
    // One vector of pointers forgotten by each child would be 40 KiB at least.
    assert!(after <= before + 16, "{before} KiB, then {after} KiB");
}

fn session(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields
        .split_ascii_whitespace()
        .nth(3)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_dead_spawner_is_noticed() {
    for which in 0..3 {
        let mut house = House::new();
        let run = house.sh("exit 1");
        house.end(run);
        let mut family = vec![house.spawner_pid];
        family.extend(
            spawners_of(std::process::id())
                .into_iter()
                .filter(|&pid| pid != house.spawner_pid && session(pid) == house.spawner_pid),
        );
        // The spawner, a launcher, or a child that waits for an order.
        let victim = *family.get(which).unwrap();
        kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
        let start = std::time::Instant::now();
        let error = loop {
            assert!(start.elapsed() < DEADLINE, "nothing was noticed");
            if let Err(error) = house.turn() {
                break error;
            }
        };
        assert!(error.to_string().contains("spawner"), "{error}");
    }
}

/// Run by the test below as a daemon of its own.
#[test]
#[ignore = "a process for another test"]
fn daemon_to_be_killed() {
    let mut house = House::new();
    let run = house.sh("echo $$; exec sleep 1000");
    house.until("a child", |house| !house.said(run).is_empty());
    println!("child {}", String::from_utf8(house.said(run)).unwrap());
    println!("spawner {}", house.spawner_pid);
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn the_spawner_ends_with_the_daemon() {
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "daemon_to_be_killed", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut numbers = std::collections::BTreeMap::new();
    for line in std::io::BufReader::new(daemon.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((name @ ("child" | "spawner"), pid)) = line.split_once(' ') {
            numbers.insert(name.to_owned(), pid.parse::<i32>().unwrap());
        }
        if numbers.len() == 2 {
            break;
        }
    }
    let family = spawners_of(daemon.id());
    assert!(
        family.contains(&numbers["spawner"]) && family.len() >= 3,
        "{family:?}"
    );
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    wait_until("the spawner's end", || {
        family.iter().all(|&pid| is_gone(pid))
    });
    // The child goes on: the next daemon looks after it.
    assert!(!is_gone(numbers["child"]));
    kill(Pid::from_raw(numbers["child"]), Signal::SIGKILL).unwrap();
}

/// A scout that says who it is.
fn telling_scout(socket: OwnedFd, inotify: OwnedFd) -> ! {
    use std::os::fd::AsRawFd;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut fds: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| ![socket.as_raw_fd(), inotify.as_raw_fd()].contains(fd))
        .collect();
    fds.sort_unstable();
    let link = std::fs::read_link(format!("/proc/self/fd/{}", inotify.as_raw_fd()));
    let text = format!("{status}Fds:{fds:?}\nInotify:{link:?}\n");
    let sent = packet::send(socket.as_fd(), text.as_bytes(), &[], true);
    process::exit_now(if sent.is_ok() { 42 } else { 1 })
}

#[test]
fn a_scout_is_made_without_exec() {
    let mut house = House::with_scouts(telling_scout);
    let (ours, its) = packet::pair().unwrap();
    house.children.scout(17, its).unwrap();
    house.until("a scout", |house| house.scouts.contains_key(&17));
    let pid = house.scouts[&17].unwrap();
    let mut buffer = [0; 8192];
    let packet = packet::receive(ours.as_fd(), &mut buffer, true).unwrap();
    let text = String::from_utf8(buffer[..packet.len].to_vec()).unwrap();
    for part in [
        "Name:\tsettled-scout\n".to_owned(),
        format!("\nPid:\t{pid}\n"),
        format!("\nPPid:\t{}\n", std::process::id()),
        "\nSigBlk:\t0000000000000000\n".to_owned(),
        "\nSigIgn:\t0000000000000000\n".to_owned(),
        "\nInotify:Ok(\"anon_inode:inotify\")\n".to_owned(),
    ] {
        assert!(text.contains(&part), "{part:?} in {text}");
    }
    let fds = text
        .lines()
        .find_map(|line| line.strip_prefix("Fds:"))
        .unwrap();
    // The fourth is the directory being listed.
    assert!(
        fds.starts_with("[0, 1, 2, ") && fds.matches(',').count() == 3,
        "{fds}"
    );
    // Nobody else has its end of the socket, so its end is seen; and it is ours to reap.
    assert_eq!(
        packet::receive(ours.as_fd(), &mut buffer, true)
            .unwrap()
            .len,
        0
    );
    let pidfd = process::pidfd_open(pid).unwrap();
    let mut exit = None;
    wait_until("the scout's end", || {
        exit = process::ended(pidfd.as_fd(), true).unwrap();
        exit.is_some()
    });
    assert_eq!(exit, Some(process::Exit::Status(42)));
}

fn first_number(text: &[u8]) -> i32 {
    String::from_utf8_lossy(text)
        .lines()
        .next()
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}
