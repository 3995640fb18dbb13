//! Instances by their requests in flight, so that the one with the fewest is known without a look at all.
//!
//! Exact up to [`LEVELS`] requests in flight to one instance; those that have more count as equal. Each change costs the
//! same however many instances there are.

use rand::Rng;

/// Levels that are told apart.
const LEVELS: usize = 4096;
/// Instances that are looked at in vain before the search is given up.
const LOOKS: usize = 64;
/// The place of an instance that is on no level.
const NOWHERE: (u32, u32) = (u32::MAX, u32::MAX);

/// The instances that can be picked, by level.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    levels: Vec<Vec<u32>>,
    /// Level and place there of each record.
    places: Vec<(u32, u32)>,
    /// No level below this one has anyone.
    lowest: usize,
}

impl Levels {
    /// Nobody is there any more.
    pub(crate) fn clear(&mut self) {
        self.levels.iter_mut().for_each(Vec::clear);
        self.places.clear();
        self.lowest = 0;
    }

    /// Puts an instance on the level of so many requests in flight, wherever it was.
    pub(crate) fn put(&mut self, index: u32, in_flight: u32) {
        self.remove(index);
        let level = (in_flight as usize).min(LEVELS - 1);
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        if self.places.len() <= index as usize {
            self.places.resize(index as usize + 1, NOWHERE);
        }
        if let (Some(there), Some(place)) = (self.levels.get_mut(level), self.places.get_mut(index as usize)) {
            *place = (level as u32, there.len() as u32);
            there.push(index);
        }
        self.lowest = self.lowest.min(level);
    }

    /// It has so many requests in flight now; one that is on no level stays so.
    pub(crate) fn moved(&mut self, index: u32, in_flight: u32) {
        if self.places.get(index as usize).is_some_and(|place| *place != NOWHERE) {
            self.put(index, in_flight);
        }
    }

    /// It cannot be picked now.
    pub(crate) fn remove(&mut self, index: u32) {
        let Some(place) = self.places.get_mut(index as usize) else { return };
        let (level, at) = std::mem::replace(place, NOWHERE);
        let Some(there) = self.levels.get_mut(level as usize).filter(|there| (at as usize) < there.len()) else {
            return;
        };
        there.swap_remove(at as usize);
        let moved = there.get(at as usize).and_then(|moved| self.places.get_mut(*moved as usize));
        if let Some(moved) = moved {
            *moved = (level, at);
        }
    }

    /// The one with the fewest in flight that `fits`, at random among equals; `None`: a bounded search found none.
    pub(crate) fn fewest(&mut self, rng: &mut impl Rng, mut fits: impl FnMut(u32) -> bool) -> Option<u32> {
        while self.lowest + 1 < self.levels.len() && self.levels.get(self.lowest).is_some_and(Vec::is_empty) {
            self.lowest += 1;
        }
        let mut looks = LOOKS;
        for there in self.levels.iter().skip(self.lowest).filter(|there| !there.is_empty()) {
            let (after, before) = there.split_at(rng.random_range(0..there.len()));
            for index in before.iter().chain(after) {
                if fits(*index) {
                    return Some(*index);
                }
                looks = looks.checked_sub(1)?;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    proptest! {
        #[test]
        fn the_fewest_are_found_whatever_happened_before(
            steps in prop::collection::vec((0_u32..20, prop::option::of(0_u32..6)), 1..200),
            seed: u64,
        ) {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut levels, mut known) = (Levels::default(), std::collections::BTreeMap::new());
            for (index, in_flight) in steps {
                match in_flight {
                    Some(in_flight) => {
                        levels.put(index, in_flight);
                        known.insert(index, in_flight);
                    }
                    None => {
                        levels.remove(index);
                        known.remove(&index);
                    }
                }
                let found = levels.fewest(&mut rng, |_| true).and_then(|index| known.get(&index).copied());
                prop_assert_eq!(found, known.values().min().copied());
                let even = levels.fewest(&mut rng, |index| index % 2 == 0).and_then(|index| known.get(&index).copied());
                prop_assert_eq!(even, known.iter().filter(|(index, _)| *index % 2 == 0).map(|(_, level)| *level).min());
            }
        }
    }
}
