//! The built program, as the daemon executes it.

use super::{CONTENT, TEMPORARY, Yard};
use settled::core::delivery::{DeliverOrder, SweepOrder};
use settled::plan::OnConflict;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const SETTLED: &str = env!("CARGO_BIN_EXE_settled");

fn os(args: &[Vec<u8>]) -> impl Iterator<Item = &OsStr> {
    args.iter().map(|arg| OsStr::from_bytes(arg))
}

/// With the source on descriptor 3.
fn command(source: &Path, order: &DeliverOrder) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"exec "$@" 3<"$SOURCE""#, "sh", SETTLED])
        .args(os(&order.argv()[1..]))
        .env("SOURCE", source)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(yard: &Yard, order: &DeliverOrder) -> (i32, String) {
    ended(command(&yard.file(), order).output().unwrap())
}

fn ended(out: Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.stdout.is_empty(), "nothing goes to standard output");
    (out.status.code().unwrap_or(-1), text)
}

#[test]
fn exit_codes_and_sentences() {
    let yard = Yard::new(true, CONTENT);
    let mut order = yard.order();
    let (file, target) = (yard.file(), yard.target());
    let (file, target) = (file.display(), target.display());
    assert_eq!(run(&yard, &order), (0, String::new()));
    assert_eq!(fs::read(yard.target()).unwrap(), CONTENT);
    let sentence = format!("{target} exists: {file} is not delivered\n");
    assert_eq!(run(&yard, &order), (65, sentence));
    order.on_conflict = OnConflict::Skip;
    let sentence = format!("{target} exists: {file} is not delivered, and done\n");
    assert_eq!(run(&yard, &order), (0, sentence));
    order.on_conflict = OnConflict::Rename;
    let beside = yard.beside("a.1.csv");
    let name = beside.display();
    let sentence = format!("{target} exists: {file} is delivered as {name}\n");
    assert_eq!(run(&yard, &order), (0, sentence));
    order.recovered = true;
    let sentence = format!("{file} was delivered as {target} by an earlier attempt\n");
    assert_eq!(run(&yard, &order), (0, sentence));
    order.size += 1;
    let sentence = format!("{file} changed before it was delivered to {target}\n");
    assert_eq!(run(&yard, &order), (75, sentence));
    order = yard.order();
    fs::remove_file(yard.target()).unwrap();
    fs::remove_file(yard.beside("a.1.csv")).unwrap();
    fs::remove_dir(yard.target().parent().unwrap()).unwrap();
    fs::write(yard.target().parent().unwrap(), b"").unwrap();
    let sentence =
        format!("cannot deliver {file} to {target}: open target directory: Not a directory\n");
    assert_eq!(run(&yard, &order), (75, sentence));
}

#[test]
fn called_in_a_wrong_way() {
    for (args, sentence) in [
        (
            vec!["deliver-file", "/x"],
            "settled deliver-file: expected TARGET_DIR and REL\n",
        ),
        (
            vec!["sweep", "/x"],
            "settled sweep: expected TARGET_DIR and JOURNAL_ID\n",
        ),
    ] {
        let out = Command::new(SETTLED).args(args).output().unwrap();
        assert_eq!(ended(out), (64, sentence.into()));
    }
    let yard = Yard::new(false, CONTENT);
    let script = r#"exec "$@" 3<&-"#;
    let out = Command::new("sh")
        .args(["-c", script, "sh", SETTLED])
        .args(os(&yard.order().argv()[1..]))
        .output()
        .unwrap();
    let sentence = "settled deliver-file: no file is open on descriptor 3\n";
    assert_eq!(ended(out), (64, sentence.into()));
    let help = Command::new(SETTLED).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("run") && !help.contains("deliver-file") && !help.contains("sweep"));
}

#[test]
fn what_is_still_being_filled_is_not_begun_again() {
    let yard = Yard::new(true, CONTENT);
    fs::create_dir_all(yard.top()).unwrap();
    fs::write(yard.top().join(TEMPORARY), b"part").unwrap();
    let alive = File::open(yard.top().join(TEMPORARY)).unwrap();
    alive.lock().unwrap();
    let (code, sentence) = run(&yard, &yard.order());
    assert_eq!(code, 75, "{sentence}");
    assert!(
        sentence.contains("lock what an earlier attempt left"),
        "{sentence}"
    );
    assert_eq!(fs::read(yard.top().join(TEMPORARY)).unwrap(), b"part");
    drop(alive);
    assert_eq!(run(&yard, &yard.order()), (0, String::new()));
    assert_eq!(yard.files(), [(yard.target(), CONTENT.to_vec())]);
}

/// Kills deliveries after times that go over the whole of one, up and down again.
#[test]
fn killed_at_any_moment_there_is_nothing_or_the_whole_file() {
    let bytes: Vec<u8> = (0..1_500_000usize).map(|n| (n / 4096 + n) as u8).collect();
    let (mut nothing, mut parts, mut whole, mut swept) = (0, 0, 0, 0);
    for far in [false, true] {
        let yard = Yard::new(far, &bytes);
        let expected = [(yard.target(), bytes.clone())];
        let begun = Instant::now();
        assert_eq!(run(&yard, &yard.order()).0, 0);
        let longest = begun.elapsed() * 3 / 2;
        for round in 0..40u32 {
            if yard.top().exists() {
                fs::remove_dir_all(yard.top()).unwrap();
            }
            let mut order = yard.order();
            let mut child = command(&yard.file(), &order).spawn().unwrap();
            let moment = Instant::now() + longest * (round * 17 % 40) / 40;
            while let Some(rest) = moment.checked_duration_since(Instant::now()) {
                std::thread::sleep(rest.min(Duration::from_millis(1)));
            }
            // Standard library's kill does nothing to one that has been waited for; it may have ended by itself.
            child.kill().unwrap();
            child.wait().unwrap();
            let visible = yard.visible();
            assert!(
                visible.is_empty() || visible == expected,
                "part of a file is visible"
            );
            let left = yard.files().len() > visible.len();
            match (visible.is_empty(), left) {
                (true, false) => nothing += 1,
                (true, true) => parts += 1,
                (false, _) => whole += 1,
            }
            if left && round % 2 == 0 {
                let sweep = SweepOrder {
                    dir: order.to.clone(),
                    journal: "5e771ed0".into(),
                };
                let out = Command::new(SETTLED)
                    .args(os(&sweep.argv()[1..]))
                    .output()
                    .unwrap();
                let (code, sentence) = ended(out);
                assert_eq!(code, 0, "{sentence}");
                assert!(
                    sentence.contains("1 removed and 0 still in use"),
                    "{sentence}"
                );
                assert_eq!(yard.files(), visible);
                swept += 1;
            }
            order.recovered = true;
            let (code, sentence) = run(&yard, &order);
            assert_eq!(code, 0, "{sentence}");
            assert!(yard.files() == expected, "one whole file and nothing else");
        }
    }
    println!("killed: {nothing} before, {parts} amid, {whole} after; {swept} swept");
    assert!(parts > 0, "no delivery was killed amid its work");
}

/// Runs a script where mounts can be made that nobody else sees; `None` if that is not allowed here.
fn with_mounts(yard: &Yard, script: &str, order: &DeliverOrder) -> Option<String> {
    let flags = match nix::unistd::geteuid().is_root() {
        true => "-m",
        false => "-rm",
    };
    let mounts = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args([flags, "sh", "-c", script, "sh", SETTLED])
            .args(os(&order.argv()[1..]))
            .env("SOURCE", yard.file())
            .env("TOP", yard.top())
            .env("LC_ALL", "C");
        command.output()
    };
    fs::create_dir_all(yard.top().join("in")).unwrap();
    match mounts(r#"mount -t tmpfs -o size=64k none "$TOP""#) {
        Ok(out) if out.status.success() => {}
        _ => {
            eprintln!("SKIPPED: no mounts can be made here");
            return None;
        }
    }
    let out = mounts(script).unwrap();
    let text = [out.stdout, out.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_full_filesystem_keeps_nothing_of_it() {
    let yard = Yard::new(false, &[b'x'; 300_000]);
    let script = r#"mount -t tmpfs -o size=128k none "$TOP" && mkdir "$TOP/in" || exit
        "$@" 3<"$SOURCE" 2>&1; echo "exit $?"; find "$TOP" ! -type d
        mount -o remount,size=1m "$TOP"; "$@" 3<"$SOURCE"; echo "exit $?"; find "$TOP" ! -type d -size +200k"#;
    if let Some(text) = with_mounts(&yard, script, &yard.order()) {
        let (file, target) = (yard.file(), yard.target());
        let (file, target) = (file.display(), target.display());
        let lines: Vec<&str> = text.lines().collect();
        let sentence = format!("cannot deliver {file} to {target}: ");
        assert!(lines[0].starts_with(&sentence), "{text}");
        assert!(lines[0].ends_with(": No space left on device"), "{text}");
        let after = ["exit 75", "exit 0", &target.to_string()];
        assert_eq!(lines[1..], after, "{text}");
    }
}

#[test]
fn a_read_only_filesystem_is_tried_again() {
    let yard = Yard::new(false, CONTENT);
    let script = r#"mount -t tmpfs none "$TOP" && mount -o remount,ro "$TOP" || exit
        "$@" 3<"$SOURCE" 2>&1; echo "exit $?""#;
    if let Some(text) = with_mounts(&yard, script, &yard.order()) {
        assert!(text.ends_with("Read-only file system\nexit 75\n"), "{text}");
    }
}

#[test]
fn another_filesystem_may_be_mounted_below_the_target() {
    let yard = Yard::new(false, CONTENT);
    // What an earlier attempt left there is removed too.
    let script = r#"mount -t tmpfs none "$TOP/in" && echo part >"$TOP/in/.settled-5e771ed0-18~" || exit
        "$@" 3<"$SOURCE"; echo "exit $?"; find "$TOP" ! -type d; cat "$TOP/in/a.csv""#;
    if let Some(text) = with_mounts(&yard, script, &yard.order()) {
        let content = String::from_utf8_lossy(CONTENT);
        let expected = format!("exit 0\n{}\n{content}", yard.target().display());
        assert_eq!(text, expected);
        assert_eq!(yard.files(), [], "nothing was made below the mount");
    }
}
