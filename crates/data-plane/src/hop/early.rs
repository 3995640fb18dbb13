//! Interim answers (1xx): what a service says before its answer goes on to the client (RFC 9110 §15.2), such as the hints
//! of `103` by which a browser loads what a page will need.

use std::cell::RefCell;

use http::StatusCode;

use super::headers;
use super::station::Station;
use crate::fields::Name;
use crate::message::Answer;

/// Those that came and did not go on yet.
#[derive(Debug, Default)]
pub(crate) struct Early(RefCell<Vec<Answer>>);

impl Early {
    /// One came of an upstream.
    pub(crate) fn came(&self, mut answer: Answer) {
        // `100` asks for the body: each hop says that for itself.
        if answer.status == StatusCode::CONTINUE {
            return;
        }
        headers::remove_hop_by_hop(&mut answer.fields);
        answer.fields.remove(Name::ContentLength);
        self.0.borrow_mut().push(answer);
    }

    /// What came since this was asked last.
    pub(crate) fn take(&self, station: &Station) -> Vec<Answer> {
        let mut answers = std::mem::take(&mut *self.0.borrow_mut());
        answers.iter_mut().for_each(|answer| station.table.clear_answer(&mut answer.fields));
        answers
    }
}
