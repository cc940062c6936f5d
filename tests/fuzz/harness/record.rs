//! Record bodies and frames: whatever is read back is written as the same bytes again.

use super::input::Input;
use super::naive;
use settled::core::time::Wall;
use settled::journal::body::{self, BadBody};
use settled::journal::format::{self, Role, Seed, Stamp};
use settled::journal::storage::File;

/// A byte that says what follows: a kind and a body, choices for a record, or a frame.
pub fn record(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() % 4 {
        0 | 1 => arbitrary_body(u16::from(input.u8() % 24), input.0),
        2 => {
            let serial = input.u64();
            let record = input.record(serial);
            drawn(&record);
            let mut body = Vec::new();
            body::encode(&mut body, &record);
            // Close to a record: where a reader takes what no writer writes.
            for _ in 0..=input.u8() % 3 {
                let at = input.below(body.len());
                body[at] = input.u8() % 9;
            }
            arbitrary_body(body::kind(&record), &body);
        }
        _ => arbitrary_frame(input),
    }
}

fn arbitrary_body(kind: u16, body: &[u8]) {
    match body::decode(kind, body) {
        Ok(record) => {
            assert_eq!(body::kind(&record), kind);
            assert!(body::kind_name(kind).is_some());
            let mut again = Vec::new();
            body::encode(&mut again, &record);
            assert_eq!(again, body, "{record:?}");
        }
        Err(BadBody::Kind(other)) => {
            assert_eq!(other, kind);
            let newer_end = matches!(kind, 7 | 8 | 17 | 22) && body.iter().any(|&byte| byte > 13);
            assert!(
                newer_end || !(1..=22).contains(&kind),
                "kind {kind} is known"
            );
        }
        Err(BadBody::Fields) => assert!((1..=22).contains(&kind)),
    }
}

fn drawn(record: &settled::core::record::Record) {
    let mut body = Vec::new();
    body::encode(&mut body, record);
    assert_eq!(
        body::decode(body::kind(record), &body).as_ref(),
        Ok(record),
        "{body:?}"
    );
    // Nothing shorter and nothing longer is the same record.
    for cut in [0, body.len() / 2, body.len().saturating_sub(1)] {
        if cut < body.len() {
            assert!(body::decode(body::kind(record), &body[..cut]).is_err());
        }
    }
    body.push(0);
    assert!(body::decode(body::kind(record), &body).is_err());
}

/// A frame that is built, changed and read by both readers.
fn arbitrary_frame(mut input: Input) {
    let file = if input.flag() {
        File::Log(input.u32())
    } else {
        File::Base(input.u32())
    };
    let salt = u64::from(input.u8());
    let seed = Seed::new(file.role(), salt, file.number().unwrap_or(0));
    let start = naive::start(file, salt);
    let stamp = Stamp {
        seq: input.u64(),
        wall: Wall(input.u64().cast_signed()),
        flushed: input.u32(),
    };
    let (kind, changes) = (input.u16(), input.below(4));
    let mut places = Vec::new();
    for _ in 0..changes {
        places.push((input.u16(), input.u8()));
    }
    let resealed = input.flag();
    let mut bytes = Vec::new();
    if format::encode_raw(&mut bytes, seed, stamp, kind, input.0).is_err() {
        return;
    }
    let whole = bytes.len();
    let found = format::frame(&bytes, seed).expect("a frame that was just written");
    assert_eq!(
        (found.stamp, found.kind, found.body),
        (stamp, kind, input.0)
    );
    for (at, bits) in places {
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= bits;
    }
    if resealed {
        naive::seal(&mut bytes, 0, start);
    }
    let mine = naive::frame(&bytes, 0, start);
    let theirs = format::frame(&bytes, seed).ok();
    assert_eq!(mine.is_some(), theirs.is_some(), "{mine:?} {theirs:?}");
    if let (Some(mine), Some(theirs)) = (mine, theirs) {
        assert_eq!(
            mine.end,
            format::claimed(&bytes).expect("a length") as usize
        );
        assert!(mine.end <= whole);
        assert_eq!(mine.seq, theirs.stamp.seq);
        assert_eq!(mine.wall, theirs.stamp.wall.0);
        assert_eq!(mine.flushed, theirs.stamp.flushed);
        assert_eq!((mine.kind, mine.body), (theirs.kind, theirs.body));
        // In no other file is it a record.
        let role = match file.role() {
            Role::Log => Role::Base,
            Role::Base => Role::Log,
        };
        let elsewhere = Seed::new(role, salt, file.number().unwrap_or(0));
        assert!(format::frame(&bytes, elsewhere).is_err());
    }
    let mine = naive::head(input.0, file).is_some();
    let theirs = format::Header::decode(input.0);
    // The naive reader asks less of the fields and more of the name.
    assert!(!mine || !matches!(theirs, Err(format::BadHeader::Checksum)));
}
