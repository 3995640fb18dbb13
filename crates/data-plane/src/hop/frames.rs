//! The frames of a client's HTTP/2 connection, followed by their heads: h2 answers every SETTINGS and every PING, however
//! many there are.

use std::time::{Duration, Instant};

use synego_runtime::clock;

/// Over how long they are counted, and how many are too many.
const WINDOW: Duration = Duration::from_secs(10);
const TOO_MANY: u32 = 1_000;
/// With what a client's connection begins, before its first frame.
const PREFACE: usize = 24;
/// RFC 9113 §4.1.
const HEAD: usize = 9;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

/// GOAWAY with ENHANCE_YOUR_CALM, on a connection of which nothing more is read (RFC 9113 §6.8).
pub(crate) const BE_CALM: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// Where in the stream of frames a connection is.
pub(crate) struct Frames {
    /// Bytes before the next head.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
    count: u32,
    since: Instant,
}

impl Frames {
    pub(crate) fn new(now: Instant) -> Self {
        Self { skip: PREFACE, head: [0; HEAD], have: 0, count: 0, since: now }
    }

    /// Follows what came; true once there were too many frames that ask for nothing but an answer.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            for (place, byte) in self.head.iter_mut().skip(self.have).zip(bytes) {
                *place = *byte;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            self.have += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.have == HEAD {
                self.have = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if matches!(kind, SETTINGS | PING) && flags & ACK == 0 {
                    self.note();
                }
            }
        }
        self.count > TOO_MANY
    }

    fn note(&mut self) {
        let now = clock::now();
        if now.duration_since(self.since) > WINDOW {
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, payload as u8, kind, flags, 0, 0, 0, 0];
        frame.resize(HEAD + payload, 4);
        frame
    }

    #[test]
    fn control_frames_are_counted_however_the_bytes_are_cut() {
        let mut sent = vec![b'P'; PREFACE];
        for _ in 0..=TOO_MANY {
            sent.extend(frame(PING, 0, 8));
            sent.extend(frame(0, 0, 100));
            sent.extend(frame(SETTINGS, ACK, 0));
        }
        for size in [1, 7, 9, 1000, sent.len()] {
            let mut frames = Frames::new(clock::now());
            let calls: Vec<bool> = sent.chunks(size).map(|part| frames.follow(part)).collect();
            assert_eq!(calls.last(), Some(&true), "{size}");
            assert_eq!(frames.count, TOO_MANY + 1, "{size}");
        }
        let mut frames = Frames::new(clock::now());
        assert!(!frames.follow(sent.get(..sent.len() / 2).expect("half")));
    }
}
