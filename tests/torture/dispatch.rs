//! What happens between settled and concluded: at most once, workers, batches, what outlives the daemon, deliveries.

use super::{Act, Campaign, Done, USUAL, Victims, run};

#[test]
fn at_most_once() {
    run(&Campaign {
        name: "at most once",
        unique: true,
        act: Act::Labour("child", 12),
        keys: "concurrency = 4\ndelivery = \"at-most-once\"\n",
        ..USUAL
    });
}

#[test]
fn at_most_once_by_workers_on_tmpfs() {
    run(&Campaign {
        name: "at most once, workers, tmpfs",
        tmpfs: true,
        unique: true,
        act: Act::Labour("worker", 12),
        keys: "workers = 3\nwindow = 16\ndelivery = \"at-most-once\"\n",
        ..USUAL
    });
}

#[test]
fn workers() {
    run(&Campaign {
        name: "workers",
        act: Act::Labour("worker", 8),
        keys: "workers = 3\nwindow = 16\n",
        ..USUAL
    });
}

#[test]
fn workers_with_compaction_on_tmpfs() {
    run(&Campaign {
        name: "workers, tmpfs, compaction",
        tmpfs: true,
        compact: Some("20000"),
        act: Act::Labour("worker", 8),
        keys: "workers = 2\nwindow = 16\nkey = \"{dir1}\"\nserial = true\n",
        ..USUAL
    });
}

#[test]
fn workers_are_killed() {
    run(&Campaign {
        name: "workers are killed",
        act: Act::Labour("worker", 4),
        keys: "workers = 6\nwindow = 16\nattempts = 100000\nbackoff = { first = \"10ms\" }\n\
               key = \"{dir1}\"\nserial = true\n",
        victims: Victims::Children("labour"),
        unique: true,
        ..USUAL
    });
}

#[test]
fn workers_and_the_daemon_are_killed() {
    run(&Campaign {
        name: "workers and the daemon are killed",
        act: Act::Labour("worker", 4),
        keys: "workers = 4\nwindow = 16\nattempts = 100000\nbackoff = { first = \"10ms\" }\n",
        victims: Victims::Both("labour"),
        unique: true,
        ..USUAL
    });
}

#[test]
fn batches() {
    run(&Campaign {
        name: "batches",
        unique: true,
        act: Act::Labour("batch", 12),
        keys: "concurrency = 4\nattempts = 2\nbackoff = { first = \"10ms\" }\n\
               batch = { max = 8, wait = \"20ms\", split = true }\n",
        ..USUAL
    });
}

#[test]
fn fifty_that_outlive_the_daemon() {
    run(&Campaign {
        name: "fifty that outlive the daemon",
        unique: true,
        act: Act::Labour("heir", 1200),
        keys: "concurrency = 50\nattempts = 100000\n",
        life_ms: 4000,
        ..USUAL
    });
}

#[test]
fn fifty_that_are_ended_when_they_outlive_the_daemon() {
    run(&Campaign {
        name: "fifty that outlive the daemon and are ended",
        unique: true,
        tmpfs: true,
        act: Act::Labour("child", 1200),
        keys: "concurrency = 50\nattempts = 100000\norphans = \"kill\"\nkill_after = \"100ms\"\n",
        life_ms: 4000,
        ..USUAL
    });
}

#[test]
fn serial_children_that_outlive_the_daemon() {
    run(&Campaign {
        name: "serial children that outlive the daemon",
        unique: true,
        act: Act::Labour("child", 60),
        keys: "concurrency = 8\nkey = \"{dir1}\"\nserial = true\n",
        ..USUAL
    });
}

#[test]
fn delivered_elsewhere() {
    run(&Campaign {
        name: "delivered elsewhere",
        unique: true,
        act: Act::Deliver {
            elsewhere: true,
            on_conflict: "rename",
        },
        keys: "concurrency = 4\nattempts = 100000\nbackoff = { first = \"10ms\" }\n",
        victims: Victims::Both("deliver-file"),
        ..USUAL
    });
}

#[test]
fn delivered_and_deleted_on_tmpfs() {
    run(&Campaign {
        name: "delivered and deleted, tmpfs",
        unique: true,
        tmpfs: true,
        done: Done::Delete,
        act: Act::Deliver {
            elsewhere: false,
            on_conflict: "rename",
        },
        keys: "concurrency = 4\nattempts = 100000\nbackoff = { first = \"10ms\" }\n",
        victims: Victims::Both("deliver-file"),
        ..USUAL
    });
}

#[test]
fn delivered_over_what_is_there() {
    run(&Campaign {
        name: "delivered over what is there",
        act: Act::Deliver {
            elsewhere: true,
            on_conflict: "replace",
        },
        keys: "concurrency = 4\nattempts = 100000\nbackoff = { first = \"10ms\" }\n",
        victims: Victims::Both("deliver-file"),
        ..USUAL
    });
}

#[test]
fn workers_that_are_given_batches_are_killed() {
    run(&Campaign {
        name: "workers that are given batches are killed",
        act: Act::Labour("worker", 4),
        keys: "workers = 4\nwindow = 16\nattempts = 100000\nbackoff = { first = \"10ms\" }\n\
               batch = { max = 5, wait = \"10ms\" }\n",
        victims: Victims::Both("labour"),
        unique: true,
        ..USUAL
    });
}
