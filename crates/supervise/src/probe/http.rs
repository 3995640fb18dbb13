//! A probe by `GET`: 2xx and 3xx are well.

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::Connection;

/// What of a bad answer's body is shown, and read at all.
const SHOWN: usize = 200;
const READ: usize = 16 * 1024;

pub(super) async fn get(connection: Connection, service: &str, path: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("GET {path} failed: {error}");
    let (mut sender, driver) = http1::Builder::new()
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(connection))
        .await
        .map_err(|error| failed(&error))?;
    let request = Request::get(path)
        .header(header::HOST, service)
        .header(header::USER_AGENT, "synego-probe")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let body =
            Limited::new(answer.into_body(), READ).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let text: String = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        let text = if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) };
        Err(format!("GET {path} answered {}{text}", status.as_u16()))
    };
    // The connection moves only while it is polled beside the exchange, so nothing is left running.
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        ended = driver => match ended {
            // The answer may be there though the connection is over.
            Ok(()) => exchange.await,
            Err(error) => Err(failed(&error)),
        },
    }
}
