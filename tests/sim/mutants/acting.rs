//! Faults in the loop's contract and in the mover.

use super::Mutant;

/// See [`Mutant`].
pub const ALL: &[Mutant] = &[
    Mutant {
        name: "act before the record",
        file: "tests/sim/effects.rs",
        old: r##"        let durable = records.clone();
"##,
        new: r##"        let durable = records.clone();
        for effect in others.iter().filter(|_| MUTANT) {
            if let Effect::Spawn(order) = effect {
                self.spawn((**order).clone());
            }
        }
"##,
    },
    Mutant {
        name: "perform what a failed flush announced",
        file: "tests/sim/effects.rs",
        old: r##"            story!(self.now, "!!!! crash while the journal is written: {error}");
"##,
        new: r##"            story!(self.now, "!!!! crash while the journal is written: {error}");
            for effect in others.into_iter().filter(|_| MUTANT) {
                if let Effect::Spawn(order) = effect {
                    self.spawn(*order);
                }
            }
"##,
    },
    Mutant {
        name: "the mover does not look",
        file: "tests/sim/scouts.rs",
        old: r##"            let name = place.rel[slash..].to_vec();
            let Some(uid) = disk.lookup(dir, private) else {
                return answer(Disposal::Gone);
            };
            if !same(disk, uid, &expect) {"##,
        new: r##"            let name = place.rel[slash..].to_vec();
            let Some(uid) = disk.lookup(dir, private) else {
                return answer(Disposal::Gone);
            };
            if !MUTANT && !same(disk, uid, &expect) {"##,
    },
    Mutant {
        name: "the mover replaces what is there",
        file: "tests/sim/scouts.rs",
        old: r##"if let Some(there) = disk.lookup(to, &to_name) {"##,
        new: r##"if let Some(there) = disk.lookup(to, &to_name).filter(|there| {
                        !MUTANT || disk.inodes[*there].content == disk.inodes[uid].content
                    }) {"##,
    },
    Mutant {
        name: "the mover's look finds a writer and goes on",
        file: "tests/sim/scouts.rs",
        old: r##"            if lease && let Held::By(_) = lease_of(disk, uid) {
                put_back(disk, dir, private, &name);
                return answer(Disposal::Busy);
            }
            match act {"##,
        new: r##"            if lease && !MUTANT && let Held::By(_) = lease_of(disk, uid) {
                put_back(disk, dir, private, &name);
                return answer(Disposal::Busy);
            }
            match act {"##,
    },
    Mutant {
        name: "the mover does not look again when it has copied",
        file: "tests/sim/scouts.rs",
        old: r##"            if !same(disk, uid, &expect) {
                put_back(disk, dir, private, &name);
                return answer(Disposal::Changed);
            }
            if lease && let Held::By(_) = lease_of(disk, uid) {
                put_back(disk, dir, private, &name);
                return answer(Disposal::Busy);
            }
            let _ = disk.unlink(dir, private);"##,
        new: r##"            if !MUTANT && !same(disk, uid, &expect) {
                put_back(disk, dir, private, &name);
                return answer(Disposal::Changed);
            }
            if lease && !MUTANT && let Held::By(_) = lease_of(disk, uid) {
                put_back(disk, dir, private, &name);
                return answer(Disposal::Busy);
            }
            let _ = disk.unlink(dir, private);"##,
    },
    Mutant {
        name: "dispose before the record",
        file: "tests/sim/effects.rs",
        old: r##"        let wall = Wall(self.setup.disk.wall);
        let mut records = Vec::new();"##,
        new: r##"        for effect in effects.iter().filter(|_| MUTANT) {
            if let Effect::Ask(ask, scout, question @ settled::core::ask::Question::Dispose { .. }) = effect {
                self.ask(*ask, *scout, question.clone());
            }
        }
        let wall = Wall(self.setup.disk.wall);
        let mut records = Vec::new();"##,
    },
];
