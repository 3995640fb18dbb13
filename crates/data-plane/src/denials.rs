//! Calls that access refused, or would have: part of what a sidecar, or master, reports.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use synego_model::{Caller, Denial, ServiceName};
use synego_runtime::clock;

/// Pairs of caller and callee that are told apart; of further ones only the metrics know.
const MAX_PAIRS: usize = 1_000;
/// How often a pair is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The refused calls of one sidecar, or of an ingress, over all workers. Cheap to clone.
///
/// A lock is taken only when a call is refused or observed, never on the way of one that is permitted.
#[derive(Clone, Default)]
pub struct DenialBook(Arc<Mutex<HashMap<Key, Pair>>>);

/// Who called whom, and whether it passed all the same.
type Key = (Caller, ServiceName, bool);

struct Pair {
    count: u64,
    message: String,
    logged: Instant,
}

impl DenialBook {
    /// What was refused since the last time that this was asked.
    #[must_use]
    pub fn take(&self) -> Vec<Denial> {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        let told = |((caller, service, observed), pair): (&Key, &mut Pair)| Denial {
            caller: caller.clone(),
            service: service.clone(),
            observed: *observed,
            count: std::mem::take(&mut pair.count),
            message: pair.message.clone(),
        };
        let mut all: Vec<Denial> = book.iter_mut().filter(|(_, pair)| pair.count > 0).map(told).collect();
        book.retain(|_, pair| now.duration_since(pair.logged) < LOG_EVERY);
        all.sort_by(|a, b| (&a.caller, &a.service, a.observed).cmp(&(&b.caller, &b.service, b.observed)));
        all
    }

    /// Counts one; returns whether it is time to log it.
    pub(crate) fn note(&self, caller: &Caller, service: &ServiceName, observed: bool, message: &str) -> bool {
        let now = clock::now();
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (caller.clone(), service.clone(), observed);
        if let Some(pair) = book.get_mut(&key) {
            pair.count += 1;
            pair.message.clear();
            pair.message.push_str(message);
            let due = now.duration_since(pair.logged) >= LOG_EVERY;
            if due {
                pair.logged = now;
            }
            return due;
        }
        if book.len() >= MAX_PAIRS {
            return false;
        }
        book.insert(key, Pair { count: 1, message: message.to_owned(), logged: now });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pair_is_counted_each_time_and_logged_now_and_then() {
        let book = DenialBook::default();
        let caller: Caller = "orders".parse().expect("a caller");
        let users = ServiceName::new("users").expect("a name");
        assert!(book.note(&caller, &users, false, "first"));
        assert!(!book.note(&caller, &users, false, "second"));
        assert!(book.note(&caller, &users, true, "observed"), "another verdict is another pair");
        let told = book.take();
        assert_eq!(
            told.iter().map(|one| (one.count, one.message.as_str())).collect::<Vec<_>>(),
            [(2, "second"), (1, "observed")]
        );
        assert!(book.take().is_empty());
        assert!(!book.note(&caller, &users, false, "third"));
        tokio::time::advance(LOG_EVERY).await;
        assert!(book.note(&caller, &users, false, "fourth"));
        for number in 0..2 * MAX_PAIRS {
            let caller = Caller::Service(ServiceName::new(&format!("s{number}")).expect("a name"));
            book.note(&caller, &users, false, "");
        }
        // One place is still held by the pair that was observed before, and not since.
        assert_eq!(book.take().len(), MAX_PAIRS - 1);
    }
}
