//! `settled watch`: a plan from arguments.

use crate::config::{self, At, Problems, RawWatch, Spot};
use crate::core::template::{Template, slug};
use crate::plan::{Backoff, Existing, Level, Observe, OnDead, Order, Plan, Rate};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Its options.
pub(super) fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .action(ArgAction::SetTrue)
    };
    Command::new("watch")
        .about("Watch one directory without a configuration file")
        .override_usage("settled watch [OPTIONS] <DIR> -- <CMD>...")
        .arg(
            Arg::new("dir")
                .value_name("DIR")
                .help("The directory; awaited if it does not exist yet")
                .required(true)
                .value_parser(value_parser!(OsString)),
        )
        .arg(
            Arg::new("cmd")
                .value_name("CMD")
                .help("Program and arguments, with fields such as {path}")
                .required(true)
                .num_args(1..)
                .last(true),
        )
        .arg(flag("recursive", "Directories below DIR too").short('r'))
        .arg(option("include", "GLOB", "Only names that match; may be repeated").action(ArgAction::Append))
        .arg(option("exclude", "GLOB", "Not names that match; may be repeated").action(ArgAction::Append))
        .arg(option("settle", "TIME", "How long a file must not have changed, as in 2s").value_parser(config::duration))
        .arg(option("existing", "WHAT", "Files that are there at the first start: run (default) or skip").value_parser(|t: &str| config::choice(t, &config::EXISTING)))
        .arg(option("done", "WHAT", "Then, after success: keep (default), delete or move=DIR"))
        .arg(option("dead", "WHAT", "Then, after the last failure: keep (default), delete or move=DIR"))
        .arg(option("concurrency", "N", "Commands at once [default: 16]").value_parser(value_parser!(u32).range(1..=i64::from(config::MOST_CHILDREN))))
        .arg(option("attempts", "N", "Attempts before a file is given up [default: 5]").value_parser(value_parser!(u32).range(1..=i64::from(config::MOST_ATTEMPTS))))
        .arg(option("timeout", "TIME", "Longest run of one attempt; 0, the default, is no limit").value_parser(config::duration))
        .arg(option("backoff", "FIRST[,MAX]", "Wait after the first failure, doubled with each further one up to MAX [default: 1s,10m]").value_parser(backoff))
        .arg(option("observe", "HOW", "auto (default), inotify, poll or both").value_parser(|t: &str| config::choice(t, &config::OBSERVE)))
        .arg(option("poll", "TIME", "Interval of listings, where DIR is listed [default: 1s]").value_parser(poll))
        .arg(option("key", "TEMPLATE", "The value of {key}, as in '{dir1}'").value_parser(config::parse_key))
        .arg(flag("serial", "One command at a time for each key"))
        .arg(option("order", "BY", "Start in the order of: arrival (default), name or mtime").value_parser(|t: &str| config::choice(t, &config::ORDER)))
        .arg(option("rate", "RATE", "Starts at most so many commands, as in 20/s, 100/m or 5/h").value_parser(config::parse_rate))
        .arg(option("on-dead", "WHAT", "After a file is given up: continue (default), or halt until it is taken away or replaced").value_parser(|t: &str| config::choice(t, &config::ON_DEAD)))
        .arg(option("output", "FILE", "Append what CMD prints to FILE instead of the log").value_parser(value_parser!(OsString)))
        .arg(option("env", "NAME=TEMPLATE", "A variable for CMD; may be repeated").action(ArgAction::Append).value_parser(variable))
        .arg(option("state", "DIR", "Where the journal is kept [default: below $XDG_STATE_HOME/settled or ~/.local/state/settled]").value_parser(value_parser!(OsString)))
        .arg(option("log-level", "LEVEL", "error, warning, info (default) or debug").value_parser(|t: &str| config::choice(t, &config::LEVELS)))
        .after_help(
            "Fields in CMD, --key, --env and move=DIR: {path} {name} {stem} {ext} {dir} {dir1} {dir2} {rel} {key}\n\
             {size} {mtime} {date} {job} {attempt} {watch}, with filters as in {dir1|slug} and {name|lower};\n\
             {{ and }} are literal braces. CMD is run as it is written: no shell, and nothing is appended to it,\n\
             so a CMD without {path} finds its file in $SETTLED_PATH or open as descriptor 3.\n\n\
             settled watch -r /srv/incoming -- /usr/local/bin/load {path}",
        )
}

fn poll(text: &str) -> Result<Duration, String> {
    let interval = config::duration(text)?;
    if interval < config::SHORTEST_POLL {
        return Err(format!(
            "at least {}",
            config::show_duration(config::SHORTEST_POLL)
        ));
    }
    Ok(interval)
}

fn backoff(text: &str) -> Result<Backoff, String> {
    let (first, max) = match text.split_once(',') {
        Some((first, max)) => (config::duration(first)?, Some(config::duration(max)?)),
        None => (config::duration(text)?, None),
    };
    if first < config::SHORTEST_BACKOFF {
        return Err(format!(
            "at least {}",
            config::show_duration(config::SHORTEST_BACKOFF)
        ));
    }
    config::backoff_of(Some(first), max)
}

fn variable(text: &str) -> Result<(String, Template), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} has no '='; write NAME=VALUE"))?;
    config::variable_name(name)?;
    Ok((name.to_owned(), config::template(value)?))
}

/// The plan of `settled watch`; the errors are sentences.
pub(super) fn plan(given: &ArgMatches) -> Result<Plan, Vec<String>> {
    let one = |line: String| vec![line];
    let cwd = std::env::current_dir()
        .map_err(|error| one(format!("the working directory: {error}")))?
        .into_os_string()
        .into_vec();
    let dir = given
        .get_one::<OsString>("dir")
        .map(|d| d.as_bytes())
        .unwrap_or_default();
    let root = config::root_argument(&cwd, dir).map_err(|what| one(format!("DIR: {what}")))?;
    let state = match given.get_one::<OsString>("state") {
        Some(state) => config::absolute(&cwd, state.as_bytes()),
        None => default_state(&root, &|name| std::env::var_os(name)).map_err(one)?,
    };
    let mut errors = Vec::new();
    let mut disposition = |name: &str| {
        let text = given.get_one::<String>(name)?;
        match config::disposition_argument(text, &cwd) {
            Ok(disposition) => Some(At::argument(disposition)),
            Err(what) => {
                errors.push(format!("--{name}: {what}"));
                None
            }
        }
    };
    let (done, dead) = (disposition("done"), disposition("dead"));
    let output = given.get_one::<OsString>("output").and_then(|file| {
        match config::output_file(file.as_bytes()) {
            Ok(()) => Some(At::argument(config::absolute(&cwd, file.as_bytes()))),
            Err(what) => {
                errors.push(format!("--output: {what}"));
                None
            }
        }
    });
    let mut run = Vec::new();
    for (n, text) in given
        .get_many::<String>("cmd")
        .unwrap_or_default()
        .enumerate()
    {
        let whole = if n == 0 {
            program(text, &cwd)
        } else {
            Ok(text.clone())
        };
        match whole.and_then(|text| config::template(&text)) {
            Ok(argument) => run.push(At::argument(argument)),
            Err(what) => errors.push(format!("CMD: {what}")),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let strings = |name: &str| {
        let list: Vec<_> = given
            .get_many::<String>(name)?
            .cloned()
            .map(At::argument)
            .collect();
        Some(At::argument(list))
    };
    let variables = given.get_many::<(String, Template)>("env").map(|list| {
        let list = list
            .cloned()
            .map(|(name, value)| (name, At::argument(value)));
        At::argument(list.collect())
    });
    let raw = RawWatch {
        path: Some(At::argument(root.clone())),
        recursive: Some(At::argument(given.get_flag("recursive"))),
        include: strings("include"),
        exclude: strings("exclude"),
        settle: value::<Duration>(given, "settle"),
        observe: value::<Observe>(given, "observe"),
        poll: value::<Duration>(given, "poll"),
        existing: value::<Existing>(given, "existing"),
        run: Some(At::argument(run)),
        key: value::<Template>(given, "key"),
        serial: Some(At::argument(given.get_flag("serial"))),
        order: value::<Order>(given, "order"),
        on_dead: value::<OnDead>(given, "on-dead"),
        rate: value::<Rate>(given, "rate"),
        output,
        env: variables,
        cwd: Some(At::argument(cwd)),
        timeout: value::<Duration>(given, "timeout"),
        attempts: value::<u32>(given, "attempts"),
        backoff: value::<Backoff>(given, "backoff"),
        done,
        dead,
        ..RawWatch::default()
    };
    let mut daemon = config::daemon_defaults(OsString::from_vec(state).into());
    if let Some(level) = given.get_one::<Level>("log-level") {
        daemon.log_level = *level;
    }
    if let Some(concurrency) = given.get_one::<u32>("concurrency") {
        daemon.concurrency = *concurrency;
    }
    let mut problems = Problems::default();
    let name = readable(root.rsplit(|&b| b == b'/').next().unwrap_or_default());
    let blocks = BTreeMap::from([(name, (Spot::ARGUMENT, raw))]);
    match config::assemble(daemon, blocks, &RawWatch::default(), &mut problems) {
        Some(plan) if problems.is_empty() => Ok(plan),
        _ => {
            let errors = problems.into_errors(false);
            Err(errors.list.iter().map(ToString::to_string).collect())
        }
    }
}

fn value<T: Clone + Send + Sync + 'static>(given: &ArgMatches, name: &str) -> Option<At<T>> {
    given.get_one::<T>(name).cloned().map(At::argument)
}

/// The program as the shell would find it: with a slash in it, it is relative to the working directory.
fn program(text: &str, cwd: &[u8]) -> Result<String, String> {
    if text.starts_with(['/', '{']) || !text.contains('/') {
        return Ok(text.to_owned());
    }
    let cwd = std::str::from_utf8(cwd)
        .map_err(|_| "the working directory is not UTF-8; write the program's absolute path")?;
    let literal = cwd.replace('{', "{{").replace('}', "}}");
    Ok(format!("{literal}/{text}"))
}

/// A short name that can be read and can name a watch or a directory.
fn readable(name: &[u8]) -> String {
    let slug: Vec<u8> = slug(name).into_iter().take(40).collect();
    let text = String::from_utf8_lossy(&slug).into_owned();
    if text == "_" { "root".into() } else { text }
}

/// The state directory of `settled watch ROOT`: readable, and another one for every root.
fn default_state(
    root: &[u8],
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<u8>, String> {
    // The XDG base directory specification: a relative value is to be ignored.
    let absolute = |name: &str| variable(name).filter(|v| v.as_bytes().starts_with(b"/"));
    let base = match absolute("XDG_STATE_HOME") {
        Some(state) => PathBuf::from(state),
        None => match absolute("HOME") {
            Some(home) => Path::new(&home).join(".local/state"),
            None => {
                return Err("neither XDG_STATE_HOME nor HOME is set; say where the journal is kept with --state DIR".into());
            }
        },
    };
    let last = root.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let hash = Sha256::digest(root);
    let short: String = hash
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let dir = base
        .join("settled")
        .join(format!("{}-{short}", readable(last)));
    Ok(config::absolute(b"/", dir.as_os_str().as_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::command as whole_command;
    use super::*;
    use crate::core::select::Verdict;
    use crate::plan::Disposition;

    fn made(arguments: &[&str]) -> Plan {
        let all = ["settled", "watch", "--state", "/st/./x"]
            .iter()
            .chain(arguments);
        let matches = whole_command().try_get_matches_from(all).unwrap();
        super::plan(matches.subcommand().unwrap().1).unwrap()
    }

    #[test]
    fn every_option_reaches_the_plan() {
        let made = made(&[
            "/srv/./Front Door/",
            "-r",
            "--include",
            "*.csv",
            "--include",
            "*.xml",
            "--exclude",
            "x*",
            "--settle",
            "2s",
            "--existing",
            "skip",
            "--done",
            "delete",
            "--dead",
            "move=/dead/{date}",
            "--concurrency",
            "3",
            "--attempts",
            "4",
            "--timeout",
            "1m",
            "--backoff",
            "2s,9s",
            "--observe",
            "poll",
            "--poll",
            "3s",
            "--key",
            "{dir1}",
            "--serial",
            "--order",
            "mtime",
            "--rate",
            "30/m",
            "--on-dead",
            "continue",
            "--output",
            "/var/log/x.log",
            "--env",
            "A=b=c",
            "--env",
            "B={name}",
            "--log-level",
            "debug",
            "--",
            "bin/x",
            "-f",
            "{path}",
        ]);
        assert_eq!(made.daemon.state, Path::new("/st/x"));
        assert_eq!(
            (made.daemon.log_level, made.daemon.concurrency),
            (Level::Debug, 3)
        );
        let watch = made.watches.first().unwrap();
        assert_eq!(watch.path, b"/srv/Front Door");
        assert_eq!(watch.name, "front_door");
        assert!(watch.recursive && watch.serial);
        assert_eq!(watch.select.file(b"a.xml"), Verdict::Yes);
        assert_eq!(watch.select.file(b"a.txt"), Verdict::NotIncluded);
        assert_eq!(watch.select.file(b"x.csv"), Verdict::Excluded("x*".into()));
        assert_eq!(watch.settle, Some(Duration::from_secs(2)));
        assert_eq!(
            (watch.existing, watch.observe),
            (Existing::Skip, Observe::Poll)
        );
        assert_eq!(watch.done, Disposition::Delete);
        assert!(matches!(&watch.dead, Disposition::Move { to, .. } if to.text() == "/dead/{date}"));
        assert_eq!((watch.concurrency, watch.attempts), (3, 4));
        assert_eq!(watch.timeout, Some(Duration::from_secs(60)));
        assert_eq!(
            (watch.backoff.first.as_secs(), watch.backoff.max.as_secs()),
            (2, 9)
        );
        assert_eq!((watch.poll.as_secs(), watch.order), (3, Order::Mtime));
        let rate = Rate {
            count: 30,
            per: Duration::from_secs(60),
        };
        assert_eq!((watch.rate, watch.on_dead), (Some(rate), OnDead::Continue));
        assert_eq!(watch.output.as_deref(), Some(b"/var/log/x.log".as_slice()));
        assert_eq!(watch.key.as_ref().unwrap().text(), "{dir1}");
        let env: Vec<_> = watch
            .env
            .iter()
            .map(|(n, v)| (n.as_str(), v.text()))
            .collect();
        assert_eq!(env, [("A", "b=c"), ("B", "{name}")]);
        let cwd = std::env::current_dir().unwrap();
        assert_eq!(watch.cwd.as_deref(), Some(cwd.as_os_str().as_bytes()));
        let run: Vec<_> = watch.argv().iter().map(|t| t.text().to_owned()).collect();
        assert_eq!(
            run,
            [
                format!("{}/bin/x", cwd.display()),
                "-f".into(),
                "{path}".into()
            ]
        );
    }

    #[test]
    fn what_is_relative_is_so_to_the_working_directory() {
        let cwd = std::env::current_dir().unwrap();
        let made = made(&[
            "in/../incoming",
            "--done",
            "move=archive/{date}",
            "--on-dead",
            "halt",
            "--output",
            "log/x",
            "--",
            "true",
        ]);
        let watch = made.watches.first().unwrap();
        assert_eq!(watch.path, cwd.join("incoming").as_os_str().as_bytes());
        let target = format!("{}/archive/{{date}}", cwd.display());
        assert!(matches!(&watch.done, Disposition::Move { to, .. } if to.text() == target));
        let output = cwd.join("log/x");
        assert_eq!(watch.output.as_deref(), Some(output.as_os_str().as_bytes()));
        assert_eq!(watch.on_dead, OnDead::Halt);
        assert_eq!(watch.argv().first().unwrap().text(), "true");
    }

    #[test]
    fn names_of_any_bytes_can_be_watched() {
        let dir = OsString::from_vec(b"/srv/\xff\xfe".to_vec());
        let all = ["settled", "watch", "--state", "/st"].map(OsString::from);
        let rest = ["--", "x"].map(OsString::from);
        let all = all.into_iter().chain([dir]).chain(rest);
        let matches = whole_command().try_get_matches_from(all).unwrap();
        let made = super::plan(matches.subcommand().unwrap().1).unwrap();
        assert_eq!(made.watches.first().unwrap().path, b"/srv/\xff\xfe");
        assert_eq!(made.watches.first().unwrap().name, "root");
    }

    #[test]
    fn each_directory_has_a_state_of_its_own() {
        let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/u/"));
        let both = |name: &str| match name {
            "HOME" => Some(OsString::from("/home/u")),
            "XDG_STATE_HOME" => Some(OsString::from("/xdg")),
            _ => None,
        };
        let relative = |name: &str| match name {
            "XDG_STATE_HOME" => Some(OsString::from("xdg")),
            other => home(other),
        };
        let at = |root: &[u8], v: &dyn Fn(&str) -> Option<OsString>| {
            String::from_utf8(default_state(root, v).unwrap()).unwrap()
        };
        let one = at(b"/srv/Front Door", &home);
        assert!(
            one.starts_with("/home/u/.local/state/settled/front_door-"),
            "{one}"
        );
        assert_eq!(one, at(b"/srv/Front Door", &relative));
        assert_ne!(one, at(b"/srv/front/door", &home));
        assert_ne!(at(b"/a/in", &home), at(b"/b/in", &home));
        assert!(at(b"/", &both).starts_with("/xdg/settled/root-"));
        assert!(
            default_state(b"/x", &|_| None)
                .unwrap_err()
                .contains("--state DIR")
        );
    }
}
