//! Mounts that show old attributes.

use crate::house::{House, MOUNT, nothing, seconds};
use settled::core::Mount;
use settled::core::ask::Fault;
use std::time::Duration;

pub fn nfs(attribute_cache_s: u32) -> Mount {
    Mount {
        id: MOUNT,
        point: b"/srv".to_vec(),
        fstype: "nfs4".into(),
        remote_writers: true,
        attribute_cache_s,
    }
}

#[test]
fn quiet_time_is_never_less_than_the_attribute_cache_time() {
    for (cache, keys, quiet) in [
        (60, "", 60),
        (60, "settle = \"2s\"", 60),
        (60, "settle = \"0\"", 60),
        (60, "settle = \"90s\"", 90),
        (3, "", 5),
        (0, "settle = \"2s\"", 2),
    ] {
        let mut house = House::new(keys, nfs(cache), nothing());
        let since = house.mono;
        house.write_and_close("a");
        house.pass(seconds(300));
        assert_eq!(
            house.started_after("a", since),
            Some(seconds(quiet)),
            "{cache} {keys}"
        );
        // There a lease proves nothing.
        assert_eq!(house.leases, []);
    }
}

/// A listing takes a tenth of the time, whatever `poll` says.
#[test]
fn the_interval_follows_what_a_listing_costs() {
    for (takes_ms, waits_ms) in [(10, 1000), (100, 1000), (200, 1800), (2000, 18_000)] {
        let mut house = House::new("observe = \"poll\"", nfs(0), nothing());
        house.listing_takes = Duration::from_millis(takes_ms);
        house.pass(seconds(200));
        let between: Vec<Duration> = house
            .listings
            .windows(2)
            .skip(2)
            .map(|pair| pair[1].since(pair[0]).saturating_sub(house.listing_takes))
            .collect();
        assert!(between.len() > 5, "{takes_ms}");
        let least = Duration::from_millis(waits_ms);
        assert!(between.iter().all(|wait| *wait >= least), "{between:?}");
        assert!(
            between.iter().all(|wait| *wait <= least * 11 / 10),
            "{between:?}"
        );
    }
}

/// A listing that took two minutes because the mount hung is followed by one as soon as ever.
#[test]
fn a_hang_is_not_what_a_listing_costs() {
    let mut house = House::new("observe = \"poll\"", nfs(0), nothing());
    house.pass(seconds(10));
    house.listing_takes = seconds(120);
    let listings = house.listings.len();
    while house.listings.len() == listings {
        house.pass(Duration::from_millis(100));
    }
    house.listing_takes = Duration::ZERO;
    let since = house.mono;
    house.write("a");
    house.pass(seconds(30));
    assert!(house.started_after("a", since).unwrap() <= seconds(7));
}

/// Of a directory whose names do not move, the time is asked and nothing is listed, for as long as the mount may show old
/// attributes anyway.
#[test]
fn listings_of_what_has_not_moved_are_spared() {
    let mut house = House::new("", nfs(60), nothing());
    house.write("a");
    house.pass(seconds(600));
    assert_eq!(house.started.len(), 1);
    house.listings.clear();
    house.moved.clear();
    house.pass(seconds(600));
    let (listed, asked) = (house.listings.len(), house.moved.len());
    assert!(
        (9..=12).contains(&listed),
        "{listed} listings in ten minutes"
    );
    assert!(asked > 500, "{asked} questions in ten minutes");

    // A new name moves it, and the next poll lists.
    let since = house.mono;
    house.write("b");
    house.pass(seconds(2));
    let found = *house.listings.iter().find(|at| **at > since).unwrap();
    assert!(found.since(since) <= seconds(1), "{found:?}");
    house.pass(seconds(300));
    assert_eq!(house.started.len(), 2);

    // What is rewritten in place moves nothing: it is found when the listing is not spared.
    let since = house.mono;
    house.write("a");
    house.pass(seconds(300));
    assert_eq!(house.started.len(), 3);
    assert!(house.started_after("a", since).unwrap() <= seconds(60 + 1 + 60 + 1));
}

/// Two listings of a directory, one after the grain of the server's clock, are all that is needed to spare the third.
#[test]
fn the_first_poll_that_can_know_spares_its_listing() {
    let mut house = House::new("", nfs(60), nothing());
    house.pass(seconds(30));
    assert_eq!(house.listings.len(), 3, "{:?}", house.listings);
}

/// Two changes within one tick of the server's clock have one time: nothing is spared before the tick is over.
#[test]
fn a_second_change_in_the_same_tick_is_found() {
    let mut house = House::new("", nfs(60), nothing());
    house.pass(seconds(10));
    house.write("a");
    house.pass(Duration::from_millis(1200));
    let names_at = house.names_at;
    house.write("b");
    house.names_at = names_at;
    house.pass(seconds(70));
    assert_eq!(house.started.len(), 2, "{:?}", house.listings);
}

/// Where attributes are not cached there is no time for which a file rewritten in place may go unseen; and other
/// filesystems may not keep the time of a directory.
#[test]
fn nothing_is_spared_elsewhere() {
    let other = Mount {
        fstype: "cifs".into(),
        ..nfs(60)
    };
    for mount in [nfs(0), other] {
        let mut house = House::new("", mount, nothing());
        house.write("a");
        house.pass(seconds(100));
        assert_eq!(house.moved, []);
        assert!(house.listings.len() > 90, "{}", house.listings.len());
    }
}

/// A listing that did not come to its end tells of nothing that is gone, and is no reason to spare the next.
#[test]
fn a_broken_listing_is_not_believed() {
    for errno in [libc::EIO, libc::ESTALE, libc::EACCES, libc::ELOOP] {
        let mut house = House::new("", nfs(3), nothing());
        house.write("a");
        house.pass(seconds(60));
        assert_eq!(house.started.len(), 1);
        let hidden = std::mem::take(&mut house.files);
        house.listing_fails = Some(Fault::Here(errno));
        house.names_at += 1;
        house.pass(seconds(600));
        house.files = hidden;
        house.listing_fails = None;
        house.names_at += 1;
        house.pass(seconds(600));
        assert_eq!(
            house.started.len(),
            1,
            "errno {errno}: it was taken for gone, and came back"
        );
    }
}

/// One listing that misses a file says nothing; two do.
#[test]
fn gone_is_what_two_listings_miss() {
    for (missed, runs) in [(1, 1), (2, 2)] {
        let mut house = House::new("", nfs(3), nothing());
        house.write("a");
        house.pass(seconds(60));
        let hidden = std::mem::take(&mut house.files);
        house.names_at += 1;
        let before = house.listings.len();
        while house.listings.len() < before + missed {
            house.pass(Duration::from_millis(100));
        }
        house.files = hidden;
        house.names_at += 1;
        house.pass(seconds(60));
        assert_eq!(house.started.len(), runs, "{missed} listings missed it");
    }
}
