//! The service manager's side: what the daemon tells it, what the shipped units promise, and what `settled check --unit`
//! says of a unit's sandbox.

#![allow(clippy::unwrap_used)]

use settled::cli::EXIT_CODES;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SETTLED: &str = env!("CARGO_BIN_EXE_settled");
const LIMIT: Duration = Duration::from_secs(60);

fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(tree(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// All values of a key of a unit.
fn values(unit: &str, key: &str) -> Vec<String> {
    let of_key = |line: &str| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned());
    unit.lines().filter_map(of_key).collect()
}

fn value(unit: &str, key: &str) -> String {
    let mut all = values(unit, key);
    assert_eq!(all.len(), 1, "{key}: {all:?}");
    all.remove(0)
}

fn check(config: &Path, unit: &Path) -> Output {
    Command::new(SETTLED)
        .args(["check", "--config"])
        .arg(config)
        .arg("--unit")
        .arg(unit)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn check_names_the_paths_that_a_unit_keeps_from_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("own.service");
    fs::write(
        &unit,
        "[Unit]\nProtectHome=yes\n[Service]\nProtectSystem=full\n# ProtectHome=yes\nReadOnlyPaths=-/opt/a \\\n  \"/opt/b\"\n\
         InaccessiblePaths=/opt/secret\nStateDirectory=settled\n",
    )
    .unwrap();
    let config = dir.path().join("s.toml");
    fs::write(
        &config,
        "[daemon]\nstate = \"/etc/settled/state\"\nsocket = \"/usr/run/sock\"\n\
         [watch.a]\npath = \"/opt/a\"\nrun = [\"true\"]\n\
         [watch.b]\npath = \"/opt/b\"\nrun = [\"true\"]\ndone = \"delete\"\n\
         [watch.c]\npath = \"/home/u/in\"\nrun = [\"/opt/secret/do\"]\noutput = \"/etc/x/log\"\ndead = { move = \"/usr/local/bad/{date}\" }\n\
         [watch.d]\npath = \"/srv/in\"\ndeliver = { to = \"/boot/x\" }\ndone = { move = \"/srv/out\" }\n",
    )
    .unwrap();
    let unwritable = |key: &str, path: &str, by: &str| {
        format!(
            "{key}: {path} cannot be written by own.service because of {by}; `systemctl edit own.service`: \
             ReadWritePaths={path}"
        )
    };
    let text = out(&check(&config, &unit));
    for expected in [
        unwritable("state", "/etc/settled/state", "ProtectSystem=full"),
        unwritable("socket", "/usr/run", "ProtectSystem=full"),
        unwritable("path", "/opt/b", "ReadOnlyPaths=/opt/b"),
        unwritable("dead", "/usr/local/bad", "ProtectSystem=full"),
        unwritable("deliver.to", "/boot/x", "ProtectSystem=full"),
        unwritable("output", "/etc/x/log", "ProtectSystem=full"),
        "run: /opt/secret/do is hidden from own.service by InaccessiblePaths=/opt/secret".into(),
    ] {
        assert!(text.contains(&expected), "{expected}\n{text}");
    }
    // What is only read, is elsewhere, or is said in another section, is no trouble.
    assert_eq!(text.matches("own.service because").count(), 6, "{text}");
    assert_eq!(text.matches("hidden from").count(), 1, "{text}");

    // A drop-in adds to lists, empties them, and overrides what has one value.
    let drop_ins = dir.path().join("own.service.d");
    fs::create_dir(&drop_ins).unwrap();
    fs::write(
        drop_ins.join("50-more.conf"),
        "[Service]\nProtectSystem=strict\nProtectHome=yes\nPrivateTmp=true\nReadOnlyPaths=\nReadWritePaths=-/opt/b /home/u\n",
    )
    .unwrap();
    fs::write(
        drop_ins.join("not-a-drop-in"),
        "[Service]\nProtectSystem=no\n",
    )
    .unwrap();
    let text = out(&check(&config, &unit));
    for expected in [
        // What is hidden stays so, whatever is said of what is in it.
        "path: /home/u/in is hidden from own.service by ProtectHome=yes".to_owned(),
        unwritable("path", "/srv/in", "ProtectSystem=strict"),
        unwritable("done", "/srv/out", "ProtectSystem=strict"),
    ] {
        assert!(text.contains(&expected), "{expected}\n{text}");
    }
    assert!(!text.contains("/opt/b cannot"), "{text}");

    let missing = check(&config, &dir.path().join("none.service"));
    assert_eq!(missing.status.code(), Some(66), "{missing:?}");
    let missing = check(&config, Path::new("settled-no-such-unit.service"));
    assert_eq!(missing.status.code(), Some(66), "{missing:?}");
    let text = String::from_utf8(missing.stderr).unwrap();
    assert!(
        text.contains("there is no unit settled-no-such-unit.service"),
        "{text}"
    );
}

#[test]
fn check_names_whatever_the_daemon_writes_itself() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("own.service");
    fs::write(
        &unit,
        "[Service]\nProtectSystem=strict\nReadWritePaths=/srv/in\nInaccessiblePaths=/opt/secret\n",
    )
    .unwrap();
    let config = dir.path().join("s.toml");
    fs::write(
        &config,
        "[daemon]\nstate = \"/x/state\"\nsocket = \"/x/run/sock\"\nmetrics_textfile = \"/x/prom/settled.prom\"\n\
         [alert]\nrun = [\"/opt/secret/page\"]\n\
         [watch.a]\npath = \"/srv/in\"\nrun = [\"true\"]\noutput = \"/x/log\"\nclaim = \"lock\"\nclaim_done = \"/x/marks\"\n\
         [watch.b]\npath = \"/srv/in/b\"\ndeliver = { to = \"/x/deliver/{date}\" }\ndone = { move = \"/x/done\" }\ndead = { move = \"/x/dead\" }\n\
         [watch.c]\npath = \"/x/shared\"\nrun = [\"true\"]\nclaim = \"lock\"\ndone = \"delete\"\ndead = \"delete\"\n",
    )
    .unwrap();
    let text = out(&check(&config, &unit));
    let written = [
        ("state", "/x/state"),
        ("socket", "/x/run"),
        ("metrics_textfile", "/x/prom"),
        ("output", "/x/log"),
        ("claim_done", "/x/marks"),
        ("deliver.to", "/x/deliver"),
        ("done", "/x/done"),
        ("dead", "/x/dead"),
        ("path", "/x/shared"),
    ];
    for (key, path) in written {
        let warning = format!("{key}: {path} cannot be written by own.service");
        assert!(text.contains(&warning), "{warning}\n{text}");
    }
    assert_eq!(
        text.matches("cannot be written").count(),
        written.len(),
        "{text}"
    );
    let alert = "[alert] run: /opt/secret/page is hidden from own.service";
    assert!(text.contains(alert), "{text}");
}

#[test]
fn the_default_paths_are_the_shipped_units_own() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("settled.service");
    let shipped = read("packaging/systemd/settled.service");
    fs::write(&unit, shipped).unwrap();
    let drop_ins = dir.path().join("settled.service.d");
    fs::create_dir(&drop_ins).unwrap();
    let config = dir.path().join("s.toml");
    let watch = "[watch.a]\npath = \"/srv/in\"\nrun = [\"true\"]\noutput = \"/var/log/settled/a.log\"\ndone = \"delete\"\n";
    let textfile =
        "[daemon]\nmetrics_textfile = \"/var/lib/prometheus/node-exporter/settled.prom\"\n";
    fs::write(&config, format!("{textfile}{watch}")).unwrap();
    let keeps = " by settled.service";
    let text = out(&check(&config, &unit));
    assert!(!text.contains(keeps), "{text}");
    // Hardened, what lies elsewhere has to be named, and the defaults have not.
    let hardened = read("packaging/systemd/hardened.conf");
    fs::write(drop_ins.join("hardened.conf"), hardened).unwrap();
    let text = out(&check(&config, &unit));
    assert_eq!(text.matches(keeps).count(), 1, "{text}");
    assert!(
        text.contains("metrics_textfile: /var/lib/prometheus/node-exporter cannot be written"),
        "{text}"
    );

    // Those of the example for users' own instances are the instance's.
    let instance = dir.path().join("settled@alice.service");
    let strict = "[Service]\nProtectSystem=strict\n";
    fs::write(
        &instance,
        read("packaging/systemd/settled@.service") + strict,
    )
    .unwrap();
    let example = read("packaging/examples/user.toml");
    let daemon: Vec<&str> = example
        .lines()
        .filter(|line| line.starts_with("state") || line.starts_with("socket"))
        .collect();
    let daemon = format!("[daemon]\n{}\n", daemon.join("\n"));
    fs::write(
        &config,
        format!("{daemon}[watch.a]\npath = \"/srv/in\"\nrun = [\"true\"]\n"),
    )
    .unwrap();
    let text = out(&check(&config, &instance));
    assert!(text.contains("settled-alice"), "{text}");
    assert!(!text.contains(" by settled@alice.service"), "{text}");
}

#[test]
fn private_tmp_is_another_directory() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("own.service");
    fs::write(
        &unit,
        "[Service]\nPrivateTmp=yes\nReadWritePaths=/tmp/shared\n",
    )
    .unwrap();
    let config = dir.path().join("s.toml");
    fs::write(
        &config,
        "[watch.a]\npath = \"/tmp/in\"\nrun = [\"true\"]\n[watch.b]\npath = \"/tmp/shared/in\"\nrun = [\"true\"]\n",
    )
    .unwrap();
    let text = out(&check(&config, &unit));
    assert!(
        text.contains("path: /tmp/in is not what own.service has there, because of PrivateTmp=yes"),
        "{text}"
    );
    assert!(!text.contains("/tmp/shared/in is not"), "{text}");
}

#[test]
fn the_shipped_units_hold_together() {
    let service = read("packaging/systemd/settled.service");
    let instance = read("packaging/systemd/settled@.service");
    for unit in [&service, &instance] {
        assert_eq!(value(unit, "Type"), "notify");
        assert_eq!(value(unit, "KillMode"), "mixed");
        // The default of `drain` is a minute; then 5 seconds, 5 more, and one.
        let stop = value(unit, "TimeoutStopSec");
        let stop: u64 = stop.strip_suffix('s').unwrap().parse().unwrap();
        assert!(stop > 71, "{stop}");
        // What a restart does not mend are exit codes that the program has.
        for code in value(unit, "RestartPreventExitStatus").split(' ') {
            let code: u8 = code.parse().unwrap();
            assert!(
                EXIT_CODES.iter().any(|(known, ..)| *known == code),
                "{code}"
            );
        }
    }
    // Each capability has its reason in a comment.
    let comments: Vec<&str> = service
        .lines()
        .filter(|line| line.starts_with('#'))
        .collect();
    let comments = comments.join("\n");
    let capabilities = [
        values(&service, "AmbientCapabilities"),
        values(&service, "CapabilityBoundingSet"),
    ];
    let capabilities: Vec<String> = capabilities.concat();
    let capabilities: Vec<&str> = capabilities
        .iter()
        .flat_map(|line| line.split(' '))
        .collect();
    assert!(capabilities.contains(&"CAP_LEASE"));
    for capability in &capabilities {
        assert!(comments.contains(capability), "{capability}");
    }
    // And each line of the sandboxes what it takes from commands, in the manual.
    let page = read("man/settled.8");
    let start = page.find(".Sh UNDER SYSTEMD").unwrap();
    let page = &page[start..];
    let page = &page[..page[1..].find("\n.Sh ").unwrap()];
    let hardened = read("packaging/systemd/hardened.conf");
    let begins = [
        "Protect",
        "Private",
        "Restrict",
        "NoNew",
        "Lock",
        "Memory",
        "SystemCall",
        "Capability",
        "Ambient",
        "Keyring",
        "RemoveIPC",
        "UMask",
    ];
    let mut named = 0;
    for line in service.lines().chain(hardened.lines()) {
        if let Some((key, _)) = line.split_once('=')
            && begins.iter().any(|word| key.starts_with(word))
        {
            assert!(
                page.contains(&format!("Cm {key}")),
                "{key} is not in UNDER SYSTEMD"
            );
            named += 1;
        }
    }
    assert!(named > 20);
}

/// systemd.exec(5): a filter cannot see the arguments of these two, so these lines take the whole call away (`ENOSYS`).
#[test]
fn hardened_conf_leaves_the_daemon_what_it_calls() {
    let hardened = read("packaging/systemd/hardened.conf");
    assert_eq!(values(&hardened, "RestrictSUIDSGID"), Vec::<String>::new());
    assert_eq!(value(&hardened, "RestrictNamespaces"), "yes");
    assert!(!read("src/sys/process.rs").contains("SYS_clone3"));
}

#[test]
fn hardened_conf_reaches_two() {
    let analyze = |dir: &Path| {
        Command::new("systemd-analyze")
            .arg(format!("--root={}", dir.display()))
            .args([
                "security",
                "--offline=true",
                "--threshold=20",
                "settled.service",
            ])
            .stdin(Stdio::null())
            .output()
    };
    let dir = tempfile::tempdir().unwrap();
    let units = dir.path().join("etc/systemd/system");
    let drop_ins = units.join("settled.service.d");
    fs::create_dir_all(&drop_ins).unwrap();
    fs::copy(
        tree("packaging/systemd/settled.service"),
        units.join("settled.service"),
    )
    .unwrap();
    let bare = match analyze(dir.path()) {
        Ok(said) => said,
        Err(error) => {
            println!("skipped: systemd-analyze: {error}");
            return;
        }
    };
    // The threshold has to be able to fail for the second to mean anything.
    assert!(
        !bare.status.success(),
        "{}",
        String::from_utf8_lossy(&bare.stdout)
    );
    fs::copy(
        tree("packaging/systemd/hardened.conf"),
        drop_ins.join("hardened.conf"),
    )
    .unwrap();
    let said = analyze(dir.path()).unwrap();
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(
        said.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&said.stderr)
    );
    assert!(text.contains("Overall exposure level"), "{text}");
}

/// A daemon that does not outlive its test.
struct Daemon(Child);

impl Daemon {
    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap();
        assert!(sent.success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Messages until one satisfies.
fn until(socket: &UnixDatagram, what: &str, is_it: impl Fn(&str) -> bool) -> Vec<String> {
    let end = Instant::now() + LIMIT;
    let mut seen = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        socket
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))
            .unwrap();
        let length = socket
            .recv(&mut bytes)
            .unwrap_or_else(|e| panic!("waiting for {what}: {e}; seen {seen:?}"));
        let message = String::from_utf8(bytes[..length].to_vec()).unwrap();
        seen.push(message.clone());
        if is_it(&message) {
            return seen;
        }
    }
}

#[test]
fn the_manager_is_told_of_readiness_turns_reloads_and_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("in");
    fs::create_dir(&root).unwrap();
    let config = dir.path().join("s.toml");
    let text = format!(
        "[daemon]\nstate = \"{}\"\nlog = \"stderr\"\ndrain = \"1000s\"\n[watch.a]\npath = \"{}\"\nrun = [\"true\"]\n",
        dir.path().join("state").display(),
        root.display()
    );
    fs::write(&config, &text).unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut daemon = Daemon(
        Command::new(SETTLED)
            .args(["run", "--config"])
            .arg(&config)
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000")
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let is = |word: &'static str| move |message: &str| message.lines().any(|line| line == word);
    let before = until(&socket, "readiness", is("READY=1"));
    for told in ["STATUS=reading the journal", "EXTEND_TIMEOUT_USEC=60000000"] {
        assert!(before.iter().any(|m| m.trim_end() == told), "{before:?}");
    }
    // A turn that nothing else asks for.
    until(&socket, "a turn", is("WATCHDOG=1"));
    until(&socket, "another", is("WATCHDOG=1"));

    // A good configuration and a bad one: both reloads end.
    for text in [
        text.replace("1000s", "2000s"),
        text.replace("run =", "rum ="),
    ] {
        fs::write(&config, &text).unwrap();
        daemon.signal("HUP");
        let seen = until(&socket, "the reload", |m| m.starts_with("RELOADING=1\n"));
        let clock = seen.last().unwrap().lines().nth(1).unwrap();
        let clock = clock.strip_prefix("MONOTONIC_USEC=").unwrap();
        assert!(clock.parse::<u64>().unwrap() > 0);
        until(&socket, "its end", is("READY=1"));
    }

    daemon.signal("TERM");
    until(&socket, "the stop", is("STOPPING=1"));
    let seen = until(&socket, "the time that it takes", |m| {
        m.starts_with("EXTEND_TIMEOUT_USEC=")
    });
    // `drain` as it is since the reload, and what comes after it.
    let asked = seen.last().unwrap().trim().split_once('=').unwrap().1;
    let asked: u64 = asked.parse().unwrap();
    assert!(asked > 2_011_000_000 && asked < 2_060_000_000, "{asked}");
    let status = daemon.0.wait().unwrap();
    assert_eq!(status.code(), Some(0));
}
