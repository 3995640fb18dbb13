//! Waiting for a condition.

use std::future::Future;
use std::time::{Duration, Instant};

/// Waits until `check` gives a value, asking every 20 ms; panics after `within` with `what` and the last reason.
///
/// # Panics
/// When the condition does not come true in time.
pub async fn until<T, F>(what: &str, within: Duration, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        match check().await {
            Ok(value) => return value,
            Err(reason) if start.elapsed() > within => panic!("{what}: not within {within:?}: {reason}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// `Ok` when true, else the words: for [`until`].
///
/// # Errors
/// The words, when false.
pub fn that(is_so: bool, words: impl Into<String>) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(words.into()) }
}
