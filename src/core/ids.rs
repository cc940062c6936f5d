//! Names for things, as types that cannot be mixed up.

use serde::{Deserialize, Serialize};

/// A watched directory. Stable over renames and restarts once the journal holds it; 0 is no directory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct DirId(pub u32);

/// A watch's number in the journal. Stable as long as the watch keeps its name (or carries `formerly`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct WatchId(pub u32);

/// A job, unique in one state directory and rising in the order of settling.
/// Users see it as `JOURNAL-NUMBER`, which is unique over state directories too.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct JobId(pub u64);

/// One run of a child; unique in one life of the daemon.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RunId(pub u64);

/// A question on its way to a scout; unique in one life of the daemon.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct AskId(pub u64);

/// The kernel's mount id (statx(2), `STATX_MNT_ID`; the first field of proc_pid_mountinfo(5)).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct MountId(pub u64);
