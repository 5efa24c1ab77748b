//! The operators' port: metrics and health, on an address that clients do not reach.
//!
//! Bounds kept here: 64 connections at once, one request each; a head and a life as the clients' connections have.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::http::{self, Body, KeepAlive, Reply, reply, text};
use super::life::Life;
use super::metrics::Metrics;
use crate::base::limits::Limits;

/// Connections at once; further ones wait in the kernel. A few scrapers and people, and what they left behind.
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
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // It fails only when it is closed, which nobody does.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (stream, _) = http::accept(&listener, &limits).await;
        let (admin, limits) = (Arc::clone(&admin), limits.clone());
        tokio::spawn(async move {
            let service = |request: Request<Incoming>| ready(Ok(route(&admin, request.uri().path())));
            http::serve(stream, service_fn(service), KeepAlive::No, &limits).await;
            drop(place);
        });
    }
}

fn route(admin: &Admin, path: &str) -> Reply {
    match path {
        "/metrics" => {
            let page = Body::Whole(Bytes::from(admin.metrics.render()));
            reply("text/plain; version=0.0.4; charset=utf-8", page)
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
