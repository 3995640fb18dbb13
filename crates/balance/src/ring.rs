//! A circle of hashes on which every instance has many points: a key belongs to the next point after its own.
//!
//! When an instance leaves, only its keys move, to many others; when one comes, keys move to it alone. Callers agree
//! about it without a word, since nothing counts but the ids. It is made when the instances change, so that a pick costs
//! a binary search.
//!
//! Source: D. Karger et al., Consistent Hashing and Random Trees, STOC 1997.

use std::collections::HashSet;

use synego_model::InstanceId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Points of one instance: with so many, the share of keys of an instance lies within about a tenth of the mean.
const POINTS: u64 = 128;

/// The circle.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    /// Place and record of each point, by rising place.
    points: Vec<(u32, u32)>,
    /// Record, and hash of the id, of each instance on it, by rising record.
    members: Vec<(u32, u64)>,
}

impl Ring {
    /// Takes up who is there now, by rising record; costs what changed, and a pass over the points.
    pub(crate) fn update<'a>(&mut self, members: impl Iterator<Item = (u32, &'a InstanceId)>) {
        let hashed = |(index, id): (u32, &InstanceId)| (index, xxh3_64_with_seed(id.as_str().as_bytes(), 0));
        let now: Vec<(u32, u64)> = members.map(hashed).collect();
        let before = std::mem::replace(&mut self.members, now);
        if before == self.members {
            return;
        }
        let left: HashSet<u32> = before
            .iter()
            .filter(|member| self.members.binary_search(member).is_err())
            .map(|(index, _)| *index)
            .collect();
        if !left.is_empty() {
            self.points.retain(|(_, index)| !left.contains(index));
        }
        for (index, id) in self.members.iter().filter(|member| before.binary_search(member).is_err()) {
            let place = |number: u64| (xxh3_64_with_seed(&id.to_le_bytes(), number) >> 32) as u32;
            self.points.extend((1..=POINTS).map(|number| (place(number), *index)));
        }
        // Stable: it goes fast over what is in order already.
        self.points.sort();
    }

    /// Nobody is on it any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The records of the points from that of `key` on, once around; the same one comes again and again.
    pub(crate) fn from(&self, key: u64) -> impl Iterator<Item = u32> {
        let place = (key >> 32) as u32;
        let (before, after) = self.points.split_at(self.points.partition_point(|(point, _)| *point < place));
        after.iter().chain(before).map(|(_, index)| *index)
    }
}
