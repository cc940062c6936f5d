//! What the program is made of, held against the pages: signals, variables, exit codes, words and values of keys.

use super::*;
use settled::config;
use settled::plan::Plan;
use settled::service::Signal;
use std::collections::BTreeMap;

/// The sources of the program, without their tests: what is in modules of their own, or at a file's end.
fn sources() -> BTreeMap<String, String> {
    fn walk(dir: &Path, into: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|suffix| suffix == "rs")
                && path.file_name().is_none_or(|name| name != "tests.rs")
            {
                let text = fs::read_to_string(&path).unwrap();
                let code = text
                    .split("#[cfg(test)]\n#[allow")
                    .next()
                    .unwrap_or_default();
                into.insert(path.display().to_string(), code.to_owned());
            }
        }
    }
    let mut into = BTreeMap::new();
    walk(&tree("src"), &mut into);
    assert!(into.len() > 50);
    into
}

/// The text between two places of a page.
fn section<'p>(page: &'p str, from: &str, to: &str) -> &'p str {
    let start = page.find(from).unwrap_or_else(|| panic!("no {from}"));
    let rest = &page[start..];
    let end = rest[from.len()..].find(to);
    &rest[..end.map_or(rest.len(), |end| end + from.len())]
}

/// The words that follow `before` wherever it stands, up to what is no part of a word.
fn words_after<'t>(text: &'t str, before: &str) -> BTreeSet<&'t str> {
    let word = |rest: &'t str| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    };
    text.split(before).skip(1).map(word).collect()
}

#[test]
fn signals_are_the_ones_in_settled_8() {
    let page = read("man/settled.8");
    let documented: BTreeSet<&str> = section(&page, ".Sh SIGNALS", "\n.Sh ")
        .lines()
        .filter_map(|line| line.strip_prefix(".It Dv "))
        .flat_map(|names| names.split(" , "))
        .collect();
    // What the program catches, by the list that it registers.
    let service = read("src/service.rs");
    let caught = words_after(&service, ", Number::");
    assert_eq!(caught, documented, "program, then manual");
    let named = [
        Signal::Hup,
        Signal::Usr1,
        Signal::Usr2,
        Signal::Term,
        Signal::Int,
    ]
    .map(Signal::name);
    assert_eq!(caught, BTreeSet::from(named));
}

#[test]
fn variables_that_are_read_are_the_ones_in_settled_8() {
    let page = read("man/settled.8");
    let documented: BTreeSet<&str> = section(&page, ".Sh ENVIRONMENT", "\n.Sh ")
        .lines()
        .filter_map(|line| line.strip_prefix(".It Ev "))
        .flat_map(|names| names.split(" , "))
        .collect();
    let mut read_ones = BTreeSet::new();
    for code in sources().values() {
        // Directly, by a function that stands for that, and the list of the service manager's.
        for call in [
            "var_os(\"",
            "env::var(\"",
            " var(\"",
            "(var(\"",
            " absolute(\"",
        ] {
            read_ones.extend(words_after(code, call).into_iter().map(str::to_owned));
        }
        if let Some(list) = code.split("const VARIABLES: [&str; ").nth(1) {
            let list = list
                .split(';')
                .nth(1)
                .and(list.split("];").next())
                .unwrap_or_default();
            read_ones.extend(words_after(list, " \"").into_iter().map(str::to_owned));
            read_ones.extend(words_after(list, "[\"").into_iter().map(str::to_owned));
        }
    }
    // What tests alone set is for those who change the program, and so in CONTRIBUTING.md.
    let contributing = read("CONTRIBUTING.md");
    read_ones.retain(|name| {
        let for_tests = name.starts_with("SETTLED_TEST_");
        assert!(!for_tests || contributing.contains(name.as_str()), "{name}");
        !for_tests
    });
    // tzset(3) reads it.
    read_ones.insert("TZ".into());
    let read_ones: BTreeSet<&str> = read_ones.iter().map(String::as_str).collect();
    assert!(
        read_ones.contains("HOME") && read_ones.contains("WATCHDOG_USEC"),
        "{read_ones:?}"
    );
    assert_eq!(read_ones, documented, "program, then manual");
}

#[test]
fn variables_of_jobs_are_the_ones_in_settled_8() {
    let page = read("man/settled.8");
    let documented: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Ev "))
        .filter(|name| name.starts_with("SETTLED_"))
        .collect();
    let attempt = sources()
        .remove(&tree("src/core/attempt.rs").display().to_string())
        .unwrap();
    let given: BTreeSet<String> = words_after(&attempt, "\"SETTLED_")
        .into_iter()
        .map(|name| format!("SETTLED_{name}"))
        .collect();
    let given: BTreeSet<&str> = given.iter().map(String::as_str).collect();
    assert_eq!(given, documented, "program, then manual");
}

#[test]
fn fields_of_journald_are_the_ones_in_settled_8() {
    let page = read("man/settled.8");
    let documented = words_after(section(&page, ".Sh UNDER SYSTEMD", "\n.Sh "), ".It Li ");
    let text = sources()
        .remove(&tree("src/log/text.rs").display().to_string())
        .unwrap();
    let sent: BTreeSet<String> = words_after(&text, "\"SETTLED_")
        .into_iter()
        .map(|name| format!("SETTLED_{name}"))
        .collect();
    let sent: BTreeSet<&str> = sent.iter().map(String::as_str).collect();
    assert_eq!(sent, documented, "program, then manual");
}

#[test]
fn exit_codes_are_used_and_those_used_are_listed() {
    let listed: BTreeSet<u8> = EXIT_CODES.iter().map(|(code, ..)| *code).collect();
    let cli = read("src/cli.rs");
    let constants: BTreeMap<&str, u8> =
        words_after(section(&cli, "pub mod exit {", "\n}"), "pub const ")
            .into_iter()
            .map(|name| {
                let value = cli.split(&format!("const {name}: u8 = ")).nth(1).unwrap();
                (name, value.split(';').next().unwrap().parse().unwrap())
            })
            .collect();
    assert_eq!(
        constants.values().copied().collect::<BTreeSet<u8>>(),
        listed
    );
    let mut used = BTreeSet::new();
    for code in sources().values() {
        // The last two are how a journal's errors end the daemon.
        let begins: &[&str] = match code.contains("fn exit_status(") {
            true => &["Fatal::new(", "=> 6", "=> 7"],
            false => &["Fatal::new("],
        };
        let numbers = begins
            .iter()
            .map(|before| (before, words_after(code, before)));
        for (before, words) in numbers {
            let digit = before.strip_prefix("=> ").unwrap_or_default();
            used.extend(
                words
                    .iter()
                    .filter_map(|word| format!("{digit}{word}").parse::<u8>().ok()),
            );
        }
        used.extend(
            words_after(code, "exit::")
                .iter()
                .filter_map(|name| constants.get(name)),
        );
    }
    assert_eq!(used, listed, "used, then listed");
    // What the codes of jobs mean is elsewhere in the page, and in the core.
    let page = read("man/settled.8");
    let jobs = section(&page, ".Ss Exit codes of a job", "\n.Sh ");
    let ends = read("src/core/ends.rs");
    for (name, code) in [("EX_DATAERR", 65), ("EX_TEMPFAIL", 75)] {
        assert!(
            ends.contains(&format!("const {name}: i32 = {code};")),
            "{name}"
        );
        assert!(
            section(jobs, &format!(".It {code}\n"), "\n.It ").contains(name),
            "{name}"
        );
    }
}

#[test]
fn the_configuration_that_is_read_without_c_is_the_one_in_the_manual() {
    let default = settled::cli::DEFAULT_CONFIG;
    for command in ["run", "check"] {
        let help = help(&[command]);
        assert!(help.contains(&format!("[default: {default}]")), "{help}");
    }
    let page = read("man/settled.8");
    let option = section(&page, ".It Fl c Ar file", "\n.It ");
    assert!(option.contains(&format!(".Pa {default} ")), "{option}");
    assert!(section(&page, ".Sh FILES", "\n.Sh ").contains(&format!(".It Pa {default}\n")));
}

fn plan(text: &str) -> Plan {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settled.toml");
    fs::write(&file, text).unwrap();
    config::load(&file).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// A configuration around one key, with what that key needs.
fn around(item: &Item, assignment: &str) -> String {
    let (daemon, alert, watch) = match item.section {
        "DAEMON" => (assignment, "", ""),
        "ALERT" => ("", assignment, ""),
        _ => ("", "", assignment),
    };
    let action = match item.key.as_str() {
        "workers" | "window" => "worker = [\"true\"]",
        _ => "run = [\"true\"]",
    };
    format!(
        "[daemon]\n{daemon}\n[alert]\nrun = [\"true\"]\n{alert}\n[watch.a]\npath = \"/srv\"\nkey = \"{{dir1}}\"\n{action}\n{watch}\n"
    )
}

#[test]
fn every_default_is_the_value_that_the_program_takes() {
    let mut compared = 0;
    for item in items() {
        let Some(default) = &item.default else {
            continue;
        };
        // Where the log goes depends on where standard error does.
        if item.section == "DAEMON" && item.key == "log" {
            continue;
        }
        let written = format!("{} = {}", item.key, toml_value(default));
        let with = format!("{:?}", plan(&around(&item, &written)));
        // That it is in none is asked when a command is started.
        let with = with.replace("cwd: Some([47])", "cwd: None");
        let without = format!("{:?}", plan(&around(&item, "")));
        assert_eq!(with, without, "{written}");
        compared += 1;
    }
    assert!(compared > 25, "{compared}");
    // Another value makes another plan, or the comparison means nothing.
    let watch = |more: &str| {
        format!(
            "{:?}",
            plan(&format!(
                "[watch.a]\npath = \"/srv\"\nrun = [\"true\"]\n{more}"
            ))
        )
    };
    for other in [
        "poll = \"2s\"",
        "attempts = 6",
        "recursive = true",
        "kill_after = \"11s\"",
    ] {
        assert_ne!(watch(other), watch(""), "{other}");
    }
}

#[test]
fn words_of_keys_are_the_ones_in_settled_toml_5() {
    let page = read("man/settled.toml.5");
    let mut keys = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix(".It Cm ")) {
        let (key, kind) = line.split_once(" No = ").unwrap();
        let kind = plain(kind)
            .replace("Qo ", "\"")
            .replace(" Qc", "\"")
            .replace("Cm ", "");
        let documented: Option<BTreeSet<&str>> = kind
            .split(" | ")
            .map(|word| word.strip_prefix('"')?.strip_suffix('"'))
            .collect();
        let Some(documented) = documented else {
            continue;
        };
        let section = match key {
            "on_damage" | "log" | "log_level" => "DAEMON",
            _ => "WATCH",
        };
        let item = Item {
            section,
            key: key.to_owned(),
            default: None,
        };
        let said = check(&around(&item, &format!("{key} = \"no such word\"")));
        let text = String::from_utf8(said.stderr).unwrap();
        let known = text
            .split(" is none of ")
            .nth(1)
            .unwrap_or_else(|| panic!("{key}: {text}"));
        let known: BTreeSet<&str> = known.split(" (").next().unwrap().split(", ").collect();
        assert_eq!(known, documented, "{key}: program, then manual");
        keys += 1;
    }
    assert!(keys > 10, "{keys}");
}

#[test]
fn keys_in_tables_are_the_ones_in_settled_toml_5() {
    let page = read("man/settled.toml.5");
    let documented = |key: &str| -> BTreeSet<String> {
        let item = section(&page, &format!("\n.It Cm {key} No = "), "\n.It Cm ");
        let names = item.lines().filter_map(|line| line.strip_prefix(".It Ql "));
        names.map(str::to_owned).collect()
    };
    let known = |file: &str, before: &str| -> BTreeSet<String> {
        let code = read(file);
        let list = code
            .split(before)
            .nth(1)
            .unwrap_or_else(|| panic!("{file}: no {before}"));
        let list = list.split(']').next().unwrap();
        list.split('"')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let deliver = known("src/config/watch/deliver.rs", "const KEYS: [&str; 7] = [");
    assert!(deliver.contains("to"));
    assert_eq!(deliver, documented("deliver"), "program, then manual");
    let batch = known(
        "src/config/watch/dispatch.rs",
        "reader.unknown_in(key, name, &[",
    );
    assert!(batch.contains("max"));
    assert_eq!(batch, documented("batch"), "program, then manual");
    let expect = known("src/config/alert.rs", "const EXPECT_KEYS: [&str; 5] = [");
    assert!(expect.contains("by"));
    assert_eq!(expect, documented("expect"), "program, then manual");
    // Those that it says hold without being set are taken, and change nothing.
    let with = |action: &str| {
        format!(
            "{:?}",
            plan(&format!("[watch.a]\npath = \"/srv\"\n{action}\n"))
        )
    };
    assert_eq!(
        with("deliver = { to = \"/mnt\" }"),
        with(
            "deliver = { to = \"/mnt\", flatten = false, verify = \"sha256\", keep_times = true, on_conflict = \"rename\" }"
        )
    );
    assert_eq!(
        with("run = [\"true\", \"{path}\"]\nbatch = {}"),
        with(
            "run = [\"true\", \"{path}\"]\nbatch = { max = 100, wait = \"1s\", split = false, stdin = false }"
        )
    );
}

#[test]
fn members_of_rows_are_the_ones_in_settled_1() {
    let page = read("man/settled.1");
    let json = section(&page, ".Sh JSON", "\n.Sh ");
    let listed: BTreeSet<&str> = json
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .collect();
    let source = read("src/core/view.rs");
    let rows = section(&source, "\nrows! {", "\n}\n");
    let mut members = 0;
    for line in rows.lines() {
        // A field: what is before the colon of its type, without an attribute.
        let line = line.trim_start();
        let line = line.rsplit("] ").next().unwrap_or(line);
        let Some((member, kind)) = line.split_once(": ") else {
            continue;
        };
        if line.starts_with("//") || !kind.ends_with(',') || member == "run" {
            continue;
        }
        assert!(
            listed.contains(member),
            "{member} is not in settled(1), JSON"
        );
        members += 1;
    }
    assert!(members > 80, "{members}");
}
