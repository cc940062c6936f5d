//! Every record comes back from its bytes; no bytes make the decoder panic.
#![allow(clippy::unwrap_used)]

mod journal_support;

use journal_support::{KINDS, Random};
use settled::core::time::Wall;
use settled::journal::body;
use settled::journal::format::{
    BadFrame, FRAME_BYTES, Header, RECORD_MAX, Role, Seed, Stamp, VERSION, encode, frame, padded,
};

fn stamp(random: &mut Random) -> Stamp {
    Stamp {
        seq: random.next(),
        wall: Wall(random.next() as i64),
        flushed: random.next() as u32,
    }
}

#[test]
fn every_kind_comes_back() {
    let mut random = Random(1);
    let seed = Seed::new(Role::Log, 1, 2);
    for round in 0..20_000 {
        let record = random.record_of(round);
        let stamp = stamp(&mut random);
        let mut bytes = Vec::new();
        encode(&mut bytes, seed, stamp, &record).unwrap();
        assert_eq!(bytes.len() % 8, 0);
        let back = frame(&bytes, seed).unwrap();
        assert_eq!(back.stamp, stamp);
        assert_eq!(
            padded(FRAME_BYTES + back.body.len() as u32) as usize,
            bytes.len()
        );
        assert_eq!(body::decode(back.kind, back.body), Ok(record));
        assert!(body::kind_name(back.kind).is_some());
    }
}

#[test]
fn kinds_have_numbers_of_their_own() {
    let mut random = Random(2);
    let mut kinds: Vec<u16> = (0..KINDS)
        .map(|kind| body::kind(&random.record_of(kind)))
        .collect();
    assert_eq!(kinds, (1..=22).collect::<Vec<_>>());
    kinds.dedup();
    assert_eq!(kinds.len(), KINDS);
}

/// A body that is shorter or longer than its fields is no record.
#[test]
fn bodies_are_used_up_exactly() {
    let mut random = Random(3);
    for round in 0..KINDS * 40 {
        let record = random.record_of(round);
        let kind = body::kind(&record);
        let mut bytes = Vec::new();
        body::encode(&mut bytes, &record);
        for length in 0..bytes.len() {
            assert!(body::decode(kind, &bytes[..length]).is_err(), "{record:?}");
        }
        bytes.push(0);
        assert!(body::decode(kind, &bytes).is_err(), "{record:?}");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = Random(4);
    let seed = Seed::new(Role::Log, 1, 2);
    for round in 0..30_000 {
        let mut bytes = random.bytes(400);
        let _ = frame(&bytes, seed);
        let _ = Header::decode(&bytes);
        let _ = body::decode((round % 24) as u16, &bytes);
        // Lengths that are nearly right get further.
        if bytes.len() >= 8 {
            let length = (bytes.len() as u32).wrapping_add(random.below(5) as u32);
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            let _ = frame(&bytes, seed);
        }
        // And so do records that were right once.
        let record = random.record();
        let mut bytes = Vec::new();
        body::encode(&mut bytes, &record);
        for _ in 0..3 {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        if let Ok(other) = body::decode(body::kind(&record), &bytes) {
            let mut again = Vec::new();
            body::encode(&mut again, &other);
            assert_eq!(again, bytes, "two spellings of one record");
        }
    }
}

#[test]
fn lengths_are_bounded() {
    let seed = Seed::new(Role::Log, 1, 2);
    for length in [1, 31, RECORD_MAX + 1, u32::MAX] {
        let mut bytes = vec![0; 64];
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        assert_eq!(frame(&bytes, seed), Err(BadFrame::Length(length)));
    }
    let mut bytes = vec![0; 64];
    bytes[4..8].copy_from_slice(&65u32.to_le_bytes());
    assert_eq!(frame(&bytes, seed), Err(BadFrame::Cut));
}

/// settled-journal(5) and the code name the same things.
#[test]
fn the_manual_knows_every_kind_and_limit() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("man/settled-journal.5");
    let manual = std::fs::read_to_string(path).unwrap();
    for kind in 0..=u16::MAX {
        let heading = format!(".It {kind} ");
        match body::kind_name(kind) {
            Some(name) => assert!(manual.contains(&format!(".It {kind} {name}\n")), "{kind}"),
            // Tables have numbers of their own, each with a second column.
            None => assert!(
                manual
                    .lines()
                    .all(|line| !line.starts_with(&heading) || line.contains(" Ta ")),
                "{kind} is in the manual and not in the code"
            ),
        }
    }
    for number in [RECORD_MAX.to_string(), format!("version {VERSION}\n")] {
        assert!(manual.contains(&number), "{number}");
    }
}
