//! What every process answers about itself: `/metrics`, `/livez`, `/readyz` (and `/healthz`, the same).

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::lifecycle::{Readiness, Stop};
use crate::serve::{self, Profile};
pub use crate::serve::{ApiPeer, BindAddr, Listener, bind};
use crate::telemetry::Metrics;

/// The routes that every process has; merge further ones into it.
///
/// - `GET /metrics`: Prometheus text.
/// - `GET /livez`: 200 as long as the process answers at all.
/// - `GET /readyz`, `GET /healthz`: 200, or 503 with the parts that are missing.
pub fn router(metrics: Metrics, readiness: Readiness) -> Router {
    let ready = get(readyz).with_state(readiness);
    Router::new()
        .route("/metrics", get(render).with_state(metrics))
        .route("/livez", get(|| async { Json(json!({ "live": true })) }))
        .route("/readyz", ready.clone())
        .route("/healthz", ready)
}

/// Serves an admin router until `stop`. Give it a stop that outlives the drain (see [`Stop::outliving`]), so that a
/// draining process can still be asked.
pub async fn serve(listeners: Vec<Listener>, router: Router, stop: Stop) {
    serve::serve(listeners, router, Profile::admin(), stop).await;
}

async fn render(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    let missing = readiness.missing();
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": missing.is_empty(), "missing": missing })))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower_service::Service;

    use super::*;

    async fn ask(router: &mut Router, path: &str) -> Result<(StatusCode, String), Box<dyn std::error::Error>> {
        let answer = router.call(Request::get(path).body(Body::empty())?).await?;
        let status = answer.status();
        Ok((status, String::from_utf8(answer.into_body().collect().await?.to_bytes().to_vec())?))
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing_and_liveness_does_not_care() -> Result<(), Box<dyn std::error::Error>> {
        let readiness = Readiness::new();
        let guard = readiness.guard("ingress");
        let mut router = router(Metrics::new("synego-test"), readiness);
        for path in ["/readyz", "/healthz"] {
            let (status, body) = ask(&mut router, path).await?;
            assert_eq!((status.as_u16(), body.as_str()), (503, r#"{"ready":false,"missing":["ingress"]}"#));
        }
        assert_eq!(ask(&mut router, "/livez").await?.0, 200);
        drop(guard);
        assert_eq!(ask(&mut router, "/readyz").await?, (StatusCode::OK, r#"{"ready":true,"missing":[]}"#.to_owned()));
        assert!(ask(&mut router, "/metrics").await?.1.contains("synego_build_info"));
        Ok(())
    }
}
