//! The other side of the connection: reads what is written as a strict peer does, and keeps its own account of the windows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};

use crate::h2::frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FIRST_WINDOW, HEAD, HEADERS, Head, LARGEST, LAST_STREAM, PREFACE,
    RESET, WIDEST, WINDOW_UPDATE, word,
};
use crate::h2::hpack::Decoder;
use crate::h2::mux::{Mux, Role};

/// What the other side knows.
pub(super) struct Peer {
    /// Whether we begin with a preface.
    awaits_preface: bool,
    decoder: Decoder,
    /// A head whose end has not come: its stream, whether it ends it, and its bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    /// Bytes that it sent and that are no whole frame yet.
    sent: BytesMut,
    /// What it may still send, and what may be sent to it.
    windows: (i64, i64),
    /// By stream: what was allowed beyond the first window, less what came.
    streams: BTreeMap<u32, i64>,
    /// Streams on which we ended, and those that we reset.
    ended: BTreeSet<u32>,
    reset: BTreeSet<u32>,
    /// Bytes of the body that came on each stream.
    bodies: BTreeMap<u32, usize>,
    events: BTreeMap<u32, Vec<String>>,
    /// Bytes that came.
    pub(super) got: usize,
}

impl Peer {
    pub(super) fn new(role: Role) -> Self {
        Self {
            awaits_preface: role == Role::Client,
            decoder: Decoder::new(),
            block: None,
            sent: BytesMut::new(),
            windows: (FIRST_WINDOW, FIRST_WINDOW),
            streams: BTreeMap::new(),
            ended: BTreeSet::new(),
            reset: BTreeSet::new(),
            bodies: BTreeMap::new(),
            events: BTreeMap::new(),
            got: 0,
        }
    }

    /// What it sends, with its account of it.
    pub(super) fn sends(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        while let Some(head) = Head::read(&self.sent) {
            if self.sent.len() < HEAD + head.length {
                return;
            }
            let payload = self.sent.split_to(HEAD + head.length).split_off(HEAD);
            if head.kind == DATA {
                self.windows.0 -= head.length as i64;
            }
            if head.kind == WINDOW_UPDATE && head.length == 4 {
                let more = i64::from(word(&payload).unwrap_or_default() & LAST_STREAM);
                if head.stream == 0 {
                    self.windows.1 += more;
                } else {
                    *self.streams.entry(head.stream).or_default() += more;
                }
            }
        }
    }

    /// What comes to it: whole frames.
    pub(super) fn gets(&mut self, mut bytes: &[u8]) {
        self.got += bytes.len();
        if std::mem::take(&mut self.awaits_preface) {
            let Some(rest) = bytes.strip_prefix(PREFACE) else { panic!("no preface") };
            bytes = rest;
        }
        while !bytes.is_empty() {
            let Some(head) = Head::read(bytes) else { panic!("half a frame") };
            assert!(head.length <= LARGEST && bytes.len() >= HEAD + head.length, "{head:?}");
            let (frame, rest) = bytes.split_at(HEAD + head.length);
            bytes = rest;
            self.frame(head, &frame[HEAD..]);
        }
    }

    fn frame(&mut self, head: Head, payload: &[u8]) {
        let id = head.stream;
        assert_eq!(self.block.is_some(), head.kind == CONTINUATION, "nothing comes within a head: {head:?}");
        let is_message = matches!(head.kind, DATA | HEADERS);
        assert!(!is_message || !self.ended.contains(&id), "stream {id} goes on behind its end");
        assert!(head.kind == RESET || !self.reset.contains(&id), "stream {id} goes on behind its reset");
        match head.kind {
            DATA => self.data(head, payload),
            HEADERS => {
                self.block = Some((id, head.has(END_STREAM), payload.to_vec()));
                self.whole(head);
            }
            CONTINUATION => {
                if let Some((stream, _, block)) = &mut self.block {
                    assert_eq!(*stream, id);
                    block.extend_from_slice(payload);
                }
                self.whole(head);
            }
            RESET => {
                self.reset.insert(id);
                self.note(id, format!("reset {:?}", word(payload)));
            }
            WINDOW_UPDATE => {
                let more = word(payload).map_or(0, i64::from);
                assert!((1..=WIDEST).contains(&more) && payload.len() == 4);
                if id == 0 {
                    self.windows.0 += more;
                    assert!(self.windows.0 <= WIDEST);
                }
                self.note(id, format!("window {more}"));
            }
            kind => {
                assert_eq!(id, 0, "{head:?}");
                self.note(0, format!("{kind} {} {payload:?}", head.flags));
            }
        }
        if head.has(END_STREAM) && is_message {
            self.ended.insert(id);
        }
    }

    fn data(&mut self, head: Head, payload: &[u8]) {
        let id = head.stream;
        self.windows.1 -= payload.len() as i64;
        assert!(self.windows.1 >= 0, "more than the window of the connection");
        *self.streams.entry(id).or_default() -= payload.len() as i64;
        let got = self.bodies.entry(id).or_default();
        assert!(pattern(id, *got, payload.len()) == payload, "the body of stream {id} behind {got} bytes");
        *got += payload.len();
        let got = *got;
        if head.has(END_STREAM) {
            self.note(id, format!("end behind {got}"));
        }
    }

    fn whole(&mut self, head: Head) {
        if !head.has(END_HEADERS) {
            return;
        }
        let Some((id, ends, block)) = self.block.take() else { return };
        let mut fields = Vec::new();
        let read = self.decoder.decode(&block, |field| fields.push(format!("{field:?}")));
        assert_eq!(read, Ok(()), "a head that cannot be read");
        let got = self.bodies.get(&id).copied();
        self.note(id, format!("head {ends} {fields:?} behind {got:?}"));
    }

    fn note(&mut self, id: u32, event: String) {
        self.events.entry(id).or_default().push(event);
    }

    /// Its account is ours; to be called when nothing waits to be written.
    pub(super) fn check(&self, mux: &Mux) {
        assert_eq!(self.windows, mux.windows(), "both ends count the same windows");
        for (id, window) in &self.streams {
            if let Some(ours) = mux.stream_window(*id) {
                assert_eq!(*window, ours, "both ends count the same window of stream {id}");
            }
        }
    }

    /// What came, by stream.
    pub(super) fn describe(mut self, events: &mut BTreeMap<u32, Vec<String>>) {
        for (id, bytes) in std::mem::take(&mut self.bodies) {
            self.note(id, format!("{bytes} bytes"));
        }
        for (id, mut more) in self.events {
            events.entry(id).or_default().append(&mut more);
        }
    }
}

/// A part of the body that is sent on a stream: it repeats in a prime number of bytes, so that none is lost, doubled or
/// moved unseen.
pub(super) fn pattern(id: u32, from: usize, size: usize) -> Bytes {
    const PRIME: usize = 251;
    static BODY: LazyLock<Bytes> =
        LazyLock::new(|| (0..PRIME + usize::from(u16::MAX)).map(|at| (at % PRIME) as u8).collect());
    let from = (from + id as usize) % PRIME;
    BODY.slice(from..from + size)
}
