//! Tests of tasks.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::*;

#[tokio::test]
async fn a_panic_is_counted_and_told_to_who_waits() {
    let before = panics();
    let outcome = spawn("bad", Kind::Connection, async { panic!("boom") }).await;
    assert!(outcome.is_err_and(|error| error.is_panic()));
    assert!(panics() > before);
}

#[tokio::test(start_paused = true)]
async fn a_failing_task_begins_again_until_it_is_done() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let task = restart("flaky", move || {
        let run = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            match run {
                0 => Err("no".to_owned()),
                1 => panic!("boom"),
                _ => Ok(()),
            }
        }
    });
    assert!(task.await.is_ok());
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[test]
fn jitter_stays_within_a_fifth_and_differs() {
    let draws: Vec<_> = (0..100).map(|_| jittered(Duration::from_secs(10))).collect();
    assert!(draws.iter().all(|draw| (8..=12).contains(&draw.as_secs())));
    assert!(draws.iter().any(|draw| *draw != draws[0]));
}

#[test]
fn a_thread_hands_back_its_result() -> io::Result<()> {
    assert_eq!(thread("adder", Kind::Connection, || 1 + 1)?.join().ok(), Some(2));
    Ok(())
}
