//! `[watch.NAME]` and `[defaults]`: the keys, their defaults, and what must fit together.

use super::error::{At, Problems, Spot};
use super::read::Reader;
use super::values::{
    BACKOFF, Environment, backoff, command, disposition, environment, fill, former, globs,
    key_template, span,
};
use crate::core::select::Select;
use crate::core::template::{Field, Template};
use crate::plan::{
    Action, Backoff, Disposition, Existing, Observe, OnChange, OnCtime, Order, WatchPlan,
};
use std::collections::BTreeSet;
use std::time::Duration;
use toml::de::DeTable;

/// Every key of a watch.
pub(super) const KEYS: [&str; 31] = [
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
];

/// Keys of the design that this version does not have.
pub(super) const TO_COME: [&str; 26] = [
    "batch",
    "cycle",
    "dedup",
    "deliver",
    "delivery",
    "duplicate",
    "expect",
    "group",
    "invalid",
    "limits",
    "marker",
    "nice",
    "on_dead",
    "on_new_dir",
    "orphans",
    "output",
    "permanent",
    "rate",
    "set",
    "temporary",
    "umask",
    "user",
    "verify",
    "window",
    "worker",
    "workers",
];

/// What a watch does without being told.
pub(super) const POLL: Duration = Duration::from_secs(1);
const KILL_AFTER: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 5;

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
                _ => {
                    reader.unknown(key, &KEYS, &TO_COME);
                    false
                }
            };
            if !good {
                raw.bad.insert(name.to_owned());
            }
        }
        raw
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
            min_age ignore_older settle flock observe poll existing on_ctime on_change formerly run
            key serial order env cwd timeout kill_after attempts backoff done dead);
        let own_concurrency = self.concurrency.as_ref().or(defaults.concurrency.as_ref());
        let was_bad = |key: &str| self.bad.contains(key) || defaults.bad.contains(key);

        if path.is_none() && !was_bad("path") {
            notes.add(
                block,
                "path",
                "is missing; say which directory, as in path = \"/srv/incoming\"",
            );
        }
        let acts = ["run", "worker", "deliver"];
        if run.is_none() && !acts.iter().any(|key| was_bad(key)) {
            notes.add(
                block,
                "run",
                "is missing; say what to do, as in run = [\"/usr/local/bin/load\", \"{path}\"]",
            );
        }
        if let Some(serial) = serial.filter(|s| s.value && key.is_none() && !was_bad("key")) {
            notes.add(
                &serial.spot,
                "serial",
                "needs a key; add one, as in key = \"{dir1}\"",
            );
        }
        if key.is_none() && !was_bad("key") {
            let in_run = run.map(|r| r.value.as_slice()).unwrap_or_default();
            for (n, argument) in in_run.iter().enumerate() {
                notes.key_used(&argument.value, &argument.spot, &format!("run[{n}]"));
            }
            let in_env = env.map(|e| e.value.as_slice()).unwrap_or_default();
            for (variable, value) in in_env {
                notes.key_used(&value.value, &value.spot, &format!("env.{variable}"));
            }
            for (which, disposition) in [("done.move", done), ("dead.move", dead)] {
                if let Some(At {
                    value: Disposition::Move { to, .. },
                    spot,
                }) = disposition
                {
                    notes.key_used(to, spot, which);
                }
            }
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
        let select = notes.select(
            include,
            exclude,
            ignore_case.is_some_and(|i| i.value),
            builtin_excludes.is_none_or(|b| b.value),
        );
        if notes.wrong {
            return None;
        }
        let (Some(path), Some(run), Some(mut select)) = (path, run, select) else {
            // What is missing here was wrong, and noted when it was read.
            return None;
        };
        select.min_size = min_size.map(|s| s.value);
        select.max_size = max_size.map(|s| s.value);
        select.min_age = min_age.map(|s| s.value);
        select.ignore_older = ignore_older.map(|s| s.value);
        let disposition =
            |d: Option<&At<Disposition>>| d.map_or(Disposition::Keep, |d| d.value.clone());
        let plan = WatchPlan::placeholder(name);
        Some(WatchPlan {
            name: name.to_owned(),
            formerly: formerly.map(|f| f.value.clone()),
            path: path.value.clone(),
            excluded: Vec::new(),
            recursive: recursive.is_some_and(|r| r.value),
            select,
            settle: settle.map(|s| s.value),
            flock: flock.is_some_and(|f| f.value),
            observe: observe.map_or(Observe::Auto, |o| o.value),
            poll: poll.map_or(POLL, |p| p.value),
            existing: existing.map_or(Existing::Run, |e| e.value),
            on_ctime: on_ctime.map_or(OnCtime::Ignore, |o| o.value),
            on_change: on_change.map_or(OnChange::Run, |o| o.value),
            action: Action::Run(run.value.iter().map(|r| r.value.clone()).collect()),
            key: key.map(|k| k.value.clone()),
            serial: serial.is_some_and(|s| s.value),
            order: order.map_or(Order::Arrival, |o| o.value),
            env: env.map_or_else(Vec::new, |e| {
                let owned = |(k, v): &(String, At<Template>)| (k.clone(), v.value.clone());
                e.value.iter().map(owned).collect()
            }),
            cwd: cwd.map(|c| c.value.clone()),
            concurrency: own_concurrency.map_or(concurrency, |c| c.value),
            timeout: timeout.map(|t| t.value).filter(|t| !t.is_zero()),
            kill_after: kill_after.map_or(KILL_AFTER, |k| k.value),
            attempts: attempts.map_or(ATTEMPTS, |a| a.value),
            backoff: backoff.map_or(BACKOFF, |b| b.value),
            done: disposition(done),
            dead: disposition(dead),
            ..plan
        })
    }
}

/// Notes problems of one watch.
struct Notes<'a> {
    problems: &'a mut Problems,
    section: &'a str,
    wrong: bool,
}

impl Notes<'_> {
    fn add(&mut self, spot: &Spot, key: &str, what: &str) {
        self.problems.add(spot, self.section, key, what);
        self.wrong = true;
    }

    fn key_used(&mut self, template: &Template, spot: &Spot, where_: &str) {
        if template.uses(Field::Key) {
            self.add(
                spot,
                where_,
                "{key} needs a key; add one, as in key = \"{dir1}\"",
            );
        }
    }

    /// Builds the selection; patterns that are none are noted at their place.
    fn select(
        &mut self,
        include: Option<&At<Vec<At<String>>>>,
        exclude: Option<&At<Vec<At<String>>>>,
        ignore_case: bool,
        built_in: bool,
    ) -> Option<Select> {
        let list = |l: Option<&At<Vec<At<String>>>>| l.map(|l| l.value.clone()).unwrap_or_default();
        let (include, exclude) = (list(include), list(exclude));
        let texts = |l: &[At<String>]| l.iter().map(|p| p.value.clone()).collect::<Vec<_>>();
        match Select::new(&texts(&include), &texts(&exclude), ignore_case, built_in) {
            Ok(select) => Some(select),
            Err(bad) => {
                for one in bad {
                    let (key, list) = if one.in_include {
                        ("include", &include)
                    } else {
                        ("exclude", &exclude)
                    };
                    if let Some(pattern) = list.get(one.index) {
                        let what = format!("{:?}: {}", pattern.value, one.what);
                        self.add(&pattern.spot, &format!("{key}[{}]", one.index), &what);
                    }
                }
                None
            }
        }
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
