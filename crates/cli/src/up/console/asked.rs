//! What a person asks of the console: keys, and a manifest that was edited.

use std::time::SystemTime;

use synego_runtime::Stopper;

use super::{Console, Place};
use crate::client::Mesh;
use crate::commands::plan::Plan;
use crate::failure::Failure;
use crate::manifest;

impl Console<'_> {
    /// Does what a key that was pressed stands for.
    pub(super) async fn take_key(&mut self, key: char, mesh: &mut Mesh<'_>, stopper: &Stopper) {
        if self.typing {
            match key {
                '\r' | '\n' => self.typing = false,
                '\u{1b}' => (self.typing, self.filter) = (false, String::new()),
                '\u{7f}' | '\u{8}' => {
                    self.filter.pop();
                }
                key if !key.is_control() => self.filter.push(key),
                _ => {}
            }
            return;
        }
        match key {
            'q' => stopper.stop(),
            'l' => self.only_logs = !self.only_logs,
            '/' => (self.typing, self.filter) = (true, String::new()),
            '?' => self.help = !self.help,
            '\u{1b}' => self.filter.clear(),
            'a' if self.waiting => {
                let told = self.apply(mesh).await;
                self.notes
                    .push(told.unwrap_or_else(|failure| failure.render(self.context.screen.err).trim_end().to_owned()));
            }
            _ => {}
        }
    }

    async fn apply(&mut self, mesh: &mut Mesh<'_>) -> Result<String, Failure> {
        let outcome = manifest::wanted(self.context)?;
        let plan = Plan::ask(self.context, mesh, &outcome).await?;
        let request = manifest::request(&outcome, false, plan.revision);
        match mesh.apply(request).await? {
            crate::client::Applied::Answered(result) => {
                self.waiting = false;
                Ok(format!("applied: {} Revision {} is in force.", plan.sentence(), result.revision))
            }
            crate::client::Applied::Refused { reason, message, result } => {
                Err(crate::commands::plan::refused(self.context, &reason, &message, &result, plan.epoch))
            }
        }
    }

    /// Announces a manifest that was changed on disk, with its plan's last line.
    pub(super) async fn look_at_files(&mut self, mesh: &mut Mesh<'_>) {
        let mut changed = false;
        for (file, before) in &mut self.files {
            let now = modified(file);
            changed |= now != *before;
            *before = now;
        }
        if !changed {
            return;
        }
        let told = match manifest::read(self.context) {
            Err(failure) => Err(failure),
            Ok(outcome) if outcome.manifest.is_none() => {
                self.waiting = false;
                Err(manifest::refusal(&outcome, "what runs stays in force").help("see `synego check`"))
            }
            Ok(outcome) => Plan::ask(self.context, mesh, &outcome).await.map(|plan| {
                self.waiting = !plan.changes.is_empty();
                if self.waiting { format!("{} changed: {}", outcome.title(), plan.sentence()) } else { String::new() }
            }),
        };
        match told {
            Ok(text) if text.is_empty() => {}
            Ok(text) if self.place == Place::Live => self.notes.push(format!("{text} Press `a` to apply it.")),
            Ok(text) => self.notes.push(format!("{text} `synego apply` takes it.")),
            Err(failure) => self.notes.push(failure.render(self.context.screen.err).trim_end().to_owned()),
        }
    }
}

pub(super) fn modified(file: &std::path::Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|found| found.modified()).ok()
}
