//! Maps of headers that a worker uses again: making one costs more than filling it.

use std::cell::RefCell;

use http::HeaderMap;

/// Maps that a worker keeps, and the most fields that one of them has room for.
const KEPT: usize = 64;
const ROOM: usize = 64;

thread_local! {
    static MAPS: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map.
pub(crate) fn take() -> HeaderMap {
    MAPS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a map back whose message is over.
pub(crate) fn give(mut map: HeaderMap) {
    if map.capacity() == 0 || map.capacity() > ROOM {
        return;
    }
    map.clear();
    MAPS.with_borrow_mut(|maps| {
        if maps.len() < KEPT {
            maps.push(map);
        }
    });
}
