//! `[watch.NAME]` and `[defaults]`: the keys, their defaults, and what must fit together.

mod act;
mod deliver;
mod dispatch;
mod fit;
mod process;

pub(crate) use dispatch::{ON_DEAD, parse_rate};
pub(super) use process::group;
pub(crate) use process::{limit_is_above_own, show_ionice, show_limit};

use super::alert::expect;
use super::error::{At, Problems, Spot};
use super::read::{Reader, Value};
use super::values::{
    BACKOFF, Environment, backoff, command, disposition, environment, fill, former, globs,
    key_template, output, span,
};
use crate::core::template::Template;
use crate::plan::{
    Action, Backoff, ClaimPlan, DeliverPlan, Delivery, Disposition, Existing, ExpectPlan, Observe,
    OnChange, OnCtime, OnDead, Order, Orphans, ProcessPlan, Rate, WatchPlan,
};
use act::{Batch, Kind};
use dispatch::{CLAIM, DELIVERY, MOST_TOGETHER, ORPHANS, RawBatch};
use fit::Notes;
use process::{RawUser, octal};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use toml::de::DeTable;

/// Every key of a watch.
pub(super) const KEYS: [&str; 57] = [
    "path",
    "recursive",
    "include",
    "exclude",
    "ignore_case",
    "builtin_excludes",
    "min_size",
    "max_size",
    "min_age",
    "ignore_older",
    "settle",
    "exported",
    "flock",
    "observe",
    "poll",
    "existing",
    "on_ctime",
    "on_change",
    "formerly",
    "run",
    "key",
    "serial",
    "order",
    "env",
    "cwd",
    "concurrency",
    "timeout",
    "kill_after",
    "attempts",
    "backoff",
    "done",
    "dead",
    "worker",
    "workers",
    "window",
    "ready",
    "deliver",
    "cycle",
    "batch",
    "key_concurrency",
    "on_dead",
    "rate",
    "user",
    "group",
    "umask",
    "nice",
    "ionice",
    "limits",
    "output",
    "orphans",
    "delivery",
    "permanent",
    "temporary",
    "max_age",
    "claim",
    "claim_done",
    "expect",
];

/// Keys of the design that this version does not have.
pub(super) const TO_COME: [&str; 7] = [
    "dedup",
    "duplicate",
    "invalid",
    "marker",
    "on_new_dir",
    "set",
    "verify",
];

/// What a watch does without being told.
pub(super) const POLL: Duration = Duration::from_secs(1);
const KILL_AFTER: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 5;

/// Shortest time for a worker to say that it is ready: less would never be met.
const SHORTEST_READY: Duration = Duration::from_millis(10);
/// Shortest interval of listings: less would be a busy loop.
pub(crate) const SHORTEST_POLL: Duration = Duration::from_millis(10);
/// Most children at once.
pub(crate) const MOST_CHILDREN: u32 = 10_000;
/// Most attempts.
pub(crate) const MOST_ATTEMPTS: u32 = 1_000_000;

/// The words of `observe`.
pub(crate) const OBSERVE: [(&str, Observe); 4] = [
    ("auto", Observe::Auto),
    ("inotify", Observe::Inotify),
    ("poll", Observe::Poll),
    ("both", Observe::Both),
];
/// The words of `existing`.
pub(crate) const EXISTING: [(&str, Existing); 2] =
    [("run", Existing::Run), ("skip", Existing::Skip)];
/// The words of `order`.
pub(crate) const ORDER: [(&str, Order); 3] = [
    ("arrival", Order::Arrival),
    ("name", Order::Name),
    ("mtime", Order::Mtime),
];
const ON_CTIME: [(&str, OnCtime); 2] = [("ignore", OnCtime::Ignore), ("run", OnCtime::Run)];
const ON_CHANGE: [(&str, OnChange); 2] = [("run", OnChange::Run), ("accept", OnChange::Accept)];

/// The keys of one block as they were written; what was not is `None`.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawWatch {
    /// Keys that were there, but wrong: not to be called missing.
    pub(crate) bad: BTreeSet<String>,
    pub(crate) path: Option<At<Vec<u8>>>,
    pub(crate) recursive: Option<At<bool>>,
    pub(crate) include: Option<At<Vec<At<String>>>>,
    pub(crate) exclude: Option<At<Vec<At<String>>>>,
    pub(crate) ignore_case: Option<At<bool>>,
    pub(crate) builtin_excludes: Option<At<bool>>,
    pub(crate) min_size: Option<At<u64>>,
    pub(crate) max_size: Option<At<u64>>,
    pub(crate) min_age: Option<At<Duration>>,
    pub(crate) ignore_older: Option<At<Duration>>,
    pub(crate) settle: Option<At<Duration>>,
    pub(crate) exported: Option<At<bool>>,
    pub(crate) flock: Option<At<bool>>,
    pub(crate) observe: Option<At<Observe>>,
    pub(crate) poll: Option<At<Duration>>,
    pub(crate) existing: Option<At<Existing>>,
    pub(crate) on_ctime: Option<At<OnCtime>>,
    pub(crate) on_change: Option<At<OnChange>>,
    pub(crate) formerly: Option<At<String>>,
    pub(crate) run: Option<At<Vec<At<Template>>>>,
    pub(crate) key: Option<At<Template>>,
    pub(crate) serial: Option<At<bool>>,
    pub(crate) order: Option<At<Order>>,
    pub(crate) env: Option<At<Environment>>,
    pub(crate) cwd: Option<At<Vec<u8>>>,
    pub(crate) concurrency: Option<At<u32>>,
    pub(crate) timeout: Option<At<Duration>>,
    pub(crate) kill_after: Option<At<Duration>>,
    pub(crate) attempts: Option<At<u32>>,
    pub(crate) backoff: Option<At<Backoff>>,
    pub(crate) done: Option<At<Disposition>>,
    pub(crate) dead: Option<At<Disposition>>,
    pub(crate) worker: Option<At<Vec<At<Template>>>>,
    pub(crate) workers: Option<At<u32>>,
    pub(crate) window: Option<At<u32>>,
    pub(crate) ready: Option<At<Duration>>,
    pub(crate) deliver: Option<At<DeliverPlan>>,
    pub(crate) cycle: Option<At<bool>>,
    pub(crate) batch: Option<At<RawBatch>>,
    pub(crate) key_concurrency: Option<At<u32>>,
    pub(crate) on_dead: Option<At<OnDead>>,
    pub(crate) rate: Option<At<Rate>>,
    pub(crate) user: Option<At<RawUser>>,
    pub(crate) group: Option<At<u32>>,
    pub(crate) umask: Option<At<u32>>,
    pub(crate) nice: Option<At<i32>>,
    pub(crate) ionice: Option<At<u16>>,
    pub(crate) limits: Option<At<Vec<(u32, u64)>>>,
    pub(crate) output: Option<At<Vec<u8>>>,
    pub(crate) orphans: Option<At<Orphans>>,
    pub(crate) delivery: Option<At<Delivery>>,
    pub(crate) permanent: Option<At<Vec<i32>>>,
    pub(crate) temporary: Option<At<Vec<i32>>>,
    pub(crate) max_age: Option<At<Duration>>,
    pub(crate) claim: Option<At<bool>>,
    pub(crate) claim_done: Option<At<Vec<u8>>>,
    pub(crate) expect: Option<At<ExpectPlan>>,
}

impl RawWatch {
    /// Reads a block.
    pub(super) fn read(reader: &mut Reader, table: &DeTable) -> RawWatch {
        let mut raw = RawWatch::default();
        for (key, value) in table {
            let name: &str = key.get_ref();
            let good = match name {
                "path" => fill(&mut raw.path, reader.path(name, value)),
                "recursive" => fill(&mut raw.recursive, reader.flag(name, value)),
                "include" => fill(&mut raw.include, globs(reader, name, value)),
                "exclude" => fill(&mut raw.exclude, globs(reader, name, value)),
                "ignore_case" => fill(&mut raw.ignore_case, reader.flag(name, value)),
                "builtin_excludes" => fill(&mut raw.builtin_excludes, reader.flag(name, value)),
                "min_size" => fill(&mut raw.min_size, reader.size(name, value)),
                "max_size" => fill(&mut raw.max_size, reader.size(name, value)),
                "min_age" => fill(&mut raw.min_age, span(reader, name, value)),
                "ignore_older" => fill(&mut raw.ignore_older, span(reader, name, value)),
                "settle" => fill(&mut raw.settle, span(reader, name, value)),
                "exported" => fill(&mut raw.exported, reader.flag(name, value)),
                "flock" => fill(&mut raw.flock, reader.flag(name, value)),
                "observe" => fill(&mut raw.observe, reader.choice(name, value, &OBSERVE)),
                "poll" => fill(&mut raw.poll, reader.duration(name, value, SHORTEST_POLL)),
                "existing" => fill(&mut raw.existing, reader.choice(name, value, &EXISTING)),
                "on_ctime" => fill(&mut raw.on_ctime, reader.choice(name, value, &ON_CTIME)),
                "on_change" => fill(&mut raw.on_change, reader.choice(name, value, &ON_CHANGE)),
                "formerly" => fill(&mut raw.formerly, former(reader, name, value)),
                "run" => fill(&mut raw.run, command(reader, name, value)),
                "key" => fill(&mut raw.key, key_template(reader, name, value)),
                "serial" => fill(&mut raw.serial, reader.flag(name, value)),
                "order" => fill(&mut raw.order, reader.choice(name, value, &ORDER)),
                "env" => fill(&mut raw.env, environment(reader, name, value)),
                "cwd" => fill(&mut raw.cwd, reader.path(name, value)),
                "concurrency" => fill(
                    &mut raw.concurrency,
                    reader.count(name, value, MOST_CHILDREN),
                ),
                "timeout" => fill(&mut raw.timeout, span(reader, name, value)),
                "kill_after" => fill(&mut raw.kill_after, span(reader, name, value)),
                "attempts" => fill(&mut raw.attempts, reader.count(name, value, MOST_ATTEMPTS)),
                "backoff" => fill(&mut raw.backoff, backoff(reader, name, value)),
                "done" => fill(&mut raw.done, disposition(reader, name, value)),
                "dead" => fill(&mut raw.dead, disposition(reader, name, value)),
                _ => match raw.read_dispatch(reader, name, value) {
                    Some(good) => good,
                    None => {
                        reader.unknown(key, &KEYS, &TO_COME);
                        false
                    }
                },
            };
            if !good {
                raw.bad.insert(name.to_owned());
            }
        }
        raw
    }

    /// Reads one of the keys about what is done with a file; `None` if it is none of them.
    fn read_dispatch(&mut self, reader: &mut Reader, name: &str, value: &Value) -> Option<bool> {
        Some(match name {
            "worker" => fill(&mut self.worker, command(reader, name, value)),
            "workers" => fill(&mut self.workers, reader.count(name, value, MOST_CHILDREN)),
            "window" => fill(&mut self.window, reader.count(name, value, MOST_TOGETHER)),
            "ready" => fill(
                &mut self.ready,
                reader.duration(name, value, SHORTEST_READY),
            ),
            "deliver" => fill(&mut self.deliver, deliver::deliver(reader, name, value)),
            "cycle" => fill(&mut self.cycle, reader.flag(name, value)),
            "batch" => fill(&mut self.batch, dispatch::batch(reader, name, value)),
            "key_concurrency" => fill(
                &mut self.key_concurrency,
                reader.count(name, value, MOST_CHILDREN),
            ),
            "on_dead" => fill(&mut self.on_dead, reader.choice(name, value, &ON_DEAD)),
            "rate" => fill(&mut self.rate, dispatch::rate(reader, name, value)),
            "user" => fill(&mut self.user, process::user(reader, name, value)),
            "group" => fill(&mut self.group, process::group(reader, name, value)),
            "umask" => fill(&mut self.umask, octal(reader, name, value, "\"027\"")),
            "nice" => fill(&mut self.nice, reader.number(name, value, -20, 19)),
            "ionice" => fill(&mut self.ionice, process::ionice(reader, name, value)),
            "limits" => fill(&mut self.limits, process::limits(reader, name, value)),
            "output" => fill(&mut self.output, output(reader, name, value)),
            "orphans" => fill(&mut self.orphans, reader.choice(name, value, &ORPHANS)),
            "delivery" => fill(&mut self.delivery, reader.choice(name, value, &DELIVERY)),
            "permanent" => fill(&mut self.permanent, dispatch::codes(reader, name, value)),
            "temporary" => fill(&mut self.temporary, dispatch::codes(reader, name, value)),
            "max_age" => fill(&mut self.max_age, span(reader, name, value)),
            "claim" => fill(&mut self.claim, reader.choice(name, value, &CLAIM)),
            "claim_done" => fill(&mut self.claim_done, reader.path(name, value)),
            "expect" => fill(&mut self.expect, expect(reader, name, value)),
            _ => return None,
        })
    }

    /// The whole watch: what this block does not say, `defaults` does. `None` if something is missing
    /// or does not fit; that is noted.
    pub(crate) fn finish(
        self,
        name: &str,
        block: &Spot,
        defaults: &RawWatch,
        concurrency: u32,
        problems: &mut Problems,
    ) -> Option<WatchPlan> {
        let section = format!("watch.{}", name.escape_debug());
        let mut notes = Notes {
            problems,
            section: &section,
            wrong: false,
        };
        macro_rules! or_default {
            ($($key:ident)*) => { $(let $key = self.$key.as_ref().or(defaults.$key.as_ref());)* };
        }
        or_default!(path recursive include exclude ignore_case builtin_excludes min_size max_size
            min_age ignore_older settle exported flock observe poll existing on_ctime on_change formerly run
            key order env cwd timeout kill_after attempts backoff done dead on_dead rate user group
            umask nice ionice limits output orphans delivery permanent temporary max_age claim claim_done
            expect);
        let own_concurrency = self.concurrency.as_ref().or(defaults.concurrency.as_ref());
        let was_bad = |key: &str| self.bad.contains(key) || defaults.bad.contains(key);

        if path.is_none() && !was_bad("path") {
            notes.add(
                block,
                "path",
                "is missing; say which directory, as in path = \"/srv/incoming\"",
            );
        }
        let kind = act::kind(&self, defaults, block, &mut notes);
        if let Some(kind) = kind {
            act::only_fitting(&self, kind, &mut notes);
        }
        let (serial, key_concurrency) = self.per_key(defaults, &mut notes);
        if key.is_none() && !was_bad("key") {
            for (at, which) in [
                (serial.map(|at| &at.spot), "serial"),
                (key_concurrency.map(|at| &at.spot), "key_concurrency"),
            ] {
                if let Some(spot) = at {
                    notes.add(spot, which, "needs a key; add one, as in key = \"{dir1}\"");
                }
            }
            self.no_key_used(defaults, kind, &mut notes);
        }
        if let (Some(min), Some(max)) = (min_size, max_size)
            && min.value > max.value
        {
            notes.add(
                &min.spot,
                "min_size",
                "is more than max_size: no file is selected; swap them",
            );
        }
        if let (Some(min), Some(max)) = (min_age, ignore_older)
            && min.value >= max.value
        {
            notes.add(
                &min.spot,
                "min_age",
                "is not less than ignore_older: no file is selected; lower it",
            );
        }
        self.codes_differ(defaults, &mut notes);
        let claim = claim.filter(|claim| claim.value);
        if let (None, Some(dir), false) = (claim, &self.claim_done, was_bad("claim")) {
            let what = "is for claim = \"lock\"; add that, or remove it";
            notes.add(&dir.spot, "claim_done", what);
        }
        if let (Some(halt), Some(dead)) = (on_dead.filter(|o| o.value == OnDead::Halt), dead)
            && dead.value != Disposition::Keep
        {
            notes.add(
                &halt.spot,
                "on_dead",
                "waits until the dead job's file is taken away, which dead does at once; write dead = \"keep\"",
            );
        }
        let delivery = delivery.map_or(Delivery::AtLeastOnce, |d| d.value);
        let action = kind.and_then(|kind| act::action(&self, defaults, kind, &mut notes));
        let batch = self
            .batch
            .as_ref()
            .or(defaults.batch.as_ref())
            .map(|raw| Batch {
                raw,
                own: self.batch.is_some(),
                run,
                env,
                serial: serial.is_some(),
                delivery,
            });
        let batch = batch
            .zip(action.as_ref())
            .and_then(|(batch, action)| batch.plan(action, &mut notes));
        let identity = process::identity(user, group, &mut notes);
        if let (Some(Action::Deliver(plan)), Some(at)) =
            (&action, self.deliver.as_ref().or(defaults.deliver.as_ref()))
        {
            process::can_give(plan.owner, identity.as_ref(), &at.spot, &mut notes);
        }
        let select = notes.select(
            include,
            exclude,
            ignore_case.is_some_and(|i| i.value),
            builtin_excludes.is_none_or(|b| b.value),
        );
        if notes.wrong {
            return None;
        }
        let (Some(path), Some(action), Some(mut select)) = (path, action, select) else {
            // What is missing here was wrong, and noted when it was read.
            return None;
        };
        // Of `[defaults]` there may be what is for other watches.
        let commands = kind != Some(Kind::Deliver);
        let statuses = kind == Some(Kind::Run);
        let codes = |at: Option<&At<Vec<i32>>>| at.filter(|_| statuses).map(|c| c.value.clone());
        select.min_size = min_size.map(|s| s.value);
        select.max_size = max_size.map(|s| s.value);
        select.min_age = min_age.map(|s| s.value);
        select.ignore_older = ignore_older.map(|s| s.value);
        let disposition =
            |d: Option<&At<Disposition>>| d.map_or(Disposition::Keep, |d| d.value.clone());
        Some(WatchPlan {
            name: name.to_owned(),
            formerly: formerly.map(|f| f.value.clone()),
            path: path.value.clone(),
            excluded: Vec::new(),
            recursive: recursive.is_some_and(|r| r.value),
            select,
            settle: settle.map(|s| s.value),
            exported: exported.map(|e| e.value),
            flock: flock.is_some_and(|f| f.value),
            observe: observe.map_or(Observe::Auto, |o| o.value),
            poll: poll.map_or(POLL, |p| p.value),
            existing: existing.map_or(Existing::Run, |e| e.value),
            on_ctime: on_ctime.map_or(OnCtime::Ignore, |o| o.value),
            on_change: on_change.map_or(OnChange::Run, |o| o.value),
            action,
            batch,
            key: key.map(|k| k.value.clone()),
            serial: serial.is_some(),
            key_concurrency: key_concurrency.map(|k| k.value),
            on_dead: on_dead.map_or(OnDead::Continue, |o| o.value),
            rate: rate.map(|r| r.value),
            order: order.map_or(Order::Arrival, |o| o.value),
            env: env.filter(|_| commands).map_or_else(Vec::new, |e| {
                let owned = |(k, v): &(String, At<Template>)| (k.clone(), v.value.clone());
                e.value.iter().map(owned).collect()
            }),
            cwd: cwd.filter(|_| commands).map(|c| c.value.clone()),
            process: Rc::new(ProcessPlan {
                identity,
                umask: umask.map(|u| u.value),
                nice: nice.map(|n| n.value),
                ionice: ionice.map(|i| i.value),
                limits: limits.map(|l| l.value.clone()).unwrap_or_default(),
            }),
            output: output.filter(|_| commands).map(|o| o.value.clone()),
            orphans: orphans.map_or(Orphans::Wait, |o| o.value),
            delivery,
            permanent: codes(permanent).unwrap_or_default(),
            temporary: codes(temporary).unwrap_or_default(),
            max_age: max_age.map(|a| a.value).filter(|a| !a.is_zero()),
            concurrency: own_concurrency.map_or(concurrency, |c| c.value),
            timeout: timeout.map(|t| t.value).filter(|t| !t.is_zero()),
            kill_after: kill_after.map_or(KILL_AFTER, |k| k.value),
            attempts: attempts.map_or(ATTEMPTS, |a| a.value),
            backoff: backoff.map_or(BACKOFF, |b| b.value),
            claim: claim.map(|_| ClaimPlan {
                dir: claim_done.map_or_else(Vec::new, |dir| dir.value.clone()),
                marks: claim_done.is_some(),
                slots: Vec::new(),
            }),
            expect: expect.map(|e| e.value),
            done: disposition(done),
            dead: disposition(dead),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::read::Source;
    use super::*;
    use std::path::Path;

    fn said(text: &str) -> String {
        let table = DeTable::parse(text).unwrap().into_inner();
        let mut problems = Problems::default();
        let source = Source::new(Path::new("f"), text.as_bytes());
        let mut reader = Reader {
            source: &source,
            problems: &mut problems,
            section: "watch.a".into(),
        };
        RawWatch::read(&mut reader, &table);
        problems.into_errors(false).to_string()
    }

    #[test]
    fn the_list_of_keys_is_what_is_read() {
        for key in KEYS {
            // A date is never right: it is refused for what it is, not for the key.
            let said = said(&format!("{key} = 2026-01-01"));
            assert!(said.contains("is a date"), "{key}: {said}");
            assert!(!TO_COME.contains(&key));
        }
        for key in TO_COME {
            assert!(said(&format!("{key} = 1")).contains("not built"), "{key}");
        }
    }
}
