//! How a newer part takes the place of the one that serves, and the keeper that of its own program.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::message::{self, Inventory, ToPart};
use super::parts::{LONGEST_WAIT, Part};
use super::serve::{Keeper, Who, kill};
use super::{SELF, state};
use crate::clock;

/// Time in which a newer program must serve.
const SUCCEEDS_WITHIN: Duration = Duration::from_secs(60);

/// A part that is to take the place of the one that serves.
pub(super) struct Successor {
    pub(super) part: Part,
    program: PathBuf,
    pub(super) wants_turn: bool,
    pub(super) until: Instant,
    /// The last change of what is held that it knows of.
    knows: u64,
}

impl Keeper {
    pub(super) fn turn_wanted(&mut self, who: Who) {
        let serving = self.serving.as_mut();
        match (&mut self.successor, serving) {
            (Some(successor), Some(serving)) if who == Who::Successor => {
                successor.wants_turn = true;
                if serving.has_yielded {
                    self.give_turn();
                } else {
                    serving.tell(&ToPart::Yield);
                }
            }
            // Nobody is in its way.
            (Some(_), None) if who == Who::Successor => self.give_turn(),
            _ => {
                if let Some(part) = self.part(who) {
                    part.tell(&ToPart::Turn);
                }
            }
        }
    }

    /// Tells the part that takes over that it may, and what became of what is held since it was started.
    pub(super) fn give_turn(&mut self) {
        let Some(Successor { part, knows, .. }) = &mut self.successor else { return };
        let (entries, keys, fds) = self.store.since(*knows);
        if let Some(socket) = &part.socket
            && message::send(socket.as_fd(), &ToPart::Left { entries, keys }, &fds).is_err()
        {
            // It died, as its end will tell.
            part.socket = None;
        }
        part.tell(&ToPart::Turn);
    }

    /// Starts a part of the newer program, which takes over once it can.
    pub(super) fn upgrade(&mut self) {
        if self.successor.is_some() || self.serving.is_none() || self.stops > 0 {
            return;
        }
        self.begin_successor(self.program.clone());
    }

    pub(super) fn begin_successor(&mut self, program: PathBuf) {
        let (told, knows) = (std::mem::take(&mut self.told), self.store.change());
        let inventory = Inventory { entries: Vec::new(), succeeds: true, again: true, told };
        match Part::start(&program, &self.store, inventory) {
            Ok(mut part) => {
                self.tell_stop(&mut part);
                let until = clock::now() + SUCCEEDS_WITHIN;
                self.successor = Some(Successor { part, program, wants_turn: false, until, knows });
            }
            Err(error) => self.upgrade_failed(&format!("{} cannot be started: {error}", program.display())),
        }
    }

    /// Whether the part that serves has let go of all but its connections, and nobody has the rest.
    pub(super) fn is_headless(&self) -> bool {
        self.successor.is_none() && self.serving.as_ref().is_some_and(|part| part.has_yielded)
    }

    /// The newer part serves: the other one finishes what it has.
    pub(super) fn succeeded(&mut self) {
        let Some(successor) = self.successor.take() else { return };
        if let Some(mut former) = self.serving.replace(successor.part) {
            former.tell(&ToPart::Leave);
            self.formers.push(former);
        }
        if successor.program != *SELF {
            self.becomes = Some(successor.program);
        }
    }

    pub(super) fn give_up_successor(&mut self) {
        if let Some(successor) = self.successor.take() {
            kill(successor.part.pid);
            self.upgrade_failed(&format!("it did not serve within {} s", SUCCEEDS_WITHIN.as_secs()));
        }
    }

    pub(super) fn upgrade_failed(&mut self, how: &str) {
        let text = format!("the newer program does not take over, and the former one serves on: {how}");
        match &mut self.serving {
            Some(serving) if serving.has_yielded => {
                // It has given up all but its connections: another one of its kind takes the rest, as often as it takes.
                self.told.push(text);
                self.again_at = clock::now() + self.deaths.next(false).unwrap_or(LONGEST_WAIT);
            }
            Some(serving) => serving.tell(&ToPart::Told { text }),
            None => self.told.push(text),
        }
    }

    /// Becomes the newer program in place, with all that is held.
    pub(super) fn become_newer(&mut self) {
        if self.successor.is_some() || self.stops > 0 || self.parts().any(|(_, part)| part.has_waiting()) {
            return;
        }
        if let Some(program) = self.becomes.take() {
            let text = format!("the keeper stays the former program: {}", state::become_program(self, &program));
            if let Some(part) = &mut self.serving {
                part.tell(&ToPart::Told { text });
            }
        }
    }
}
