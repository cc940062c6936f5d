//! Every way a file can arrive gives exactly one run, with the whole content.

use crate::bed::{Bed, Daemon, Run, bytes, counts, fnv, until};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// A daemon with the default ladder, one run at a time so that a fence closes a test.
fn watching(keys: &str) -> (Bed, Daemon) {
    let bed = Bed::new();
    bed.configure(&[], &format!("concurrency = 1\n{keys}"));
    let daemon = bed.start();
    (bed, daemon)
}

/// Exactly one run, of `name`, with this content.
fn one_whole(bed: &Bed, name: &str, content: &[u8]) {
    bed.wait_runs(1);
    let runs = bed.fence("fence");
    assert_eq!(runs.len(), 1, "{runs:?}");
    whole(&runs[0], bed, name, content);
}

fn whole(run: &Run, bed: &Bed, name: &str, content: &[u8]) {
    assert_eq!(run.path, bed.inside(name));
    assert_eq!(run.env_path, run.path);
    assert_eq!(run.size, Some(content.len() as u64), "{run:?}");
    assert_eq!(run.hash, fnv(content));
    assert_eq!((run.attempt, run.recovered), (1, false));
}

fn content() -> Vec<u8> {
    (0..100_000u32).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn written_and_closed() {
    let (bed, _daemon) = watching("");
    fs::write(bed.inside("a.csv"), content()).expect("a file");
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn an_empty_file() {
    let (bed, _daemon) = watching("");
    File::create(bed.inside("empty")).expect("a file");
    one_whole(&bed, "empty", b"");
}

#[test]
fn temporary_name_and_rename() {
    let (bed, _daemon) = watching("");
    fs::write(bed.inside(".a.csv.tmp"), content()).expect("a file");
    fs::rename(bed.inside(".a.csv.tmp"), bed.inside("a.csv")).expect("a rename");
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn renamed_from_another_directory() {
    let (bed, _daemon) = watching("");
    fs::write(bed.path("a.csv"), content()).expect("a file");
    fs::rename(bed.path("a.csv"), bed.inside("a.csv")).expect("a rename");
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn hard_link() {
    let (bed, _daemon) = watching("");
    fs::write(bed.path("a.csv"), content()).expect("a file");
    fs::hard_link(bed.path("a.csv"), bed.inside("a.csv")).expect("a link");
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn link_and_unlink_as_sftp_renames() {
    let (bed, _daemon) = watching("");
    fs::write(bed.inside("a.csv.filepart"), content()).expect("a file");
    fs::hard_link(bed.inside("a.csv.filepart"), bed.inside("a.csv")).expect("a link");
    fs::remove_file(bed.inside("a.csv.filepart")).expect("an unlink");
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn unnamed_file_and_linkat() {
    let (bed, _daemon) = watching("");
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(bed.inside(""))
        .expect("O_TMPFILE; a filesystem that has it");
    file.write_all(&content()).expect("a write");
    let proc = format!("/proc/self/fd/{}", file.as_raw_fd());
    nix::unistd::linkat(
        nix::fcntl::AT_FDCWD,
        Path::new(&proc),
        nix::fcntl::AT_FDCWD,
        &bed.inside("a.csv"),
        nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW,
    )
    .expect("linkat");
    drop(file);
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn unnamed_file_linked_while_still_written() {
    let (bed, _daemon) = watching("");
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(bed.inside(""))
        .expect("O_TMPFILE");
    file.write_all(b"first ").expect("a write");
    let proc = format!("/proc/self/fd/{}", file.as_raw_fd());
    nix::unistd::linkat(
        nix::fcntl::AT_FDCWD,
        Path::new(&proc),
        nix::fcntl::AT_FDCWD,
        &bed.inside("a.csv"),
        nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW,
    )
    .expect("linkat");
    // Nothing else tells of this file: the later close names `#inode`.
    assert_eq!(bed.fence("while-open").len(), 0, "a writer has it open");
    file.write_all(b"second").expect("a write");
    drop(file);
    let runs = bed.wait_runs(3);
    whole(&runs[2], &bed, "a.csv", b"first second");
}

fn tool(program: &str, args: &[&Path]) {
    let status = Command::new(program)
        .args(args)
        .status()
        .unwrap_or_else(|error| panic!("{program} has to be installed: {error}"));
    assert!(status.success(), "{program}");
}

#[test]
fn copied_by_cp() {
    let (bed, _daemon) = watching("");
    fs::write(bed.path("a.csv"), content()).expect("a file");
    tool(
        "cp",
        &[Path::new("-p"), &bed.path("a.csv"), &bed.inside("a.csv")],
    );
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn copied_by_install() {
    let (bed, _daemon) = watching("");
    fs::write(bed.path("a.csv"), content()).expect("a file");
    tool(
        "install",
        &[
            Path::new("-p"),
            Path::new("-m640"),
            &bed.path("a.csv"),
            &bed.inside("a.csv"),
        ],
    );
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn copied_by_rsync() {
    let (bed, _daemon) = watching("");
    fs::write(bed.path("a.csv"), content()).expect("a file");
    tool(
        "rsync",
        &[Path::new("-a"), &bed.path("a.csv"), &bed.inside("a.csv")],
    );
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn copied_by_rsync_in_place() {
    let (bed, _daemon) = watching("");
    fs::write(bed.path("a.csv"), content()).expect("a file");
    tool(
        "rsync",
        &[
            Path::new("-a"),
            Path::new("--inplace"),
            &bed.path("a.csv"),
            &bed.inside("a.csv"),
        ],
    );
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn unpacked_by_tar() {
    let (bed, _daemon) = watching("");
    fs::write(bed.path("a.csv"), content()).expect("a file");
    let status = Command::new("sh")
        .args(["-c", "tar -C \"$0\" -cf - a.csv | tar -C \"$1\" -xpf -"])
        .args([bed.root(), &bed.inside("")])
        .status()
        .expect("sh");
    assert!(status.success());
    one_whole(&bed, "a.csv", &content());
}

/// An upload through OpenSSH's own server: `sftp -D` talks to it over a pipe, no network.
fn sftp(bed: &Bed, commands: &str) {
    let server = [
        "/usr/lib/openssh/sftp-server",
        "/usr/libexec/openssh/sftp-server",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
    .expect("openssh-sftp-server has to be installed");
    let mut child = Command::new("sftp")
        .args(["-q", "-b", "-", "-D", server])
        .current_dir(bed.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sftp (openssh-client) has to be installed");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(commands.as_bytes())
        .expect("sftp reads");
    assert!(child.wait().expect("a child").success());
}

#[test]
fn uploaded_by_sftp() {
    let (bed, _daemon) = watching("");
    fs::write(bed.path("a.csv"), content()).expect("a file");
    sftp(
        &bed,
        &format!(
            "put {} {}\n",
            bed.path("a.csv").display(),
            bed.inside("a.csv").display()
        ),
    );
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn uploaded_by_sftp_and_renamed_plainly() {
    let (bed, _daemon) = watching("");
    fs::write(bed.path("a.csv"), content()).expect("a file");
    // -l: without the POSIX extension, which is how WinSCP and paramiko rename: link and unlink.
    sftp(
        &bed,
        &format!(
            "put {} {}\nrename -l {} {}\n",
            bed.path("a.csv").display(),
            bed.inside("a.csv.filepart").display(),
            bed.inside("a.csv.filepart").display(),
            bed.inside("a.csv").display()
        ),
    );
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn uploaded_by_sftp_and_renamed_as_posix_does() {
    let (bed, _daemon) = watching("");
    fs::write(bed.path("a.csv"), content()).expect("a file");
    sftp(
        &bed,
        &format!(
            "put {} {}\nrename {} {}\n",
            bed.path("a.csv").display(),
            bed.inside("a.csv.part").display(),
            bed.inside("a.csv.part").display(),
            bed.inside("a.csv").display()
        ),
    );
    one_whole(&bed, "a.csv", &content());
}

#[test]
fn a_writer_that_closes_and_reopens_ten_times() {
    let (bed, _daemon) = watching("");
    let mut all = Vec::new();
    for part in 0..10 {
        let piece = format!("part {part}\n").repeat(1000);
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(bed.inside("a.csv"))
            .expect("a file");
        file.write_all(piece.as_bytes()).expect("a write");
        all.extend_from_slice(piece.as_bytes());
    }
    one_whole(&bed, "a.csv", &all);
}

#[test]
fn a_writer_that_renames_while_it_still_writes() {
    let (bed, _daemon) = watching("");
    let mut file = File::create(bed.inside(".a.tmp")).expect("a file");
    file.write_all(b"first ").expect("a write");
    fs::rename(bed.inside(".a.tmp"), bed.inside("a.csv")).expect("a rename");
    assert_eq!(bed.fence("while-open").len(), 0, "a writer has it open");
    file.write_all(b"second").expect("a write");
    drop(file);
    let runs = bed.wait_runs(3);
    whole(&runs[2], &bed, "a.csv", b"first second");
    assert_eq!(bed.fence("fence").len(), 3);
}

#[test]
fn a_mapping_still_dirty_after_its_descriptor_was_closed() {
    let (bed, _daemon) = watching("");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(bed.inside("a.csv"))
        .expect("a file");
    file.set_len(8192).expect("a length");
    // SAFETY: a fresh shared mapping of a file that nobody truncates while it is mapped.
    #[allow(unsafe_code)]
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            8192,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(map, libc::MAP_FAILED);
    drop(file);
    assert_eq!(bed.fence("while-mapped").len(), 0, "a writer has it mapped");
    // SAFETY: inside the mapping of 8,192 bytes made above, which is not used after this.
    #[allow(unsafe_code)]
    unsafe {
        map.cast::<u8>().write_bytes(7, 8192);
        assert_eq!(libc::munmap(map, 8192), 0);
    }
    let runs = bed.wait_runs(3);
    whole(&runs[2], &bed, "a.csv", &[7; 8192]);
}

#[test]
fn a_processed_file_that_is_overwritten_runs_again() {
    let (bed, _daemon) = watching("");
    fs::write(bed.inside("a.csv"), "one").expect("a file");
    bed.wait_runs(1);
    fs::write(bed.inside("a.csv"), "two!").expect("a file");
    let runs = bed.wait_runs(2);
    assert_eq!(runs[1].hash, fnv(b"two!"));
    assert_ne!(runs[0].job, runs[1].job);
    fs::write(bed.path("new"), "three").expect("a file");
    fs::rename(bed.path("new"), bed.inside("a.csv")).expect("a rename over it");
    let runs = bed.wait_runs(3);
    assert_eq!(runs[2].hash, fnv(b"three"));
    assert_eq!(bed.fence("fence").len(), 3);
}

#[test]
fn a_rewrite_that_puts_the_time_back_runs_again() {
    let (bed, _daemon) = watching("");
    fs::write(bed.inside("a.csv"), "one").expect("a file");
    bed.wait_runs(1);
    let before = fs::metadata(bed.inside("a.csv")).expect("a stat");
    let mut file = OpenOptions::new()
        .write(true)
        .open(bed.inside("a.csv"))
        .expect("the same file");
    file.write_all(b"two").expect("a write");
    file.set_modified(before.modified().expect("a time"))
        .expect("utimensat");
    drop(file);
    let after = fs::metadata(bed.inside("a.csv")).expect("a stat");
    assert_eq!(
        (before.ino(), before.mtime_nsec()),
        (after.ino(), after.mtime_nsec())
    );
    let runs = bed.wait_runs(2);
    assert_eq!(runs[1].hash, fnv(b"two"));
}

#[test]
fn opened_for_writing_and_closed_unchanged_is_no_arrival() {
    let (bed, _daemon) = watching("");
    fs::write(bed.inside("a.csv"), "one").expect("a file");
    bed.wait_runs(1);
    drop(OpenOptions::new().write(true).open(bed.inside("a.csv")));
    assert_eq!(bed.fence("fence").len(), 1);
}

#[test]
fn a_processed_file_that_is_renamed_is_not_run_again() {
    let (bed, _daemon) = watching("");
    fs::write(bed.inside("a.csv"), "one").expect("a file");
    bed.wait_runs(1);
    fs::rename(bed.inside("a.csv"), bed.inside("b.csv")).expect("a rename");
    assert_eq!(bed.fence("fence").len(), 1);
}

#[test]
fn files_that_were_there_before_run_once_over_restarts() {
    let bed = Bed::new();
    bed.configure(&[], "concurrency = 1\n");
    fs::write(bed.inside("old"), "old").expect("a file");
    let mut daemon = bed.start();
    bed.wait_runs(1);
    assert_eq!(daemon.stop(), Some(0));
    fs::write(bed.inside("while-down"), "new").expect("a file");
    let _daemon = bed.start();
    let runs = bed.fence("fence");
    assert_eq!(
        counts(&runs).into_values().collect::<Vec<_>>(),
        [1, 1],
        "{runs:?}"
    );
}

#[test]
fn existing_files_are_skipped_where_asked() {
    let bed = Bed::new();
    bed.configure(&[], "concurrency = 1\nexisting = \"skip\"\n");
    fs::write(bed.inside("old"), "old").expect("a file");
    let mut daemon = bed.start();
    assert_eq!(bed.fence("fence").len(), 0);
    assert_eq!(daemon.stop(), Some(0));
    fs::write(bed.inside("while-down"), "new").expect("a file");
    let _daemon = bed.start();
    let runs = bed.fence("fence2");
    assert!(runs.iter().any(|run| run.name() == "while-down"));
    assert!(runs.iter().all(|run| run.name() != "old"), "{runs:?}");
}

#[test]
fn a_new_tree_is_followed_to_its_leaves() {
    let (bed, _daemon) = watching("recursive = true\n");
    fs::create_dir_all(bed.inside("a/b/c")).expect("directories");
    fs::write(bed.inside("a/b/c/deep"), "deep").expect("a file");
    fs::write(bed.inside("a/shallow"), "shallow").expect("a file");
    bed.wait_runs(2);
    let runs = bed.fence("fence");
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert!(runs.iter().any(|run| run.path == bed.inside("a/b/c/deep")));
}

#[test]
fn a_tree_that_is_not_recursive_stays_flat() {
    let (bed, _daemon) = watching("");
    fs::create_dir_all(bed.inside("a")).expect("a directory");
    fs::write(bed.inside("a/below"), "x").expect("a file");
    assert_eq!(bed.fence("fence").len(), 0);
}

#[test]
fn a_root_that_comes_later() {
    let bed = Bed::new();
    bed.configure(&[], "concurrency = 1\n");
    fs::remove_dir(bed.inside("")).expect("no root");
    let daemon = bed.start();
    daemon.wait_log("waiting for it");
    fs::create_dir(bed.inside("")).expect("the root");
    fs::write(bed.inside("a.csv"), "one").expect("a file");
    one_whole(&bed, "a.csv", b"one");
}

#[test]
fn a_root_that_is_deleted_and_made_again() {
    let (bed, daemon) = watching("");
    fs::write(bed.inside("a.csv"), "one").expect("a file");
    bed.wait_runs(1);
    fs::remove_dir_all(bed.inside("")).expect("no root");
    daemon.wait_log("waiting for it");
    fs::create_dir(bed.inside("")).expect("the root");
    fs::write(bed.inside("a.csv"), "two").expect("a file");
    let runs = bed.wait_runs(2);
    assert_eq!(runs[1].hash, fnv(b"two"));
}

#[test]
fn a_directory_renamed_away_and_one_made_in_its_place() {
    let (bed, _daemon) = watching("recursive = true\n");
    fs::create_dir(bed.inside("d")).expect("a directory");
    fs::write(bed.inside("d/a"), "one").expect("a file");
    bed.wait_runs(1);
    fs::rename(bed.inside("d"), bed.inside("e")).expect("a rename");
    fs::create_dir(bed.inside("d")).expect("a directory");
    fs::write(bed.inside("d/a"), "two").expect("a file");
    fs::write(bed.inside("e/b"), "three").expect("a file");
    bed.wait_runs(3);
    let runs = bed.fence("fence");
    let mut paths: Vec<_> = runs.iter().map(|run| run.path.clone()).collect();
    paths.sort();
    assert_eq!(
        paths,
        [bed.inside("d/a"), bed.inside("d/a"), bed.inside("e/b")],
        "the file that went along is not run again"
    );
}

#[test]
fn strange_names_reach_the_command_untouched() {
    let (bed, _daemon) = watching("builtin_excludes = false\n");
    let mut names = vec![
        bytes(b"new\nline"),
        bytes(b"quo\"te's"),
        bytes(b"$(touch pwned) `x` ; rm *"),
        bytes(b"-rf"),
        bytes(b" lead and trail "),
        bytes(b"\xff\xfe invalid \x80"),
        bytes(b"{path} %s \\"),
        bytes(&[b'x'; 255]),
    ];
    for name in &names {
        fs::write(bed.inside(name), name.as_encoded_bytes()).expect("a file");
    }
    let runs = bed.fence("fence");
    for run in &runs {
        assert_eq!(run.path, run.env_path);
        assert_eq!(run.hash, fnv(run.name().as_encoded_bytes()));
    }
    let mut seen: Vec<_> = runs.iter().map(Run::name).collect();
    seen.sort();
    names.sort();
    assert_eq!(seen, names);
}

#[test]
fn links_fifos_and_devices_are_never_opened_or_run() {
    let (bed, daemon) = watching("");
    fs::write(bed.path("outside"), "x").expect("a file");
    std::os::unix::fs::symlink(bed.path("outside"), bed.inside("link.csv")).expect("a link");
    nix::unistd::mkfifo(&bed.inside("fifo.csv"), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    fs::create_dir(bed.inside("dir.csv")).expect("a directory");
    if nix::unistd::geteuid().is_root() {
        // The memory device's null minor: opening it would do no harm, but would be seen as a run.
        nix::sys::stat::mknod(
            &bed.inside("null.csv"),
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::S_IRWXU,
            nix::sys::stat::makedev(1, 3),
        )
        .expect("a device");
    }
    // A FIFO without a writer would hold a reader that opened it; the fence says that nobody was held.
    assert_eq!(bed.fence("fence").len(), 0);
    until("no warning about them", || {
        daemon.log_count("cannot be") == 0
    });
}

/// What a shell does with a few commands is over before the daemon hears of the first.
#[test]
fn what_a_new_directory_was_filled_with_is_not_run_again_when_the_old_one_is_removed() {
    let (bed, daemon) = watching("recursive = true\nsettle = \"0\"\n");
    fs::create_dir_all(bed.inside("old/below")).expect("a directory");
    for n in 0..10 {
        fs::write(bed.inside(format!("old/f{n}")), format!("f{n}")).expect("a file");
        fs::write(bed.inside(format!("old/below/g{n}")), format!("g{n}")).expect("a file");
    }
    bed.wait_runs(20);
    assert_eq!(bed.fence("before").len(), 20);
    let below = |runs: &[Run]| {
        runs.iter()
            .filter(|run| run.path.parent() != Some(&bed.path("in")))
            .count()
    };

    daemon.signal(libc::SIGSTOP);
    let moved = Command::new("sh")
        .args(["-ec", "mkdir new; mv old/* new; rmdir old"])
        .current_dir(bed.path("in"))
        .status();
    assert!(moved.expect("a shell").success());
    daemon.signal(libc::SIGCONT);
    // What is written where they lie now is run after them, if they are.
    fs::write(bed.inside("new/below/later"), "later").expect("a file");
    until("the new file's run", || below(&bed.runs()) > 20);
    let runs = bed.fence("after");
    assert_eq!(below(&runs), 21, "{:?}", counts(&runs));

    // Nothing of them is left where they were: a file that comes there is new.
    fs::create_dir(bed.inside("old")).expect("a directory");
    fs::rename(bed.inside("new/f0"), bed.path("f0")).expect("a rename");
    bed.fence("gone");
    fs::rename(bed.path("f0"), bed.inside("old/f0")).expect("a rename");
    until("a second run of what came back", || below(&bed.runs()) > 21);
    let runs = bed.fence("back");
    assert_eq!(below(&runs), 22, "{:?}", counts(&runs));
}

/// As whoever archives by the day does it: a new directory takes the file, and the next one comes under its name at once.
#[test]
fn what_a_new_directory_takes_is_not_run_again_when_another_file_gets_its_name() {
    let (bed, daemon) = watching("recursive = true\nsettle = \"0\"\n");
    fs::write(bed.inside("f"), "the first").expect("a file");
    assert_eq!(bed.fence("before").len(), 1);
    daemon.signal(libc::SIGSTOP);
    let moved = Command::new("sh")
        .args(["-ec", "mkdir today; mv f today/f; echo the second > f"])
        .current_dir(bed.path("in"))
        .status();
    assert!(moved.expect("a shell").success());
    daemon.signal(libc::SIGCONT);
    fs::write(bed.inside("today/later"), "later").expect("a file");
    let ran = |name: &str| bed.runs().iter().any(|run| run.name() == name);
    until("the new directory's file is run", || ran("later"));
    let runs = bed.fence("after");
    let of = |path: &str| {
        runs.iter()
            .filter(|run| run.path == bed.inside(path))
            .count()
    };
    assert_eq!((of("f"), of("today/f")), (2, 0), "{runs:?}");
}
