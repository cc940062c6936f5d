//! Paths of settled's own inside watched trees: left out by themselves, and circles refused.

use super::error::{Problems, Spot};
use super::paths::{below, normal};
use crate::core::claim::OWN_DIR;
use crate::core::select::Verdict;
use crate::core::template::{Template, Values};
use crate::core::time::Wall;
use crate::plan::{Action, Disposition, Plan, WatchPlan};
use std::os::unix::ffi::OsStrExt;

/// The key of a delivery's target.
const DELIVER: &str = "deliver.to";

/// What brings files into another directory: a disposition, or a delivery.
struct Move<'a> {
    /// Index of its watch.
    watch: usize,
    key: &'static str,
    verb: &'static str,
    to: &'a Template,
    spot: Spot,
}

/// Where these keys of each watch were written, in the order of the plan.
pub(super) struct Places {
    pub(super) path: Spot,
    pub(super) done: Spot,
    pub(super) dead: Spot,
    pub(super) deliver: Spot,
    pub(super) output: Spot,
    pub(super) claim: Spot,
    pub(super) claim_done: Spot,
    /// Files may go round from here.
    pub(super) cycle: bool,
}

/// Fills in [`WatchPlan::excluded`], and notes watches inside the state directory and files that would
/// go round in circles.
pub(super) fn settle_own_paths(plan: &mut Plan, places: &[Places], problems: &mut Problems) {
    let state = plan.daemon.state.as_os_str().as_bytes().to_vec();
    let textfile = plan.daemon.metrics_textfile.as_ref();
    let textfile = textfile.map(|path| path.as_os_str().as_bytes().to_vec());
    let mut excluded: Vec<Vec<Vec<u8>>> = Vec::new();
    for (watch, place) in plan.watches.iter().zip(places) {
        if below(&watch.path, &state).is_some() {
            let what = format!(
                "lies in the state directory {:?}; move one of them",
                String::from_utf8_lossy(&state)
            );
            problems.add(&place.path, &section(watch), "path", what);
        }
        let mut out = Vec::new();
        for own in [Some(&state), textfile.as_ref()].into_iter().flatten() {
            if let Some(rel) = below(own, &watch.path).filter(|rel| !rel.is_empty()) {
                out.push(rel.to_vec());
            }
        }
        excluded.push(out);
    }
    outputs(plan, places, &state, &mut excluded, problems);
    claims(plan, places, &state, &mut excluded, problems);
    let moves = moves(plan, places);
    // Which watch's files come into which watch by which move.
    let mut ways: Vec<(usize, usize, usize)> = Vec::new();
    for (m, one) in moves.iter().enumerate() {
        let fixed = fixed_dir(one.to);
        if let Some(from) = plan.watches.get(one.watch)
            && one.key == DELIVER
            && below(&fixed, &state).is_some()
        {
            let what = "lies in the state directory; deliver to another";
            problems.add(&one.spot, &section(from), one.key, what);
        }
        let may_go_round = places.get(one.watch).is_some_and(|place| place.cycle);
        for (w, watch) in plan.watches.iter().enumerate() {
            let own = excluded.get_mut(w);
            match below(&fixed, &watch.path) {
                Some(rel) if !rel.is_empty() => {
                    if let Some(own) = own {
                        own.push(rel.to_vec());
                    }
                }
                _ => {
                    let from = plan.watches.get(one.watch);
                    if !may_go_round && from.is_some_and(|from| would_see(watch, from, one.to)) {
                        ways.push((one.watch, w, m));
                    }
                }
            }
        }
    }
    for (from, into, m) in &ways {
        let Some((one, watch)) = moves.get(*m).zip(plan.watches.get(*from)) else {
            continue;
        };
        if from == into {
            problems.add(
                &one.spot,
                &section(watch),
                one.key,
                format!("{} files to where this watch sees them again; name a directory of their own, with a fixed path below the watched one or elsewhere", one.verb),
            );
        } else if reaches(&ways, *into, *from) {
            let others = plan.watches.get(*into).map_or("", |w| &w.name);
            problems.add(
                &one.spot,
                &section(watch),
                one.key,
                format!("{} files into watch {others}, from where they come back: they would go round for ever; break the circle, or write cycle = true if something else ends it", one.verb),
            );
        }
    }
    for (watch, mut own) in plan.watches.iter_mut().zip(excluded) {
        own.sort();
        own.dedup();
        let all = own.clone();
        own.retain(|one| {
            let inside = |other: &Vec<u8>| below(one, other).is_some_and(|rel| !rel.is_empty());
            !all.iter().any(inside)
        });
        watch.excluded = own;
    }
}

/// Leaves the files that outputs are appended to out of the watches that have them below their roots.
fn outputs(
    plan: &Plan,
    places: &[Places],
    state: &[u8],
    excluded: &mut [Vec<Vec<u8>>],
    problems: &mut Problems,
) {
    for (from, place) in plan.watches.iter().zip(places) {
        let Some(file) = &from.output else {
            continue;
        };
        if below(file, state).is_some() {
            let what = "lies in the state directory; name a file elsewhere";
            problems.add(&place.output, &section(from), "output", what);
        }
        for (watch, own) in plan.watches.iter().zip(excluded.iter_mut()) {
            match below(file, &watch.path) {
                Some(rel) if !rel.is_empty() => own.push(rel.to_vec()),
                _ if below(&watch.path, file).is_some() => {
                    let what = format!(
                        "is a directory that watch {} needs; name a file",
                        watch.name
                    );
                    problems.add(&place.output, &section(from), "output", what);
                }
                _ => {}
            }
        }
    }
}

/// Fills in where claims are made, leaves that out of the watches that have it below their roots, and notes dispositions
/// that would let another machine work on a file again.
fn claims(
    plan: &mut Plan,
    places: &[Places],
    state: &[u8],
    excluded: &mut [Vec<Vec<u8>>],
    problems: &mut Problems,
) {
    for (watch, place) in plan.watches.iter().zip(places) {
        let Some(claim) = &watch.claim else {
            continue;
        };
        if claim.marks {
            marks(plan, watch, &claim.dir, place, state, excluded, problems);
        } else {
            for (key, disposition, spot) in [
                ("done", &watch.done, &place.done),
                ("dead", &watch.dead, &place.dead),
            ] {
                let spot = if *disposition == Disposition::Keep {
                    &place.claim
                } else {
                    spot
                };
                if let Some(what) = stays(watch, disposition) {
                    let what = format!(
                        "{what}, and with claim = \"lock\" another machine would run it again; write {key} = \"delete\" or \
                         {key} = {{ move = \"/DIR\" }}, or name a directory on the share for marks with claim_done"
                    );
                    problems.add(spot, &section(watch), key, what);
                }
            }
        }
    }
    for watch in &mut plan.watches {
        if let Some(claim) = &mut watch.claim {
            claim.slots = join(state, b"slots");
            if !claim.marks {
                claim.dir = join(&watch.path, OWN_DIR);
            }
        }
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if dir.ends_with(b"/") { b"" } else { b"/" };
    [dir, slash, name].concat()
}

fn marks(
    plan: &Plan,
    of: &WatchPlan,
    dir: &[u8],
    place: &Places,
    state: &[u8],
    excluded: &mut [Vec<Vec<u8>>],
    problems: &mut Problems,
) {
    if below(dir, state).is_some() {
        let what = "lies in the state directory, where no other machine looks; name a directory on the share";
        problems.add(&place.claim_done, &section(of), "claim_done", what);
    }
    for (watch, own) in plan.watches.iter().zip(excluded.iter_mut()) {
        match below(dir, &watch.path) {
            Some(rel) if !rel.is_empty() => own.push(rel.to_vec()),
            _ if below(&watch.path, dir).is_some() => {
                let what = format!(
                    "is a directory that watch {} needs; name one of its own",
                    watch.name
                );
                problems.add(&place.claim_done, &section(of), "claim_done", what);
            }
            _ => {}
        }
    }
}

/// Why a file is where its own watch sees it after this, if it is.
fn stays(watch: &WatchPlan, disposition: &Disposition) -> Option<&'static str> {
    match disposition {
        Disposition::Keep => Some("keeps the file"),
        Disposition::Delete => None,
        Disposition::Move { to, .. } => {
            let inside = below(&fixed_dir(to), &watch.path).is_some_and(|rel| !rel.is_empty());
            (!inside && would_see(watch, watch, to))
                .then_some("moves files to where this watch sees them again")
        }
    }
}

fn section(watch: &WatchPlan) -> String {
    format!("watch.{}", watch.name)
}

fn moves<'a>(plan: &'a Plan, places: &[Places]) -> Vec<Move<'a>> {
    let mut moves = Vec::new();
    for (n, (watch, place)) in plan.watches.iter().zip(places).enumerate() {
        if let Action::Deliver(deliver) = &watch.action {
            moves.push(Move {
                watch: n,
                key: DELIVER,
                verb: "delivers",
                to: &deliver.to,
                spot: place.deliver.clone(),
            });
        }
        for (key, disposition, spot) in [
            ("done", &watch.done, &place.done),
            ("dead", &watch.dead, &place.dead),
        ] {
            if let Disposition::Move { to, .. } = disposition {
                moves.push(Move {
                    watch: n,
                    key,
                    verb: "moves",
                    to,
                    spot: spot.clone(),
                });
            }
        }
    }
    moves
}

/// The directory that a target's own text names, whatever its fields are; `/` if none.
pub(crate) fn fixed_dir(to: &Template) -> Vec<u8> {
    let prefix = to.fixed_prefix().as_bytes();
    let whole = if to.is_fixed() {
        prefix
    } else {
        let end = prefix.iter().rposition(|&b| b == b'/').unwrap_or(0);
        prefix.get(..end).unwrap_or_default()
    };
    // A target is absolute and has no `..`, which was checked when it was read: only a prefix that is
    // empty gives no path.
    normal(whole).unwrap_or_else(|_| b"/".to_vec())
}

/// Whether `watch` would see a file that `from` moved to `to`, judged by examples: one file in the
/// root of `from` and, where there can be one, one in a directory below.
fn would_see(watch: &WatchPlan, from: &WatchPlan, to: &Template) -> bool {
    let examples: &[&[u8]] = if from.recursive {
        &[b"sample.dat", b"sample/below/sample.dat"]
    } else {
        &[b"sample.dat"]
    };
    examples.iter().any(|rel| {
        let mut path = from.path.clone();
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(rel);
        let dir = to.expand_dir(&Values {
            path: &path,
            rel,
            watch: &from.name,
            key: b"sample",
            size: 1,
            mtime: Wall(0),
            date: "2000-01-01",
            job: "sample",
            attempt: 1,
        });
        match below(&dir, &watch.path) {
            None => false,
            Some(b"") => true,
            Some(inner) => watch.recursive && entered(watch, inner),
        }
    })
}

/// Whether every directory on the way to `rel` is entered.
fn entered(watch: &WatchPlan, rel: &[u8]) -> bool {
    let ends = rel
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'/')
        .map(|(at, _)| at);
    ends.chain([rel.len()])
        .filter_map(|end| rel.get(..end))
        .all(|dir| watch.select.enter(dir) == Verdict::Yes)
}

/// Whether files of watch `from` come into watch `to` over any number of moves.
fn reaches(ways: &[(usize, usize, usize)], from: usize, to: usize) -> bool {
    let mut seen = vec![from];
    let mut at = 0;
    while let Some(&here) = seen.get(at) {
        if here == to {
            return true;
        }
        for (_, next, _) in ways.iter().filter(|(start, ..)| *start == here) {
            if !seen.contains(next) {
                seen.push(*next);
            }
        }
        at += 1;
    }
    false
}
