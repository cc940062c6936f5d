//! What is done with a file, as whom, how often and within which bounds.

use super::*;
use settled::plan::{
    Action, BatchPlan, ClaimPlan, DeliverCheck, Delivery, OnConflict, OnDead, Orphans, Rate,
    WatchPlan,
};

/// The one watch of a configuration whose block has these lines.
fn watch(lines: &str) -> WatchPlan {
    let mut plan = loaded(&format!("[watch.a]\npath = \"/srv/a\"\n{lines}\n"));
    plan.watches.remove(0)
}

fn texts(templates: &[settled::core::template::Template]) -> Vec<&str> {
    templates.iter().map(|t| t.text()).collect()
}

#[test]
fn every_bound_reaches_the_plan() {
    let a = watch(
        r#"
run = ["x", "{path}"]
batch = { max = 500, wait = "3s", split = true }
key = "{dir1}"
key_concurrency = 3
on_dead = "halt"
rate = "20/m"
umask = "027"
nice = -5
ionice = "best-effort:7"
limits = { nofile = 1024, nproc = 20, as = "2GiB", core = 0, cpu = "10m", memlock = "unlimited" }
output = "/var/log/settled/a.log"
orphans = "kill"
permanent = [3, 1, 1]
temporary = [65, 2]
max_age = "24h"
"#,
    );
    let batch = BatchPlan {
        max: 500,
        wait: Duration::from_secs(3),
        split: true,
        stdin: false,
    };
    assert_eq!(a.batch, Some(batch));
    assert_eq!((a.key_concurrency, a.per_key()), (Some(3), Some(3)));
    assert_eq!((a.on_dead, a.orphans), (OnDead::Halt, Orphans::Kill));
    let rate = Rate {
        count: 20,
        per: Duration::from_secs(60),
    };
    assert_eq!(a.rate, Some(rate));
    assert_eq!(a.process.umask, Some(0o027));
    assert_eq!(a.process.nice, Some(-5));
    // ioprio_set(2): class 2 above 13 bits of level.
    assert_eq!(a.process.ionice, Some(2 << 13 | 7));
    let mut limits = a.process.limits.clone();
    limits.sort_unstable();
    let mut expected = [
        (libc::RLIMIT_NOFILE, 1024),
        (libc::RLIMIT_NPROC, 20),
        (libc::RLIMIT_AS, 2 << 30),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_CPU, 600),
        (libc::RLIMIT_MEMLOCK, u64::MAX),
    ];
    expected.sort_unstable();
    assert_eq!(limits, expected);
    assert_eq!(
        a.output.as_deref(),
        Some(b"/var/log/settled/a.log".as_slice())
    );
    assert_eq!((a.permanent, a.temporary), (vec![1, 3], vec![2, 65]));
    assert_eq!(a.max_age, Some(Duration::from_secs(86_400)));
    assert_eq!(a.delivery, Delivery::AtLeastOnce);
    let b = watch("run = [\"x\"]\ndelivery = \"at-most-once\"\nmax_age = \"0\"\n");
    assert_eq!((b.delivery, b.max_age), (Delivery::AtMostOnce, None));
}

#[test]
fn what_is_not_said_is_not_done() {
    let a = watch("run = [\"x\"]");
    assert!(matches!(&a.action, Action::Run(argv) if texts(argv) == ["x"]));
    assert_eq!((a.batch, a.rate, a.key_concurrency), (None, None, None));
    assert_eq!((a.on_dead, a.orphans), (OnDead::Continue, Orphans::Wait));
    assert_eq!((a.delivery, a.output), (Delivery::AtLeastOnce, None));
    assert_eq!(*a.process, settled::plan::ProcessPlan::default());
    assert!(a.permanent.is_empty() && a.temporary.is_empty());
    assert_eq!(a.max_age, None);
    let b = watch("run = [\"x\", \"{path}\"]\nbatch = {}");
    let batch = BatchPlan {
        max: 100,
        wait: Duration::from_secs(1),
        split: false,
        stdin: false,
    };
    assert_eq!(b.batch, Some(batch));
}

#[test]
fn workers() {
    let a = watch(
        "worker = [\"/bin/w\", \"{watch}\"]\nworkers = 3\nwindow = 256\nready = \"30s\"\nenv = { W = \"{watch}\" }\nbatch = { max = 256 }",
    );
    let Action::Worker(worker) = &a.action else {
        panic!("{:?}", a.action);
    };
    assert_eq!(texts(&worker.argv), ["/bin/w", "{watch}"]);
    assert_eq!((worker.workers, worker.window), (3, 256));
    assert_eq!(worker.ready, Some(Duration::from_secs(30)));
    assert_eq!(a.env.len(), 1);
    assert_eq!(a.batch.map(|b| b.max), Some(256));
    let b = watch("worker = [\"w\"]");
    let Action::Worker(worker) = &b.action else {
        panic!("{:?}", b.action);
    };
    assert_eq!((worker.workers, worker.window, worker.ready), (1, 1, None));
}

#[test]
fn deliveries() {
    let a = watch("deliver = { to = \"/mnt/b/{dir1}\" }");
    let Action::Deliver(plan) = &a.action else {
        panic!("{:?}", a.action);
    };
    assert_eq!(plan.to.text(), "/mnt/b/{dir1}");
    assert!(!plan.flatten && plan.keep_times);
    assert_eq!((plan.verify, plan.mode), (DeliverCheck::Sha256, None));
    assert_eq!(plan.on_conflict, OnConflict::Rename);
    assert_eq!(plan.owner, (None, None));
    let b = watch(
        "deliver = { to = \"/b\", verify = \"size\", mode = \"0640\", owner = \"root:7\", keep_times = false, on_conflict = \"fail\", flatten = true }",
    );
    let Action::Deliver(plan) = &b.action else {
        panic!("{:?}", b.action);
    };
    assert!(plan.flatten && !plan.keep_times);
    assert_eq!((plan.verify, plan.mode), (DeliverCheck::Size, Some(0o640)));
    assert_eq!(plan.on_conflict, OnConflict::Fail);
    assert_eq!(plan.owner, (Some(0), Some(7)));
    for (owner, ids) in [
        ("7", (Some(7), None)),
        (":root", (None, Some(0))),
        ("root:", (Some(0), None)),
    ] {
        let c = watch(&format!(
            "deliver = {{ to = \"/b\", verify = true, owner = \"{owner}\" }}"
        ));
        let Action::Deliver(plan) = &c.action else {
            panic!("{:?}", c.action);
        };
        assert_eq!((plan.owner, plan.verify), (ids, DeliverCheck::Sha256));
    }
}

#[test]
fn a_watch_has_its_own_word_over_the_defaults() {
    let plan = loaded(
        r#"
[defaults]
run = ["x", "{path}"]
env = { SOURCE = "{watch}" }
cwd = "/tmp"
workers = 4
concurrency = 3
serial = true
key = "{dir1}"
batch = { max = 1, stdin = false, split = true }
permanent = [3]
output = "/var/log/x.log"
rate = "5/h"
[watch.a]
path = "/a"
[watch.b]
path = "/b"
worker = ["w"]
key_concurrency = 2
[watch.c]
path = "/c"
deliver = { to = "/d" }
"#,
    );
    let [a, b, c] = plan.watches.as_slice() else {
        panic!("three watches");
    };
    assert!(a.serial && a.batch.is_some_and(|b| b.split));
    assert_eq!(a.permanent, [3]);
    // What is for commands means nothing to the others.
    assert!(matches!(&b.action, Action::Worker(w) if w.workers == 4));
    assert_eq!((b.serial, b.key_concurrency), (false, Some(2)));
    assert!(b.permanent.is_empty() && b.batch.is_some_and(|b| !b.split));
    assert_eq!((b.env.len(), b.output.is_some()), (1, true));
    assert!(matches!(&c.action, Action::Deliver(_)));
    assert!(c.env.is_empty() && c.cwd.is_none() && c.batch.is_none());
    assert!(c.output.is_none() && c.permanent.is_empty());
    assert!(plan.watches.iter().all(|w| w.rate.is_some()));
}

/// One error each: text of the block from its third line, and what is said of which line and key.
#[test]
fn each_error_names_its_line_and_key() {
    for (block, line, key, part) in [
        (
            "run = [\"x\"]\nworker = [\"w\"]",
            4,
            "worker",
            "there is run already",
        ),
        (
            "deliver = { to = \"/b\" }\nrun = [\"x\"]",
            4,
            "run",
            "there is deliver already",
        ),
        (
            "worker = []",
            3,
            "worker",
            "is empty; name a program, as in worker",
        ),
        (
            "worker = [\"w\", \"{path}\"]",
            3,
            "worker[1]",
            "{path} is of a job",
        ),
        (
            "worker = [\"w\"]\nenv = { D = \"{date}\" }",
            4,
            "env.D",
            "{date} is of a job",
        ),
        (
            "worker = [\"w\"]\nworkers = 0",
            4,
            "workers",
            "write a number from 1 to",
        ),
        (
            "worker = [\"w\"]\nwindow = 10001",
            4,
            "window",
            "from 1 to 10000",
        ),
        ("worker = [\"w\"]\nready = \"0\"", 4, "ready", "too short"),
        (
            "worker = [\"w\"]\npermanent = [1]",
            4,
            "permanent",
            "is for run",
        ),
        (
            "worker = [\"w\"]\nconcurrency = 2",
            4,
            "concurrency",
            "workers and window bound",
        ),
        (
            "worker = [\"w\"]\nbatch = { stdin = true, max = 1 }",
            4,
            "batch.stdin",
            "is for run",
        ),
        (
            "worker = [\"w\"]\nbatch = { split = true, max = 1 }",
            4,
            "batch.split",
            "is for run",
        ),
        (
            "worker = [\"w\"]\nwindow = 9\nbatch = { max = 10 }",
            5,
            "batch.max",
            "raise window",
        ),
        (
            "run = [\"x\"]\nworkers = 2",
            4,
            "workers",
            "is for worker, and this watch has run",
        ),
        ("run = [\"x\"]\nwindow = 2", 4, "window", "is for worker"),
        ("run = [\"x\"]\nready = \"2s\"", 4, "ready", "is for worker"),
        (
            "run = [\"x\"]\nbatch = 5",
            4,
            "batch",
            "is a number; write a table",
        ),
        (
            "run = [\"x\"]\nbatch = { mx = 5 }",
            4,
            "batch.mx",
            "nearest known key 'max'",
        ),
        (
            "run = [\"x\"]\nbatch = { max = 0 }",
            4,
            "batch.max",
            "from 1 to 10000",
        ),
        (
            "run = [\"x\"]\nbatch = { wait = 1 }",
            4,
            "batch.wait",
            "write a duration",
        ),
        (
            "run = [\"x\", \"{key}\"]\nkey = \"k\"\nbatch = { stdin = true }",
            3,
            "run[1]",
            "only with serial = true",
        ),
        (
            "run = [\"x\"]\nbatch = { max = 5 }",
            4,
            "batch",
            "has no argument that names the files",
        ),
        (
            "run = [\"{stem}\", \"{path}\"]\nbatch = {}",
            3,
            "run[0]",
            "a batch has one program",
        ),
        (
            "run = [\"x\", \"{path}\"]\nbatch = { stdin = true }",
            3,
            "run[1]",
            "go to standard input",
        ),
        (
            "run = [\"x\", \"{path}\"]\nbatch = {}\nenv = { N = \"{name}\" }",
            5,
            "env.N",
            "one environment",
        ),
        (
            "run = [\"x\", \"{path}\"]\nbatch = { split = true }\ndelivery = \"at-most-once\"",
            4,
            "batch.split",
            "at-most-once",
        ),
        (
            "run = [\"x\"]\nkey_concurrency = 2",
            4,
            "key_concurrency",
            "needs a key",
        ),
        (
            "run = [\"x\"]\nkey = \"k\"\nserial = true\nkey_concurrency = 2",
            6,
            "key_concurrency",
            "beside serial",
        ),
        (
            "run = [\"x\"]\non_dead = \"stop\"",
            4,
            "on_dead",
            "none of continue, halt",
        ),
        (
            "run = [\"x\"]\non_dead = \"halt\"\ndead = \"delete\"",
            4,
            "on_dead",
            "write dead = \"keep\"",
        ),
        (
            "run = [\"x\"]\ndelivery = \"once\"",
            4,
            "delivery",
            "none of at-least-once, at-most-once",
        ),
        (
            "run = [\"x\"]\norphans = \"kil\"",
            4,
            "orphans",
            "nearest known value 'kill'",
        ),
        (
            "run = [\"x\"]\nrate = 20",
            4,
            "rate",
            "is a number; write how many starts",
        ),
        ("run = [\"x\"]\nrate = \"20\"", 4, "rate", "is not a rate"),
        ("run = [\"x\"]\nrate = \"20/d\"", 4, "rate", "is not a rate"),
        ("run = [\"x\"]\nrate = \"+2/s\"", 4, "rate", "is not a rate"),
        (
            "run = [\"x\"]\nrate = \"0/s\"",
            4,
            "rate",
            "write a number from 1 to",
        ),
        (
            "run = [\"x\"]\nrate = \"99999999999/s\"",
            4,
            "rate",
            "out of range",
        ),
        (
            "run = [\"x\"]\npermanent = 1",
            4,
            "permanent",
            "write an array",
        ),
        (
            "run = [\"x\"]\npermanent = [1, 256]",
            4,
            "permanent[1]",
            "from 0 to 255",
        ),
        (
            "run = [\"x\"]\ntemporary = [0]",
            4,
            "temporary[0]",
            "0 always means done",
        ),
        (
            "run = [\"x\"]\npermanent = [75]",
            4,
            "permanent[0]",
            "75 always means try again",
        ),
        (
            "run = [\"x\"]\npermanent = [4, 5]\ntemporary = [5]",
            5,
            "temporary",
            "5 is in permanent too",
        ),
        (
            "run = [\"x\"]\nmax_age = 3",
            4,
            "max_age",
            "write a duration",
        ),
        (
            "run = [\"x\"]\noutput = \"x.log\"",
            4,
            "output",
            "is not absolute",
        ),
        (
            "run = [\"x\"]\noutput = \"/var/log/\"",
            4,
            "output",
            "names no file",
        ),
        (
            "run = [\"x\"]\noutput = \"/srv\"",
            4,
            "output",
            "is a directory that watch a needs",
        ),
        (
            "run = [\"x\"]\noutput = \"/var/lib/settled/x\"",
            4,
            "output",
            "lies in the state directory",
        ),
        (
            "run = [\"x\"]\numask = 27",
            4,
            "umask",
            "write octal digits in quotes",
        ),
        (
            "run = [\"x\"]\numask = \"028\"",
            4,
            "umask",
            "three octal digits",
        ),
        (
            "run = [\"x\"]\numask = \"1777\"",
            4,
            "umask",
            "three octal digits",
        ),
        (
            "run = [\"x\"]\nnice = 20",
            4,
            "nice",
            "write a number from -20 to 19",
        ),
        (
            "run = [\"x\"]\nionice = \"idle:3\"",
            4,
            "ionice",
            "is no I/O class",
        ),
        (
            "run = [\"x\"]\nlimits = { nofiles = 99 }",
            4,
            "limits.nofiles",
            "nearest known key 'nofile'",
        ),
        (
            "run = [\"x\"]\nlimits = { nofile = 3 }",
            4,
            "limits.nofile",
            "from 16 to",
        ),
        (
            "run = [\"x\"]\nlimits = { nofile = \"unlimited\" }",
            4,
            "limits.nofile",
            "fs.nr_open",
        ),
        (
            "run = [\"x\"]\nlimits = { cpu = 10 }",
            4,
            "limits.cpu",
            "write a duration",
        ),
        (
            "run = [\"x\"]\nlimits = { cpu = \"1500ms\" }",
            4,
            "limits.cpu",
            "whole seconds",
        ),
        (
            "run = [\"x\"]\nlimits = { as = \"2G\" }",
            4,
            "limits.as",
            "is not a size",
        ),
        (
            "deliver = \"/b\"",
            3,
            "deliver",
            "is a string; write a table",
        ),
        (
            "deliver = { verify = true }",
            3,
            "deliver",
            "does not say where to",
        ),
        (
            "deliver = { too = \"/b\" }",
            3,
            "deliver.too",
            "nearest known key 'to'",
        ),
        (
            "deliver = { to = \"b\" }",
            3,
            "deliver.to",
            "is not absolute",
        ),
        (
            "deliver = { to = \"/b/{attempt}\" }",
            3,
            "deliver.to",
            "cannot use {attempt}",
        ),
        (
            "deliver = { to = \"/b/{key}\" }",
            3,
            "deliver.to",
            "{key} needs a key",
        ),
        (
            "deliver = { to = \"/var/lib/settled/b\" }",
            3,
            "deliver.to",
            "lies in the state directory",
        ),
        (
            "deliver = { to = \"/b\", verify = false }",
            3,
            "deliver.verify",
            "write \"size\"",
        ),
        (
            "deliver = { to = \"/b\", verify = \"md5\" }",
            3,
            "deliver.verify",
            "none of sha256, size",
        ),
        (
            "deliver = { to = \"/b\", mode = \"4755\" }",
            3,
            "deliver.mode",
            "three octal digits",
        ),
        (
            "deliver = { to = \"/b\", owner = \":\" }",
            3,
            "deliver.owner",
            "names nobody",
        ),
        (
            "deliver = { to = \"/b\", owner = \"no such user\" }",
            3,
            "deliver.owner",
            "there is no user",
        ),
        (
            "deliver = { to = \"/b\", owner = \"4294967295\" }",
            3,
            "deliver.owner",
            "out of range",
        ),
        (
            "deliver = { to = \"/b\", on_conflict = \"overwrite\" }",
            3,
            "deliver.on_conflict",
            "none of rename, replace, skip, fail",
        ),
        (
            "deliver = { to = \"/srv/a\" }",
            3,
            "deliver.to",
            "delivers files to where this watch sees them again",
        ),
        (
            "deliver = { to = \"/b\" }\ncwd = \"/\"",
            4,
            "cwd",
            "is for commands, and this watch has deliver",
        ),
        (
            "deliver = { to = \"/b\" }\noutput = \"/x\"",
            4,
            "output",
            "is for commands",
        ),
        (
            "deliver = { to = \"/b\" }\nbatch = {}",
            4,
            "batch",
            "is for commands",
        ),
        (
            "deliver = { to = \"/b\" }\nworkers = 2",
            4,
            "workers",
            "is for worker, and this watch has deliver",
        ),
    ] {
        let errors = refused(&format!("[watch.a]\npath = \"/srv/a\"\n{block}\n"));
        let said = lines(&errors);
        assert_eq!(said.len(), 1, "{block}: {said:#?}");
        let begin = format!("{line}: [watch.a] {key}: ");
        assert!(said[0].starts_with(&begin), "{block}: {said:?}");
        assert!(said[0].contains(part), "{block}: {said:?}");
    }
}

#[test]
fn other_users_are_roots_matter() {
    let root = nix::unistd::geteuid().is_root();
    let lines_of = |block: &str| {
        let text = format!("[watch.a]\npath = \"/srv/a\"\nrun = [\"x\"]\n{block}\n");
        let files = Files::new();
        load(&files.write("s.toml", text))
            .map(|mut plan| plan.watches.remove(0))
            .map_err(|errors| lines(&errors))
    };
    for (block, key) in [("user = \"root\"", "user"), ("group = 0", "group")] {
        let said = lines_of(block);
        if root {
            let identity = said.unwrap().process.identity.clone().unwrap();
            assert_eq!((identity.uid, identity.gid), (0, 0), "{block}");
            assert!(identity.groups.contains(&0), "{block}");
        } else {
            let said = said.unwrap_err();
            assert!(
                said[0].starts_with(&format!("4: [watch.a] {key}: only root")),
                "{said:?}"
            );
        }
    }
    if !root {
        return;
    }
    let named = lines_of("user = \"root\"\ngroup = 4242").unwrap();
    let identity = named.process.identity.clone().unwrap();
    assert_eq!((identity.uid, identity.gid), (0, 4242));
    assert!(identity.groups.contains(&4242));
    let user = nix::unistd::User::from_name("root").unwrap().unwrap();
    assert_eq!(identity.name, "root");
    assert_eq!(Path::new(&identity.home), user.dir);
    let number = lines_of("user = 12345\ngroup = 4242").unwrap();
    let identity = number.process.identity.clone().unwrap();
    assert_eq!((identity.uid, identity.gid), (12345, 4242));
    assert_eq!(
        (identity.groups, identity.name),
        (vec![4242], String::new())
    );
    for (block, begin) in [
        (
            "user = \"no such user\"",
            "4: [watch.a] user: there is no user \"no such user\"",
        ),
        (
            "user = \"12345\"",
            "4: [watch.a] user: there is no user \"12345\"; a number is written without quotes",
        ),
        (
            "user = 12345",
            "4: [watch.a] user: is not in the user database",
        ),
        ("user = -1", "4: [watch.a] user: -1 is out of range"),
        (
            "user = 4294967295",
            "4: [watch.a] user: 4294967295 is out of range",
        ),
        (
            "group = \"no such group\"",
            "4: [watch.a] group: there is no group",
        ),
        (
            "group = []",
            "4: [watch.a] group: is an array; write a name",
        ),
    ] {
        let said = lines_of(block).unwrap_err();
        assert!(said.len() == 1 && said[0].starts_with(begin), "{said:?}");
    }
    // Who is not root cannot give files away.
    let given = |owner: &str| {
        format!(
            "[watch.a]\npath = \"/srv/a\"\nuser = 12345\ngroup = 4242\ndeliver = {{ to = \"/b\", owner = \"{owner}\" }}\n"
        )
    };
    loaded(&given("12345:4242"));
    for owner in ["0", ":0"] {
        let said = lines(&refused(&given(owner)));
        assert!(
            said.len() == 1
                && said[0]
                    .starts_with("5: [watch.a] deliver.owner: the copy is made as user 12345"),
            "{said:?}"
        );
    }
}

#[test]
fn deliveries_and_outputs_inside_a_watch_are_left_out() {
    let plan = loaded(
        r#"
[watch.a]
path = "/srv"
recursive = true
run = ["x"]
output = "/srv/log/a.log"
[watch.b]
path = "/srv/b"
run = ["x"]
output = "/srv/b/b.log"
[watch.c]
path = "/home"
deliver = { to = "/srv/c/{date}" }
"#,
    );
    let excluded: Vec<Vec<&str>> = plan
        .watches
        .iter()
        .map(|w| {
            w.excluded
                .iter()
                .map(|p| std::str::from_utf8(p).unwrap())
                .collect()
        })
        .collect();
    assert_eq!(
        excluded,
        [vec!["b/b.log", "c", "log/a.log"], vec!["b.log"], vec![]]
    );
}

#[test]
fn deliveries_that_would_go_round_are_refused_unless_they_may() {
    let two = |a: &str, b: &str| {
        format!(
            "[watch.a]\npath = \"/srv/a\"\ndeliver = {{ to = \"/srv/b\" }}\n{a}\n[watch.b]\npath = \"/srv/b\"\nrun = [\"x\"]\n{b}\n"
        )
    };
    let back = "done = { move = \"/srv/a\" }";
    let said = lines(&refused(&two("", back)));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with(
            "3: [watch.a] deliver.to: delivers files into watch b, from where they come back"
        ),
        "{said:?}"
    );
    assert!(said[0].contains("cycle = true"), "{said:?}");
    assert!(
        said[1].starts_with("8: [watch.b] done: moves files into watch a"),
        "{said:?}"
    );
    // Either of them may say so; and a chain is none.
    loaded(&two("cycle = true", back));
    loaded(&two("", &format!("{back}\ncycle = true")));
    loaded(&two("", "done = \"delete\""));
    loaded("[watch.a]\npath = \"/srv/a\"\ndeliver = { to = \"/srv/a\" }\ncycle = true\n");
}

#[test]
fn claims_reach_the_plan() {
    let plan = loaded(
        r#"
[daemon]
state = "/var/lib/s"
[defaults]
claim = "lock"
[watch.a]
path = "/srv/a"
run = ["x"]
done = "delete"
dead = { move = "/srv/a/dead" }
[watch.b]
path = "/srv"
recursive = true
run = ["x"]
claim_done = "/srv/b/marks"
[watch.c]
path = "/srv/b"
run = ["x"]
claim = "none"
"#,
    );
    let claim = |dir: &str, marks| {
        Some(ClaimPlan {
            dir: dir.into(),
            marks,
            slots: b"/var/lib/s/slots".to_vec(),
        })
    };
    let claims: Vec<_> = plan.watches.iter().map(|w| w.claim.clone()).collect();
    assert_eq!(
        claims,
        [
            claim("/srv/a/.settled-claims", false),
            claim("/srv/b/marks", true),
            None
        ]
    );
    // Marks inside a watched tree are no files of that watch.
    let has = |n: usize, rel: &[u8]| plan.watches[n].excluded.iter().any(|own| own == rel);
    assert!(has(1, b"b/marks") && has(2, b"marks"));
}

#[test]
fn a_claim_on_files_that_stay_is_refused_with_the_remedy() {
    let of = |keys: &str| {
        let text =
            format!("[watch.a]\npath = \"/srv/a\"\nrun = [\"x\"]\nclaim = \"lock\"\n{keys}\n");
        lines(&refused(&text))
    };
    let said = of("");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("4: [watch.a] dead: keeps the file")
            || said[0].starts_with("4: [watch.a] done: keeps the file"),
        "{said:?}"
    );
    assert!(
        said.iter().all(|line| line.contains("claim_done")),
        "{said:?}"
    );
    let said = of("done = \"delete\"");
    assert!(
        said.len() == 1 && said[0].starts_with("4: [watch.a] dead: "),
        "{said:?}"
    );
    // It would be moved to where it came from.
    let said = of("done = { move = \"/srv/a\" }\ndead = \"delete\"\ncycle = true");
    assert!(
        said.len() == 1
            && said[0].starts_with("5: [watch.a] done: moves files to where this watch"),
        "{said:?}"
    );
    for (dir, part) in [
        ("/srv/a", "that watch a needs"),
        ("/srv", "that watch a needs"),
        ("/var/lib/settled/marks", "lies in the state directory"),
    ] {
        let said = of(&format!("claim_done = {dir:?}"));
        assert!(
            said.len() == 1
                && said[0].starts_with("5: [watch.a] claim_done: ")
                && said[0].contains(part),
            "{said:?}"
        );
    }
    let said = lines(&refused(
        "[watch.a]\npath = \"/srv/a\"\nrun = [\"x\"]\nclaim_done = \"/srv/m\"\n",
    ));
    assert!(
        said.len() == 1 && said[0].contains("is for claim = \"lock\""),
        "{said:?}"
    );
}
