//! `backoff.json`.

use serde_json::{Value, json};

use crate::attach::{NextStep, bounds, next_after_status};

#[test]
fn backoff_follows_the_vectors() {
    super::run("backoff.json", |kind, given| match kind {
        "delay" => {
            let (min, max) = bounds(given["attempt"].as_u64().unwrap() as u32);
            Some(json!({ "min_ms": min, "max_ms": max }))
        }
        "end" => Some(json!({ "next": word(next(given)) })),
        _ => None,
    });
}

fn next(given: &Value) -> NextStep {
    match (given["status"].as_i64(), given["end"].as_str()) {
        (Some(number), _) => next_after_status(tonic::Code::from_i32(number as i32)),
        // These two the attacher's own loop decides; its tests show it.
        (None, Some("closed")) => NextStep::Wait,
        (None, Some("moved")) => NextStep::Now,
        _ => panic!("unknown end {given}"),
    }
}

fn word(next: NextStep) -> &'static str {
    match next {
        NextStep::Wait => "wait",
        NextStep::Now => "now",
        NextStep::Refused => "refused",
    }
}
