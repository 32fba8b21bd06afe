//! The daemon's own endpoint: `GET /metrics` for Prometheus, on `metrics.listen_addr`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::BUILD_INFO;

/// Pause before an address that could not be had is tried again.
const BIND_RETRY: Duration = Duration::from_secs(30);

/// An empty registry of the names `pgcdc_…`, but for `pgcdc_build_info`.
pub fn metrics_registry() -> Registry {
    let mut registry = Registry::with_prefix("pgcdc");
    let labels = vec![("version", BUILD_INFO.version), ("git_sha", BUILD_INFO.git_sha)];
    registry.register("build", "The running build", Info::new(labels));
    registry
}

/// Serves the registry on `addr` for ever. An address that cannot be had is warned of and tried
/// again every 30 s: a daemon without metrics is better than none.
pub async fn serve_metrics(addr: String, registry: Registry) {
    let registry = Arc::new(registry);
    loop {
        let ended = match TcpListener::bind(&addr).await {
            Ok(listener) => {
                if let Ok(addr) = listener.local_addr() {
                    tracing::info!(%addr, "metrics served");
                }
                axum::serve(listener, routes(Arc::clone(&registry))).await
            }
            Err(error) => Err(error),
        };
        let error = ended.err().map(tracing::field::display);
        let hint = "set metrics.listen_addr to a free address";
        tracing::warn!(addr, error, hint, "metrics not served");
        tokio::time::sleep(BIND_RETRY).await;
    }
}

fn routes(registry: Arc<Registry>) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(registry)
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get(addr: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_served_in_the_text_format() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let routes = routes(Arc::new(metrics_registry()));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let answer = get(addr, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{answer}");
        let build = format!("pgcdc_build_info{{version=\"{}\",git_sha=\"", BUILD_INFO.version);
        assert!(answer.contains(&build), "{answer}");
        assert!(get(addr, "/").await.starts_with("HTTP/1.1 404 "));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_taken_is_tried_again() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = taken.local_addr().unwrap();
        tokio::spawn(serve_metrics(addr.to_string(), metrics_registry()));
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(taken);
        tokio::time::sleep(BIND_RETRY).await;
        assert!(get(addr, "/metrics").await.contains("pgcdc_build_info"));
    }
}
