//! The end of a server as the connections of one worker see it: read without a lock on every wake-up, told by one task.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use synego_runtime::tasks;

use crate::server::State;

/// How far the end of a server is, on one worker.
#[derive(Default)]
pub(crate) struct Ending {
    drained: Cell<bool>,
    cut: Cell<bool>,
    last: Cell<u64>,
    waiting: RefCell<HashMap<u64, Waker, foldhash::fast::RandomState>>,
}

/// One connection's view of it; wakes its task when something changes.
pub(crate) struct Watching {
    ending: Rc<Ending>,
    number: u64,
    is_told: Cell<bool>,
}

impl Ending {
    /// Follows the end of `server`.
    pub(crate) fn follow(server: Arc<State>) -> Rc<Self> {
        let ending = Rc::<Self>::default();
        let told = ending.clone();
        tasks::spawn_local("server-ending", tasks::Kind::Connection, async move {
            server.drained.cancelled().await;
            told.drained.set(true);
            told.wake();
            server.cut.cancelled().await;
            told.cut.set(true);
            told.wake();
        });
        ending
    }

    pub(crate) fn watch(self: &Rc<Self>) -> Watching {
        let number = self.last.get() + 1;
        self.last.set(number);
        Watching { ending: self.clone(), number, is_told: Cell::new(false) }
    }

    fn wake(&self) {
        self.waiting.borrow().values().for_each(Waker::wake_by_ref);
    }
}

impl Watching {
    /// Whether the server takes no further requests.
    pub(crate) fn is_drained(&self, cx: &Context<'_>) -> bool {
        self.note(cx);
        self.ending.drained.get()
    }

    /// Whether everything must end now.
    pub(crate) fn is_cut(&self, cx: &Context<'_>) -> bool {
        self.note(cx);
        self.ending.cut.get()
    }

    /// The same, without being woken when it changes.
    pub(crate) fn has_begun(&self) -> bool {
        self.ending.drained.get()
    }

    /// The task of a connection is always the same one: it is noted once.
    fn note(&self, cx: &Context<'_>) {
        if !self.is_told.replace(true) {
            self.ending.waiting.borrow_mut().insert(self.number, cx.waker().clone());
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.ending.waiting.borrow_mut().remove(&self.number);
    }
}
