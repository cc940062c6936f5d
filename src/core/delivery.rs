//! What a delivery's process is told: the arguments of `settled deliver-file` and `settled sweep`, written and read
//! here, so that the two cannot drift apart. Both subcommands are the daemon's own: they are not in the manual, and
//! each version speaks to itself alone.

use super::ask::Version;
use crate::plan::{DeliverCheck, DeliverPlan, OnConflict};

/// The subcommand that delivers the file that is open on descriptor 3.
pub const DELIVER: &[u8] = b"deliver-file";

/// The subcommand that removes what killed deliveries left.
pub const SWEEP: &[u8] = b"sweep";

/// One delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliverOrder {
    /// Target directory, absolute.
    pub to: Vec<u8>,
    /// The copy's path below it.
    pub rel: Vec<u8>,
    /// The job as users see it.
    pub job: String,
    /// An earlier attempt may have got as far as giving the copy its name: a target with the same bytes is that copy.
    pub recovered: bool,
    /// The source's size in bytes.
    pub size: u64,
    /// Its mtime in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// See [`DeliverPlan`].
    pub verify: DeliverCheck,
    /// See [`DeliverPlan`].
    pub mode: Option<u32>,
    /// See [`DeliverPlan`].
    pub owner: (Option<u32>, Option<u32>),
    /// See [`DeliverPlan`].
    pub keep_times: bool,
    /// See [`DeliverPlan`].
    pub on_conflict: OnConflict,
}

/// Remove what killed deliveries of this journal left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepOrder {
    /// Target directory, absolute.
    pub dir: Vec<u8>,
    /// The first half of the names of its jobs, as users see them.
    pub journal: String,
}

/// The arguments, program name included, for the delivery of one file: `rel` is its path below its root, `to` the
/// expanded target directory. `recovered` for every attempt before which another one was started.
pub fn argv(
    plan: &DeliverPlan,
    to: &[u8],
    rel: &[u8],
    expect: &Version,
    job: &str,
    recovered: bool,
) -> Vec<Vec<u8>> {
    let name = rel.rsplit(|&b| b == b'/').next().unwrap_or(rel);
    DeliverOrder {
        to: to.to_vec(),
        rel: if plan.flatten { name } else { rel }.to_vec(),
        job: job.to_owned(),
        recovered,
        size: expect.size,
        mtime_ns: expect.mtime_ns,
        verify: plan.verify,
        mode: plan.mode,
        owner: plan.owner,
        keep_times: plan.keep_times,
        on_conflict: plan.on_conflict,
    }
    .argv()
}

const VERIFY: [(&str, DeliverCheck); 2] = [
    ("size", DeliverCheck::Size),
    ("sha256", DeliverCheck::Sha256),
];

const ON_CONFLICT: [(&str, OnConflict); 4] = [
    ("rename", OnConflict::Rename),
    ("replace", OnConflict::Replace),
    ("skip", OnConflict::Skip),
    ("fail", OnConflict::Fail),
];

/// A table's word for a value.
fn word<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    let found = table.iter().find(|(_, known)| known == value);
    found.map_or("", |(word, _)| word)
}

impl DeliverOrder {
    /// The arguments, program name included.
    pub fn argv(&self) -> Vec<Vec<u8>> {
        let mut args = vec![b"settled".to_vec(), DELIVER.to_vec()];
        let mut option = |text: String| args.push(text.into_bytes());
        option(format!("--job={}", self.job));
        option(format!("--size={}", self.size));
        option(format!("--mtime-ns={}", self.mtime_ns));
        option(format!("--verify={}", word(&VERIFY, &self.verify)));
        let conflict = word(&ON_CONFLICT, &self.on_conflict);
        option(format!("--on-conflict={conflict}"));
        if let Some(mode) = self.mode {
            option(format!("--mode={mode:o}"));
        }
        if let Some(uid) = self.owner.0 {
            option(format!("--uid={uid}"));
        }
        if let Some(gid) = self.owner.1 {
            option(format!("--gid={gid}"));
        }
        if self.keep_times {
            option("--keep-times".into());
        }
        if self.recovered {
            option("--recovered".into());
        }
        args.extend([b"--".to_vec(), self.to.clone(), self.rel.clone()]);
        args
    }

    /// Reads what follows the subcommand.
    ///
    /// # Errors
    /// A sentence about the argument that is wrong.
    pub fn parse(args: &[&[u8]]) -> Result<DeliverOrder, String> {
        let (options, to, rel) = match args.iter().position(|&arg| arg == b"--") {
            Some(at) => match args.split_at(at) {
                (options, [_, to, rel]) => (options, *to, *rel),
                _ => return Err("expected TARGET_DIR and REL".into()),
            },
            None => match args {
                [options @ .., to, rel] => (options, *to, *rel),
                _ => return Err("expected TARGET_DIR and REL".into()),
            },
        };
        let (mut job, mut size, mut mtime_ns) = (None, None, None);
        let mut order = DeliverOrder {
            to: directory(to)?,
            rel: below(rel)?,
            job: String::new(),
            recovered: false,
            size: 0,
            mtime_ns: 0,
            verify: DeliverCheck::Sha256,
            mode: None,
            owner: (None, None),
            keep_times: false,
            on_conflict: OnConflict::Fail,
        };
        for option in options {
            let wrong = || format!("bad argument {}", String::from_utf8_lossy(option));
            let text = str::from_utf8(option).map_err(|_| wrong())?;
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            let number = || value.parse::<u32>().map_err(|_| wrong());
            match name {
                "--job" if is_job(value) => job = Some(value.to_owned()),
                "--size" => size = Some(value.parse().map_err(|_| wrong())?),
                "--mtime-ns" => mtime_ns = Some(value.parse().map_err(|_| wrong())?),
                "--verify" => order.verify = meaning(&VERIFY, value).ok_or_else(wrong)?,
                "--on-conflict" => {
                    order.on_conflict = meaning(&ON_CONFLICT, value).ok_or_else(wrong)?;
                }
                "--mode" => {
                    let mode = u32::from_str_radix(value, 8).ok();
                    order.mode = Some(mode.filter(|mode| *mode <= 0o7777).ok_or_else(wrong)?);
                }
                "--uid" => order.owner.0 = Some(number()?),
                "--gid" => order.owner.1 = Some(number()?),
                "--keep-times" if text == name => order.keep_times = true,
                "--recovered" if text == name => order.recovered = true,
                _ => return Err(wrong()),
            }
        }
        order.job = job.ok_or("--job is missing")?;
        order.size = size.ok_or("--size is missing")?;
        order.mtime_ns = mtime_ns.ok_or("--mtime-ns is missing")?;
        Ok(order)
    }

    /// The name that the copy has in the target directory until it is whole: hidden, and among the names that every
    /// watch excludes by itself.
    pub fn temporary(&self) -> Vec<u8> {
        format!(".settled-{}~", self.job).into_bytes()
    }
}

impl SweepOrder {
    /// The arguments, program name included.
    pub fn argv(&self) -> Vec<Vec<u8>> {
        let journal = self.journal.clone().into_bytes();
        vec![
            b"settled".to_vec(),
            SWEEP.to_vec(),
            self.dir.clone(),
            journal,
        ]
    }

    /// Reads what follows the subcommand.
    ///
    /// # Errors
    /// A sentence about the argument that is wrong.
    pub fn parse(args: &[&[u8]]) -> Result<SweepOrder, String> {
        let [dir, journal] = args else {
            return Err("expected TARGET_DIR and JOURNAL_ID".into());
        };
        match str::from_utf8(journal) {
            Ok(journal) if is_job(journal) => Ok(SweepOrder {
                dir: directory(dir)?,
                journal: journal.to_owned(),
            }),
            _ => Err(format!(
                "no journal is called {}",
                String::from_utf8_lossy(journal)
            )),
        }
    }

    /// Whether a name is the temporary one of a delivery of this journal.
    pub fn is_leftover(&self, name: &[u8]) -> bool {
        let number = name
            .strip_prefix(b".settled-")
            .and_then(|rest| rest.strip_prefix(self.journal.as_bytes()))
            .and_then(|rest| rest.strip_prefix(b"-"))
            .and_then(|rest| rest.strip_suffix(b"~"));
        number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
    }
}

fn meaning<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    let found = table.iter().find(|(known, _)| *known == word);
    found.map(|(_, value)| *value)
}

/// It becomes part of a name, so it has to be one.
fn is_job(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    !text.is_empty() && text.len() <= 100 && text.bytes().all(plain)
}

fn directory(path: &[u8]) -> Result<Vec<u8>, String> {
    if path.starts_with(b"/") {
        return Ok(path.to_vec());
    }
    let shown = String::from_utf8_lossy(path);
    Err(format!("{shown} is no absolute directory"))
}

fn below(rel: &[u8]) -> Result<Vec<u8>, String> {
    let plain = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
    if rel.split(|&b| b == b'/').all(plain) {
        return Ok(rel.to_vec());
    }
    let shown = String::from_utf8_lossy(rel);
    Err(format!("{shown} is no path below a directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> DeliverOrder {
        DeliverOrder {
            to: b"/mnt/b".to_vec(),
            rel: b"2026/--x \xff.csv".to_vec(),
            job: "5e771ed0-18".into(),
            recovered: false,
            size: u64::MAX,
            mtime_ns: -1,
            verify: DeliverCheck::Sha256,
            mode: None,
            owner: (None, None),
            keep_times: false,
            on_conflict: OnConflict::Rename,
        }
    }

    fn read(argv: &[Vec<u8>]) -> Result<DeliverOrder, String> {
        let args: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
        assert_eq!(args[..2], [b"settled".as_slice(), DELIVER]);
        DeliverOrder::parse(&args[2..])
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut orders = Vec::new();
        for (_, verify) in VERIFY {
            for (_, on_conflict) in ON_CONFLICT {
                for mode in [None, Some(0), Some(0o2640)] {
                    for owner in [(None, None), (Some(0), None), (None, Some(u32::MAX))] {
                        for (keep_times, recovered) in [(false, true), (true, false)] {
                            orders.push(DeliverOrder {
                                verify,
                                on_conflict,
                                mode,
                                owner,
                                keep_times,
                                recovered,
                                ..order()
                            });
                        }
                    }
                }
            }
        }
        for order in orders {
            assert_eq!(read(&order.argv()), Ok(order));
        }
        let sweep = SweepOrder {
            dir: b"/mnt/\xff".to_vec(),
            journal: "5e771ed0".into(),
        };
        let argv = sweep.argv();
        let args: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
        assert_eq!(args[1], SWEEP);
        assert_eq!(SweepOrder::parse(&args[2..]), Ok(sweep));
    }

    #[test]
    fn the_plan_becomes_arguments() {
        let plan = |flatten| DeliverPlan {
            to: crate::core::template::Template::parse("/mnt/b").expect("a template"),
            flatten,
            verify: DeliverCheck::Size,
            mode: Some(0o640),
            owner: (Some(7), Some(8)),
            keep_times: true,
            on_conflict: OnConflict::Skip,
        };
        let expect = Version {
            size: 5,
            mtime_ns: 17,
            ..Version::default()
        };
        for (flatten, rel) in [(false, b"in/a.csv".as_slice()), (true, b"a.csv")] {
            let argv = argv(&plan(flatten), b"/mnt/b", b"in/a.csv", &expect, "j-1", true);
            let wanted = DeliverOrder {
                to: b"/mnt/b".to_vec(),
                rel: rel.to_vec(),
                job: "j-1".into(),
                recovered: true,
                size: 5,
                mtime_ns: 17,
                verify: DeliverCheck::Size,
                mode: Some(0o640),
                owner: (Some(7), Some(8)),
                keep_times: true,
                on_conflict: OnConflict::Skip,
            };
            assert_eq!(read(&argv), Ok(wanted));
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let good = order().argv();
        for (at, bad) in [
            (2, "--job=../../etc"),
            (2, "--job="),
            (3, "--size=-1"),
            (4, "--mtime-ns="),
            (5, "--verify=md5"),
            (6, "--on-conflict=ask"),
            (6, "--mode=8"),
            (6, "--recovered=yes"),
            (6, "--what"),
            (8, "relative"),
            (9, "a/../b"),
            (9, "/a"),
            (9, ""),
        ] {
            let mut argv = good.clone();
            argv[at] = bad.as_bytes().to_vec();
            assert!(read(&argv).is_err(), "{bad}");
        }
        for missing in [2, 3, 4, 8] {
            let mut argv = good.clone();
            argv.remove(missing);
            assert!(read(&argv).is_err(), "{missing}");
        }
    }

    #[test]
    fn leftovers_are_known_by_their_names() {
        let sweep = SweepOrder {
            dir: b"/mnt".to_vec(),
            journal: "5e771ed0".into(),
        };
        assert!(sweep.is_leftover(&order().temporary()));
        for other in [
            ".settled-5e771ed0-~",
            ".settled-5e771ed0-18",
            ".settled-5e771ed0-1x~",
            ".settled-5e771ed1-18~",
            ".settled-5e771ed0-18~x",
            "5e771ed0-18~",
        ] {
            assert!(!sweep.is_leftover(other.as_bytes()), "{other}");
        }
    }
}
