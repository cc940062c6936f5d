//! The log against real pipes, sockets and files.

use super::text::tests::{decode, line};
use super::*;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

/// The end of time: everything is due.
const DUE: Mono = Mono(u64::MAX);

fn places(stderr: OwnedFd) -> Targets {
    Targets {
        journal: "/nonexistent/journal".into(),
        syslog: "/nonexistent/log".into(),
        stderr: Some(stderr),
        journal_stream: None,
    }
}

fn pipe() -> (File, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    (File::from(reader), writer)
}

fn numbered(n: u64) -> LogLine {
    line(&format!("line {n} {}", "x".repeat(80)), b"/srv/in/a.csv")
}

fn everything(mut reader: impl Read) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

/// The numbers of the lines in `text` and those that notes tell of, in order.
fn told(text: &str) -> Vec<Result<u64, u64>> {
    let number = |rest: &str| rest.split(' ').next().unwrap().parse::<u64>().unwrap();
    let of = |line: &str| match line.split_once("dropped lines: ") {
        Some((_, rest)) => Err(number(rest)),
        None => Ok(number(line.split_once("line ").unwrap().1)),
    };
    text.lines().map(of).collect()
}

#[test]
fn a_record_is_one_line_with_time_and_level() {
    let (reader, writer) = pipe();
    let mut log = Log::open_at(LogTo::Stderr, Level::Info, &places(writer)).unwrap();
    log.line(Level::Warning, &line("held\nby 7", b"/a\nb\xff\""));
    log.line(Level::Debug, &line("not this one", b""));
    log.set_level(Level::Error);
    log.line(Level::Info, &line("nor this one", b""));
    log.set_level(Level::Debug);
    log.line(Level::Debug, &line("but this one", b""));
    drop(log);
    let text = everything(reader);
    let lines: Vec<&str> = text.lines().collect();
    let [first, second] = lines.as_slice() else {
        panic!("{text}")
    };
    let (stamp, rest) = first.split_once(' ').unwrap();
    assert_eq!(stamp.len(), "2026-11-21T06:30:00.123Z".len());
    assert_eq!(
        rest,
        r#"warning watch=in job=J-7 path="/a\nb\xff\"" held\nby 7"#
    );
    assert!(
        second.ends_with("Z debug watch=in job=J-7 but this one"),
        "{second}"
    );
}

#[test]
fn the_journal_behind_stderr_gets_levels_and_no_time() {
    for (own, expected) in [(true, "<3>watch=in job=J-7 bad\n"), (false, "error")] {
        let (reader, writer) = pipe();
        let stat = fstat(&writer).unwrap();
        let inode = stat.st_ino + u64::from(!own);
        let mut places = places(writer);
        places.journal_stream = Some(format!("{}:{inode}", stat.st_dev).into());
        let mut log = Log::open_at(LogTo::Stderr, Level::Info, &places).unwrap();
        log.line(Level::Error, &line("bad", b""));
        drop((log, places));
        let text = everything(reader);
        assert!(
            if own {
                text == expected
            } else {
                text.contains(expected)
            },
            "{text}"
        );
    }
}

/// Writes far more than fits to an end that nobody reads, then reads all: what was kept comes in order, the
/// rest is told of by its number, and later lines follow.
fn starve(mut log: Log, mut reader: impl Read) {
    const TOTAL: u64 = 20_000;
    for n in 0..TOTAL {
        log.line(Level::Info, &numbered(n));
    }
    assert!(log.pending() > 0 && log.dropped() > 0);
    assert!(log.queued_bytes <= BUFFER);
    let mut text = Vec::new();
    let mut part = [0; 65536];
    while log.pending() > 0 {
        let length = reader.read(&mut part).unwrap();
        text.extend_from_slice(&part[..length]);
        log.flush(DUE);
    }
    assert_eq!(log.wants_wakeup(), None);
    log.line(Level::Info, &numbered(TOTAL));
    let dropped = log.dropped();
    drop(log);
    reader.read_to_end(&mut text).unwrap();
    let told = told(std::str::from_utf8(&text).unwrap());
    let kept = TOTAL - dropped;
    let mut expected: Vec<_> = (0..kept).map(Ok).collect();
    expected.extend([Err(dropped), Ok(TOTAL)]);
    assert!(
        told == expected,
        "{:?}",
        &told[told.len().saturating_sub(5)..]
    );
}

#[test]
fn a_pipe_that_nobody_reads_blocks_nothing_and_what_is_lost_is_told() {
    let (reader, writer) = pipe();
    let before = fcntl(&writer, FcntlArg::F_GETFL).unwrap();
    let places = places(writer);
    let log = Log::open_at(LogTo::Stderr, Level::Info, &places).unwrap();
    assert!(log.target.has_own_file());
    starve_and_drop(log, places, reader, before);
}

fn starve_and_drop(log: Log, places: Targets, reader: File, before: i32) {
    // The open file is shared with others: its flags are theirs.
    let writer = places.stderr.as_ref().unwrap();
    assert_eq!(fcntl(writer, FcntlArg::F_GETFL).unwrap(), before);
    assert!(!OFlag::from_bits_retain(before).contains(OFlag::O_NONBLOCK));
    drop(places);
    starve(log, reader);
}

#[test]
fn so_does_one_that_cannot_be_opened_again() {
    let (reader, writer) = pipe();
    let before = fcntl(&writer, FcntlArg::F_GETFL).unwrap();
    let places = places(writer);
    let mut log = Log::open_at(LogTo::Stderr, Level::Info, &places).unwrap();
    log.target = Target::shared(places.stderr.as_ref().unwrap().try_clone().unwrap());
    starve_and_drop(log, places, reader, before);
}

#[test]
fn so_does_a_socket() {
    let (reader, writer) = UnixStream::pair().unwrap();
    let places = places(writer.into());
    let log = Log::open_at(LogTo::Stderr, Level::Info, &places).unwrap();
    drop(places);
    starve(log, reader);
}

#[test]
fn a_record_longer_than_a_pipe_takes_at_once_arrives_whole() {
    let (mut reader, writer) = pipe();
    let mut log = Log::open_at(LogTo::Stderr, Level::Info, &places(writer)).unwrap();
    let long = "y".repeat(40_000);
    for _ in 0..3 {
        log.line(Level::Info, &line(&long, b""));
    }
    assert!(log.pending() > 0, "the pipe took everything at once");
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while log.pending() > 0 {
        let length = reader.read(&mut part).unwrap();
        text.extend_from_slice(&part[..length]);
        log.flush(DUE);
    }
    drop(log);
    reader.read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(text.lines().all(|l| l.ends_with(&format!(" {long}"))));
}

#[test]
fn half_a_line_that_was_lost_does_not_swallow_the_next() {
    let (mut reader, writer) = pipe();
    let mut log = Log::open_at(LogTo::Stderr, Level::Info, &places(writer)).unwrap();
    // Three writes each: the sixteen pages of a pipe end within one.
    while log.pending() == 0 {
        log.line(Level::Info, &line(&"z".repeat(10_000), b""));
    }
    assert!(log.queue[0].written > 0);
    // The half-written record's target fails for good: a full device.
    let good = std::mem::replace(&mut log.target, {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        Target::shared(full.into())
    });
    log.flush(DUE);
    assert_eq!(log.pending(), 0);
    assert!(log.dropped() > 0);
    log.target = good;
    let mut part = vec![0; 1 << 20];
    let length = reader.read(&mut part).unwrap();
    assert!(!part[..length].ends_with(b"\n"), "the line was not torn");
    log.line(Level::Info, &numbered(1));
    let dropped = log.dropped();
    drop(log);
    let rest = everything(reader);
    assert!(rest.starts_with('\n'), "{rest}");
    assert_eq!(told(rest.trim_start()), [Err(dropped), Ok(1)]);
}

#[test]
fn a_reader_that_went_away_is_counted_and_wakes_nobody() {
    let (reader, writer) = pipe();
    let mut log = Log::open_at(LogTo::Stderr, Level::Info, &places(writer)).unwrap();
    drop(reader);
    for n in 0..10 {
        log.line(Level::Info, &numbered(n));
    }
    assert_eq!((log.dropped(), log.pending()), (10, 0));
    assert_eq!(log.wants_wakeup(), None);
}

#[test]
fn a_file_keeps_what_others_wrote_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"line 1 before\n").unwrap();
    let fd: OwnedFd = file.as_fd().try_clone_to_owned().unwrap();
    let mut log = Log::open_at(LogTo::Stderr, Level::Info, &places(fd)).unwrap();
    log.line(Level::Info, &numbered(2));
    file.write_all(b"line 3 after\n").unwrap();
    log.line(Level::Info, &numbered(4));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(told(&text), [Ok(1), Ok(2), Ok(3), Ok(4)]);
}

#[test]
fn what_is_gathered_comes_with_the_flush_in_order_and_in_few_pieces() {
    use nix::errno::Errno;
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
    use std::os::fd::AsRawFd;
    // Keeps what was written apart.
    let (reader, writer) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_NONBLOCK,
    )
    .unwrap();
    let mut log = Log::open_at(LogTo::Stderr, Level::Info, &places(writer)).unwrap();
    let receive = || {
        let mut piece = vec![0; 64 * 1024];
        recv(reader.as_raw_fd(), &mut piece, MsgFlags::empty())
            .map(|read| String::from_utf8(piece[..read].to_vec()).unwrap())
    };
    log.gather();
    log.line(Level::Info, &numbered(0));
    log.line(Level::Info, &numbered(1));
    assert_eq!((log.pending(), receive()), (2, Err(Errno::EAGAIN)));
    log.flush(Mono(0));
    let both = receive().unwrap();
    assert_eq!(told(&both), [Ok(0), Ok(1)]);
    assert_eq!((log.pending(), receive()), (0, Err(Errno::EAGAIN)));
    // The flush ended it.
    log.line(Level::Info, &numbered(2));
    assert_eq!(told(&receive().unwrap()), [Ok(2)]);

    log.gather();
    for number in 0..300 {
        log.line(Level::Info, &numbered(number));
    }
    assert!(log.pending() < 300, "it keeps no more than a piece");
    log.flush(Mono(0));
    let (mut all, mut pieces) = (String::new(), 0);
    while let Ok(piece) = receive() {
        assert!(piece.len() <= libc::PIPE_BUF && piece.ends_with('\n'));
        all.push_str(&piece);
        pieces += 1;
    }
    assert_eq!(told(&all), (0..300).map(Ok).collect::<Vec<_>>());
    assert!(
        pieces * libc::PIPE_BUF < 2 * all.len() + libc::PIPE_BUF,
        "{pieces} pieces"
    );
}

#[test]
fn gathered_lines_that_are_refused_are_counted_each() {
    let (reader, writer) = pipe();
    let mut log = Log::open_at(LogTo::Stderr, Level::Info, &places(writer)).unwrap();
    drop(reader);
    log.gather();
    for number in 0..10 {
        log.line(Level::Info, &numbered(number));
    }
    assert_eq!((log.dropped(), log.pending()), (0, 10));
    log.flush(Mono(0));
    assert_eq!(
        (log.dropped(), log.pending(), log.wants_wakeup()),
        (10, 0, None)
    );
}

#[test]
fn tries_again_after_growing_waits_and_at_once_when_things_move() {
    let (mut reader, writer) = pipe();
    let mut log = Log::open_at(LogTo::Stderr, Level::Info, &places(writer)).unwrap();
    assert_eq!(log.wants_wakeup(), None);
    while log.pending() < 100 {
        log.line(Level::Info, &numbered(0));
    }
    let mut at = log.wants_wakeup().unwrap();
    log.flush(Mono(at.0 - 1));
    assert_eq!(log.wants_wakeup(), Some(at), "it was not time yet");
    let mut waits = Vec::new();
    for _ in 0..9 {
        log.flush(at);
        let next = log.wants_wakeup().unwrap();
        waits.push(next.since(at).as_millis());
        at = next;
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    let mut part = [0; 8192];
    reader.read_exact(&mut part).unwrap();
    log.flush(at);
    assert_eq!(log.wants_wakeup().unwrap().since(at), FIRST_WAIT);
    let mut part = vec![0; 65536];
    let _ = reader.read(&mut part).unwrap();
    log.flush(DUE);
    assert_eq!((log.pending(), log.wants_wakeup()), (0, None));
}

/// A journald or syslogd of our own.
fn listen(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn received(socket: &UnixDatagram) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1 << 20];
    let length = socket.recv(&mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

fn datagram_log(to: LogTo, path: &Path) -> Result<Log, OpenError> {
    let places = Targets {
        journal: path.into(),
        syslog: path.into(),
        stderr: None,
        journal_stream: None,
    };
    Log::open_at(to, Level::Info, &places)
}

/// The text of a datagram, as its reader would show it.
fn message(to: LogTo, bytes: &[u8]) -> String {
    let text = match to {
        LogTo::Journald => decode(bytes).pop().unwrap().1,
        _ => bytes.to_vec(),
    };
    String::from_utf8(text).unwrap()
}

#[test]
fn journald_gets_fields() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let journal = listen(&path);
    let mut log = datagram_log(LogTo::Journald, &path).unwrap();
    log.line(Level::Error, &line("failed", b"/srv/a\nPRIORITY=0\n\xff"));
    let fields = decode(&received(&journal).unwrap());
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "PRIORITY",
            "SYSLOG_IDENTIFIER",
            "SETTLED_WATCH",
            "SETTLED_JOB",
            "SETTLED_PATH",
            "MESSAGE"
        ]
    );
    assert_eq!(fields[0].1, b"3");
    assert_eq!(fields[4].1, b"/srv/a\nPRIORITY=0\n\xff");
}

#[test]
fn syslog_gets_a_facility_a_tag_and_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let syslogd = listen(&path);
    let mut log = datagram_log(LogTo::Syslog, &path).unwrap();
    log.line(Level::Warning, &line("failed", b"/srv/a\n\xff"));
    let text = message(LogTo::Syslog, &received(&syslogd).unwrap());
    // daemon is 3, times 8; warning is 4.
    let (priority, rest) = text.split_once('>').unwrap();
    assert_eq!(priority, "<28");
    let tag = format!(" settled[{}]: ", std::process::id());
    let (stamp, rest) = rest.split_once(&tag).unwrap();
    assert_eq!(stamp.len(), "Nov 21 06:30:00".len());
    assert_eq!(rest, r#"watch=in job=J-7 path="/srv/a\n\xff" failed"#);
}

#[test]
fn a_datagram_that_would_be_too_large_is_cut() {
    for (to, most) in [(LogTo::Journald, 64 * 1024), (LogTo::Syslog, 8 * 1024)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let reader = listen(&path);
        let mut log = datagram_log(to, &path).unwrap();
        log.line(Level::Info, &line(&"\x01".repeat(1 << 20), b"/p"));
        let bytes = received(&reader).unwrap();
        assert!(
            bytes.len() > most / 2 && bytes.len() <= most,
            "{to:?}: {}",
            bytes.len()
        );
        assert!(message(to, &bytes).ends_with(" [cut]"), "{to:?}");
        assert_eq!(log.dropped(), 0);
    }
}

#[test]
fn a_full_datagram_socket_blocks_nothing_and_what_is_lost_is_told() {
    for to in [LogTo::Journald, LogTo::Syslog] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let reader = listen(&path);
        let mut log = datagram_log(to, &path).unwrap();
        let total = 5_000;
        for n in 0..total {
            log.line(Level::Info, &numbered(n));
        }
        assert!(log.dropped() > 0 && log.wants_wakeup().is_some(), "{to:?}");
        let mut text = String::new();
        let mut read_all = |log: &mut Log| {
            while let Some(bytes) = received(&reader) {
                text.push_str(&message(to, &bytes));
                text.push('\n');
                log.flush(DUE);
            }
        };
        read_all(&mut log);
        log.line(Level::Info, &numbered(total));
        read_all(&mut log);
        let kept = total - log.dropped();
        let mut expected: Vec<_> = (0..kept).map(Ok).collect();
        expected.extend([Err(log.dropped()), Ok(total)]);
        assert!(told(&text) == expected, "{to:?}: kept {kept}");
    }
}

#[test]
fn a_listener_that_restarts_gets_what_was_said_meanwhile() {
    for to in [LogTo::Journald, LogTo::Syslog] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let reader = listen(&path);
        let mut log = datagram_log(to, &path).unwrap();
        log.line(Level::Info, &numbered(0));
        assert!(message(to, &received(&reader).unwrap()).contains("line 0"));

        drop(reader);
        log.line(Level::Info, &numbered(1));
        fs::remove_file(&path).unwrap();
        log.line(Level::Info, &numbered(2));
        assert_eq!((log.pending(), log.dropped()), (2, 0), "{to:?}");
        let reader = listen(&path);
        log.flush(DUE);
        log.line(Level::Info, &numbered(3));
        for n in 1..4 {
            let text = message(to, &received(&reader).unwrap());
            assert!(text.contains(&format!("line {n} ")), "{to:?}: {text}");
        }
        assert_eq!((log.pending(), log.wants_wakeup()), (0, None));
    }
}

#[test]
fn a_log_that_cannot_be_opened_is_a_sentence_with_a_remedy() {
    let nowhere = Path::new("/nonexistent/socket");
    for (to, name) in [(LogTo::Journald, "journald"), (LogTo::Syslog, "syslog")] {
        let text = datagram_log(to, nowhere).unwrap_err().to_string();
        assert!(text.starts_with(&format!("cannot log to {name} at /nonexistent/socket: ")));
        assert!(text.contains("set log = \"stderr\""), "{text}");
        assert!(!text.contains('\n'));
    }
}

#[test]
fn a_log_that_moves_leaves_nothing_behind_unsaid() {
    for to in [LogTo::Journald, LogTo::Syslog] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (reader, writer) = pipe();
        let mut here = places(writer);
        (here.journal, here.syslog) = (path.clone(), path.clone());
        let mut log = Log::open_at(LogTo::Stderr, Level::Info, &here).unwrap();
        assert!(log.elsewhere_at(LogTo::Stderr, &here).unwrap().is_none());
        log.elsewhere_at(to, &here).unwrap_err();
        let listener = listen(&path);
        let elsewhere = log.elsewhere_at(to, &here).unwrap().unwrap();
        // More than the pipe takes.
        let total = 2_000;
        for n in 0..total {
            log.line(Level::Info, &numbered(n));
        }
        assert!(log.pending() > 0 && log.dropped() == 0);
        log.moves_to(elsewhere);
        log.line(Level::Info, &numbered(total));
        drop(here);
        assert_eq!((log.pending(), log.wants_wakeup()), (0, None));
        let mut text = String::new();
        for _ in 0..2 {
            let bytes = received(&listener).unwrap();
            text.push_str(&message(to, &bytes));
            text.push('\n');
        }
        assert_eq!(told(&text), [Err(log.dropped()), Ok(total)], "{to:?}");
        let left = everything(reader);
        let whole = left
            .lines()
            .filter(|line| line.contains("in/a.csv"))
            .count() as u64;
        assert_eq!(whole + log.dropped(), total, "{to:?}");
    }
}
