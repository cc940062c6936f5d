//! The house rules that a compiler does not know, read from the sources.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {dir}");
    found
}

/// The code without comments and without its tests: what runs.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

fn offences(files: &[(PathBuf, String)], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in code(text).lines().enumerate() {
            for word in words {
                if line.contains(word) {
                    found.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
    }
    found
}

/// Clocks, files, processes, sockets, threads, and maps whose order is not defined.
const OUTSIDE: &[&str] = &[
    "std::fs",
    "std::process",
    "std::net",
    "std::thread",
    "std::env",
    "std::os",
    "SystemTime",
    "Instant",
    "HashMap",
    "HashSet",
    "libc::",
    "mio::",
    "nix::",
    "crate::sys",
    "println!",
    "eprintln!",
];

#[test]
fn the_core_knows_no_clock_no_file_no_process_and_no_unordered_map() {
    assert_eq!(
        offences(&sources("src/core"), OUTSIDE),
        Vec::<String>::new()
    );
}

#[test]
fn the_journals_logic_knows_them_neither() {
    let pure: Vec<_> = sources("src/journal")
        .into_iter()
        .filter(|(path, _)| {
            let name = path.file_name().and_then(|name| name.to_str());
            matches!(
                name,
                Some("mod.rs" | "format.rs" | "body.rs" | "recover.rs" | "compact.rs")
            )
        })
        .collect();
    assert!(pure.len() >= 2);
    assert_eq!(offences(&pure, OUTSIDE), Vec::<String>::new());
}

#[test]
fn unsafe_lives_in_sys() {
    let outside: Vec<_> = sources("src")
        .into_iter()
        .filter(|(path, _)| {
            let path = path.to_string_lossy();
            !path.ends_with("/src/sys.rs") && !path.contains("/src/sys/")
        })
        .collect();
    assert_eq!(
        offences(&outside, &["unsafe {", "unsafe fn", "unsafe impl"]),
        Vec::<String>::new()
    );
}

#[test]
fn the_main_process_makes_no_path_call_on_users_files() {
    // The rooms that the loop itself runs in; scouts, the mover and children are other processes. The
    // configuration, the state directory and /proc are its own.
    let rooms: Vec<_> = sources("src")
        .into_iter()
        .filter(|(path, _)| {
            let path = path.to_string_lossy();
            path.contains("/src/core/")
                || path.contains("/src/daemon")
                || path.ends_with("/src/watch.rs")
                || path.ends_with("/src/child.rs")
        })
        .collect();
    assert_eq!(
        offences(
            &rooms,
            &[
                "std::fs",
                "File::open",
                "openat",
                "fs::metadata",
                "symlink_metadata",
                "read_dir"
            ]
        ),
        Vec::<String>::new()
    );
}

#[test]
fn files_can_be_read_in_one_sitting() {
    for dir in ["src", "tests"] {
        for (path, text) in sources(dir) {
            let lines = text.lines().count();
            assert!(lines <= 900, "{}: {lines} lines", path.display());
        }
    }
}

#[test]
fn nothing_is_left_undone_in_the_text() {
    // Put together here so that this file does not find itself.
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
    ];
    for dir in ["src", "tests"] {
        for (path, text) in sources(dir) {
            for word in &words {
                assert!(!text.contains(word.as_str()), "{}: {word}", path.display());
            }
        }
    }
}
