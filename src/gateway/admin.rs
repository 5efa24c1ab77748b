//! The operators' port: metrics and health, on an address that clients do not reach.
//!
//! Bound kept here: 64 connections at once, and the same time for a request's head as the clients have.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::doors::text;
use super::life::Life;
use super::metrics::Metrics;
use crate::base::limits::Limits;
use crate::flow::socket::wire::Permit;

const CONNECTIONS_MAX: usize = 64;

/// What operators may know.
pub struct Admin {
    /// What is measured.
    pub metrics: Metrics,
    /// Whether the gateway lives.
    pub life: Arc<Life>,
}

/// Accepts operators for as long as it is polled.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, limits: Limits) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let Some(permit) = Permit::take(&open, CONNECTIONS_MAX) else { continue };
        let admin = Arc::clone(&admin);
        let timeout = limits.handshake_timeout;
        tokio::spawn(async move {
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                let reply = route(&admin, request.uri().path());
                async move { Ok::<_, Infallible>(reply) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(timeout);
            // Errors here are the peer's.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            drop(permit);
        });
    }
}

fn route(admin: &Admin, path: &str) -> Response<Full<Bytes>> {
    match path {
        "/metrics" => {
            let mut reply = Response::new(Full::new(Bytes::from(admin.metrics.render())));
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            reply.headers_mut().insert(header::CONTENT_TYPE, kind);
            reply
        }
        "/livez" if admin.life.dead.load(Ordering::Relaxed) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "a shard has died")
        }
        "/livez" => text(StatusCode::OK, "live"),
        "/readyz" if !admin.life.takes_clients() => text(StatusCode::SERVICE_UNAVAILABLE, "draining"),
        "/readyz" => text(StatusCode::OK, "ready"),
        _ => text(StatusCode::NOT_FOUND, "no such page; there are /metrics, /livez and /readyz"),
    }
}
