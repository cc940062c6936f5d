//! Where the rules were written by which a watch selects, for those who ask why it does not.

use super::error::{At, Spot};
use super::watch::RawWatch;
use std::collections::BTreeMap;

/// Of each watch by its name.
pub type Rules = BTreeMap<String, WatchRules>;

/// Places as `FILE:LINE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchRules {
    /// The block.
    pub block: String,
    /// The patterns of `include`, each with its place.
    pub include: Vec<(String, String)>,
    /// The patterns of `exclude`, each with its place.
    pub exclude: Vec<(String, String)>,
    /// Other keys that select, and what is said of what is left: only those that were written.
    pub keys: BTreeMap<&'static str, String>,
}

pub(super) fn rules(blocks: &BTreeMap<String, (Spot, RawWatch)>, defaults: &RawWatch) -> Rules {
    let of = |(name, (spot, raw)): (&String, &(Spot, RawWatch))| {
        let mut keys = BTreeMap::new();
        macro_rules! places {
            ($($key:ident)*) => {$(
                if let Some(at) = raw.$key.as_ref().or(defaults.$key.as_ref()) {
                    keys.insert(stringify!($key), place(&at.spot));
                }
            )*};
        }
        places!(path recursive include exclude ignore_case builtin_excludes min_size max_size min_age ignore_older
            done dead output claim_done on_ctime);
        let rules = WatchRules {
            block: place(spot),
            include: patterns(raw.include.as_ref().or(defaults.include.as_ref())),
            exclude: patterns(raw.exclude.as_ref().or(defaults.exclude.as_ref())),
            keys,
        };
        (name.clone(), rules)
    };
    blocks.iter().map(of).collect()
}

fn patterns(list: Option<&At<Vec<At<String>>>>) -> Vec<(String, String)> {
    let each = list.into_iter().flat_map(|list| &list.value);
    each.map(|at| (at.value.clone(), place(&at.spot))).collect()
}

fn place(spot: &Spot) -> String {
    match &spot.file {
        Some(file) => format!("{}:{}", file.display(), spot.line),
        None => "the command line".into(),
    }
}
