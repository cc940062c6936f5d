//! `settled explain` of what lies on a mount that does not answer: it says so, and does not wait for it.

use crate::bed::{Bed, until};
use crate::mount::Liar;
use crate::{daemon, kit};
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

crate::tests![explain_waits_for_no_mount_that_is_known_not_to_answer];

/// What it says; it ends before the mount answers.
fn explain(bed: &Bed, path: &Path) -> String {
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
    assert!(status.is_some_and(|status| status.success()), "{text}");
    text
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
