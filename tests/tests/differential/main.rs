//! The same bytes to Synego, nginx, HAProxy and Node's own server: where another one sees other messages in them than we
//! do, we refuse them or the corpus says why.
//!
//! The corpus is `tests/fixtures/differential/*.txt`; its README describes the format. Each message is followed by one
//! more request on the same connection, so that where a server believes the message to end shows in what it reads next.

mod corpus;
mod recorder;
mod servers;

use std::collections::{BTreeMap, BTreeSet};

use corpus::{Row, View};
use servers::{Running, Server};

/// Fewer rows than this and someone has lost some.
const ROWS: usize = 120;

async fn views(server: &Server, rows: &[Row]) -> Vec<View> {
    let mut views = Vec::with_capacity(rows.len());
    for row in rows {
        views.push(server.view(&row.message).await.unwrap_or_else(|error| panic!("{}: {error}", server.name)));
    }
    views
}

/// What is wrong with a row, given what each server made of it.
fn wrong(row: &Row, seen: &BTreeMap<&str, &View>) -> Vec<String> {
    let ours = seen["synego"];
    let mut wrong = Vec::new();
    if *ours != row.expected {
        wrong.push(format!("Synego should see {}", row.expected));
    }
    let others = || seen.iter().filter(|(name, _)| **name != "synego");
    let different: BTreeSet<&str> = others().filter(|(_, view)| ours.differs(view)).map(|(name, _)| *name).collect();
    let explained: BTreeSet<&str> = row.reasons.keys().map(String::as_str).collect();
    for name in different.difference(&explained) {
        wrong.push(format!("no reason why {name} sees something else"));
    }
    for name in explained.difference(&different) {
        wrong.push(format!("a stale reason: {name} sees the same"));
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_other_messages_than_we_do_without_a_reason() {
    let rows = corpus::read(&synego_testkit::program::root().join("tests/fixtures/differential"));
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert!(rows.len() >= ROWS, "{} rows", rows.len());
    assert_eq!(names.len(), rows.len(), "two rows have one name");
    let running = Running::start().await;
    let all = futures_util::future::join_all(running.servers.iter().map(|server| views(server, &rows))).await;
    let mut report = String::new();
    for (number, row) in rows.iter().enumerate() {
        let names = running.servers.iter().map(|server| server.name);
        let seen: BTreeMap<&str, &View> = names.zip(all.iter().map(|views| &views[number])).collect();
        let wrong = wrong(row, &seen);
        if !wrong.is_empty() {
            report.push_str(&format!("\n{}\n  {}\n", row.name, wrong.join("\n  ")));
            for (name, view) in &seen {
                report.push_str(&format!("    {name}: {view}\n"));
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}
