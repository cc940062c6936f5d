//! What the daemon and the process that keeps its claims tell each other, and how what they claim is named on the share:
//! written and read here, so that the two cannot drift apart. The subcommand is the daemon's own; each version speaks to
//! itself alone. What lies on the share is described in settled.toml(5): other versions read it.

use super::ask::Version;
use crate::plan::Identity;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The subcommand that keeps the claims of a watch.
pub const KEEP: &[u8] = b"keep-claims";

/// The claim directory, in the watch's root, where no other is named.
pub const OWN_DIR: &[u8] = b".settled-claims";

/// The file in it whose bytes are locked.
pub const LOCKS: &[u8] = b"locks";

/// What the process is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeeperOrder {
    /// The name of the watch: machines share the work of watches of the same name.
    pub watch: String,
    /// The claim directory, absolute.
    pub dir: Vec<u8>,
    /// It holds marks of conclusions as well, and is not made.
    pub marks: bool,
    /// The watch's root, absolute.
    pub root: Vec<u8>,
    /// The directory of slots, see [`crate::slots`].
    pub slots: Vec<u8>,
    /// As whom the share is used.
    pub identity: Option<Identity>,
}

impl KeeperOrder {
    /// The arguments, program name included.
    pub fn argv(&self) -> Vec<Vec<u8>> {
        let mut args = vec![b"settled".to_vec(), KEEP.to_vec()];
        args.push([b"--watch=", self.watch.as_bytes()].concat());
        if self.marks {
            args.push(b"--marks".to_vec());
        }
        if let Some(who) = &self.identity {
            let groups: Vec<String> = who.groups.iter().map(u32::to_string).collect();
            let text = format!("--as={}:{}:{}", who.uid, who.gid, groups.join(","));
            args.push(text.into_bytes());
        }
        args.extend([
            b"--".to_vec(),
            self.dir.clone(),
            self.root.clone(),
            self.slots.clone(),
        ]);
        args
    }

    /// Reads what follows the subcommand.
    ///
    /// # Errors
    /// A sentence about the argument that is wrong.
    pub fn parse(args: &[&[u8]]) -> Result<KeeperOrder, String> {
        let end = args.iter().position(|&arg| arg == b"--");
        let (options, places) = args.split_at(end.unwrap_or(args.len()));
        let [_, dir, root, slots] = places else {
            return Err("expected -- DIR ROOT SLOTS".into());
        };
        let mut order = KeeperOrder {
            dir: dir.to_vec(),
            root: root.to_vec(),
            slots: slots.to_vec(),
            ..KeeperOrder::default()
        };
        for option in options {
            let text = String::from_utf8_lossy(option).into_owned();
            let wrong = || format!("{text:?} is not an argument");
            match text.split_once('=') {
                Some(("--watch", name)) => order.watch = name.to_owned(),
                Some(("--as", who)) => order.identity = Some(identity(who).ok_or_else(wrong)?),
                None if text == "--marks" => order.marks = true,
                _ => return Err(wrong()),
            }
        }
        Ok(order)
    }
}

fn identity(text: &str) -> Option<Identity> {
    let mut parts = text.splitn(3, ':');
    let (uid, gid, groups) = (parts.next()?, parts.next()?, parts.next()?);
    let groups = groups.split(',').filter(|group| !group.is_empty());
    Some(Identity {
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        groups: groups
            .map(|group| group.parse().ok())
            .collect::<Option<_>>()?,
        ..Identity::default()
    })
}

// ---- names ----

/// What a byte of the lock file stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed<'a> {
    /// A path below the watch's root.
    Path(&'a [u8]),
    /// An inode number: the file keeps it under another name.
    Inode(u64),
    /// A serial key.
    Key(&'a [u8]),
}

/// The offset of the byte: the first 62 bits of a hash. Where two things have the same, one waits for the other.
pub fn offset(watch: &str, what: Claimed<'_>) -> u64 {
    let mut hash = Sha256::new();
    hash.update(watch.as_bytes());
    match what {
        Claimed::Path(path) => {
            hash.update(b"\0path\0");
            hash.update(path);
        }
        Claimed::Inode(ino) => {
            hash.update(b"\0inode\0");
            hash.update(ino.to_string().as_bytes());
        }
        Claimed::Key(key) => {
            hash.update(b"\0key\0");
            hash.update(key);
        }
    }
    let hash = hash.finalize();
    hash.iter()
        .take(8)
        .fold(0, |all, byte| all << 8 | u64::from(*byte))
        >> 2
}

/// A version of a file as all machines see it: no birth time, which not every mount tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
}

impl From<&Version> for Seen {
    fn from(version: &Version) -> Seen {
        Seen {
            ino: version.ino,
            size: version.size,
            mtime_ns: version.mtime_ns,
        }
    }
}

impl Seen {
    /// What its files in the claim directory are called, before the ending: 32 hexadecimal digits.
    pub fn name(&self, watch: &str) -> String {
        let text = format!("{watch}\0{} {} {}", self.ino, self.size, self.mtime_ns);
        let hash = Sha256::digest(text.as_bytes());
        hash.iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// What a file in the claim directory says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// See [`How`].
    pub how: How,
    /// The machine.
    pub host: String,
    /// The job, as users of that machine see it.
    pub job: String,
    /// Seconds since 1970.
    pub time: u64,
    /// The file's path below the watch's root, for a person.
    pub path: String,
    /// It was taken over from a machine whose attempt was cut short.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// How far a file's job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is being worked on, or was when its machine went away.
    Begun,
    /// Done.
    Done,
    /// Dead.
    Dead,
    /// Held for the operator.
    Held,
}

// ---- lines ----

/// A line to the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Claim a file.
    Take(Take),
    /// The processes that work on these hold the lock of this slot.
    Slot {
        /// Which.
        slot: u32,
        /// Which claims.
        of: Vec<u64>,
    },
    /// Write down how its job ended.
    Conclude {
        /// Which claim.
        claim: u64,
        /// How.
        how: How,
        /// The version that is there now.
        seen: Seen,
    },
    /// Let go of it.
    Drop {
        /// Which claim.
        claim: u64,
        /// Its attempt was cut short: whoever takes it next is to know.
        left: bool,
    },
}

/// A claim that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// Its number, which no other has.
    pub claim: u64,
    /// The job, as users see it.
    pub job: String,
    /// Path below the watch's root.
    #[serde(with = "hex")]
    pub path: Vec<u8>,
    /// What settled.
    pub seen: Seen,
    /// Its serial key.
    #[serde(with = "hex_or_none", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<u8>>,
    /// It is to be there, and as it settled; else there is nothing to claim.
    pub look: bool,
    /// What a machine that went away has left is taken over.
    pub over: bool,
    /// A person asked for it to be run again: how it ended before does not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// A line of the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// To [`Ask::Take`].
    Took {
        /// Which.
        claim: u64,
        /// See [`Standing`].
        is: Standing,
        /// By whom, or why not; empty where there is nothing to say.
        by: String,
    },
    /// To [`Ask::Conclude`].
    Concluded {
        /// Which.
        claim: u64,
        /// Why it was not written down; empty if it was, and is on the server's disk.
        why: String,
    },
}

/// What became of a wish for a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is had.
    Had,
    /// It is had, and an attempt of whoever had it before was cut short.
    CutShort,
    /// It is had, and the job is done.
    Done,
    /// It is had, and the job is dead.
    Dead,
    /// It is had, and the job is held for the operator.
    Held,
    /// Somebody else has it.
    Busy,
    /// Nobody has it, but an attempt was cut short: to be asked for again, for whoever made that may be coming back.
    Left,
    /// The file is not there, or another version is.
    Gone,
    /// Nobody can have it: something failed.
    Failed,
}

impl Standing {
    /// Whether the locks are had.
    pub fn is_had(self) -> bool {
        !matches!(
            self,
            Standing::Busy | Standing::Left | Standing::Gone | Standing::Failed
        )
    }
}

/// The line, with its newline.
pub fn line<T: Serialize>(what: &T) -> Vec<u8> {
    // A structure of numbers and strings has nothing that JSON cannot say.
    let mut line = serde_json::to_vec(what).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Reads a line, without its newline.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let pairs = digits?;
    let byte = |pair: &[u32]| match pair {
        [high, low] => u8::try_from(high << 4 | low).ok(),
        _ => None,
    };
    pairs.chunks(2).map(byte).collect()
}

/// Names are bytes, and JSON's strings are not.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::to_hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        super::from_hex(&text).ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}

mod hex_or_none {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => to.serialize_str(&super::to_hex(bytes)),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let wrong = || D::Error::custom("not hexadecimal");
        text.map(|text| super::from_hex(&text).ok_or_else(wrong))
            .transpose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_back() {
        let order = KeeperOrder {
            watch: "scans-2".into(),
            dir: b"/srv/a=b/\xff".to_vec(),
            marks: true,
            root: b"--".to_vec(),
            slots: b"/var/lib/settled/slots".to_vec(),
            identity: Some(Identity {
                uid: 7,
                gid: 8,
                groups: vec![8, 9],
                ..Identity::default()
            }),
        };
        for order in [order, KeeperOrder::default()] {
            let argv = order.argv();
            let args: Vec<&[u8]> = argv[2..].iter().map(Vec::as_slice).collect();
            assert_eq!(KeeperOrder::parse(&args), Ok(order));
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for args in [
            &["--", "a", "b"][..],
            &["--what", "--", "a", "b", "c"],
            &["--as=1:x:", "--", "a", "b", "c"],
            &["--as=1:2", "--", "a", "b", "c"],
        ] {
            let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
            assert!(KeeperOrder::parse(&args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn lines_come_back_whatever_the_name() {
        let take = Ask::Take(Take {
            claim: u64::MAX,
            job: "5e771ed0-18".into(),
            path: (0..=255).collect(),
            seen: Seen {
                ino: u64::MAX,
                size: 0,
                mtime_ns: i64::MIN,
            },
            key: Some(vec![0, 10, 255]),
            look: true,
            over: false,
            again: true,
        });
        let line = line(&take);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(read::<Ask>(line.strip_suffix(b"\n").unwrap()), Ok(take));
        assert!(read::<Ask>(b"{\"take\":{\"claim\":1}}").is_err());
        assert_eq!(from_hex("0g"), None);
        assert_eq!(from_hex("0"), None);
    }

    /// Other versions of the program read these: they never change.
    #[test]
    fn what_lies_on_the_share_stays_as_it_is() {
        let seen = Seen {
            ino: 1,
            size: 2,
            mtime_ns: 3,
        };
        assert_eq!(seen.name("w"), "49d4e8c042ee0afcd540f19b3c33d6dd");
        assert_eq!(
            offset("w", Claimed::Path(b"a/b")),
            4_090_932_297_294_487_274
        );
        assert_eq!(offset("w", Claimed::Inode(5)), 2_439_362_240_320_534_213);
        assert_eq!(offset("w", Claimed::Key(b"k")), 3_040_585_434_383_097_506);
        assert!(offset("w", Claimed::Path(b"a/b")) < 1 << 62);
        let note = Note {
            how: How::Begun,
            host: "h".into(),
            job: "j".into(),
            time: 1,
            path: "p".into(),
            again: false,
        };
        let text = "{\"how\":\"begun\",\"host\":\"h\",\"job\":\"j\",\"time\":1,\"path\":\"p\"}\n";
        assert_eq!(line(&note), text.as_bytes());
    }
}
