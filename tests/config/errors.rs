//! Each error, at its line, with its remedy.

use super::*;

/// One error each: text of the block's fourth line, the key it is said of, and a part of what is said.
#[test]
fn each_error_names_its_line_and_key() {
    for (line, key, part) in [
        ("pth = 1", "pth", "unknown key (nearest known key 'path')"),
        (
            "recursiv = true",
            "recursiv",
            "nearest known key 'recursive'",
        ),
        ("includes = []", "includes", "nearest known key 'include'"),
        ("delivr = {}", "delivr", "nearest known key 'deliver')"),
        (
            "dedpu = {}",
            "dedpu",
            "nearest known key 'dedup', which is not built in this version",
        ),
        (
            "verify = [\"image\"]",
            "verify",
            "not built in this version",
        ),
        ("marker = \"x\"", "marker", "not built in this version"),
        (
            "recursive = 1",
            "recursive",
            "is a number; write true or false",
        ),
        ("serial = true", "serial", "needs a key"),
        ("settle = 2", "settle", "write a duration in quotes"),
        ("settle = \"2\"", "settle", "\"2\" is not a duration"),
        ("poll = \"0\"", "poll", "too short"),
        ("poll = \"1ms\"", "poll", "at least \"10ms\""),
        ("min_size = \"10K\"", "min_size", "\"10K\" is not a size"),
        (
            "min_size = { image = \"10KiB\" }",
            "min_size",
            "not built in this version",
        ),
        ("min_size = -1", "min_size", "\"-1\" is not a size"),
        (
            "min_size = \"2\"\nmax_size = 1",
            "min_size",
            "more than max_size",
        ),
        (
            "min_age = \"2s\"\nignore_older = \"2s\"",
            "min_age",
            "not less than ignore_older",
        ),
        (
            "observe = \"inotfy\"",
            "observe",
            "nearest known value 'inotify'",
        ),
        ("existing = \"no\"", "existing", "none of run, skip"),
        ("order = \"size\"", "order", "none of arrival, name, mtime"),
        ("concurrency = 0", "concurrency", "write a number from 1 to"),
        (
            "concurrency = 99999999999999999999",
            "concurrency",
            "out of range",
        ),
        (
            "attempts = \"5\"",
            "attempts",
            "is a string; write a number",
        ),
        ("attempts = 1.5", "attempts", "is a fraction"),
        (
            "backoff = { first = \"2s\", max = \"1s\" }",
            "backoff",
            "raise max",
        ),
        (
            "backoff = { frist = \"2s\" }",
            "backoff.frist",
            "nearest known key 'first'",
        ),
        ("backoff = \"1s\"", "backoff", "write a table"),
        ("backoff = { first = \"0\" }", "backoff.first", "too short"),
        ("include = \"*.csv\"", "include", "write an array"),
        ("include = []", "include", "selects nothing"),
        (
            "include = [\"*.csv\", \"[a\"]",
            "include[1]",
            "unclosed character class",
        ),
        ("exclude = [\"x/\"]", "exclude[0]", "trailing slash"),
        (
            "exclude = [1]",
            "exclude[0]",
            "is a number; write it in quotes",
        ),
        ("key = \"{pth}\"", "key", "nearest known field {path}"),
        ("key = \"{sha256}\"", "key", "not built in this version"),
        ("key = \"{attempt}\"", "key", "cannot use {attempt}"),
        ("done = \"kep\"", "done", "\"kep\" is none of"),
        (
            "done = { mov = \"/x\" }",
            "done.mov",
            "nearest known key 'move'",
        ),
        (
            "done = { flatten = true }",
            "done",
            "does not say where to move",
        ),
        (
            "done = { move = \"archive\" }",
            "done.move",
            "is not absolute",
        ),
        (
            "done = { move = \"{name}/x\" }",
            "done.move",
            "is not absolute",
        ),
        ("done = { move = \"/a/../{name}\" }", "done.move", "'..'"),
        (
            "done = { move = \"/a/{key}\" }",
            "done.move",
            "{key} needs a key",
        ),
        ("dead = { move = \"/srv/a\" }", "dead", "sees them again"),
        ("env = { A = \"{key}\" }", "env.A", "{key} needs a key"),
        (
            "env = { \"A=B\" = \"x\" }",
            "env.A=B",
            "cannot name a variable",
        ),
        (
            "env = { SETTLED_X = \"x\" }",
            "env.SETTLED_X",
            "set for each job",
        ),
        ("env = { A = 1 }", "env.A", "write it in quotes"),
        ("cwd = \"tmp\"", "cwd", "is not absolute"),
        ("formerly = \"a\"", "formerly", "still there"),
        ("formerly = \"a b\"", "formerly", "cannot name a watch"),
        ("timeout = \"99999d\"", "timeout", "longer than"),
    ] {
        let text = format!("[watch.a]\npath = \"/srv/a\"\nrun = [\"x\"]\n{line}\n");
        let errors = refused(&text);
        let said = lines(&errors);
        assert_eq!(said.len(), 1, "{line}: {said:#?}");
        // A move's own key carries the path of the table in which it stands.
        let begin = format!("4: [watch.a] {key}: ");
        let begin_of_block = format!("4: [watch.a] {}: ", key.split('.').next().unwrap());
        assert!(
            said[0].starts_with(&begin) || said[0].starts_with(&begin_of_block) && key == "dead",
            "{line}: {said:?}"
        );
        assert!(said[0].contains(part), "{line}: {said:?}");
        assert_eq!(errors.exit_code(), 78);
        assert!(!errors.unreadable);
    }
}

#[test]
fn errors_outside_of_keys() {
    for (text, begin) in [
        ("", "1: no watch; add a block [watch.NAME]"),
        ("[daemon]\n", "1: no watch"),
        (
            "\n[wach.a]\n",
            "2: [wach] unknown block (nearest known block [watch])",
        ),
        ("\n[tail.a]\n", "2: [tail] not built in this version"),
        ("[alert]\n", "1: [alert] run: is missing; name a program"),
        ("[alert]\nrun = [\"bin/x\"]", "2: [alert] run: is relative"),
        ("[alert]\nrun = []", "2: [alert] run: names no program"),
        (
            "[alert]\nrun = [\"x\"]\nded = 1",
            "3: [alert] ded: unknown key (nearest known key 'dead')",
        ),
        (
            "[daemon]\n\nmetrics_textfile = \"/x/\"",
            "3: [daemon] metrics_textfile: names no file",
        ),
        (
            "[daemon]\nmetrics_every = \"999ms\"",
            "2: [daemon] metrics_every: \"999ms\" is too short",
        ),
        (
            "[daemon]\nstat = \"/x\"",
            "2: [daemon] stat: unknown key (nearest known key 'state')",
        ),
        (
            "[daemon]\nstate = \"x\"",
            "2: [daemon] state: \"x\" is not absolute",
        ),
        (
            "[daemon]\nlog = \"file\"",
            "2: [daemon] log: \"file\" is none of journald, syslog, stderr",
        ),
        (
            "daemon = 3",
            "1: [daemon] is a number; write a table, as in [daemon]",
        ),
        ("[watch]\npath = \"/x\"", "2: [watch] path: is not a block"),
        ("[[watch]]\n", "1: [watch] is an array"),
        (
            "[watch.\"a b\"]\npath=\"/a\"\nrun=[\"x\"]",
            "1: [watch] \"a b\" cannot name a watch",
        ),
        ("[watch.a]\nrun=[\"x\"]", "1: [watch.a] path: is missing"),
        ("[watch.a]\npath=\"/a\"", "1: [watch.a] run: is missing"),
        (
            "[watch.a]\npath=\"/a\"\nrun=[]",
            "3: [watch.a] run: is empty",
        ),
        (
            "[watch.a]\npath=\"/a\"\nrun=\"x\"",
            "3: [watch.a] run: is a string; write an array",
        ),
        (
            "[watch.a]\npath=\"/a\"\nrun=[\n\"x\",\n\"{key}\"]",
            "5: [watch.a] run[1]: {key} needs a key",
        ),
        (
            "[watch.a]\npath=\"/a\"\nrun=[\n\"\"]",
            "4: [watch.a] run[0]: is empty",
        ),
        (
            "[watch.a]\npath=\"/a\"\nrun=[\"bin/x\"]",
            "3: [watch.a] run[0]: \"bin/x\" is relative",
        ),
        (
            "[watch.a]\npath=\"/a\"\nrun=[\"x\\u0000\"]",
            "3: [watch.a] run[0]: a NUL byte",
        ),
        (
            "[watch.a]\npath=\"a\"\nrun=[\"x\"]",
            "2: [watch.a] path: \"a\" is not absolute",
        ),
        (
            "[watch.a]\npath=\"/a/../b\"\nrun=[\"x\"]",
            "2: [watch.a] path: \"/a/../b\" has '..' in it",
        ),
        (
            "[watch.a]\npath=\"/var/lib/settled/x\"\nrun=[\"x\"]",
            "2: [watch.a] path: lies in the state directory",
        ),
        ("[watch.a]\npath=\"/a\n", "2: not TOML: "),
        (
            "[watch.a]\npath=\"/a\"\npath=\"/b\"",
            "3: not TOML: duplicate key",
        ),
        (
            "[defaults]\nformerly = \"x\"\n[watch.a]\npath=\"/a\"\nrun=[\"x\"]",
            "2: [defaults] formerly: belongs to one watch",
        ),
        (
            "[defaults]\natempts = 3\n[watch.a]\npath=\"/a\"\nrun=[\"x\"]",
            "2: [defaults] atempts: unknown key (nearest known key 'attempts')",
        ),
    ] {
        let said = lines(&refused(text));
        assert_eq!(said.len(), 1, "{text}: {said:#?}");
        assert!(said[0].starts_with(begin), "{text}: {said:?}");
    }
}

#[test]
fn all_errors_at_once_in_the_order_of_their_lines() {
    let errors = refused(
        "[daemon]\nconcurrency = 0\n[watch.b]\nrun = [\"x\"]\nserial = true\n[watch.a]\npath = \"x\"\nrun = 3\nsettle = \"x\"\nexpect = 3\n",
    );
    let said = lines(&errors);
    let heads: Vec<&str> = said.iter().map(|l| l.split(": ").next().unwrap()).collect();
    assert_eq!(heads, ["2", "3", "5", "7", "8", "9", "10"], "{said:#?}");
    let path = errors.list[0].file.display().to_string();
    assert!(errors.to_string().lines().all(|l| l.starts_with(&path)));
}

#[test]
fn an_error_stays_on_its_line_whatever_the_keys_are() {
    let errors = refused("[watch.a]\npath=\"/a\"\nrun=[\"x\"]\n\"b\\n\\u001b[31m\" = 1\n");
    let text = errors.to_string();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("b\\n\\u{1b}[31m"), "{text}");
}

#[test]
fn the_example_is_accepted_but_for_what_is_not_built() {
    let example = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/example.toml"
    ))
    .unwrap();
    let errors = refused(&example);
    for error in &errors.list {
        assert!(error.what.contains("not built in this version"), "{error}");
    }
    let keys: Vec<String> = errors
        .list
        .iter()
        .map(|e| format!("{} {}", e.section, e.key))
        .collect();
    assert_eq!(
        keys,
        [
            "watch.cameras verify",
            "watch.cameras min_size",
            "watch.cameras dedup",
            "watch.cameras on_new_dir",
            "watch.cameras duplicate",
            "watch.cameras invalid",
            "tail ",
        ]
    );
}

/// No text makes the reader panic: thousands of mutations of a valid file, loaded as files are.
#[test]
fn no_text_is_too_wrong() {
    let example = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/example.toml"
    ))
    .unwrap();
    let files = Files::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 11).unwrap() % below
    };
    let snippets: [&[u8]; 20] = [
        b"\"",
        b"[",
        b"]",
        b"{",
        b"}",
        b"=",
        b"\n",
        b"\\",
        b"\0",
        b"\xff",
        b"..",
        b"/",
        b"{{",
        b"|slug",
        b"*",
        b"-1",
        b"99999999999999999999",
        b"\xc3\xa9",
        b"[[",
        b"'''",
    ];
    let (mut good, mut bad) = (0, 0);
    for round in 0..3_000 {
        let mut text = if round % 2 == 0 {
            WHOLE.as_bytes().to_vec()
        } else {
            example.clone()
        };
        for _ in 0..1 + random(4) {
            let at = random(text.len());
            match random(5) {
                0 => text[at] = u8::try_from(random(256)).unwrap(),
                1 => drop(text.remove(at)),
                2 => {
                    let snippet = snippets[random(snippets.len())];
                    text.splice(at..at, snippet.iter().copied());
                }
                3 => {
                    let end = (at + random(30)).min(text.len());
                    let piece = text[at..end].to_vec();
                    let to = random(text.len());
                    text.splice(to..to, piece);
                }
                _ => {
                    let end = (at + random(30)).min(text.len());
                    text.drain(at..end);
                }
            }
            if text.is_empty() {
                text.push(b'\n');
            }
        }
        match load(&files.write("s.toml", &text)) {
            Ok(_) => good += 1,
            Err(errors) => {
                bad += 1;
                assert!(!errors.list.is_empty());
                let shown = errors.to_string();
                assert_eq!(shown.lines().count(), errors.list.len(), "{shown}");
            }
        }
    }
    assert!(
        good > 20 && bad > 1_500,
        "mutations must be both: {good} good, {bad} bad"
    );
}

#[test]
fn deep_nesting_is_an_error() {
    let text = format!("[watch.a]\npath = {}", "[".repeat(100_000));
    assert!(!refused(&text).list.is_empty());
}
