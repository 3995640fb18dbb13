//! The terminal under `synego up`: keys without Enter, and a board that stays below the lines that scroll.

use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use synego_runtime::tasks::{self, Kind};
use tokio::sync::mpsc;

use super::pen::Stroke;
use crate::output::drawn::Drawn;
use crate::output::screen::size;

/// Keys as they are pressed. Ctrl-C stays a signal.
#[derive(Debug)]
pub(crate) struct Keys {
    restore: Restore,
}

/// Puts the terminal back as it was, at most once.
#[derive(Debug, Clone)]
pub(crate) struct Restore(Arc<Mutex<Option<Termios>>>);

impl Restore {
    /// Puts it back.
    pub(crate) fn now(&self) {
        if let Some(before) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The terminal may be gone by now.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
        }
    }
}

impl Keys {
    /// Takes over the keyboard of this process's terminal; `None` when it has none, or runs in the background.
    pub(crate) fn take() -> Option<(Self, mpsc::Receiver<char>)> {
        let stdin = io::stdin();
        if tcgetpgrp(&stdin).ok()? != rustix::process::getpgrp() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut now = before.clone();
        now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        now.special_codes[SpecialCodeIndex::VMIN] = 1;
        now.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &now).ok()?;
        let (sender, receiver) = mpsc::channel(64);
        // A blocked read cannot be ended: the thread ends with the process.
        tasks::thread("keys", Kind::Connection, move || read(&sender)).ok()?;
        Some((Self { restore: Restore(Arc::new(Mutex::new(Some(before)))) }, receiver))
    }

    /// What puts the terminal back, for whoever must do it earlier.
    pub(crate) fn restore(&self) -> Restore {
        self.restore.clone()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.restore.now();
    }
}

fn read(keys: &mpsc::Sender<char>) {
    let mut stdin = io::stdin().lock();
    let mut bytes = [0_u8; 64];
    while let Ok(count @ 1..) = stdin.read(&mut bytes) {
        for key in String::from_utf8_lossy(&bytes[..count]).chars() {
            if keys.blocking_send(key).is_err() {
                return;
            }
        }
    }
}

/// The part of the terminal below the lines that scroll.
#[derive(Debug, Default)]
pub(crate) struct Region {
    drawn: Drawn,
}

impl Region {
    /// What writes `above` (whole lines, to stdout) over the region and the region anew below it (to stderr). Both streams
    /// end at the same terminal, so each is flushed before the other writes.
    pub(crate) fn draw(&mut self, above: &str, region: &str) -> Vec<Stroke> {
        let (columns, rows) = size();
        let up = self.drawn.up(columns);
        let lines = self.drawn.take(region, columns, rows.saturating_sub(1));
        let clear = if up.is_empty() { String::new() } else { format!("{up}\u{1b}[J") };
        let body: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let strokes = [Stroke::Err(clear), Stroke::Out(above.to_owned()), Stroke::Err(body)];
        strokes
            .into_iter()
            .filter(|stroke| !matches!(stroke, Stroke::Out(text) | Stroke::Err(text) if text.is_empty()))
            .collect()
    }
}
