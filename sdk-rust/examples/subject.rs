//! A service of one answer and one echo: `cargo run --example subject`, then `curl localhost:PORT/work`.

use std::process::ExitCode;

use serde_json::{Value, json};
use synego_sdk::{Json, Service};

#[tokio::main]
async fn main() -> ExitCode {
    // The one variable that a program may want to read itself: the name under which it is run.
    let name = std::env::args().nth(1).unwrap_or_else(|| "subject".to_owned());
    let service = Service::new(&name)
        .handle("GET /work", || async { Json(json!({ "pid": std::process::id() })) })
        .handle("POST /work", |Json(body): Json<Value>| async move {
            Json(json!({ "pid": std::process::id(), "read": body.to_string().len() }))
        });
    match service.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
