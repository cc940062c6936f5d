//! The workers that are shipped, on pipes: every name comes to the right file, and every line that they say is an answer.

#![allow(clippy::unwrap_used)]

use settled::core::ids::JobId;
use settled::core::protocol::{
    Answer, Answers, JobLine, Named, Said, push_batch, push_job, read_line,
};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names that a worker may meet, plain ones first.
const NAMES: [&[u8]; 17] = [
    b"a.csv",
    b"-rf",
    b"two  words ",
    "ä€😀 \u{2028}.txt".as_bytes(),
    b"$(touch pwned)`touch pwned`;*?[a]{}~#&|<>!%s%%",
    b"it's",
    b"say \"hi\"",
    b"back\\slash\\n\\0101\\",
    b"line\nfeed\n",
    b"\t\r tabs\x01\x1f\x7f",
    b"\",\"path\":\"/etc/passwd",
    b"caf\xe9.txt",
    b"\xff",
    b"\xe2\x82",
    b"\xed\xa0\x80",
    b"\xed\xb2\x80 and \xc3\xbc\n",
    b"\xf0\x9f\x98 \\ \" \n",
];
const PLAIN: usize = 6;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging/examples")
        .join(name)
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    /// The file of number n has n lines, so that a worker that opens another one says another number.
    fn new() -> Files {
        let dir = tempfile::tempdir().unwrap();
        for (number, name) in NAMES.iter().enumerate() {
            let path = dir.path().join(OsStr::from_bytes(name));
            // A name with slashes lies in directories of its own.
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "line\n".repeat(number)).unwrap();
        }
        Files { dir }
    }

    fn path(&self, name: &[u8]) -> Vec<u8> {
        [self.dir.path().as_os_str().as_bytes(), b"/", name].concat()
    }
}

fn job_line<'a>(job: &'a str, path: &'a [u8]) -> JobLine<'a> {
    JobLine {
        job,
        attempt: 1,
        recovered: false,
        watch: "w",
        path,
        rel: path,
        name: path.rsplit(|&byte| byte == b'/').next().unwrap(),
        dir: b"/",
        key: b"",
        size: 1,
        mtime_ns: 1,
    }
}

/// What a worker says to these lines: its answers, and its log.
fn run(worker: &str, lines: &[u8], cwd: &Path) -> (Vec<Said>, String) {
    let mut child = Command::new(example(worker))
        .current_dir(cwd)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{worker}: {e}"));
    // Little enough for a pipe to hold.
    child.stdin.take().unwrap().write_all(lines).unwrap();
    let (mut said, mut log) = (Vec::new(), Vec::new());
    child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    child.stderr.take().unwrap().read_to_end(&mut log).unwrap();
    let log = String::from_utf8_lossy(&log).into_owned();
    assert!(child.wait().unwrap().success(), "{worker}: {log}");
    assert!(said.is_empty() || said.ends_with(b"\n"));
    let said = said
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| {
            let line = line.strip_suffix(b"\n").unwrap();
            read_line(line)
                .unwrap_or_else(|e| panic!("{worker}: {}: {e}", String::from_utf8_lossy(line)))
        })
        .collect();
    (said, log)
}

fn answers(said: Vec<Said>) -> Vec<Answers> {
    said.into_iter()
        .filter_map(|said| match said {
            Said::Answers(answers) => Some(answers),
            Said::Ready => None,
        })
        .collect()
}

fn check(worker: &str, all_names: bool, batch: bool) {
    let files = Files::new();
    let paths: Vec<Vec<u8>> = NAMES.iter().map(|name| files.path(name)).collect();
    let jobs: Vec<String> = (0..NAMES.len()).map(|n| format!("5e771ed0-{n}")).collect();
    let of_jobs = || {
        jobs.iter()
            .zip(&paths)
            .map(|(job, path)| job_line(job, path))
    };
    let mut lines = Vec::new();
    if batch {
        push_batch(&mut lines, of_jobs());
    } else {
        of_jobs().for_each(|job| push_job(&mut lines, &job));
    }
    let gone = files.path(b"gone");
    push_job(&mut lines, &job_line("5e771ed0-99", &gone));
    let (said, log) = run(worker, &lines, files.dir.path());
    let answers = answers(said);
    assert_eq!(answers.len(), NAMES.len() + 1);
    for (number, name) in NAMES.iter().enumerate() {
        let name = String::from_utf8_lossy(name);
        let answer = &answers[number];
        let named = Named::Job {
            journal: 0x5e77_1ed0,
            job: JobId(number as u64),
        };
        assert_eq!(answer.jobs, [named], "{worker}: {name:?}");
        let counted = log
            .lines()
            .any(|line| line == format!("5e771ed0-{number}: {number} lines"));
        let expected = if all_names || number < PLAIN {
            (Answer::Done, true)
        } else {
            (Answer::Dead, false)
        };
        assert_eq!(
            (answer.answer, counted),
            expected,
            "{worker}: {name:?}: {log}"
        );
    }
    let last = answers.last().unwrap();
    assert!(
        matches!(last.answer, Answer::Retry(_)),
        "{worker}: {last:?}"
    );
    assert!(!files.dir.path().join("pwned").exists());
}

#[test]
fn python_takes_every_name() {
    check("worker.py", true, false);
    check("worker.py", true, true);
}

#[test]
fn sh_takes_plain_names_and_refuses_others() {
    check("worker.sh", false, false);
}

#[test]
fn sh_with_jq_takes_every_name() {
    check("worker-jq.sh", true, false);
    check("worker-jq.sh", true, true);
}

#[test]
fn what_is_no_text_is_dead_and_a_missing_file_is_named_in_its_bytes() {
    let files = Files::new();
    let (bad, gone) = (files.path(b"bad"), files.path(b"gone caf\xe9"));
    fs::write(OsStr::from_bytes(&bad), b"\xff\n").unwrap();
    let mut lines = Vec::new();
    push_job(&mut lines, &job_line("5e771ed0-1", &bad));
    push_job(&mut lines, &job_line("5e771ed0-2", &gone));
    let (said, _) = run("worker.py", &lines, files.dir.path());
    assert_eq!(said[0], Said::Ready);
    let answers = answers(said);
    assert_eq!(answers[0].answer, Answer::Dead);
    assert_eq!(
        answers[1].answer,
        Answer::Retry(Some(std::time::Duration::from_secs(5)))
    );
    let message = String::from_utf8_lossy(&answers[1].message).into_owned();
    assert!(message.contains("No such file"), "{message}");
}

#[test]
fn each_answers_before_it_reads_on() {
    let files = Files::new();
    let path = files.path(NAMES[0]);
    for worker in ["worker.py", "worker.sh", "worker-jq.sh"] {
        let mut child = Command::new(example(worker))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        for number in 1..=3 {
            let job = format!("5e771ed0-{number}");
            let mut line = Vec::new();
            push_job(&mut line, &job_line(&job, &path));
            stdin.write_all(&line).unwrap();
            let mut said = String::new();
            // A worker whose answer is still in a buffer of its own would hang here.
            while !said.contains(&job) {
                said.clear();
                assert!(answers.read_line(&mut said).unwrap() > 0, "{worker}");
            }
        }
        drop(stdin);
        assert!(child.wait().unwrap().success(), "{worker}");
    }
}
