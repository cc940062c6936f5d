//! What a reload says has changed: every key of settled.toml(5).

use super::loaded;
use settled::core::time::Now;
use settled::core::{Command, Core, Effect, Input};
use settled::plan::Plan;
use std::collections::BTreeSet;

const RUN: &str = "run = [\"true\"]";
const FEED: &str = "worker = [\"feed\"]";

/// A key of each section with two values, and what else its block needs.
const DAEMON: [(&str, &str, &str); 13] = [
    ("state", "'/srv/state-a'", "'/srv/state-b'"),
    ("state_force", "false", "true"),
    ("on_damage", "'stop'", "'continue'"),
    ("socket", "'/run/a.sock'", "'/run/b.sock'"),
    ("socket_group", "10", "11"),
    ("log", "'stderr'", "'syslog'"),
    ("log_level", "'info'", "'debug'"),
    ("concurrency", "3", "4"),
    ("remember", "'24h'", "'48h'"),
    ("drain", "'5s'", "'6s'"),
    ("mount_silent", "'5s'", "'6s'"),
    ("metrics_textfile", "'/srv/a.prom'", "'/srv/b.prom'"),
    ("metrics_every", "'15s'", "'20s'"),
];

const ALERT: [(&str, &str, &str); 7] = [
    ("run", "['page']", "['mail']"),
    ("dead", "1", "2"),
    ("waiting", "'1h'", "'2h'"),
    ("mount_silent", "'1h'", "'2h'"),
    ("slow_flush", "'1s'", "'2s'"),
    ("every", "'1m'", "'2m'"),
    ("timeout", "'1m'", "'2m'"),
];

const WATCH: [(&str, &str, &str, &str); 56] = [
    ("path", "'/srv/in'", "'/srv/other'", RUN),
    ("formerly", "'x'", "'y'", RUN),
    ("recursive", "true", "false", RUN),
    ("observe", "'inotify'", "'both'", RUN),
    ("poll", "'1s'", "'2s'", RUN),
    ("existing", "'run'", "'skip'", RUN),
    ("include", "['*.a']", "['*.b']", RUN),
    ("exclude", "['*.a']", "['*.b']", RUN),
    ("builtin_excludes", "true", "false", RUN),
    (
        "ignore_case",
        "true",
        "false",
        "run = [\"true\"]\ninclude = ['*.c']",
    ),
    ("min_size", "'1KiB'", "'2KiB'", RUN),
    ("max_size", "'1KiB'", "'2KiB'", RUN),
    ("min_age", "'1s'", "'2s'", RUN),
    ("ignore_older", "'1h'", "'2h'", RUN),
    ("settle", "'1s'", "'2s'", RUN),
    ("exported", "true", "false", RUN),
    ("flock", "true", "false", RUN),
    ("on_ctime", "'ignore'", "'run'", RUN),
    ("on_change", "'run'", "'accept'", RUN),
    ("run", "['a']", "['b']", ""),
    ("env", "{ A = '1' }", "{ A = '2' }", RUN),
    ("cwd", "'/srv'", "'/tmp'", RUN),
    ("output", "'/srv/log/a'", "'/srv/log/b'", RUN),
    ("timeout", "'1m'", "'2m'", RUN),
    ("kill_after", "'1s'", "'2s'", RUN),
    (
        "batch",
        "{ max = 2 }",
        "{ max = 3 }",
        "run = [\"cat\", \"{path}\"]",
    ),
    ("worker", "['a']", "['b']", ""),
    ("workers", "1", "2", FEED),
    ("window", "1", "2", FEED),
    ("ready", "'1s'", "'2s'", FEED),
    (
        "deliver",
        "{ to = '/srv/out', verify = 'size' }",
        "{ to = '/srv/out' }",
        "",
    ),
    ("user", "0", "1", RUN),
    ("group", "0", "1", RUN),
    ("umask", "'022'", "'027'", RUN),
    ("nice", "5", "6", RUN),
    ("ionice", "'idle'", "'best-effort:5'", RUN),
    ("limits", "{ nofile = 100 }", "{ nofile = 110 }", RUN),
    ("concurrency", "1", "2", RUN),
    ("rate", "'1/s'", "'2/s'", RUN),
    ("key", "'{name}'", "'{stem}'", RUN),
    (
        "serial",
        "true",
        "false",
        "run = [\"true\"]\nkey = '{name}'",
    ),
    (
        "key_concurrency",
        "2",
        "3",
        "run = [\"true\"]\nkey = '{name}'",
    ),
    ("order", "'arrival'", "'name'", RUN),
    ("attempts", "1", "2", RUN),
    (
        "backoff",
        "{ first = '1s', max = '1m' }",
        "{ first = '1s', max = '2m' }",
        RUN,
    ),
    ("max_age", "'1h'", "'2h'", RUN),
    ("permanent", "[3]", "[4]", RUN),
    ("temporary", "[3]", "[4]", RUN),
    ("on_dead", "'continue'", "'halt'", RUN),
    ("delivery", "'at-least-once'", "'at-most-once'", RUN),
    ("orphans", "'wait'", "'kill'", RUN),
    ("done", "'keep'", "'delete'", RUN),
    ("dead", "'keep'", "'delete'", RUN),
    (
        "claim",
        "'none'",
        "'lock'",
        "run = [\"true\"]\ndone = 'delete'\ndead = 'delete'",
    ),
    (
        "claim_done",
        "'/srv/marks-a'",
        "'/srv/marks-b'",
        "run = [\"true\"]\nclaim = 'lock'",
    ),
    ("expect", "{ every = '1h' }", "{ every = '2h' }", RUN),
];

/// These are used up by reading: they leave nothing behind that could differ.
const OF_READING: [(&str, &str); 2] = [("DAEMON", "include"), ("WATCH", "cycle")];

/// What a daemon with one configuration says when it is given another.
fn told(old: Plan, new: Plan) -> Vec<String> {
    let mut core = Core::new(old, 7);
    core.start(Now::default(), Vec::new());
    let mut effects = Vec::new();
    core.swap_effects(&mut effects);
    let reload = Input::Command(Command::Reload(Box::new(new)));
    core.step(Now::default(), reload);
    let mut effects = Vec::new();
    core.swap_effects(&mut effects);
    let lines = effects.into_iter().filter_map(|effect| match effect {
        Effect::Log(_, line) => Some(line.text),
        _ => None,
    });
    lines.filter(|text| text.starts_with("reload: ")).collect()
}

/// A configuration with these three blocks' lines.
fn plan(daemon: &str, alert: &str, watch: &str) -> Plan {
    let alert = match alert {
        "" => String::new(),
        alert => format!("[alert]\n{alert}\n"),
    };
    let path = if watch.contains("path = ") {
        ""
    } else {
        "path = '/srv/in'\n"
    };
    loaded(&format!(
        "[daemon]\n{daemon}\n{alert}[watch.w]\n{path}{watch}\n"
    ))
}

#[test]
fn a_change_of_every_key_is_told() {
    let mut tried: BTreeSet<(&str, String)> = OF_READING
        .iter()
        .map(|(section, key)| (*section, (*key).to_owned()))
        .collect();
    let mut check = |section: &'static str, key: &str, old: Plan, new: Plan| {
        let said = told(old.clone(), new);
        let names = |text: &String| {
            let words = text
                .trim_start_matches("reload: ")
                .trim_end_matches(" changed");
            words
                .trim_start_matches("[daemon] ")
                .trim_start_matches("[alert] ")
                .split(", ")
                .any(|word| word.split(" or ").any(|name| name == key))
        };
        assert!(said.iter().any(names), "{section} {key}: {said:?}");
        assert_eq!(told(old.clone(), old), ["reload: nothing has changed"]);
        tried.insert((section, key.to_owned()));
    };
    for (key, old, new) in DAEMON {
        let with = |value| plan(&format!("{key} = {value}"), "", RUN);
        check("DAEMON", key, with(old), with(new));
    }
    for (key, old, new) in ALERT {
        let run = if key == "run" { "" } else { "run = ['page']" };
        let with = |value| plan("", &format!("{run}\n{key} = {value}"), RUN);
        check("ALERT", key, with(old), with(new));
    }
    for (key, old, new, rest) in WATCH {
        let with = |value| plan("", "", &format!("{key} = {value}\n{rest}"));
        check("WATCH", key, with(old), with(new));
    }
    assert_eq!(tried, documented());
}

/// The keys that settled.toml(5) has, by section.
fn documented() -> BTreeSet<(&'static str, String)> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/man/settled.toml.5");
    let page = std::fs::read_to_string(page).unwrap();
    let mut keys = BTreeSet::new();
    let mut section = None;
    for line in page.lines() {
        if let Some(title) = line.strip_prefix(".Sh ") {
            let sections = ["DAEMON", "ALERT", "WATCH"];
            section = sections.into_iter().find(|known| *known == title);
        }
        let key = line.strip_prefix(".It Cm ");
        if let (Some(section), Some(key)) = (section, key) {
            let key = key.split(' ').next().unwrap_or_default();
            keys.insert((section, key.to_owned()));
        }
    }
    keys
}

#[test]
fn an_alert_block_that_comes_or_goes_is_told() {
    let (without, with) = (plan("", "", RUN), plan("", "run = ['page']", RUN));
    assert_eq!(
        told(without.clone(), with.clone()),
        ["reload: [alert] is new"]
    );
    assert_eq!(
        told(with, without),
        ["reload: [alert] is gone: nobody is told any more"]
    );
}

#[test]
fn the_state_directory_that_was_opened_is_the_one_that_is_told_of() {
    let old = plan("state = '/srv/state-a'", "", RUN);
    let new = plan("state = '/srv/state-b'", "", RUN);
    let mut core = Core::new(old, 7);
    core.start(Now::default(), Vec::new());
    let reload = Input::Command(Command::Reload(Box::new(new)));
    core.step(Now::default(), reload);
    assert_eq!(core.daemon_row().state, "/srv/state-a");
}
