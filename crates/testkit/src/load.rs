//! An open-loop load: requests leave at their planned times, however slow the answers are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::http::HttpClient;

/// Requests that are open at once at most; one that is due then has failed, as at any client that has a bound.
const MOST_OPEN: usize = 2_000;

/// What became of a load.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests sent.
    pub sent: usize,
    /// What failed: planned time since the start, and why.
    pub failures: Vec<(Duration, String)>,
    /// Time from the planned sending to the end of the answer, for those that succeeded.
    pub latencies: Vec<(Duration, Duration)>,
}

impl Report {
    /// How many took longer than `limit`.
    #[must_use]
    pub fn slower_than(&self, limit: Duration) -> usize {
        self.latencies.iter().filter(|(_, latency)| *latency > limit).count()
    }

    fn took(&mut self, (at, outcome): (Duration, Result<Duration, String>)) {
        match outcome {
            Ok(latency) => self.latencies.push((at, latency)),
            Err(reason) => self.failures.push((at, reason)),
        }
    }

    /// The latency below which `share` (0 to 1) of the answers lie.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted: Vec<Duration> = self.latencies.iter().map(|(_, latency)| *latency).collect();
        sorted.sort_unstable();
        let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or_default()
    }
}

/// Sends `rate` GETs a second to `url` for `length`; a failure is anything but a 2xx answer read to its end.
pub async fn gets(url: &str, rate: u32, length: Duration) -> Report {
    gets_with(url, &[], rate, length).await
}

/// The same with fields of each request.
pub async fn gets_with(url: &str, fields: &[(&'static str, &'static str)], rate: u32, length: Duration) -> Report {
    let fields = fields.to_vec();
    let client = HttpClient::default();
    let start = Instant::now();
    let total = (f64::from(rate) * length.as_secs_f64()) as u32;
    let mut report = Report { sent: total as usize, ..Report::default() };
    let mut open = tokio::task::JoinSet::new();
    for number in 0..total {
        let planned = start + Duration::from_secs_f64(f64::from(number) / f64::from(rate));
        tokio::time::sleep_until(planned.into()).await;
        while let Some(done) = open.try_join_next() {
            report.took(done.expect("the task of a request"));
        }
        if open.len() >= MOST_OPEN {
            report.took((planned - start, Err(format!("not sent: {MOST_OPEN} requests wait for their answers"))));
            continue;
        }
        let (client, url, fields) = (client.clone(), url.to_owned(), fields.clone());
        open.spawn(async move {
            let answer = client.request("GET", &url, &fields, "").await;
            let outcome = match answer {
                Ok(answer) if answer.status.is_success() => Ok(planned.elapsed()),
                Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                Err(error) => Err(error),
            };
            (planned - start, outcome)
        });
    }
    while let Some(done) = open.join_next().await {
        report.took(done.expect("the task of a request"));
    }
    report
}

/// One kind of request in a load.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Its method.
    pub method: &'static str,
    /// Where to.
    pub url: String,
    /// Its body, JSON; empty: none.
    pub body: &'static str,
}

/// An open-loop load that goes on until it is told to stop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    running: JoinHandle<Report>,
}

impl Load {
    /// Sends `rate` requests a second, of each kind in turn; a failure is anything but a 2xx answer read to its end.
    #[must_use]
    pub fn start(rate: u32, kinds: Vec<Ask>) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let running = tokio::spawn(send(rate, kinds, stop.clone(), answered.clone()));
        Self { stop, answered, running }
    }

    /// GETs of one place, `rate` of them a second.
    #[must_use]
    pub fn gets(rate: u32, url: &str) -> Self {
        Self::start(rate, vec![Ask { method: "GET", url: url.to_owned(), body: "" }])
    }

    /// Requests that were answered well so far.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered well.
    ///
    /// # Panics
    /// When they are not within 30 s.
    pub async fn more(&self, count: usize) {
        let wanted = self.answered() + count;
        crate::wait::until("more answers", Duration::from_secs(30), || async {
            crate::wait::that(self.answered() >= wanted, format!("{} of {wanted}", self.answered()))
        })
        .await;
    }

    /// Ends it; what was sent is still waited for.
    ///
    /// # Panics
    /// When its task panicked.
    pub async fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.running.await.expect("the task of the load")
    }
}

async fn send(rate: u32, kinds: Vec<Ask>, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Report {
    let client = HttpClient::default();
    let start = Instant::now();
    let mut open = tokio::task::JoinSet::new();
    let mut report = Report::default();
    for number in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let planned = start + Duration::from_secs_f64(f64::from(number) / f64::from(rate));
        tokio::time::sleep_until(planned.into()).await;
        let Some(ask) = kinds.get(number as usize % kinds.len().max(1)).cloned() else { break };
        let (client, answered) = (client.clone(), answered.clone());
        report.sent += 1;
        open.spawn(async move {
            let headers: &[(&str, &str)] =
                if ask.body.is_empty() { &[] } else { &[("content-type", "application/json")] };
            let outcome = match client.request(ask.method, &ask.url, headers, ask.body).await {
                Ok(answer) if answer.status.is_success() => Ok(planned.elapsed()),
                Ok(answer) => Err(format!("{} {}: {} {}", ask.method, ask.url, answer.status, answer.text())),
                Err(error) => Err(format!("{} {}: {error}", ask.method, ask.url)),
            };
            answered.fetch_add(usize::from(outcome.is_ok()), Ordering::Relaxed);
            (planned - start, outcome)
        });
        while let Some(done) = open.try_join_next() {
            note(&mut report, done.expect("the task of a request"));
        }
    }
    while let Some(done) = open.join_next().await {
        note(&mut report, done.expect("the task of a request"));
    }
    report
}

fn note(report: &mut Report, (at, outcome): (Duration, Result<Duration, String>)) {
    match outcome {
        Ok(latency) => report.latencies.push((at, latency)),
        Err(reason) => report.failures.push((at, reason)),
    }
}
