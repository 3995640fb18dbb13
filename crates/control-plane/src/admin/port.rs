//! The admin port that other machines reach: under TLS 1.3 alone, with the master's certificate. Who shows a certificate
//! must be an operator of the mesh; who shows none must have a token.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use synego_identity::Acceptor;
use synego_runtime::lifecycle::{Drain, Stop};
use synego_runtime::serve::{Profile, serve_connection};
use synego_runtime::tasks;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::gate::UnderTls;

/// A wait after an accept that failed for lack of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `stop`; then open connections get a moment to finish what they do.
pub(crate) async fn serve_under_tls(listener: TcpListener, acceptor: Acceptor, router: axum::Router, stop: Stop) {
    let profile = Profile::admin();
    let places = Arc::new(Semaphore::new(profile.connections));
    let drain = Drain::new();
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stop.stopped() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.stopped() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(cause = %error, "cannot accept a connection to the admin API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, router, profile, stop) = (acceptor.clone(), router.clone(), profile.clone(), stop.clone());
        let guard = (place, drain.guard());
        tasks::spawn("admin-connection", tasks::Kind::Connection, async move {
            let _guard = guard;
            // A refusal is counted and told in the log where it is made.
            if let Ok((stream, peer)) = acceptor.accept(stream).await {
                serve_connection(stream, router.layer(Extension(UnderTls(peer))), &profile, stop).await;
            }
        });
    }
    let _idle_or_late = tokio::time::timeout(profile.linger, drain.idle()).await;
}
