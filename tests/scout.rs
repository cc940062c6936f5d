//! Scouts end to end: real processes, real sockets, real files. The clock is the test's own, so that nothing here waits for
//! time to pass.
#![allow(clippy::unwrap_used)]

use mio::{Events, Poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use settled::core::ask::{Act, Answer, Disposal, Fault, Held, Kind, Place, Question};
use settled::core::ids::{AskId, MountId};
use settled::core::time::Mono;
use settled::core::{Input, ScoutId, mask};
use settled::probe::resolve;
use settled::scout::{Launcher, Scouts, run};
use settled::sys::process::{Fork, exit_now, fork};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SILENT: Duration = Duration::from_secs(60);
const SLOW: Duration = Duration::from_secs(2);

/// Starts scouts by fork, as the spawner does; the pids are told afterwards.
struct Forker {
    inotify: inotify::Inotify,
    /// Start processes that end at once, or none.
    broken: Option<Broken>,
    made: Vec<(u64, Result<i32, i32>)>,
    launched: usize,
}

#[derive(Clone, Copy)]
enum Broken {
    DiesAtOnce,
    NotStarted,
    NeverAnswers,
}

impl Launcher for Forker {
    fn launch(&mut self, number: u64, socket: OwnedFd) -> io::Result<()> {
        self.launched += 1;
        if let Some(Broken::NotStarted) = self.broken {
            self.made.push((number, Err(libc::EAGAIN)));
            return Ok(());
        }
        let inotify = self.inotify.as_fd().try_clone_to_owned()?;
        match fork()? {
            Fork::Child if matches!(self.broken, Some(Broken::NeverAnswers)) => loop {
                nix::unistd::pause();
            },
            Fork::Child if self.broken.is_some() => exit_now(1),
            Fork::Child => run(socket, inotify),
            Fork::Parent(pid) => self.made.push((number, Ok(pid))),
        }
        Ok(())
    }
}

/// What the daemon's loop does with its scouts.
struct Bed {
    dir: TempDir,
    place: Place,
    poll: Poll,
    scouts: Scouts,
    forker: Forker,
    now: Mono,
    inputs: Vec<Input>,
    last_ask: u64,
}

fn place_of(dir: &Path) -> Place {
    let resolved = resolve(dir.as_os_str().as_bytes()).unwrap();
    Place {
        base: resolved.path,
        mount: resolved.mount,
        rel: Vec::new(),
    }
}

impl Bed {
    fn new() -> Bed {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let poll = Poll::new().unwrap();
        let scouts = Scouts::new(poll.registry(), SILENT).unwrap();
        Bed {
            place: place_of(dir.path()),
            dir,
            poll,
            scouts,
            forker: Forker {
                inotify: inotify::Inotify::init().unwrap(),
                broken: None,
                made: Vec::new(),
                launched: 0,
            },
            now: Mono(1_000_000_000),
            inputs: Vec::new(),
            last_ask: 0,
        }
    }

    fn mount(&self) -> ScoutId {
        ScoutId::Mount(self.place.mount)
    }

    fn at(&self, rel: &str) -> Place {
        Place {
            rel: rel.as_bytes().to_vec(),
            ..self.place.clone()
        }
    }

    fn file(&self, rel: &str, bytes: &[u8]) -> Place {
        fs::write(self.dir.path().join(rel), bytes).unwrap();
        self.at(rel)
    }

    fn ask_to(&mut self, to: ScoutId, question: &Question) -> AskId {
        self.last_ask += 1;
        let id = AskId(self.last_ask);
        self.scouts.ask(self.now, id, to, question);
        id
    }

    fn ask(&mut self, question: &Question) -> AskId {
        self.ask_to(self.mount(), question)
    }

    fn tick(&mut self) {
        self.scouts
            .tick(self.now, &mut self.forker, &mut self.inputs);
        for (number, made) in std::mem::take(&mut self.forker.made) {
            self.scouts
                .started(self.now, number, made, &mut self.inputs);
        }
    }

    /// One turn of the loop; waits for a socket at most as long as a test may take.
    fn turn(&mut self, wait: Duration) {
        self.tick();
        let mut events = Events::with_capacity(16);
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => panic!("{error}"),
            _ => {}
        }
        for event in &events {
            assert!(Scouts::owns(event.token()));
            // A small budget, so that its edge is met often.
            let mut ready = || {
                self.scouts
                    .ready(self.now, event.token(), 7, &mut self.inputs)
            };
            while ready() {}
        }
        self.tick();
    }

    /// Turns until `done`; fails after a while.
    fn until(&mut self, mut done: impl FnMut(&[Input]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done(&self.inputs) {
            assert!(
                Instant::now() < deadline,
                "got no further than {:?}",
                self.inputs
            );
            self.turn(Duration::from_millis(100));
        }
    }

    /// Turns until nothing is owed, and takes all that was answered.
    fn answers(&mut self, count: usize) -> BTreeMap<AskId, Vec<Answer>> {
        self.until(|inputs| {
            let last =
                |input: &&Input| matches!(input, Input::Answer(_, answer) if answer.is_last());
            inputs.iter().filter(last).count() >= count
        });
        let mut answers: BTreeMap<AskId, Vec<Answer>> = BTreeMap::new();
        for input in std::mem::take(&mut self.inputs) {
            if let Input::Answer(id, answer) = input {
                answers.entry(id).or_default().push(answer);
            }
        }
        answers
    }

    fn answer(&mut self, id: AskId) -> Answer {
        let mut answers = self.answers(1);
        let mut own = answers.remove(&id).unwrap();
        assert_eq!(own.len(), 1);
        own.remove(0)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.scouts.pids().next().expect("a scout is alive"))
    }

    /// Stops the scout, and knows that it stands.
    fn freeze(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
        let stopped = waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    }

    fn warm(&mut self) {
        let place = self.file("warm", b"x");
        let id = self.ask(&probe(place));
        assert!(matches!(self.answer(id), Answer::Probed(Ok(_))));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let pids: Vec<i32> = self.scouts.pids().collect();
        self.scouts.stop();
        for pid in pids {
            let _reaped_already = waitpid(Pid::from_raw(pid), None);
        }
    }
}

fn probe(place: Place) -> Question {
    Question::Probe {
        place,
        lock: true,
        flock: true,
        lease: true,
    }
}

#[test]
fn questions_of_every_kind_are_answered_and_then_all_is_quiet() {
    let mut bed = Bed::new();
    fs::create_dir(bed.dir.path().join("d")).unwrap();
    let file = bed.file("d/f", b"abc");
    let bound = bed.ask(&Question::Bind {
        place: bed.at("d"),
        watch: true,
    });
    let probed = bed.ask(&probe(file));
    let resolver = ScoutId::Resolver(3);
    let resolved = bed.ask_to(
        resolver,
        &Question::Resolve {
            path: bed.place.base.clone(),
        },
    );
    let answers = bed.answers(3);
    let [
        Answer::Bound(Ok(here)),
        Answer::Entries(entries),
        Answer::Listed(Ok(())),
    ] = answers[&bound].as_slice()
    else {
        panic!("{:?}", answers[&bound]);
    };
    assert_eq!(entries.len(), 1);
    let [Answer::Probed(Ok(facts))] = answers[&probed].as_slice() else {
        panic!("{:?}", answers[&probed]);
    };
    assert_eq!(entries[0].stat, Ok(facts.stat));
    assert_eq!((facts.stat.kind, facts.stat.version.size), (Kind::File, 3));
    assert_eq!(
        (facts.lock, facts.flock, facts.lease),
        (Held::Free, Held::Free, Held::Free)
    );
    let [Answer::Resolved(Ok(root))] = answers[&resolved].as_slice() else {
        panic!("{:?}", answers[&resolved]);
    };
    assert_eq!((&root.path, root.mount), (&bed.place.base, bed.place.mount));

    // The watch is in the daemon's own instance.
    fs::write(bed.dir.path().join("d/new"), b"x").unwrap();
    let mut buffer = [0; 4096];
    let events: Vec<_> = bed
        .forker
        .inotify
        .read_events(&mut buffer)
        .unwrap()
        .collect();
    assert_eq!(events[0].mask.bits(), mask::CREATE);
    let wd = events[0].wd.get_watch_descriptor_id();
    assert_eq!(here.wd, Some(Ok(wd)));

    // The resolver ends, the mount's scout stays, and neither is waited for.
    assert_eq!(bed.scouts.pids().count(), 1);
    bed.until_reaped();
    assert_eq!(bed.scouts.next_deadline(), None);
    assert_eq!(bed.scouts.oldest_unanswered(bed.mount(), bed.now), None);
    assert_eq!(bed.forker.launched, 2);
    let held = fs::read_dir(format!("/proc/{}/fd", bed.pid())).unwrap();
    let links: Vec<_> = held
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .collect();
    assert!(
        !links.iter().any(|link| link.starts_with(bed.dir.path())),
        "{links:?}"
    );
    assert_eq!(
        links.len(),
        5,
        "three standard ones, the socket and the inotify instance: {links:?}"
    );
}

impl Bed {
    /// Lets time pass until nothing is to be reaped.
    fn until_reaped(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Some(at) = self.scouts.next_deadline() {
            assert!(Instant::now() < deadline);
            self.now = self.now.max(at);
            self.turn(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_scout_that_is_killed_is_replaced_and_asked_again() {
    let mut bed = Bed::new();
    bed.warm();
    let first = bed.pid();
    bed.freeze();
    for n in 0..40 {
        fs::create_dir(bed.dir.path().join(format!("d{n}"))).unwrap();
        bed.file(&format!("d{n}/f"), b"abc");
        bed.ask(&Question::Bind {
            place: bed.at(&format!("d{n}")),
            watch: true,
        });
        bed.ask(&probe(bed.at(&format!("d{n}/f"))));
    }
    bed.tick();
    kill(first, Signal::SIGKILL).unwrap();
    let answers = bed.answers(80);
    assert_eq!(answers.len(), 80);
    for answers in answers.values() {
        match answers.as_slice() {
            [
                Answer::Bound(Ok(_)),
                Answer::Entries(entries),
                Answer::Listed(Ok(())),
            ] => {
                assert_eq!(entries.len(), 1);
            }
            [Answer::Probed(Ok(facts))] => assert_eq!(facts.stat.version.size, 3),
            other => panic!("{other:?}"),
        }
    }
    assert_ne!(bed.pid(), first);
    bed.until_reaped();
    assert!(!Path::new(&format!("/proc/{first}")).exists(), "reaped");
}

#[test]
fn a_scout_that_stands_still_is_said_to_be_silent_and_then_replaced() {
    let mut bed = Bed::new();
    bed.warm();
    let mount = bed.place.mount;
    let first = bed.pid();
    bed.freeze();
    let asked = bed.ask(&probe(bed.at("warm")));
    bed.tick();
    assert_eq!(bed.scouts.next_deadline(), Some(bed.now.after(SLOW)));
    bed.now = bed.now.after(SLOW - Duration::from_millis(1));
    bed.tick();
    assert!(bed.inputs.is_empty(), "{:?}", bed.inputs);
    bed.now = bed.now.after(Duration::from_millis(1));
    bed.tick();
    assert!(matches!(bed.inputs.as_slice(), [Input::MountSlow(m, true)] if *m == mount));
    bed.now = bed.scouts.next_deadline().unwrap();
    bed.now = Mono(bed.now.0 - 1);
    bed.tick();
    assert_eq!(bed.inputs.len(), 1, "{:?}", bed.inputs);
    bed.now = Mono(bed.now.0 + 1);
    bed.tick();
    assert!(matches!(bed.inputs.as_slice(), [_, Input::MountSilent(m, true)] if *m == mount));
    assert_eq!(
        bed.scouts.oldest_unanswered(bed.mount(), bed.now),
        Some(SILENT)
    );
    assert_eq!(bed.pid(), first, "it is given the same time again");
    bed.now = bed.scouts.next_deadline().unwrap();
    bed.tick();
    assert_ne!(bed.pid(), first);
    bed.until(|inputs| inputs.len() == 5);
    assert!(
        matches!(bed.inputs[2], Input::MountSlow(m, false) if m == mount)
            && matches!(bed.inputs[3], Input::MountSilent(m, false) if m == mount),
        "{:?}",
        bed.inputs
    );
    assert!(matches!(bed.inputs[4], Input::Answer(id, Answer::Probed(Ok(_))) if id == asked));
    bed.until_reaped();
    assert!(
        !Path::new(&format!("/proc/{first}")).exists(),
        "SIGKILL ends a stopped process"
    );
}

/// What looks where a root is belongs to no mount; that it hangs is told of its watch.
#[test]
fn a_resolver_that_hangs_is_told_and_replaced() {
    let mut bed = Bed::new();
    let resolver = ScoutId::Resolver(3);
    bed.forker.broken = Some(Broken::NeverAnswers);
    let path = bed.place.base.clone();
    let asked = bed.ask_to(resolver, &Question::Resolve { path });
    while bed.forker.launched < 4 {
        bed.turn(Duration::ZERO);
        bed.now = bed.scouts.next_deadline().unwrap().max(bed.now);
    }
    assert!(
        matches!(bed.inputs.as_slice(), [Input::RootSilent(3, true)]),
        "{:?}",
        bed.inputs
    );
    bed.forker.broken = None;
    while bed.forker.launched < 5 {
        bed.turn(Duration::ZERO);
        bed.now = bed.scouts.next_deadline().unwrap().max(bed.now);
    }
    bed.until(|inputs| inputs.len() == 3);
    assert!(matches!(bed.inputs[1], Input::RootSilent(3, false)));
    assert!(matches!(bed.inputs[2], Input::Answer(id, Answer::Resolved(Ok(_))) if id == asked));
    bed.until_reaped();
}

#[test]
fn what_hung_on_a_mount_that_is_gone_is_answered() {
    let mut bed = Bed::new();
    bed.warm();
    bed.freeze();
    let mount = bed.place.mount;
    let probed = bed.ask(&probe(bed.at("warm")));
    bed.tick();
    let now = bed.now;
    bed.scouts
        .keep_mounts(&[mount].into(), now, &mut bed.inputs);
    assert!(bed.inputs.is_empty(), "{:?}", bed.inputs);
    bed.scouts.keep_mounts(&[].into(), now, &mut bed.inputs);
    let gone = Fault::Base(libc::ENODEV);
    assert_eq!(bed.answer(probed), Answer::Probed(Err(gone)));
    bed.until_reaped();
}

#[test]
fn one_that_answers_late_is_heard() {
    let mut bed = Bed::new();
    bed.warm();
    let first = bed.pid();
    bed.freeze();
    bed.ask(&probe(bed.at("warm")));
    bed.tick();
    bed.now = bed.now.after(SILENT);
    bed.tick();
    kill(first, Signal::SIGCONT).unwrap();
    bed.until(|inputs| inputs.len() == 5);
    assert!(matches!(
        bed.inputs[2..4],
        [Input::MountSlow(_, false), Input::MountSilent(_, false)]
    ));
    assert_eq!(bed.pid(), first);
    assert_eq!(bed.scouts.next_deadline(), None);
}

#[test]
fn a_question_that_scouts_die_of_is_answered_in_the_end() {
    let mut bed = Bed::new();
    bed.forker.broken = Some(Broken::DiesAtOnce);
    let probed = bed.ask(&probe(bed.at("f")));
    let bound = bed.ask(&Question::Bind {
        place: bed.at(""),
        watch: false,
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let answered = |input: &&Input| matches!(input, Input::Answer(..));
    while bed.inputs.iter().filter(answered).count() < 2 {
        assert!(Instant::now() < deadline, "{:?}", bed.inputs);
        // The waits between two starts pass at once; nobody is silent.
        let soon = bed.now.after(SILENT / 2);
        if let Some(at) = bed.scouts.next_deadline().filter(|at| *at <= soon) {
            bed.now = at.max(bed.now);
        }
        bed.turn(Duration::from_millis(10));
    }
    let answers = bed.answers(2);
    let eio = Fault::Here(libc::EIO);
    assert_eq!(answers[&probed], [Answer::Probed(Err(eio))]);
    assert_eq!(answers[&bound], [Answer::Bound(Err(eio))]);
    bed.forker.broken = None;
    bed.now = bed.now.after(Duration::from_secs(3600));
    bed.warm();
}

#[test]
fn where_no_process_can_be_made_it_is_tried_again_with_growing_waits() {
    let mut bed = Bed::new();
    bed.forker.broken = Some(Broken::NotStarted);
    let place = bed.file("f", b"x");
    let id = bed.ask(&probe(place));
    bed.tick();
    let mut waits = Vec::new();
    while waits.len() < 12 {
        let at = bed.scouts.next_deadline().unwrap();
        waits.push(at.since(bed.now));
        bed.now = at;
        bed.tick();
    }
    assert!(waits.is_sorted() && waits[1] > Duration::ZERO, "{waits:?}");
    assert_eq!(waits.last(), Some(&Duration::from_secs(60)));
    bed.forker.broken = None;
    bed.now = bed.scouts.next_deadline().unwrap();
    assert!(matches!(bed.answer(id), Answer::Probed(Ok(_))));
}

#[test]
fn of_a_mount_that_is_gone_every_question_is_answered() {
    let mut bed = Bed::new();
    bed.warm();
    bed.freeze();
    let first = bed.pid();
    let probed = bed.ask(&probe(bed.at("warm")));
    bed.tick();
    let (mount, now) = (bed.place.mount, bed.now);
    bed.scouts.forget_mount(mount, now, &mut bed.inputs);
    let gone = Fault::Base(libc::ENODEV);
    assert_eq!(bed.answer(probed), Answer::Probed(Err(gone)));
    bed.until_reaped();
    assert!(!Path::new(&format!("/proc/{first}")).exists());
    let elsewhere = Place {
        mount: MountId(u64::MAX),
        ..bed.at("warm")
    };
    let id = bed.ask(&probe(elsewhere));
    assert_eq!(bed.answer(id), Answer::Probed(Err(Fault::Base(0))));
}

fn dispose(bed: &mut Bed, name: &str, act: Act) -> Question {
    let id = bed.ask(&probe(bed.at(name)));
    let Answer::Probed(Ok(facts)) = bed.answer(id) else {
        panic!("{name} cannot be probed");
    };
    Question::Dispose {
        place: bed.at(name),
        private: format!(".settled-{name}").into_bytes(),
        expect: facts.stat.version,
        lease: true,
        act,
    }
}

#[test]
fn files_are_disposed_of_and_a_big_copy_keeps_nobody() {
    let mut bed = Bed::new();
    let far = TempDir::new_in("/dev/shm").unwrap();
    let to = |dir: &Path| Act::Move {
        dir: dir.join("archive").as_os_str().as_bytes().to_vec(),
        rel: b"sub/f".to_vec(),
    };
    let near = bed.dir.path().to_path_buf();
    bed.file("gone", b"x");
    bed.file("near", b"near");
    let big: Vec<u8> = (0..24 << 20).map(|n: u32| (n >> 3) as u8).collect();
    bed.file("far", &big);
    let delete = dispose(&mut bed, "gone", Act::Delete);
    let move_near = dispose(&mut bed, "near", to(&near));
    let move_far = dispose(&mut bed, "far", to(far.path()));
    let far_id = bed.ask(&move_far);
    let near_id = bed.ask(&move_near);
    let gone_id = bed.ask(&delete);
    let probed = bed.ask(&probe(bed.at("near")));
    bed.until(|inputs| inputs.len() == 4);
    let order: Vec<AskId> = bed
        .inputs
        .iter()
        .map(|input| match input {
            Input::Answer(id, _) => *id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        order.last(),
        Some(&far_id),
        "asked first, and the others did not wait"
    );
    let answers = bed.answers(4);
    let done = [Answer::Disposed(Ok(Disposal::Done))];
    for id in [far_id, near_id, gone_id] {
        assert_eq!(answers[&id], done);
    }
    assert_eq!(
        answers[&probed],
        [Answer::Probed(Err(Fault::Here(libc::ENOENT)))]
    );
    assert!(fs::read(far.path().join("archive/sub/f")).unwrap() == big);
    assert_eq!(fs::read(near.join("archive/sub/f")).unwrap(), b"near");
    assert_eq!(fs::read_dir(&near).unwrap().count(), 1, "the archive alone");
}

#[test]
fn a_copy_dies_with_its_scout_and_is_finished_by_the_next() {
    let mut bed = Bed::new();
    let far = TempDir::new_in("/dev/shm").unwrap();
    // Sparse: a GiB that take a while to be copied and no room to be kept.
    let size = 1 << 30;
    let file = fs::File::create(bed.dir.path().join("far")).unwrap();
    file.set_len(size).unwrap();
    drop(file);
    let act = Act::Move {
        dir: far.path().as_os_str().as_bytes().to_vec(),
        rel: b"f".to_vec(),
    };
    let question = dispose(&mut bed, "far", act);
    let scout = bed.pid();
    let id = bed.ask(&question);
    let part = far.path().join(".settled-.settled-far.part");
    bed.until(|_| fs::metadata(&part).is_ok_and(|meta| meta.len() > 0));
    // The question is out of the scout's hands: however long it takes, that is no silence.
    assert_eq!(bed.scouts.oldest_unanswered(bed.mount(), bed.now), None);
    let children = format!("/proc/{scout}/task/{scout}/children");
    let copier = fs::read_to_string(children).unwrap();
    let copier = copier.trim().to_owned();
    assert!(!copier.is_empty());
    kill(scout, Signal::SIGKILL).unwrap();
    assert_eq!(bed.answer(id), Answer::Disposed(Ok(Disposal::Done)));
    assert_ne!(bed.pid(), scout);
    assert!(!Path::new(&format!("/proc/{copier}/fd/0")).exists());
    assert_eq!(fs::metadata(far.path().join("f")).unwrap().len(), size);
    assert!(!part.exists() && !bed.dir.path().join("far").exists());
}

#[test]
fn a_listing_of_many_is_whole_and_in_parts() {
    let mut bed = Bed::new();
    fs::create_dir(bed.dir.path().join("d")).unwrap();
    for n in 0..5000 {
        bed.file(&format!("d/a rather long name, number {n}"), b"");
    }
    let id = bed.ask(&Question::Bind {
        place: bed.at("d"),
        watch: false,
    });
    let mut answers = bed.answers(1);
    let answers = answers.remove(&id).unwrap();
    let entries = answers.iter().map(|answer| match answer {
        Answer::Entries(entries) => entries.len(),
        _ => 0,
    });
    assert_eq!(entries.sum::<usize>(), 5000);
    assert!(answers.len() > 3);
    assert_eq!(answers.last(), Some(&Answer::Listed(Ok(()))));
}

/// A large directory below one base keeps neither a small one below another nor a look at a file, asked after it.
#[test]
fn a_listing_of_many_keeps_nobody() {
    let mut bed = Bed::new();
    for dir in ["many", "few"] {
        fs::create_dir(bed.dir.path().join(dir)).unwrap();
    }
    for n in 0..5000 {
        fs::write(bed.dir.path().join(format!("many/{n}")), b"x").unwrap();
    }
    let file = bed.file("few/f", b"x");
    let bind = |dir: &str| Question::Bind {
        place: place_of(&bed.dir.path().join(dir)),
        watch: false,
    };
    let questions = [bind("many"), bind("few"), probe(file)];
    let asked = questions.map(|question| bed.ask(&question));
    let last = |inputs: &[Input], ask: AskId| {
        inputs.iter().position(
            |input| matches!(input, Input::Answer(id, answer) if *id == ask && answer.is_last()),
        )
    };
    bed.until(|inputs| asked.iter().all(|ask| last(inputs, *ask).is_some()));
    let [many, few, looked] = asked.map(|ask| last(&bed.inputs, ask).unwrap());
    assert!(few < many && looked < many, "{few}, {looked}, {many}");
    let names = bed.inputs.iter().map(|input| match input {
        Input::Answer(id, Answer::Entries(entries)) if *id == asked[0] => entries.len(),
        _ => 0,
    });
    assert_eq!(names.sum::<usize>(), 5000);
}

/// What any listing has to do at least: the names, and a statx of each.
fn bare_listing(dir: &Path) -> usize {
    use settled::sys::file::{getdents, statx};
    let dir = fs::File::open(dir).unwrap();
    let mut buffer = vec![0; 32 * 1024];
    let mut seen = 0;
    loop {
        let filled = getdents(dir.as_fd(), &mut buffer).unwrap();
        if filled == 0 {
            return seen;
        }
        let mut at = 0;
        while at < filled {
            let name = CStr::from_bytes_until_nul(&buffer[at + 19..filled]).unwrap();
            let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
            statx(dir.as_fd(), name, libc::AT_SYMLINK_NOFOLLOW, mask).unwrap();
            seen += 1;
            at += usize::from(u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]));
        }
    }
}

/// Not a test: `cargo test --release --test scout -- --ignored --nocapture measure`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let mut bed = Bed::new();
    bed.warm();
    let round = |bed: &mut Bed, batch: usize| {
        for _ in 0..batch {
            bed.ask(&probe(bed.at("warm")));
        }
        bed.scouts.flush(bed.now, &mut bed.forker, &mut bed.inputs);
        let mut events = Events::with_capacity(16);
        while bed.inputs.len() < batch {
            bed.poll.poll(&mut events, None).unwrap();
            for event in &events {
                while bed
                    .scouts
                    .ready(bed.now, event.token(), 1000, &mut bed.inputs)
                {}
            }
        }
        bed.inputs.clear();
    };
    for (batch, rounds) in [(1, 20_000), (256, 200), (4096, 20)] {
        round(&mut bed, batch);
        let mut times: Vec<Duration> = (0..rounds)
            .map(|_| {
                let start = Instant::now();
                round(&mut bed, batch);
                start.elapsed()
            })
            .collect();
        times.sort();
        let each = |at: usize| times[at].as_nanos() as f64 / 1000.0 / batch as f64;
        println!(
            "probes in batches of {batch}: p50 {:.2} us each, p99 {:.2} us",
            each(rounds / 2),
            each(rounds * 99 / 100)
        );
    }
    let direct = {
        let mut prober = settled::probe::Prober::new();
        let place = bed.at("warm");
        let wanted = settled::probe::Wanted {
            lock: true,
            flock: true,
            lease: true,
        };
        let start = Instant::now();
        for _ in 0..20_000 {
            prober.probe(&place, wanted).unwrap();
        }
        start.elapsed() / 20_000
    };
    println!("the probe alone, no process: {direct:?}");
    fs::create_dir(bed.dir.path().join("d")).unwrap();
    for n in 0..100_000 {
        bed.file(&format!("d/file-{n:06}.csv"), b"");
    }
    for _ in 0..5 {
        let start = Instant::now();
        let output = std::process::Command::new("find")
            .arg(bed.dir.path().join("d"))
            .args(["-printf", "%i %s %T@ %C@ %p\\n"])
            .output()
            .unwrap();
        let find = start.elapsed();
        assert!(output.stdout.len() > 100_000);
        let start = Instant::now();
        let seen = bare_listing(&bed.dir.path().join("d"));
        let bare = start.elapsed();
        assert_eq!(seen, 100_002);
        let start = Instant::now();
        bed.ask(&Question::Bind {
            place: bed.at("d"),
            watch: true,
        });
        let answers = bed.answers(1);
        println!(
            "listing 100,000: {:?}, find -printf: {find:?}, getdents64 and statx alone: {bare:?} ({} answers)",
            start.elapsed(),
            answers.values().map(Vec::len).sum::<usize>()
        );
    }
    let smaps = fs::read_to_string(format!("/proc/{}/smaps_rollup", bed.pid())).unwrap();
    for line in smaps.lines().filter(|line| line.starts_with("Private")) {
        println!("the idle scout, forked from this test: {line}");
    }
}
