//! What holds of a connection between any two calls, for fuzz targets.

use super::super::frame::{LARGEST, WIDEST};
use super::super::stream::{Receiving, Sending};
use super::{HIGH, Mux, REMEMBERED, Role};

impl Mux {
    /// Panics when something does not hold.
    pub(crate) fn check(&self) {
        let unread: usize = self.streams.values().map(|stream| stream.unread()).sum();
        let open = self.open_window + i64::from(self.taken) + unread as i64;
        assert_eq!(open, self.connection_window, "every byte of the window is open, unread or on its way back");
        assert!(self.open_window >= 0 && (0..=WIDEST).contains(&self.send_window));
        assert_eq!(self.gone, self.streams.values().filter(|stream| stream.is_gone).count());
        assert!(self.role == Role::Client || self.open() <= self.max_streams, "{} streams", self.open());
        assert!(self.reset.len() <= REMEMBERED);
        let block = self.block.as_ref().map_or(0, |block| block.bytes.len());
        assert!(block <= self.largest_head.max(LARGEST), "{block} bytes of a head");
        for (id, stream) in &self.streams {
            assert_eq!(stream.waiting_bytes, stream.waiting.bytes());
            assert!(stream.is_gone || (-WIDEST..=WIDEST).contains(&stream.send_window));
            let places = self.line.iter().filter(|other| *other == id).count();
            assert_eq!(places, usize::from(stream.is_queued), "stream {id} stands in line once, or not");
            let has_data = !stream.waiting.is_empty();
            assert!(!has_data || !matches!(stream.sending, Sending::Done), "what ended has nothing that waits");
            assert!(!has_data || stream.send_window <= 0 || stream.is_queued, "stream {id} was forgotten");
            if !has_data {
                assert!(
                    matches!(stream.sending, Sending::Open | Sending::Done),
                    "the end of stream {id} was forgotten"
                );
            }
            assert!(!stream.is_gone || (stream.sending == Sending::Done && stream.receiving != Receiving::Open));
            if stream.receiving == Receiving::Open {
                let open = stream.window + i64::from(stream.taken) + stream.unread() as i64;
                assert!(open == self.window || open == self.window.max(super::FIRST_WINDOW), "{open} of stream {id}");
                assert!(stream.window >= 0);
            }
        }
        let waits = self.send_window > 0 && self.out.len() < HIGH;
        assert!(!waits || self.line.is_empty(), "data waits for nothing");
    }

    /// What the other side may still send, and what may be sent to it.
    pub(crate) fn windows(&self) -> (i64, i64) {
        (self.open_window, self.send_window)
    }

    /// What may be sent on a stream beyond what every stream may send at first; `None`: nothing goes on it.
    pub(crate) fn stream_window(&self, id: u32) -> Option<i64> {
        let stream = self.streams.get(&id).filter(|stream| !stream.is_gone)?;
        Some(stream.send_window - self.peer_window)
    }

    /// How many streams have data that waits, and how much.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let waiting = self.streams.values().filter(|stream| !stream.waiting.is_empty());
        waiting.fold((0, 0), |(streams, bytes), stream| (streams + 1, bytes + stream.waiting_bytes))
    }
}
