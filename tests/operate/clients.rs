//! Clients that behave badly: the daemon goes on with its files, and stays bounded.

use crate::ask::{Bare, daemon_row};
use crate::bed::{Bed, until};
use crate::kit::{put, start};
use std::fs;
use std::io::Read;

/// A watch with one job that runs until a file `go` is there and 2,000 behind it, and another watch that works.
fn busy(bed: &Bed) -> crate::bed::Daemon {
    fs::create_dir(bed.path("other")).expect("a directory");
    let go = bed.path("go");
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nsettle = \"0\"\nconcurrency = 1\n\
         run = [\"/bin/sh\", \"-c\", \"while [ ! -e {} ]; do sleep 0.05; done\"]\n\
         [watch.other]\npath = {:?}\nsettle = \"0\"\n{}",
        bed.path("in"),
        go.display(),
        bed.path("other"),
        bed.run_key(&[]),
    ));
    for n in 0..2000 {
        let name = format!("a-file-with-a-name-of-some-length-{n:05}");
        fs::write(bed.inside(name), "x").expect("a file");
    }
    let daemon = start(bed);
    until("2,000 jobs owed", || daemon_row(bed)["owed"] == 2000);
    daemon
}

/// A file in the other watch is run.
fn works(bed: &Bed, name: &str) {
    let before = bed.runs().len();
    fs::write(bed.path("outside"), name).expect("a file");
    fs::rename(bed.path("outside"), bed.path("other").join(name)).expect("a rename");
    bed.wait_runs(before + 1);
}

#[test]
fn who_asks_and_never_reads_is_closed_and_takes_bounded_memory() {
    let bed = Bed::new();
    let _daemon = busy(&bed);
    let before = daemon_row(&bed)["memory_kib"].as_u64().expect("memory");
    let mut deaf: Vec<Bare> = (0..40).map(|_| Bare::open(&bed)).collect();
    for bare in &mut deaf {
        bare.send(b"{\"ask\":\"list\"}\n{\"ask\":\"list\"}\n");
    }
    until("all of them answered as far as they take it", || {
        daemon_row(&bed)["clients"] == 41
    });
    works(&bed, "meanwhile");
    let row = daemon_row(&bed);
    let after = row["memory_kib"].as_u64().expect("memory");
    assert!(
        after < before + 40 * 256 + 4096,
        "{before} KiB before, {after} KiB with 40 who do not read"
    );
    println!("the longest turn: {} us", row["longest_turn_us"]);
    // Nobody waits for them for ever.
    until("they are closed", || daemon_row(&bed)["clients"] == 1);
    works(&bed, "afterwards");
    // What had been sent before can be read, and then there is an end.
    let mut text = Vec::new();
    let _ = deaf[0].stream.read_to_end(&mut text);
    assert!(!text.is_empty());
}

#[test]
fn of_500_at_once_some_are_answered_and_the_others_told_to_try_again() {
    let bed = Bed::new();
    let _daemon = busy(&bed);
    let mut all: Vec<Bare> = (0..500).map(|_| Bare::open(&bed)).collect();
    for bare in &mut all {
        bare.send(b"{\"ask\":\"status\"}\n");
    }
    works(&bed, "meanwhile");
    let (mut answered, mut busy) = (0, 0);
    for bare in &mut all {
        let lines = bare.answer();
        let last = lines.last().expect("an answer, whatever it is");
        if last["end"] == true {
            answered += 1;
        } else {
            assert_eq!(last["error"]["code"], "busy", "{last}");
            busy += 1;
        }
    }
    println!("{answered} answered, {busy} told to try again");
    assert!(answered >= 50 && busy > 0);
    drop(all);
    until("room again", || {
        // Those that went away are noticed by and by.
        let said = crate::ask::settled(&bed, &["status"]);
        said.status.success()
    });
    let row = daemon_row(&bed);
    println!("the longest turn: {} us", row["longest_turn_us"]);
    works(&bed, "afterwards");
}

#[test]
fn garbage_is_answered_with_a_reason() {
    let bed = Bed::new();
    let _daemon = busy(&bed);
    for garbage in [
        &b"\xff\xfe\x00garbage\n"[..],
        b"\n",
        b"[]\n",
        b"{\"ask\":\"nonsense\"}\n",
        b"{\"ask\":\"status\",\"more\":1}\n",
        b"{\"ask\":\"list\",\"name\":\"[a-z]{x,y}\"}\n",
        b"{\"ask\":\"explain\",\"path\":\"relative\"}\n",
    ] {
        let mut bare = Bare::open(&bed);
        bare.send(garbage);
        let answer = bare.answer();
        assert_eq!(answer.len(), 1, "{answer:?}");
        assert_eq!(answer[0]["error"]["code"], "bad-request", "{answer:?}");
        // The connection is as good as before.
        bare.send(b"{\"ask\":\"explain\",\"path\":\"/nowhere\"}\n");
        assert_eq!(bare.answer().len(), 2);
    }
    // Without end and without a newline.
    let mut bare = Bare::open(&bed);
    bare.send(&vec![b'x'; 100_000]);
    let answer = bare.answer();
    assert_eq!(answer[0]["error"]["code"], "too-long", "{answer:?}");
    assert_eq!(bare.line(), None);
    // Deep, not long.
    let mut bare = Bare::open(&bed);
    bare.send(&[vec![b'['; 60_000], b"\n".to_vec()].concat());
    assert_eq!(bare.answer()[0]["error"]["code"], "bad-request");
    works(&bed, "afterwards");
}

#[test]
fn half_a_request_is_not_waited_for_for_ever() {
    let bed = Bed::new();
    let _daemon = busy(&bed);
    let mut half: Vec<Bare> = (0..20).map(|_| Bare::open(&bed)).collect();
    for bare in &mut half {
        bare.send(b"{\"ask\":");
    }
    until("they are there", || daemon_row(&bed)["clients"] == 21);
    works(&bed, "meanwhile");
    until("they are closed", || daemon_row(&bed)["clients"] == 1);
    for bare in &mut half {
        assert_eq!(bare.line(), None);
    }
    // Who goes away in the middle is not missed either.
    let mut bare = Bare::open(&bed);
    bare.send(b"{\"ask\":\"list\"}\n{\"as");
    drop(bare);
    put(&bed, "one-more", "x");
    until("all as before", || {
        let row = daemon_row(&bed);
        row["clients"] == 1 && row["owed"] == 2001
    });
}
