//! An open-loop load: requests leave at their planned times, however slow the answers are.

use std::time::{Duration, Instant};

use crate::http::HttpClient;

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
    let mut open = tokio::task::JoinSet::new();
    for number in 0..total {
        let planned = start + Duration::from_secs_f64(f64::from(number) / f64::from(rate));
        tokio::time::sleep_until(planned.into()).await;
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
    let mut report = Report { sent: total as usize, ..Report::default() };
    while let Some(done) = open.join_next().await {
        match done.expect("the task of a request") {
            (at, Ok(latency)) => report.latencies.push((at, latency)),
            (at, Err(reason)) => report.failures.push((at, reason)),
        }
    }
    report
}
