//! Whether NFS clients write to a watch, and why that is thought.

use super::{line, shown};
use crate::config::{below, show_duration};
use crate::core::QUIET_EXPORTED;
use crate::core::ask::ExportedTree;
use crate::plan::WatchPlan;

/// What is to be said of one watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exported {
    /// They do, or may; and why.
    Yes(String),
    /// The configuration says that they do not, where the export table says that they do.
    Denied(String),
    /// They do not.
    No,
    /// What cannot be read.
    Unknown(String),
}

impl Exported {
    pub(super) fn is_exported(&self) -> bool {
        matches!(self, Exported::Yes(_) | Exported::Unknown(_))
    }
}

/// `root` is the watch's path without symbolic links.
pub(super) fn find(
    watch: &WatchPlan,
    root: &[u8],
    exports: &Result<Vec<ExportedTree>, String>,
) -> Exported {
    let trees = match exports {
        Ok(trees) => trees.as_slice(),
        Err(why) if watch.exported.is_none() => return Exported::Unknown(why.clone()),
        Err(_) => &[],
    };
    let part = |tree: &&ExportedTree| {
        below(root, &tree.path).is_some() || (watch.recursive && below(&tree.path, root).is_some())
    };
    let found = trees.iter().find(part).map(|tree| {
        let path = shown(&tree.export);
        let part = if below(root, &tree.path).is_some() {
            ""
        } else {
            "a part of it: "
        };
        format!("{part}{path} to {}", tree.why)
    });
    match (watch.exported, found) {
        (Some(true), _) => Exported::Yes("exported = true".into()),
        (Some(false), Some(why)) => Exported::Denied(why),
        (None, Some(why)) => Exported::Yes(why),
        (_, None) => Exported::No,
    }
}

pub(super) fn describe(out: &mut String, exported: &Exported) {
    match exported {
        Exported::Yes(why) => line(out, "exported", format!("over NFS ({why})")),
        Exported::Denied(why) => {
            line(
                out,
                "exported",
                format!("not taken for it (exported = false), though {why}"),
            );
        }
        Exported::No => {}
        Exported::Unknown(why) => line(
            out,
            "exported",
            format!("not known, so taken for it: {why}"),
        ),
    }
}

pub(super) fn warn(out: &mut String, watch: &WatchPlan, exported: &Exported) {
    if let (Some(settle), Exported::Yes(_)) = (watch.settle, exported)
        && settle < QUIET_EXPORTED
    {
        let settle = show_duration(settle);
        let least = show_duration(QUIET_EXPORTED);
        line(
            out,
            "warning",
            format!(
                "settle: {settle} is less than {least}: NFSv3 clients flush up to 30 s apart, and neither close nor \
                 lease tells of them, so a file may be taken half written; leave settle out, or let all clients write \
                 under another name and rename, or use NFSv4 alone and write exported = false"
            ),
        );
    }
}
