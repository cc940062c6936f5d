//! Recovery of a directory that a script wrote and that was damaged then, judged by the promises:
//! what was flushed and can be read is given back, in order; what is missing below the highest offset known
//! flushed is reported; a torn tail is cut; and after an open that succeeds nothing more is found.

use super::damage::Image;
use super::history::{History, Records, SALT, open, open_later, options, state_of};
use super::input::Input;
use super::naive;
use crate::journal_support::{Memory, numbered};
use settled::core::Core;
use settled::core::record::Record;
use settled::core::time::{Mono, Now, Wall};
use settled::journal::error::Why;
use settled::journal::storage::File;
use settled::journal::{Journal, JournalError, OnDamage, Opened, Report, body};
use settled::plan::Plan;

/// Where the damage begins in what is given, the script, the damage.
pub fn recovery(data: &[u8], plan: &Plan) {
    let mut input = Input(data);
    let (seed, power) = (u64::from(input.u8()), input.flag());
    let damage = usize::from(input.u8());
    let script = input.0.len().saturating_sub(damage);
    let mut history = History::new(seed);
    history.run(&mut Input(input.take(script)), 400);
    history.end(power);
    let before = Image::of(&history.memory);
    let (_, _, found) =
        open(before.memory(seed), OnDamage::Stop).expect("a journal that nobody damaged");
    history.expect(&found);
    let truth = truth(&before);
    let read = truth.iter().map(|entry| entry.content.clone());
    assert_eq!(
        read.collect::<Records>(),
        found,
        "the plain reader reads otherwise"
    );

    let mut after = before.clone();
    after.damage(&mut input, SALT);
    let returned = judge(&before, &after, &truth, seed);
    if let Some(returned) = returned {
        replay(&returned, plan);
    }
}

/// A record that counts, and where it lies.
struct Entry {
    file: File,
    at: usize,
    end: usize,
    flushed: u32,
    content: (Wall, Record),
}

/// What an undamaged directory holds.
fn truth(image: &Image) -> Vec<Entry> {
    let files = image.counted();
    let head = |file: &File| naive::head(&image.files[file], *file).expect("a good header");
    let mut out = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let bytes = &image.files[file];
        let start = naive::start(*file, SALT);
        let chain = match file {
            File::Base(_) => naive::chain(bytes, start, 1, u64::MAX),
            _ => {
                let before = files
                    .get(n + 1)
                    .map_or(u64::MAX, |next| head(next).first_seq);
                naive::chain(bytes, start, head(file).first_seq, before)
            }
        };
        for frame in chain {
            if frame.kind == 0x8001 {
                continue;
            }
            let record = body::decode(frame.kind, frame.body).expect("a record");
            out.push(Entry {
                file: *file,
                at: frame.at,
                end: frame.end,
                flushed: frame.flushed,
                content: (Wall(frame.wall), record),
            });
        }
    }
    out
}

/// Opens the damaged directory in both ways. What came back, unless it is refused.
fn judge(before: &Image, after: &Image, truth: &[Entry], seed: u64) -> Option<Records> {
    let plain = plain(before, after);
    let memory = after.memory(seed);
    let (journal, report, returned) = match open_later(memory.clone(), OnDamage::Continue) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!plain && may_refuse(&error), "{error}");
            return None;
        }
    };
    if std::env::var_os("FUZZ_STORY").is_some() {
        story(before, after, truth, &report, &returned);
    }
    stop_agrees(after, &report, &returned, seed);
    if plain {
        given_back(before, after, truth, &report, &returned);
    }
    opens_again(memory, journal, &report, &returned, plain);
    Some(returned)
}

/// Newer programs' files, and numbers that are used up, are refused.
fn may_refuse(error: &JournalError) -> bool {
    match error {
        JournalError::Newer { .. } | JournalError::UnknownKind { .. } => true,
        JournalError::Storage(fault) => fault.act == "number a segment after",
        _ => false,
    }
}

/// Nothing in the damaged files can be taken for a record or a header that the journal did not write there; and
/// the base is still the newest. Only then can it be said what must come back.
fn plain(before: &Image, after: &Image) -> bool {
    let base = |image: &Image| {
        image
            .counted()
            .first()
            .copied()
            .filter(|f| matches!(f, File::Base(_)))
    };
    let forged = after.files.iter().any(|(file, bytes)| {
        if file.number().is_none() {
            return false;
        }
        let Some(old) = before.files.get(file) else {
            return true;
        };
        let start = naive::start(*file, SALT);
        let head_forged = bytes.len() >= 64
            && bytes[..64] != old[..64.min(old.len())]
            && bytes.starts_with(b"SETTLEDJ")
            && naive::u32_at(bytes, 60) == naive::crc32c(0, &bytes[..60]);
        head_forged
            || naive::frames(bytes, start)
                .iter()
                .any(|frame| old.get(frame.at..frame.end) != Some(&bytes[frame.at..frame.end]))
    });
    !forged && base(before) == base(after)
}

/// `Stop` reports the same damage and leaves everything as it is, or finds the same.
fn stop_agrees(after: &Image, report: &Report, returned: &Records, seed: u64) {
    let memory = after.memory(seed);
    match open_later(memory.clone(), OnDamage::Stop) {
        Ok((_, stopped, found)) => {
            assert_eq!(report.damage, []);
            assert_eq!((&stopped, &found), (report, returned));
        }
        Err(JournalError::Damaged(damage)) => {
            assert!(!damage.is_empty());
            assert_eq!(damage, report.damage);
            let left = Image {
                unreadable: after.unreadable,
                ..Image::of(&memory)
            };
            assert!(left == *after, "a journal that was refused was changed");
        }
        Err(error) => panic!("{error} with Stop only"),
    }
}

fn given_back(before: &Image, after: &Image, truth: &[Entry], report: &Report, returned: &Records) {
    let files = after.counted();
    let place = |file: File| files.iter().position(|other| *other == file);
    let header = |file: File| after.as_in(before, file, 0, naive::HEADER);
    let salted = files.iter().any(|file| header(*file));
    let whole = |entry: &Entry| after.as_in(before, entry.file, entry.at, entry.end);

    // Up to where each segment is known flushed by what can still be read.
    let known = |file: File| {
        let own = before
            .files
            .get(&file)
            .and_then(|bytes| naive::head(bytes, file));
        let own = own.filter(|_| header(file)).map_or(64, |head| head.flushed);
        let entries = truth.iter().filter(|entry| entry.file == file);
        let told = entries
            .filter(|entry| whole(entry))
            .map(|entry| entry.flushed);
        told.max().unwrap_or(0).max(own) as usize
    };

    let (mut rest, mut lost) = (returned.as_slice(), Vec::new());
    let mut chained = None;
    for entry in truth {
        // What a recovery copied is found at either place.
        let back = rest.first() == Some(&entry.content);
        if back {
            rest = &rest[1..];
        }
        let Some(n) = place(entry.file) else {
            if !back {
                lost.push((entry, "its file"));
            }
            continue;
        };
        // Every record of the file before this one can be read.
        let unbroken = match chained {
            Some((file, unbroken)) if file == entry.file => unbroken && whole(entry),
            _ => whole(entry),
        };
        chained = Some((entry.file, unbroken));
        let follower = files
            .get(n + 1)
            .filter(|_| !matches!(entry.file, File::Base(_)));
        // Without its header a segment begins wherever the one before it ended; if that one was damaged, the
        // search for its next record may find a copy of one of these, and those before that are counted as lost.
        let begins = header(entry.file) || lost.is_empty();
        let certain = salted
            && begins
            && whole(entry)
            && (matches!(entry.file, File::Base(_))
                || follower.is_some_and(|next| header(*next))
                || unbroken
                || entry.at < known(entry.file));
        if !back {
            assert!(
                !certain,
                "{} at {} can be read and was not given back: {:?}, files {files:?}, known {}",
                entry.file,
                entry.at,
                report.damage,
                known(entry.file)
            );
            lost.push((entry, "its place"));
        }
    }
    assert_eq!(
        rest.len(),
        0,
        "given back and never written, or out of order"
    );

    for (entry, what) in lost {
        let later = files.iter().any(|file| {
            file.number() > entry.file.number()
                || (file.number() == entry.file.number() && *file < entry.file)
        });
        let last = !later && !matches!(entry.file, File::Base(_));
        // The last segments of all leave nothing behind that would miss them.
        let silent = last && (what == "its file" || entry.at >= known(entry.file));
        assert!(
            silent || !report.damage.is_empty(),
            "{} at {} was flushed, {what} is damaged, and nothing was reported",
            entry.file,
            entry.at
        );
    }
    for file in &files {
        let Some(old) = before
            .files
            .get(file)
            .filter(|_| matches!(file, File::Base(_)))
        else {
            continue;
        };
        let frames = naive::frames(old, naive::start(*file, SALT));
        let end = frames.iter().find(|frame| frame.kind == 0x8001);
        let end = end.expect("a base ends");
        assert!(
            after.as_in(before, *file, end.at, end.end) || !report.damage.is_empty(),
            "a base without its end is taken for whole"
        );
    }
    only_the_tail(before, after, report, known);
}

/// For a person who looks into one input.
fn story(before: &Image, after: &Image, truth: &[Entry], report: &Report, returned: &Records) {
    for (name, image) in [("before", before), ("after", after)] {
        for (file, bytes) in &image.files {
            let head = naive::head(bytes, *file);
            eprintln!("{name} {file}: {} bytes, {head:?}", bytes.len());
            for frame in naive::frames(bytes, naive::start(*file, SALT)) {
                let (at, seq, wall, flushed) = (frame.at, frame.seq, frame.wall, frame.flushed);
                eprintln!(
                    "    {at}..{} seq {seq} wall {wall} flushed {flushed}",
                    frame.end
                );
            }
        }
    }
    eprintln!("unreadable {:?}, {report:?}", after.unreadable);
    let walls: Vec<i64> = returned.iter().map(|(wall, _)| wall.0).collect();
    eprintln!("returned {walls:?}");
    let walls: Vec<_> = truth.iter().map(|entry| entry.content.0.0).collect();
    eprintln!("written {walls:?}");
}

/// Where nothing but what was never known flushed is damaged, it is cut and nobody is alarmed.
fn only_the_tail(before: &Image, after: &Image, report: &Report, known: impl Fn(File) -> usize) {
    let files = before.counted();
    let Some((last, others)) = files.split_last() else {
        return;
    };
    let same = |file: &File| {
        let bytes = before.files.get(file).map_or(0, Vec::len);
        after.files.get(file).map(Vec::len) == Some(bytes) && after.as_in(before, *file, 0, bytes)
    };
    let sure = known(*last);
    let told = naive::frames(&before.files[last], naive::start(*last, SALT));
    let told = told.iter().map(|frame| frame.flushed as usize).max();
    let sure = sure.max(told.unwrap_or(0));
    if others.iter().all(same)
        && after.counted() == files
        && after.as_in(before, *last, 0, sure)
        && matches!(last, File::Log(_))
    {
        assert_eq!(report.damage, [], "known flushed up to {sure}");
    }
}

/// After an open that succeeds the next one finds the same, whatever became of the machine's memory; and after
/// a compaction the damage is history. Where records were moved about, the next one may find more of them.
fn opens_again(
    memory: Memory,
    journal: Journal<Memory>,
    report: &Report,
    returned: &Records,
    plain: bool,
) {
    drop(journal);
    memory.power_cut();
    let (mut journal, second, again) =
        open_later(memory.clone(), OnDamage::Continue).expect("what was open before");
    if plain || report.damage.is_empty() {
        assert_eq!(again, *returned, "{:?} then {:?}", report, second);
        for place in &second.damage {
            // A gap between files may be told of either.
            let known = report.damage.iter().any(|known| {
                known.file == place.file || known.missing > 0 && place.why == Why::Missing
            });
            assert!(known, "{:?} then {:?}", report.damage, second.damage);
        }
    }

    let more = (Wall(-1), numbered(u64::MAX));
    journal.append(more.0, &more.1).expect("room");
    journal.flush().expect("a flush");
    drop(journal);
    memory.power_cut();
    let (mut journal, _, found) =
        open_later(memory.clone(), OnDamage::Continue).expect("what was open before");
    let (last, others) = found.split_last().expect("what was appended");
    assert_eq!((others, last), (again.as_slice(), &more));

    let state = state_of(&found);
    journal.compact_begin(Wall(-2)).expect("a compaction");
    journal.compact_copy(state.iter().cloned()).expect("a base");
    journal.compact_switch().expect("a switch");
    drop(journal);
    memory.power_cut();
    let opened = Opened::new(memory, options(OnDamage::Stop)).expect("a compacted journal");
    let mut after = Vec::new();
    let (_, report) = opened
        .replay(|_, record| after.push(record))
        .expect("no damage after a compaction");
    assert_eq!((report.damage, after), (vec![], state));
}

/// The core takes whatever a recovery gives it, and its own state back.
pub fn replay(records: &Records, plan: &Plan) {
    let mut core = Core::new(plan.clone(), 7);
    for (at, record) in records {
        core.replay(*at, record.clone());
    }
    let now = Now {
        mono: Mono(1),
        wall: Wall(1_000_000_000),
        utc_offset_s: 0,
    };
    let snapshot: Vec<Record> = core.snapshot().collect();
    core.start(now, Vec::new());
    core.due(now);
    assert!(!core.effects().is_empty() || plan.watches.is_empty());
    let mut again = Core::new(plan.clone(), 7);
    for record in snapshot {
        again.replay(Wall(0), record);
    }
    again.start(now, Vec::new());
}
