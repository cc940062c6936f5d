//! A set of versions that may say yes too often and never no: small and quick for a million files.

/// Bits for each version: with four probes one in some four hundred strangers is taken for a member.
const BITS: usize = 16;
const PROBES: u32 = 4;

/// The set. It grows only; what no longer belongs to it goes when it is made anew.
#[derive(Debug)]
pub struct Sieve {
    words: Vec<u64>,
}

impl Sieve {
    /// An empty one, made for `members`.
    pub fn new(members: usize) -> Sieve {
        let bits = (members.max(64) * BITS).next_power_of_two();
        Sieve {
            words: vec![0; bits / 64],
        }
    }

    /// Where a version (see `version_digest`: as good as random) has its bits.
    fn places(&self, version: u64) -> impl Iterator<Item = (usize, u64)> + use<> {
        let mask = self.words.len() as u64 * 64 - 1;
        let step = (version >> 32) | 1;
        (0..PROBES).map(move |probe| {
            let bit = version.wrapping_add(step.wrapping_mul(probe.into())) & mask;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    /// Adds a version.
    pub fn insert(&mut self, version: u64) {
        for (word, bit) in self.places(version) {
            if let Some(word) = self.words.get_mut(word) {
                *word |= bit;
            }
        }
    }

    /// Whether a version may have been added. No is certain.
    pub fn may_hold(&self, version: u64) -> bool {
        self.places(version)
            .all(|(word, bit)| self.words.get(word).is_some_and(|word| word & bit != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ask::Version;
    use crate::core::files::version_digest;

    fn digest(ino: u64) -> u64 {
        version_digest(&Version {
            ino,
            ..Version::default()
        })
    }

    #[test]
    fn members_are_held_and_few_strangers() {
        let mut sieve = Sieve::new(10_000);
        (0..10_000).for_each(|ino| sieve.insert(digest(ino)));
        assert!((0..10_000).all(|ino| sieve.may_hold(digest(ino))));
        let strangers = (10_000..30_000)
            .filter(|ino| sieve.may_hold(digest(*ino)))
            .count();
        assert!(strangers < 400, "{strangers} of 20,000");
    }
}
