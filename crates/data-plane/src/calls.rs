//! What a caller did and whom it leaves out: part of what its sidecar, or master, reports.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use synego_balance::Ejected;
use synego_model::{CallFigures, Cause, EjectionReport, InstanceId, Reason, ServiceName};
use synego_runtime::clock;

/// The calls of one caller over all workers. Cheap to clone.
///
/// Workers count on their own and hand their figures over when somebody asked for them; a lock is taken only then, and
/// when an instance is left out.
#[derive(Clone, Default)]
pub struct CallBook(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    ejected: HashMap<(usize, ServiceName), Vec<Out>>,
    counts: Vec<Arc<Counts>>,
}

struct Out {
    id: InstanceId,
    cause: Cause,
    until: Instant,
}

/// One worker's count of calls to one service.
pub(crate) struct Counts {
    service: ServiceName,
    requests: std::sync::atomic::AtomicU64,
    failures: std::sync::atomic::AtomicU64,
}

impl Counts {
    /// A call was answered, or failed.
    pub(crate) fn count(&self, failed: bool) {
        use std::sync::atomic::Ordering::Relaxed;
        self.requests.fetch_add(1, Relaxed);
        self.failures.fetch_add(u64::from(failed), Relaxed);
    }
}

/// One worker's part of the book.
pub(crate) struct Page {
    book: CallBook,
    worker: usize,
    counts: std::cell::RefCell<HashMap<ServiceName, Arc<Counts>, foldhash::fast::RandomState>>,
}

impl CallBook {
    /// The instances that are left out now, each once, for the longest time that any worker leaves it out.
    #[must_use]
    pub fn ejections(&self) -> Vec<EjectionReport> {
        let now = clock::now();
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.ejected.retain(|_, outs| {
            outs.retain(|out| out.until > now);
            !outs.is_empty()
        });
        let mut reports: HashMap<&InstanceId, EjectionReport> = HashMap::new();
        for out in book.ejected.values().flatten() {
            let remaining_ms = out.until.duration_since(now).as_millis() as u64;
            let report = EjectionReport { instance: out.id.clone(), cause: out.cause.clone(), remaining_ms };
            let known = reports.entry(&out.id).or_insert_with(|| report.clone());
            if known.remaining_ms < remaining_ms {
                *known = report;
            }
        }
        let mut reports: Vec<EjectionReport> = reports.into_values().collect();
        reports.sort_by(|a, b| a.instance.cmp(&b.instance));
        reports
    }

    /// What was called since the last time that this was asked, by service.
    #[must_use]
    pub fn take_figures(&self) -> Vec<CallFigures> {
        use std::sync::atomic::Ordering::Relaxed;
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums: std::collections::BTreeMap<ServiceName, (u64, u64)> = Default::default();
        for counts in &book.counts {
            let sum = sums.entry(counts.service.clone()).or_default();
            sum.0 += counts.requests.swap(0, Relaxed);
            sum.1 += counts.failures.swap(0, Relaxed);
        }
        let figures = sums.into_iter().filter(|(_, sum)| sum.0 > 0);
        figures.map(|(service, (requests, failures))| CallFigures { service, requests, failures }).collect()
    }

    pub(crate) fn page(&self, worker: usize) -> Page {
        Page { book: self.clone(), worker, counts: Default::default() }
    }
}

impl Page {
    /// Where calls to a service are counted. To be looked up once, not for each call.
    pub(crate) fn counts(&self, service: &ServiceName) -> Arc<Counts> {
        let mut known = self.counts.borrow_mut();
        let counts = known.entry(service.clone()).or_insert_with(|| {
            let fresh = Arc::new(Counts {
                service: service.clone(),
                requests: Default::default(),
                failures: Default::default(),
            });
            self.book.0.lock().unwrap_or_else(PoisonError::into_inner).counts.push(fresh.clone());
            fresh
        });
        counts.clone()
    }

    /// Whom this worker leaves out of a service now.
    pub(crate) fn leave_out(&self, service: &ServiceName, ejected: Vec<Ejected>) {
        let (now, unix_ms) = (clock::now(), clock::unix_ms());
        let out = |ejected: Ejected| Out {
            id: ejected.id,
            cause: Cause {
                reason: Reason::Ejected,
                message: format!("{}, {} in a row", ejected.failure.word(), ejected.failures),
                since_unix_ms: unix_ms,
            },
            until: now + ejected.remaining,
        };
        let mut book = self.book.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self.worker, service.clone());
        let mut outs: Vec<Out> = ejected.into_iter().map(out).collect();
        if let Some(former) = book.ejected.get(&key) {
            for out in &mut outs {
                if let Some(known) = former.iter().find(|known| known.id == out.id) {
                    out.cause.since_unix_ms = known.cause.since_unix_ms;
                }
            }
        }
        book.ejected.insert(key, outs);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut book = self.book.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.ejected.retain(|(worker, _), _| *worker != self.worker);
    }
}
