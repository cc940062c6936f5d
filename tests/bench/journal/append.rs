//! The journal against two plain programs, with the same number of bytes a batch: one that appends to a file that grows,
//! and one that writes over a file that was written before, which no journal can do but where it has old files to
//! write over.

use crate::journal_support::{SETTLED_BYTES, settled as record};
use crate::{Asked, Res, load, median};
use settled::core::time::Wall;
use settled::journal::segment::{Disk, DiskJournal};
use settled::journal::{Journal, Options};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// As long as a segment.
const LENGTH: usize = 4 * 1024 * 1024;
/// The daemon compacts when this much lies beyond what is live; here nothing is.
const COMPACT_BYTES: u64 = 16 * 1024 * 1024;

enum Contender {
    Journal(Box<Journal<Disk>>, u64),
    Growing(File, u64),
    Over(File, usize),
}

impl Contender {
    fn name(&self) -> &'static str {
        match self {
            Contender::Journal(..) => "the journal",
            Contender::Growing(..) => "plain, appends",
            Contender::Over(..) => "plain, writes over",
        }
    }

    fn batch(&mut self, records: usize) -> Res<()> {
        match self {
            Contender::Journal(journal, number) => {
                for _ in 0..records {
                    *number += 1;
                    journal.append(Wall(1), &record(*number))?;
                }
                journal.flush()?;
                if journal.total_bytes() > journal.live_bytes() + COMPACT_BYTES {
                    journal.compact_begin(Wall(1))?;
                    journal.compact_commit()?;
                }
            }
            Contender::Growing(file, at) => {
                let bytes = vec![1; records * SETTLED_BYTES];
                file.write_all_at(&bytes, *at)?;
                file.sync_data()?;
                *at += bytes.len() as u64;
            }
            Contender::Over(file, at) => {
                let bytes = vec![1; records * SETTLED_BYTES];
                if *at + bytes.len() > LENGTH {
                    *at = 0;
                }
                file.write_all_at(&bytes, *at as u64)?;
                file.sync_data()?;
                *at += bytes.len();
            }
        }
        Ok(())
    }
}

fn contenders(dir: &Path) -> Res<Vec<Contender>> {
    let file = |name: &str| {
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.join(name))
    };
    let opened = DiskJournal::open(&dir.join("state"), &Options::default(), true)?;
    let (journal, _) = opened.replay(|_, _| ())?;
    let over = file("over")?;
    over.write_all_at(&vec![0; LENGTH], 0)?;
    over.sync_all()?;
    Ok(vec![
        Contender::Journal(Box::new(journal), 0),
        Contender::Growing(file("growing")?, 0),
        Contender::Over(over, 0),
    ])
}

/// The figures of one size of batch.
pub(crate) fn run(asked: &Asked) -> Res<()> {
    let rounds = asked.rounds.unwrap_or(15);
    println!(
        "append and flush; {SETTLED_BYTES} bytes a record; {}",
        load()?
    );
    println!(
        "rates are medians of {rounds} rounds, and so are the journal's ratios (lowest and highest round)"
    );
    for (records, batches) in [(1, 60), (16, 60), (64, 60), (1024, 120)] {
        let dir = tempfile::tempdir_in(&asked.dir)?;
        let mut all = contenders(dir.path())?;
        let mut took: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
        let mut flushes: Vec<Vec<Duration>> = vec![Vec::new(); all.len()];
        // A block each in turn: long enough that each bears the cost of what it leaves to be done later, short
        // enough that whatever else the machine does hits all. The first round warms up.
        for round in 0..=rounds {
            for turn in 0..all.len() {
                let at = (turn + round) % all.len();
                let begun = Instant::now();
                for _ in 0..batches {
                    let before = Instant::now();
                    all[at].batch(records)?;
                    if round > 0 {
                        flushes[at].push(before.elapsed());
                    }
                }
                if round > 0 {
                    took[at].push(begun.elapsed().as_secs_f64());
                }
            }
        }
        println!(
            "{records} records a flush, {} bytes",
            records * SETTLED_BYTES
        );
        let journal = took[0].clone();
        for ((contender, took), flushes) in all.iter().zip(&mut took).zip(&mut flushes) {
            let mut ratios: Vec<f64> = took.iter().zip(&journal).map(|(a, b)| a / b).collect();
            flushes.sort_unstable();
            let of = |part: usize| flushes[flushes.len() * part / 1000];
            let ratio = median(&mut ratios);
            println!(
                "  {:20} {:9.0} records/s; p50 {:7.0?} p99 {:7.0?} p99.9 {:7.0?}{}",
                contender.name(),
                (records * batches) as f64 / median(took),
                of(500),
                of(990),
                of(999),
                match contender {
                    Contender::Journal(..) => String::new(),
                    _ => format!(
                        "; the journal reaches {ratio:.2} of it ({:.2}-{:.2})",
                        ratios.first().unwrap_or(&0.0),
                        ratios.last().unwrap_or(&0.0)
                    ),
                },
            );
        }
    }
    println!("{}", load()?);
    Ok(())
}
