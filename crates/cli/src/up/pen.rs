//! Writes to the terminal, or whatever stands in its place, on a thread of its own: one that takes nothing (Ctrl-S, a pager,
//! a pipe that nobody reads) must not hold up the mesh, which runs in the same process.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use synego_runtime::{clock, tasks};

/// Writes that may wait.
const WAITING: usize = 4;

/// Something to write, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stroke {
    /// To stdout.
    Out(String),
    /// To stderr.
    Err(String),
}

/// Writes strokes in their order.
#[derive(Debug)]
pub(crate) struct Pen {
    strokes: SyncSender<Vec<Stroke>>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: AtomicUsize,
    is_deserted: AtomicBool,
}

impl Pen {
    /// # Errors
    /// When the machine allows no more threads.
    pub(crate) fn new() -> io::Result<Self> {
        let (strokes, taken) = sync_channel(WAITING);
        let state = Arc::new(State::default());
        let of_thread = state.clone();
        tasks::thread("console", tasks::Kind::Connection, move || write_all(&taken, &of_thread))?;
        Ok(Self { strokes, state })
    }

    /// Whether there is room for more: who has something to write keeps it until then.
    pub(crate) fn is_ready(&self) -> bool {
        self.state.waiting.load(Ordering::Acquire) < WAITING
    }

    /// Writes these one after the other; call it when [`Self::is_ready`].
    pub(crate) fn write(&self, strokes: Vec<Stroke>) {
        self.state.waiting.fetch_add(1, Ordering::AcqRel);
        if self.strokes.try_send(strokes).is_err() {
            self.state.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Whether nobody reads stdout any more.
    pub(crate) fn is_deserted(&self) -> bool {
        self.state.is_deserted.load(Ordering::Relaxed)
    }

    /// Waits, at most `within`, until all is written.
    pub(crate) async fn settle(&self, within: Duration) {
        let began = clock::now();
        while self.state.waiting.load(Ordering::Acquire) > 0 && clock::now().duration_since(began) < within {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn write_all(strokes: &Receiver<Vec<Stroke>>, state: &State) {
    while let Ok(strokes) = strokes.recv() {
        for stroke in strokes {
            let written = match &stroke {
                Stroke::Out(text) => {
                    let mut out = io::stdout().lock();
                    out.write_all(text.as_bytes()).and_then(|()| out.flush())
                }
                // Nobody is left to be told when stderr is gone; a terminal that went is told by a HUP.
                Stroke::Err(text) => {
                    let mut err = io::stderr().lock();
                    err.write_all(text.as_bytes()).and_then(|()| err.flush()).or(Ok(()))
                }
            };
            if written.is_err() {
                state.is_deserted.store(true, Ordering::Relaxed);
            }
        }
        state.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
