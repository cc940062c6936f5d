//! What is expected, by a clock that is set.

use crate::house::{House, MOUNT, nothing, seconds};
use settled::core::Mount;
use settled::core::record::{Record, Told};

const HOUR: i64 = 3600 * 1_000_000_000;

fn house(expect: &str) -> House {
    let local = Mount {
        id: MOUNT,
        point: b"/".to_vec(),
        fstype: "ext4".into(),
        remote_writers: false,
        attribute_cache_s: 0,
    };
    let mut house = House::new(&format!("expect = {{ {expect} }}"), local, nothing());
    house.pass(seconds(1));
    house
}

/// How many have come, and whether it was told that too little did.
fn window(house: &House) -> (u32, Told) {
    let mut found = None;
    for record in house.core.snapshot() {
        if let Record::Expected { count, told, .. } = record {
            found = Some((count, told));
        }
    }
    found.unwrap()
}

fn missed(house: &House) -> usize {
    let what = "expected, and has not come";
    house.log.iter().filter(|line| line.contains(what)).count()
}

#[test]
fn a_clock_that_was_years_ahead_keeps_nothing_from_being_missed() {
    for expect in ["every = \"1h\", count = 2", "by = \"06:00\", count = 2"] {
        let mut house = house(expect);
        house.write_and_close("first");
        house.pass(seconds(60));
        assert_eq!(window(&house), (1, Told::Not));
        // Something comes while it is wrong, and opens a window; or the one that is open is over by it.
        house.set_back -= 4 * 365 * 24 * HOUR;
        house.pass(seconds(2 * 3600));
        house.write_and_close("second");
        house.write_and_close("third");
        house.pass(seconds(2 * 3600));
        let before = missed(&house);
        house.set_back = 0;
        // It is looked at once an hour; from then on all is as ever.
        house.pass(seconds(3700));
        house.write_and_close("fourth");
        house.pass(seconds(60));
        assert_eq!(window(&house).0, 1, "{expect}");
        house.pass(seconds(49 * 3600));
        assert!(missed(&house) > before, "{expect}: {:?}", house.log);
    }
}
