//! What a worker keeps to use again: memory that was used just before is warm, and costs no call of the allocator.

use std::cell::RefCell;
use std::thread::LocalKey;

/// At most `MOST` things, the last one used first.
pub(crate) struct Spare<T, const MOST: usize>(RefCell<Vec<T>>);

impl<T, const MOST: usize> Spare<T, MOST> {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }
}

/// The spare things of the thread that asks; one that is about to end keeps nothing.
pub(crate) trait Shelf<T> {
    /// The one that was kept last.
    fn take(&'static self) -> Option<T>;

    /// Keeps one where there is room, else drops it; whether it is kept.
    fn keep(&'static self, thing: T) -> bool;
}

impl<T: 'static, const MOST: usize> Shelf<T> for LocalKey<Spare<T, MOST>> {
    fn take(&'static self) -> Option<T> {
        self.try_with(|spare| spare.0.borrow_mut().pop()).ok().flatten()
    }

    fn keep(&'static self, thing: T) -> bool {
        let mut thing = Some(thing);
        let _ = self.try_with(|spare| {
            let mut kept = spare.0.borrow_mut();
            if kept.len() < MOST {
                kept.extend(thing.take());
            }
        });
        // One without a place is dropped here, where nothing is borrowed: it may keep something itself.
        thing.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static NUMBERS: Spare<u8, 2> = const { Spare::new() };
    }

    #[test]
    fn the_last_one_kept_is_the_first_one_taken_and_there_is_room_for_so_many() {
        assert_eq!([1, 2, 3].map(|number| NUMBERS.keep(number)), [true, true, false]);
        assert_eq!([NUMBERS.take(), NUMBERS.take(), NUMBERS.take()], [Some(2), Some(1), None]);
    }
}
