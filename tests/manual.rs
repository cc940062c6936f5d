//! The manual pages say what the program does, and the program does what they say: options, keys, defaults,
//! fields, the environment of a job, and every example.

#![allow(clippy::unwrap_used)]

#[path = "manual/cookbook.rs"]
mod cookbook;
#[path = "manual/program.rs"]
mod program;

use settled::cli::EXIT_CODES;
use settled::core::alert::{ALERT_VARIABLES, Alarm};
use settled::core::template::FIELDS;
use settled::core::words::STATES;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const SETTLED: &str = env!("CARGO_BIN_EXE_settled");

/// A path of the source tree.
fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(tree(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn settled(arguments: &[&OsStr]) -> Output {
    Command::new(SETTLED)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{SETTLED}: {e}"))
}

/// The names of a directory's files that end so, sorted, below `at`.
fn files(at: &str, suffixes: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(tree(at))
        .unwrap_or_else(|e| panic!("{at}: {e}"))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| suffixes.iter().any(|s| name.ends_with(s)))
        .map(|name| format!("{at}/{name}"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{at} has none of {suffixes:?}");
    names
}

/// mdoc's escapes as the text they stand for.
fn plain(text: &str) -> String {
    text.replace("\\(dq", "\"")
        .replace("\\&", "")
        .replace("\\e", "\\")
}

#[test]
fn mandoc_has_nothing_to_say() {
    let mut lint = Command::new("mandoc");
    lint.args(["-Tlint", "-Wwarning"]);
    lint.args(
        files("man", &[".1", ".5", ".7", ".8"])
            .iter()
            .map(|page| tree(page)),
    );
    match lint.stdin(Stdio::null()).output() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            panic!("mandoc is not installed; on Debian: apt-get install mandoc")
        }
        Err(e) => panic!("mandoc: {e}"),
        Ok(said) => assert!(
            said.status.success() && said.stdout.is_empty(),
            "{}{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        ),
    }
}

/// What `--help` says of the program or of one of its commands.
fn help(command: &[&str]) -> String {
    let mut arguments: Vec<&OsStr> = command.iter().map(OsStr::new).collect();
    arguments.push(OsStr::new("--help"));
    let said = settled(&arguments);
    assert!(said.status.success(), "settled {arguments:?}: {said:?}");
    String::from_utf8(said.stdout).unwrap()
}

/// The first words of the indented lines after `Commands:`, without clap's own `help`.
fn commands_of(help: &str) -> BTreeSet<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    listed
        .take_while(|line| line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| *word != "help")
        .map(str::to_owned)
        .collect()
}

/// Every `-x` and `--word` that begins a line of a help text, or follows another option there.
fn options_of(help: &str) -> BTreeSet<String> {
    let mut options = BTreeSet::new();
    for line in help.lines().filter(|line| line.starts_with(' ')) {
        for word in line.split_whitespace() {
            let word = word.trim_end_matches(',');
            if !word.starts_with('-') {
                break;
            }
            let name = word.split(['=', '[']).next().unwrap_or(word);
            options.insert(name.trim_end_matches('.').to_owned());
        }
    }
    options
}

/// The options that a page lists: `.It Fl c Ar file , Fl -config Ar file`.
fn options_in(page: &str) -> BTreeSet<String> {
    let mut options = BTreeSet::new();
    for item in page.lines().filter_map(|line| line.strip_prefix(".It Fl ")) {
        for option in item.split("Fl ") {
            let name = option.split_whitespace().next().unwrap_or_default();
            options.insert(format!("-{name}"));
        }
    }
    options
}

/// The commands that a page has.
fn commands_in(page: &str) -> BTreeSet<String> {
    let start = page.find(".Ss Commands").unwrap();
    let end = start + page[start..].find(".Ss Options").unwrap();
    page[start..end]
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .flat_map(|names| names.split(" , Cm "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn options_and_commands_are_the_ones_in_settled_1_and_8() {
    let pages = [read("man/settled.1"), read("man/settled.8")];
    let top = help(&[]);
    let commands = commands_of(&top);
    assert!(commands.contains("run"), "no commands in {top}");

    let documented = pages.each_ref().map(|page| commands_in(page));
    let all: BTreeSet<String> = documented.iter().flatten().cloned().collect();
    assert_eq!(commands, all, "commands: program, then manual");
    assert_eq!(
        documented[0].intersection(&documented[1]).next(),
        None,
        "a command in two pages"
    );

    for (page, commands) in pages.iter().zip(&documented) {
        // What the program has without a command is in the daemon's page.
        let mut options = match commands.contains("run") {
            true => options_of(&top),
            false => BTreeSet::new(),
        };
        let mut help_itself = BTreeSet::new();
        for command in commands {
            let text = help(&[command]);
            options.append(&mut options_of(&text));
            for below in commands_of(&text) {
                options.append(&mut options_of(&help(&[command, &below])));
            }
        }
        if !commands.contains("run") {
            help_itself.extend(["-h".to_owned(), "--help".to_owned()]);
        }
        let options: BTreeSet<String> = options.difference(&help_itself).cloned().collect();
        assert_eq!(options, options_in(page), "options: program, then manual");
    }
}

/// The words after `.Cm` in items of a section, and those of its lists in a line.
#[test]
fn states_are_the_ones_in_settled_1() {
    let page = read("man/settled.1");
    let start = page.find(".Sh STATES").unwrap();
    let end = start + page[start..].find(".Sh JSON").unwrap();
    let items: BTreeSet<&str> = page[start..end]
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .collect();
    let known: BTreeSet<&str> = STATES.iter().map(|(word, _)| *word).collect();
    assert_eq!(known, items, "program, then manual");
    let over = page[start..end]
        .lines()
        .find_map(|line| line.strip_prefix(".Cm ")?.strip_suffix(" ."))
        .unwrap();
    let over: BTreeSet<&str> = over.split(" , ").collect();
    let text = help(&["list"]);
    let values = text
        .split("[possible values: ")
        .nth(1)
        .and_then(|rest| rest.split(']').next())
        .unwrap();
    let all: BTreeSet<&str> = values.split(',').map(str::trim).collect();
    assert_eq!(all, known.union(&over).copied().collect());
}

#[test]
fn exit_codes_of_settled_1_are_the_programs() {
    let page = read("man/settled.1");
    let start = page.find(".Sh EXIT STATUS").unwrap();
    let end = start + page[start..].find(".Sh EXAMPLES").unwrap();
    let mut code = 0;
    for line in page[start..end].lines() {
        if let Some(number) = line.strip_prefix(".It ") {
            code = number.parse().unwrap();
        }
        if let Some(name) = line.strip_prefix(".Pq Dv ") {
            let name = name.trim_end_matches(" .");
            let known = EXIT_CODES.iter().any(|(c, n, _)| (*c, *n) == (code, name));
            assert!(known, "{code} {name}");
        }
    }
    assert!(code > 70);
}

#[test]
fn exit_codes_are_the_ones_in_settled_8() {
    let page = read("man/settled.8");
    let start = page.find(".Sh EXIT STATUS").unwrap();
    let end = start + page[start..].find(".Sh EXAMPLES").unwrap();
    let documented: Vec<u8> = page[start..end]
        .lines()
        .filter_map(|line| line.strip_prefix(".It ")?.parse().ok())
        .collect();
    let mut codes: Vec<u8> = EXIT_CODES.iter().map(|(code, ..)| *code).collect();
    codes.sort();
    assert_eq!(codes, documented, "program, then manual");
    for (_, name, _) in EXIT_CODES.iter().filter(|(code, ..)| *code != 0) {
        assert!(
            page[start..end].contains(&format!(".Pq Dv {name}")),
            "{name}"
        );
    }
}

/// A key, as settled.toml(5) has it.
#[derive(Debug)]
struct Item {
    section: &'static str,
    key: String,
    /// What `Default:` says, where that is one value.
    default: Option<String>,
}

/// The sections that have keys, and where the program has them.
const SECTIONS: [(&str, &str); 3] = [
    ("DAEMON", "DaemonPlan"),
    ("ALERT", "AlertPlan"),
    ("WATCH", "WatchPlan"),
];

/// The items of these sections.
fn items() -> Vec<Item> {
    let page = read("man/settled.toml.5");
    let mut items: Vec<Item> = Vec::new();
    let mut section = "";
    let mut in_default = false;
    for line in page.lines() {
        if let Some(title) = line.strip_prefix(".Sh ") {
            section = title;
        }
        let Some((known, _)) = SECTIONS.iter().find(|(title, _)| *title == section) else {
            continue;
        };
        if let Some(item) = line.strip_prefix(".It Cm ") {
            let (key, kind) = item.split_once(" No = ").unwrap_or_else(|| {
                panic!("settled.toml(5): `{line}` is not `.It Cm KEY No = TYPE`")
            });
            assert!(!kind.is_empty());
            items.push(Item {
                section: known,
                key: key.to_owned(),
                default: None,
            });
        }
        if in_default && let Some(value) = line.strip_prefix(".Ql ") {
            let value = plain(value.strip_suffix(" .").unwrap_or(value));
            items.last_mut().unwrap().default = Some(value);
        }
        in_default = line == "Default:";
    }
    items
}

#[test]
fn every_key_of_settled_toml_5_has_a_default() {
    let page = read("man/settled.toml.5");
    let start = page.find("\n.Sh DAEMON").unwrap();
    let end = page.find("\n.Sh TEMPLATES").unwrap();
    for item in page[start..end].split("\n.It Cm ").skip(1) {
        assert!(item.contains("\nDefault:"), "no default in: {item}");
    }
}

/// The fields of a `pub struct`, by its source.
fn fields<'s>(source: &'s str, of: &str) -> Vec<&'s str> {
    let start = source.find(&format!("pub struct {of} {{")).unwrap();
    let body = &source[start..];
    let body = &body[..body.find("\n}").unwrap()];
    body.lines()
        .filter_map(|line| line.strip_prefix("    pub ")?.split(':').next())
        .collect()
}

/// The keys that the program has: those of the plan, with `select` as the keys that make it.
fn known(of: &str) -> BTreeSet<String> {
    let plan = read("src/plan.rs");
    // These act before there is a plan, or not at all yet.
    let mut keys = match of {
        "DaemonPlan" => vec!["include"],
        "WatchPlan" => vec!["cycle"],
        _ => Vec::new(),
    };
    for field in fields(&plan, of) {
        match field {
            // Not written by users: the block's name, and what follows from other keys.
            "name" | "excluded" => {}
            "run" if of == "AlertPlan" => keys.push("run"),
            "action" => keys.extend(["run", "worker", "workers", "window", "ready", "deliver"]),
            "claim" => keys.extend(["claim", "claim_done"]),
            "process" => keys.extend(["user", "group", "umask", "nice", "ionice", "limits"]),
            "select" => keys.extend([
                "include",
                "exclude",
                "builtin_excludes",
                "ignore_case",
                "min_size",
                "max_size",
                "min_age",
                "ignore_older",
            ]),
            other => keys.push(other),
        }
    }
    keys.into_iter().map(str::to_owned).collect()
}

#[test]
fn keys_are_the_ones_in_settled_toml_5() {
    for (section, of) in SECTIONS {
        let documented: BTreeSet<String> = items()
            .into_iter()
            .filter(|item| item.section == section)
            .map(|item| item.key)
            .collect();
        assert_eq!(known(of), documented, "program, then manual");
    }
}

/// `settled check` of a configuration.
fn check(text: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settled.toml");
    fs::write(&file, text).unwrap();
    settled(&[OsStr::new("check"), OsStr::new("--config"), file.as_ref()])
}

fn assert_good(what: &str, text: &str) {
    let said = check(text);
    assert!(
        said.status.success(),
        "{what}:\n{text}\n{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
}

/// A number, a boolean or a table stands for itself, everything else is a string.
fn toml_value(text: &str) -> String {
    let bare = text.parse::<u32>().is_ok() || text == "true" || text == "false";
    if (bare && text != "0") || text.starts_with('{') {
        text.to_owned()
    } else {
        format!("{text:?}")
    }
}

#[test]
fn every_default_can_be_written_down() {
    let mut daemon = String::new();
    let mut alert = String::new();
    let mut watch = String::new();
    let mut worker = String::new();
    for item in items() {
        let Some(default) = item.default else {
            continue;
        };
        let block = match item.key.as_str() {
            _ if item.section == "DAEMON" => &mut daemon,
            _ if item.section == "ALERT" => &mut alert,
            "workers" | "window" => &mut worker,
            _ => &mut watch,
        };
        block.push_str(&format!("{} = {}\n", item.key, toml_value(&default)));
    }
    assert!(daemon.contains("drain") && watch.contains("backoff") && alert.contains("waiting"));
    assert_eq!(worker.lines().count(), 2);
    assert_good(
        "all defaults",
        &format!(
            "[daemon]\n{daemon}[alert]\nrun = [\"true\"]\n{alert}[watch.all]\npath = \"/srv\"\nrun = [\"true\"]\n{watch}\
             [watch.worker]\npath = \"/srv\"\nworker = [\"true\"]\n{worker}"
        ),
    );
    // The check has to be able to fail for this test to mean anything.
    let said = check("[watch.all]\npath = \"/srv\"\nrun = [\"true\"]\npol = \"1s\"\n");
    assert_eq!(said.status.code(), Some(78), "{said:?}");
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(text.contains("poll") && text.contains(":4"), "{text}");
}

#[test]
fn alerts_are_the_ones_in_settled_toml_5() {
    let page = read("man/settled.toml.5");
    let start = page.find("\n.Sh ALERT").unwrap();
    let end = start + page[start..].find("\n.Sh WATCH").unwrap();
    let items = |of: &str| -> Vec<&str> {
        let lines = page[start..end].lines();
        lines.filter_map(|line| line.strip_prefix(of)).collect()
    };
    assert_eq!(
        ALERT_VARIABLES.to_vec(),
        items(".It Ev "),
        "program, then manual"
    );
    let words: Vec<&str> = Alarm::ALL.iter().map(|(_, word)| *word).collect();
    assert_eq!(words, items(".It Li "), "program, then manual");
}

#[test]
fn every_field_of_settled_toml_5_expands() {
    let page = read("man/settled.toml.5");
    let documented: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Li {")?.split('}').next())
        .collect();
    let known: BTreeSet<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        known,
        documented.iter().copied().collect(),
        "program, then manual"
    );
    let all: Vec<String> = documented.iter().map(|f| format!("\"{{{f}}}\"")).collect();
    let all = all.join(", ");
    assert_good(
        "all fields",
        &format!("[watch.all]\npath = \"/srv\"\nkey = \"{{dir1}}\"\nrun = [\"true\", {all}]\n"),
    );
    let said = check("[watch.all]\npath = \"/srv\"\nrun = [\"true\", \"{no_such}\"]\n");
    assert_eq!(said.status.code(), Some(78), "{said:?}");
}

#[test]
fn every_example_is_a_good_configuration() {
    for file in files("packaging/examples", &[".toml"]) {
        assert_good(&file, &read(&file));
    }
    // What is installed has its watch in comments: only that is missing.
    let installed = read("packaging/settled.toml");
    let said = check(&installed);
    assert_eq!(said.status.code(), Some(78), "{said:?}");
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        text.lines().count() == 1 && text.contains("no watch"),
        "{text}"
    );
    let filled_in: String = installed
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(code) if code.starts_with('[') || code.contains(" = ") => code,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_good("packaging/settled.toml, filled in", &filled_in);

    let page = read("man/settled.toml.5");
    let mut examples = 0;
    for block in page.split(".Bd -literal").skip(1) {
        let (_, block) = block.split_once('\n').unwrap();
        let text = plain(block.split("\n.Ed").next().unwrap());
        assert_good("an example of settled.toml(5)", &text);
        examples += 1;
    }
    assert!(examples > 3);

    let readme = read("README.md");
    let block = readme.split("```toml\n").nth(1).unwrap();
    assert_good("README.md", block.split("```").next().unwrap());
}

/// A daemon that does not outlive its test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_job_gets_the_environment_of_settled_8() {
    let page = read("man/settled.8");
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Ev SETTLED_"))
        // Which are for jobs of another kind than the one here.
        .filter(|name| !["RECOVERED", "BATCH"].contains(name))
        .map(|name| format!("SETTLED_{name}"))
        .collect();
    assert!(documented.contains("SETTLED_PATH"));

    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("in");
    let pipe = dir.path().join("pipe");
    fs::create_dir(&root).unwrap();
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    fs::write(root.join("A 1.tar.gz"), "12345").unwrap();

    let mut daemon = Daemon(
        Command::new(SETTLED)
            .args(["watch", "--state"])
            .arg(dir.path().join("state"))
            .arg(&root)
            .args(["--", "sh", "-c", "env >\"$1\"", "sh"])
            .arg(&pipe)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let log = daemon.0.stderr.take().unwrap();

    // Whichever comes first: the job's words, or the end of a daemon that could not run it.
    let (tell, hear) = mpsc::channel();
    let end = tell.clone();
    std::thread::spawn(move || {
        let mut said = String::new();
        let read = File::open(pipe).and_then(|mut pipe| pipe.read_to_string(&mut said));
        tell.send(read.map(|_| said).map_err(|e| e.to_string()))
    });
    std::thread::spawn(move || {
        let mut log = log;
        let mut said = String::new();
        let read = log.read_to_string(&mut said);
        end.send(Err(format!("the daemon has ended ({read:?}): {said}")))
    });
    let environment = hear
        .recv_timeout(Duration::from_secs(60))
        .expect("no job within a minute")
        .unwrap();

    let got: BTreeSet<String> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with("SETTLED_"))
        .collect();
    assert_eq!(got, documented, "program, then manual");
    for line in [
        "SETTLED_NAME=A 1.tar.gz",
        "SETTLED_STEM=A 1.tar",
        "SETTLED_EXT=gz",
        "SETTLED_REL=A 1.tar.gz",
        "SETTLED_SIZE=5",
        "SETTLED_ATTEMPT=1",
    ] {
        assert!(environment.lines().any(|l| l == line), "{environment}");
    }
}
