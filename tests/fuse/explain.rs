//! `settled explain` of what lies on a mount that does not answer: it says so, and does not wait for it.

use crate::bed::{Bed, until};
use crate::mount::Liar;
use crate::{daemon, kit};
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

crate::tests![
    explain_waits_for_no_mount_that_is_known_not_to_answer,
    explain_waits_for_no_mount_of_which_nobody_knows_that_it_does_not_answer,
];

/// What it says; it ends before the mount answers.
fn explain(bed: &Bed, path: &Path) -> String {
    let (text, status) = explain_and_end(bed, path);
    assert_eq!(status, Some(0), "{text}");
    text
}

fn explain_and_end(bed: &Bed, path: &Path) -> (String, Option<i32>) {
    let mut asked = Command::new(env!("CARGO_BIN_EXE_settled"))
        .arg("explain")
        .arg(path)
        .arg("-c")
        .arg(bed.path("settled.toml"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the built program");
    let mut out = asked.stdout.take().expect("a pipe");
    let mut status = None;
    until(&format!("the answer about {}", path.display()), || {
        status = asked.try_wait().expect("a child");
        status.is_some()
    });
    let mut text = String::new();
    out.read_to_string(&mut text).expect("text");
    (text, status.and_then(|status| status.code()))
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for words in words {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
}

fn explain_waits_for_no_mount_that_is_known_not_to_answer() {
    const NOT: &str = "the disk was not looked at";
    for way in ["hang all", "deaf"] {
        let bed = Bed::new();
        let liar = Liar::mount(&bed, "behind", "far");
        fs::create_dir(liar.backing.join("in")).expect("a directory");
        let go = bed.path("go");
        let job = format!(
            "case \"$2\" in back*) exit 3;; runs*) while [ ! -e '{}' ]; do sleep 0.02; done;; esac\n",
            go.display()
        );
        let run = kit::shell_key(&bed, &job, &["{name}"]);
        let archive = liar.point.join("archive");
        bed.configure_text(&format!(
            "{}[watch.far]\npath = {:?}\npoll = \"50ms\"\nsettle = \"200ms\"\nrecursive = true\n\
             backoff = {{ first = \"1h\", max = \"1h\" }}\n{run}\n\
             [watch.near]\npath = {:?}\nsettle = \"0\"\ndone = {{ move = {archive:?} }}\n{run}\n",
            daemon(&bed, "drain = \"1s\""),
            liar.point.join("in"),
            bed.path("in"),
        ));
        symlink(&liar.point, bed.path("way")).expect("a link");
        let mut settled = bed.start();
        for name in ["over", "back", "runs"] {
            liar.put(&format!("in/{name}"), "x");
        }
        kit::put(&bed, "moved", "x");
        let far = |name: &str| liar.point.join(name);
        for (path, words) in [
            (far("in/over"), "kept where it is"),
            (far("in/back"), "waits for attempt 2"),
            (far("in/runs"), "attempt 1 is running"),
            (bed.inside("moved"), "(it is there)"),
        ] {
            until(words, || explain(&bed, &path).contains(words));
        }
        assert!(!explain(&bed, &far("in/over")).contains(NOT));

        liar.tell(way);
        settled.wait_log("does not answer");
        has(&explain(&bed, &far("in/over")), &[NOT, "exit status 0"]);
        has(
            &explain(&bed, &far("in/back")),
            &[NOT, "waits for attempt 2"],
        );
        has(
            &explain(&bed, &far("in/runs")),
            &[NOT, "attempt 1 is running"],
        );
        has(&explain(&bed, &far("in/new")), &[NOT, "yes: every name"]);
        has(
            &explain(&bed, &far("in/no/such")),
            &[NOT, "yes: every name"],
        );
        // Below no watch, and by a link, and where a file went that lay elsewhere.
        has(&explain(&bed, &far("else")), &[NOT, "none has this path"]);
        has(
            &explain(&bed, &bed.path("way/in/new")),
            &[NOT, "leads to", "far"],
        );
        has(
            &explain(&bed, &bed.inside("moved")),
            &[
                "nothing has this name",
                "(not looked at: a mount does not answer)",
            ],
        );

        // One that has only just come does not know the mount.
        settled.kill();
        settled = bed.start();
        settled.wait_log("the directory does not answer");
        has(&explain(&bed, &far("in/over")), &[NOT, "exit status 0"]);
        has(&explain(&bed, &far("in/new")), &[NOT, "yes: every name"]);
        fs::write(&go, "").expect("a file");
        liar.tell("back");
        until("the mount to answer", || {
            !explain(&bed, &far("in/over")).contains(NOT)
        });
        assert_eq!(settled.stop(), Some(0), "{way}");
    }
}

fn explain_waits_for_no_mount_of_which_nobody_knows_that_it_does_not_answer() {
    const NOT: &str = "the disk was not looked at";
    // sysexits(3): what could be told was told, and there is no daemon.
    const NO_DAEMON: Option<i32> = Some(69);
    for way in ["hang all", "deaf"] {
        let bed = Bed::new();
        let liar = Liar::mount(&bed, "behind", "far");
        fs::create_dir(liar.backing.join("in")).expect("a directory");
        let archive = liar.point.join("archive");
        fs::create_dir(liar.backing.join("archive")).expect("a directory");
        let run = kit::shell_key(&bed, "", &["{name}"]);
        bed.configure_text(&format!(
            "{}[watch.near]\npath = {:?}\nsettle = \"0\"\ndone = {{ move = {archive:?} }}\n{run}\n",
            daemon(&bed, "drain = \"1s\""),
            bed.path("in"),
        ));
        symlink(&liar.point, bed.path("way")).expect("a link");
        let mut settled = bed.start();
        kit::put(&bed, "moved", "x");
        until("the file to be moved", || {
            explain(&bed, &bed.inside("moved")).contains("(it is there)")
        });
        assert_eq!(settled.stop(), Some(0));

        liar.tell(way);
        for path in [bed.path("way/in/any"), archive.join("moved")] {
            let (text, end) = explain_and_end(&bed, &path);
            has(&text, &[NOT, "none has this path"]);
            assert_eq!(end, NO_DAEMON, "{text}");
        }
        let (text, _) = explain_and_end(&bed, &bed.inside("moved"));
        has(
            &text,
            &[
                "nothing has this name",
                "(not looked at: a mount does not answer)",
            ],
        );
        liar.tell("back");
        until("the mount to answer", || {
            !explain_and_end(&bed, &archive.join("moved"))
                .0
                .contains(NOT)
        });
    }
}
