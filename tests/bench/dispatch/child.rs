//! Load `child`: one child per file, four at a time, against a bare inotify + posix_spawn loop.

use crate::peer::{self, Peer};
use crate::results::Results;
use crate::{Asked, Res, load_average, median, now_ns};
use std::collections::HashMap;
use std::time::Duration;

const PEERS: [&str; 3] = ["raw-spawn", "settled", "settled-tmpfs"];

#[derive(Clone, Debug)]
struct Sample {
    rate: f64,
    lost: usize,
    twice: u64,
    main_us: f64,
    others_us: f64,
}

pub(crate) fn run(asked: &Asked) -> Res<()> {
    let names: Vec<&str> = PEERS.into_iter().filter(|name| asked.wants(name)).collect();
    let mut samples: HashMap<&str, Vec<Sample>> = HashMap::new();
    let mut loads = Vec::new();
    for round in 0..asked.rounds {
        let mut order = names.clone();
        order.rotate_left(round % names.len().max(1));
        for name in order {
            eprintln!("child: round {} {name}", round + 1);
            loads.push(load_average());
            let sample = one(asked, name).map_err(|error| format!("{name}: {error}"))?;
            samples.entry(name).or_default().push(sample);
        }
    }
    println!(
        "## child: {} files of 100 bytes, one child each, 4 at once\n\n\
         | peer | files/s | x raw-spawn | lost | twice | main us/file | its others us/file |\n|---|--:|--:|--:|--:|--:|--:|",
        asked.children
    );
    for name in names {
        let own = samples.get(name).map_or(&[][..], Vec::as_slice);
        let raw = samples.get("raw-spawn").map_or(&[][..], Vec::as_slice);
        let ratios: Vec<f64> = own
            .iter()
            .zip(raw)
            .map(|(own, raw)| own.rate / raw.rate)
            .collect();
        let of = |what: fn(&Sample) -> f64| median(&own.iter().map(what).collect::<Vec<_>>());
        println!(
            "| {name} | {:.0} | {:.2} | {} | {} | {:.0} | {:.0} |",
            of(|sample| sample.rate),
            median(&ratios),
            own.iter().map(|sample| sample.lost).max().unwrap_or(0),
            own.iter().map(|sample| sample.twice).max().unwrap_or(0),
            of(|sample| sample.main_us),
            of(|sample| sample.others_us),
        );
    }
    println!("\n- load averages before each: {}\n", loads.join("; "));
    Ok(())
}

fn one(asked: &Asked, name: &str) -> Res<Sample> {
    let mut peer = Peer::new(asked, name, name == "settled-tmpfs")?;
    let mut results = Results::create(&peer.work.join("results"))?;
    if name == "raw-spawn" {
        peer.start(&[
            std::env::current_exe()?.into(),
            "__raw-spawn".into(),
            peer.root.clone().into(),
            asked.handler.clone().into(),
            results.path().into(),
        ])?;
    } else {
        let watch = format!(
            "[watch.bench]\npath = \"{}\"\nrecursive = true\nsettle = \"0s\"\nrun = [\"{}\", \"{}\", \"{{path}}\"]\nconcurrency = 4\n",
            peer.root.display(),
            asked.handler.display(),
            results.path().display(),
        );
        peer.start_settled(asked, 4, &watch)?;
    }
    ready(&peer, &mut results)?;
    let from = now_ns()?;
    peer::produce(&peer, asked.children, asked.ahead, || {
        results.poll()?;
        Ok(results.files.len())
    })?;
    peer.until(Duration::from_secs(60), || {
        crate::pause(10);
        results.poll()?;
        Ok(results.files.len() >= asked.children)
    })?;
    // The last ones' ends, and whatever is run again.
    crate::pause(500);
    results.poll()?;
    let (main, _, others) = peer.usage(&asked.handler, "");
    let took = results.last_ns.saturating_sub(from) as f64 / 1e9;
    let per_file = |ns: u64| ns as f64 / 1e3 / asked.children as f64;
    Ok(Sample {
        rate: results.files.len() as f64 / took,
        lost: asked.children - results.files.len(),
        twice: results.duplicates().0,
        main_us: per_file(main.cpu_ns),
        others_us: per_file(others.cpu_ns - main.cpu_ns.min(others.cpu_ns)),
    })
}

/// Puts a file into every directory again and again until one of each was handled.
pub(crate) fn ready(peer: &Peer, results: &mut Results) -> Res<()> {
    for number in 0..100 {
        for directory in 0..peer::DIRECTORIES {
            let name = format!("d{directory:02}/probe-{directory:02}-{number}");
            std::fs::write(peer.root.join(name), b"probe")?;
        }
        let all = peer.until(Duration::from_millis(500), || {
            results.poll()?;
            let seen = |directory: usize| {
                let stem = format!("probe-{directory:02}-");
                results.probes.keys().any(|name| name.starts_with(&stem))
            };
            Ok((0..peer::DIRECTORIES).all(seen))
        })?;
        if all {
            crate::pause(500);
            results.poll()?;
            return Ok(());
        }
    }
    Err("not ready".into())
}
