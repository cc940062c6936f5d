//! What the keys of one watch must be to each other.

use super::RawWatch;
use super::act::Kind;
use crate::config::error::{At, Problems, Spot};
use crate::core::select::Select;
use crate::core::template::{Field, Template};
use crate::plan::Disposition;

impl RawWatch {
    /// `serial` and `key_concurrency`, of which there is one: what the watch says itself goes before what
    /// `[defaults]` says.
    pub(super) fn per_key<'a>(
        &'a self,
        defaults: &'a RawWatch,
        notes: &mut Notes,
    ) -> (Option<&'a At<bool>>, Option<&'a At<u32>>) {
        let serial = self.serial.as_ref().or(defaults.serial.as_ref());
        let serial = serial.filter(|s| s.value);
        let many = self
            .key_concurrency
            .as_ref()
            .or(defaults.key_concurrency.as_ref());
        let (Some(one), Some(several)) = (serial, many) else {
            return (serial, many);
        };
        match (self.serial.is_some(), self.key_concurrency.is_some()) {
            (true, false) => (Some(one), None),
            (false, true) => (None, Some(several)),
            _ => {
                let what = "stands beside serial = true, which means one; remove one of them";
                notes.add(&several.spot, "key_concurrency", what);
                (Some(one), Some(several))
            }
        }
    }

    /// Without `key` there is no `{key}`.
    pub(super) fn no_key_used(&self, defaults: &RawWatch, kind: Option<Kind>, notes: &mut Notes) {
        macro_rules! said {
            ($key:ident) => {
                self.$key.as_ref().or(defaults.$key.as_ref())
            };
        }
        if kind != Some(Kind::Worker) && kind != Some(Kind::Deliver) {
            for (n, argument) in said!(run).iter().flat_map(|r| &r.value).enumerate() {
                notes.key_used(&argument.value, &argument.spot, &format!("run[{n}]"));
            }
            for (variable, value) in said!(env).iter().flat_map(|e| &e.value) {
                notes.key_used(&value.value, &value.spot, &format!("env.{variable}"));
            }
        }
        if let Some(deliver) = said!(deliver).filter(|_| kind == Some(Kind::Deliver)) {
            notes.key_used(&deliver.value.to, &deliver.spot, "deliver.to");
        }
        for (which, disposition) in [("done.move", said!(done)), ("dead.move", said!(dead))] {
            if let Some(At {
                value: Disposition::Move { to, .. },
                spot,
            }) = disposition
            {
                notes.key_used(to, spot, which);
            }
        }
    }

    /// One exit status means one thing.
    pub(super) fn codes_differ(&self, defaults: &RawWatch, notes: &mut Notes) {
        let permanent = self.permanent.as_ref().or(defaults.permanent.as_ref());
        let temporary = self.temporary.as_ref().or(defaults.temporary.as_ref());
        let (Some(permanent), Some(temporary)) = (permanent, temporary) else {
            return;
        };
        if let Some(code) = permanent.value.iter().find(|c| temporary.value.contains(c)) {
            let what = format!("{code} is in permanent too; remove it from one of them");
            notes.add(&temporary.spot, "temporary", &what);
        }
    }
}

/// Notes problems of one watch.
pub(super) struct Notes<'a> {
    pub(super) problems: &'a mut Problems,
    pub(super) section: &'a str,
    pub(super) wrong: bool,
}

impl Notes<'_> {
    pub(super) fn add(&mut self, spot: &Spot, key: &str, what: &str) {
        self.problems.add(spot, self.section, key, what);
        self.wrong = true;
    }

    fn key_used(&mut self, template: &Template, spot: &Spot, where_: &str) {
        if template.uses(Field::Key) {
            self.add(
                spot,
                where_,
                "{key} needs a key; add one, as in key = \"{dir1}\"",
            );
        }
    }

    /// Builds the selection; patterns that are none are noted at their place.
    pub(super) fn select(
        &mut self,
        include: Option<&At<Vec<At<String>>>>,
        exclude: Option<&At<Vec<At<String>>>>,
        ignore_case: bool,
        built_in: bool,
    ) -> Option<Select> {
        let list = |l: Option<&At<Vec<At<String>>>>| l.map(|l| l.value.clone()).unwrap_or_default();
        let (include, exclude) = (list(include), list(exclude));
        let texts = |l: &[At<String>]| l.iter().map(|p| p.value.clone()).collect::<Vec<_>>();
        match Select::new(&texts(&include), &texts(&exclude), ignore_case, built_in) {
            Ok(select) => Some(select),
            Err(bad) => {
                for one in bad {
                    let (key, list) = if one.in_include {
                        ("include", &include)
                    } else {
                        ("exclude", &exclude)
                    };
                    if let Some(pattern) = list.get(one.index) {
                        let what = format!("{:?}: {}", pattern.value, one.what);
                        self.add(&pattern.spot, &format!("{key}[{}]", one.index), &what);
                    }
                }
                None
            }
        }
    }
}
