//! Workers: what they are fed and what they say, with real programs.

use super::{KILL, TERM, failed, first_number};
use crate::house::{House, is_gone, wait_until};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use settled::core::ids::RunId;
use settled::core::protocol::ANSWER_MAX;
use settled::core::{ChildEnd, StartStep, Stdin};
use std::io::Write;
use std::path::PathBuf;

fn worker(house: &mut House, script: &str) -> u64 {
    let mut order = house.order(&[b"/bin/sh", b"-c", script.as_bytes()]);
    order.stdin = Stdin::Worker;
    order.files.clear();
    order.jobs.clear();
    order.job_name.clear();
    house.spawn(order)
}

fn feed(house: &mut House, run: u64, bytes: &[u8]) {
    house.children.feed(RunId(run), bytes);
}

fn close(house: &mut House, run: u64) {
    house.children.close_input(RunId(run));
}

/// The lines of a worker so far.
fn lines(house: &House, run: u64) -> Vec<Option<Vec<u8>>> {
    house.worker_lines.get(&run).cloned().unwrap_or_default()
}

fn told(house: &House, run: u64) -> usize {
    house.worker_lines.get(&run).map_or(0, Vec::len)
}

fn expected(lines: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
    lines.iter().map(|line| Some(line.to_vec())).collect()
}

fn fifo(house: &House) -> PathBuf {
    let fifo = house.dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fifo
}

/// What is told of these bytes, decided the simplest way.
fn cut(text: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut pieces: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let without_newline = pieces.pop().unwrap();
    let mut lines: Vec<_> = pieces
        .iter()
        .map(|line| (line.len() <= ANSWER_MAX).then(|| line.to_vec()))
        .collect();
    if without_newline.len() > ANSWER_MAX {
        lines.push(None);
    }
    lines
}

#[test]
fn lines_go_there_and_come_back() {
    let mut house = House::new();
    let run = worker(
        &mut house,
        "while read -r line; do echo \"got $line\"; echo \"saw $line\" >&2; done; echo bye; exit 4",
    );
    // Before it exists, several in one turn, and one at a time.
    feed(&mut house, run, b"one\n");
    feed(&mut house, run, b"two\nthree\n");
    house.until("three lines", |house| told(house, run) == 3);
    feed(&mut house, run, b"f\xff\xc3ur\n");
    house.until("four lines", |house| told(house, run) == 4);
    assert!(!house.ended.contains_key(&run));
    feed(&mut house, run, b"last\n");
    close(&mut house, run);
    feed(&mut house, run, b"after the end\n");
    let (end, output) = house.end(run);
    assert_eq!(
        lines(&house, run),
        expected(&[
            b"got one",
            b"got two",
            b"got three",
            b"got f\xff\xc3ur",
            b"got last",
            b"bye"
        ])
    );
    // What it says on standard error is its output like any child's.
    let saw = b"saw one\nsaw two\nsaw three\nsaw f\xff\xc3ur\nsaw last";
    assert_eq!((end, house.said(run)), (ChildEnd::Exit(4), saw.to_vec()));
    assert_eq!(output, [saw.as_slice(), b"\n"].concat());
    assert_eq!(house.children.running(), 0);
    feed(&mut house, run, b"nobody\n");
    close(&mut house, run);
    house.turn().unwrap();
}

#[test]
fn a_worker_starts_clean() {
    let mut house = House::new();
    let run = worker(
        &mut house,
        "for fd in /proc/$$/fd/*; do [ -h $fd ] && echo ${fd##*/} $(readlink $fd); done; :",
    );
    assert_eq!(house.end(run).0, ChildEnd::Exit(0));
    let lines: Vec<String> = lines(&house, run)
        .into_iter()
        .map(|line| String::from_utf8(line.unwrap()).unwrap())
        .collect();
    let mut pipes: Vec<&str> = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        pipes.push(line.strip_prefix(&format!("{number} pipe:")).unwrap());
    }
    pipes.dedup();
    assert_eq!(pipes.len(), 3, "three pipes, none of them twice: {lines:?}");
}

#[test]
fn one_that_cannot_be_started_says_why() {
    let mut house = House::new();
    let mut order = house.order(&[b"/nonexistent/worker"]);
    order.stdin = Stdin::Worker;
    order.files.clear();
    let run = house.spawn(order);
    feed(&mut house, run, b"one\n");
    assert_eq!(house.end(run).0, failed(StartStep::Exec, Errno::ENOENT));
    assert_eq!(told(&house, run), 0);
    // And one that is not even handed to the spawner, or hardly.
    let run = worker(&mut house, "echo up; exec sleep 1000");
    feed(&mut house, run, b"one\n");
    house.children.kill(RunId(run), KILL);
    assert_eq!(house.end(run).0, ChildEnd::Signal(KILL));
}

#[test]
fn a_hundred_thousand_lines_come_back_in_order() {
    let mut house = House::new();
    let run = worker(&mut house, "exec cat");
    let count = 100_000;
    let mut fed = 0;
    while fed < count {
        let window = 256;
        if fed - told(&house, run) < window / 2 {
            let until = (told(&house, run) + window).min(count);
            for number in fed..until {
                feed(&mut house, run, format!("line {number}\n").as_bytes());
            }
            fed = until;
            house.children.flush().unwrap();
        }
        house.turn().unwrap();
    }
    close(&mut house, run);
    assert_eq!(house.end(run).0, ChildEnd::Exit(0));
    let back = &house.worker_lines[&run];
    assert_eq!(back.len(), count);
    for (number, line) in back.iter().enumerate() {
        assert_eq!(line.as_deref(), Some(format!("line {number}").as_bytes()));
    }
    assert!(house.lines_a_turn_max <= 1024, "{}", house.lines_a_turn_max);
}

#[test]
fn one_that_does_not_read_holds_nobody_up() {
    let mut house = House::new();
    let deaf = worker(&mut house, "exec sleep 1000");
    let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
    let other = worker(&mut house, "exec cat");
    for round in 1..=8 {
        for _ in 0..1024 {
            feed(&mut house, deaf, &line);
        }
        feed(&mut house, other, b"through\n");
        house.until("the other", |house| told(house, other) == round);
    }
    // Its end is not told before its input is closed, however much of that is still to be given.
    close(&mut house, deaf);
    house.turn().unwrap();
    assert!(!house.ended.contains_key(&deaf));
    house.children.kill(RunId(deaf), TERM);
    assert_eq!(house.end(deaf).0, ChildEnd::Signal(TERM));
    close(&mut house, other);
    assert_eq!(house.end(other).0, ChildEnd::Exit(0));
}

#[test]
fn one_that_reads_late_gets_all_of_it() {
    let mut house = House::new();
    let fifo = fifo(&house);
    let script = format!("read go <{}; exec cat", fifo.display());
    let run = worker(&mut house, &script);
    let mut all = Vec::new();
    for number in 0..80_000 {
        let line = format!("line {number} {}\n", "y".repeat(number % 100));
        feed(&mut house, run, line.as_bytes());
        if number % 1000 == 0 {
            house.children.flush().unwrap();
        }
        all.extend_from_slice(line.as_bytes());
    }
    assert!(all.len() > 4 * 1024 * 1024, "more than pipes hold");
    close(&mut house, run);
    let mut writer = std::fs::File::options().write(true).open(&fifo).unwrap();
    writer.write_all(b"go\n").unwrap();
    assert_eq!(house.end(run).0, ChildEnd::Exit(0));
    assert!(house.worker_lines[&run] == cut(&all), "the same lines");
}

#[test]
fn what_it_wrote_before_it_died_is_told_and_half_a_line_is_not() {
    let mut house = House::new();
    let run = worker(&mut house, "printf 'one\\ntwo'; exit 3");
    assert_eq!(house.end(run).0, ChildEnd::Exit(3));
    assert_eq!(lines(&house, run), expected(&[b"one"]));
    let run = worker(&mut house, "seq 1 50000; printf half; kill -KILL $$");
    assert_eq!(house.end(run).0, ChildEnd::Signal(KILL));
    let all: String = (1..=50_000).map(|n: u32| format!("{n}\n")).collect();
    assert!(lines(&house, run) == cut(all.as_bytes()));
    let run = worker(&mut house, "echo; echo; printf '\\n'");
    assert_eq!(house.end(run).0, ChildEnd::Exit(0));
    assert_eq!(lines(&house, run), expected(&[b"", b"", b""]));
}

#[test]
fn a_flood_of_answers_holds_nothing_up() {
    let mut house = House::new();
    let floods = [
        worker(&mut house, "exec yes ''"),
        worker(&mut house, "exec yes '{\"job\":\"x\",\"result\":\"done\"}'"),
        worker(&mut house, "exec cat /dev/zero"),
        worker(&mut house, "exec yes flood >&2"),
    ];
    house.until("floods", |house| {
        floods[..3].iter().all(|&run| told(house, run) > 0) && !house.said(floods[3]).is_empty()
    });
    let quiet = worker(&mut house, "exec cat");
    for round in 1..=20 {
        feed(&mut house, quiet, b"through\n");
        house.until("through", |house| told(house, quiet) == round);
        // What was told is of no use any more.
        house.worker_lines.retain(|&run, _| run == quiet);
        house.lines.clear();
    }
    for run in floods {
        house.children.kill(RunId(run), KILL);
        assert_eq!(house.end(run).0, ChildEnd::Signal(KILL));
    }
    // The budget of a turn, and what one read of an output has beyond it.
    assert!(
        house.lines_a_turn_max <= 1024 + 4096,
        "{}",
        house.lines_a_turn_max
    );
}

#[test]
fn lines_that_are_too_long_are_told_once() {
    let mut house = House::new();
    let run = worker(&mut house, "exec cat /dev/zero");
    house.until("zeroes", |house| told(house, run) > 0);
    for _ in 0..50 {
        house.turn().unwrap();
    }
    assert_eq!(lines(&house, run), [None]);
    house.children.kill(RunId(run), KILL);
    house.end(run);
    let mut text = Vec::new();
    for length in [
        0,
        ANSWER_MAX,
        1,
        ANSWER_MAX + 1,
        2,
        3 * ANSWER_MAX,
        0,
        5 * ANSWER_MAX,
        7,
    ] {
        text.extend(b"x".repeat(length));
        text.push(b'\n');
    }
    text.extend(b"y".repeat(10));
    let path = house.file(b"text", &text);
    let run = worker(&mut house, &format!("exec cat {}", path.display()));
    assert_eq!(house.end(run).0, ChildEnd::Exit(0));
    let told: Vec<_> = lines(&house, run)
        .iter()
        .map(|line| line.as_ref().map(Vec::len))
        .collect();
    assert_eq!(
        told,
        [
            Some(0),
            Some(ANSWER_MAX),
            Some(1),
            None,
            Some(2),
            None,
            Some(0),
            None,
            Some(7)
        ]
    );
}

#[test]
fn nonsense_is_told_as_it_is() {
    let mut house = House::new();
    // splitmix64, with newlines of every frequency.
    let mut state = 1u64;
    let mut text = Vec::new();
    for number in 0..1_500_000u64 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let often = 1 << (number / 75_000);
        text.push(match z % often {
            0 => b'\n',
            _ => (z >> 40) as u8,
        });
    }
    let path = house.file(b"noise", &text);
    for script in ["exec cat", "exec dd bs=4093 status=none if="] {
        let script = match script {
            "exec cat" => format!("exec cat {}", path.display()),
            dd => format!("{dd}{}", path.display()),
        };
        let run = worker(&mut house, &script);
        assert_eq!(house.end(run).0, ChildEnd::Exit(0));
        assert!(lines(&house, run) == cut(&text), "{script}");
    }
}

#[test]
fn one_that_cannot_answer_any_more_is_told_to_end() {
    let mut house = House::new();
    let run = worker(&mut house, "echo bye; exec >&-; cat >/dev/null; exit 5");
    feed(&mut house, run, b"one\n");
    assert_eq!(house.end(run).0, ChildEnd::Exit(5));
    assert_eq!(lines(&house, run), expected(&[b"bye"]));
}

#[test]
fn one_that_cannot_be_fed_any_more_is_heard() {
    let mut house = House::new();
    let fifo = fifo(&house);
    let script = format!(
        "exec <&-; echo deaf; read go <{}; echo late; exit 6",
        fifo.display()
    );
    let run = worker(&mut house, &script);
    house.until("deaf", |house| told(house, run) == 1);
    for _ in 0..3 {
        feed(&mut house, run, b"a line for nobody\n");
        house.turn().unwrap();
    }
    assert!(!house.ended.contains_key(&run));
    let mut writer = std::fs::File::options().write(true).open(&fifo).unwrap();
    writer.write_all(b"go\n").unwrap();
    assert_eq!(house.end(run).0, ChildEnd::Exit(6));
    assert_eq!(lines(&house, run), expected(&[b"deaf", b"late"]));
}

#[test]
fn what_it_leaves_behind_is_not_heard() {
    let mut house = House::new();
    let run = worker(
        &mut house,
        "sleep 1000 & echo $! >&2; (while :; do echo beside; done) & echo $! >&2; echo last; exit 0",
    );
    assert_eq!(house.end(run).0, ChildEnd::Exit(0));
    assert!(lines(&house, run).contains(&Some(b"last".to_vec())));
    let left = first_number(&house.said(run));
    assert!(!is_gone(left));
    kill(Pid::from_raw(left), Signal::SIGKILL).unwrap();
    let loud = first_number(&house.lines[&run][1]);
    wait_until("the SIGPIPE of the one beside", || is_gone(loud));
}

#[test]
fn workers_die_at_any_moment_and_others_do_not_notice() {
    let mut house = House::new();
    let steady = worker(&mut house, "exec cat");
    for round in 1..=60 {
        let run = worker(&mut house, "exec cat");
        for number in 0..200 {
            feed(
                &mut house,
                run,
                format!("line {number} of {round}\n").as_bytes(),
            );
        }
        let wanted = round * 3 % 200;
        house.until("some lines", |house| told(house, run) >= wanted);
        house.children.kill(RunId(run), KILL);
        feed(&mut house, run, b"more\n");
        feed(&mut house, steady, b"through\n");
        assert_eq!(house.end(run).0, ChildEnd::Signal(KILL));
        house.until("through", |house| told(house, steady) == round);
        // Each line is whole and in its place, up to where it died.
        for (number, line) in lines(&house, run).into_iter().enumerate().take(200) {
            assert_eq!(line, Some(format!("line {number} of {round}").into_bytes()));
        }
    }
    close(&mut house, steady);
    assert_eq!(house.end(steady).0, ChildEnd::Exit(0));
    assert_eq!(house.children.running(), 0);
}
