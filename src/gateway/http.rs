//! What the clients' and the operators' port share: how a connection comes, how it is served and ends, and what replies
//! are made of.
//!
//! Bounds kept here: a request's head in bytes and seconds, the life of a connection that speaks HTTP, and of an answer in
//! parts one part at a time.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::base::limits::Limits;
use crate::flow::socket::wire::{self, Permit};

/// An answer to a request.
pub type Reply = Response<Body>;

/// What an answer is made of when it is long: each part is asked for when the client has taken those before.
pub type Parts = Box<dyn Iterator<Item = Bytes> + Send>;

/// The bytes of an answer.
pub enum Body {
    /// Made already; empty once they have been handed on.
    Whole(Bytes),
    /// Made as the client takes them; it counts as one of the answers at once until the last part is nearly gone.
    Parts(Parts, Permit),
    /// Nothing yet, and no end that was announced: whoever takes the connection over goes on with it.
    Open,
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = match &mut *self {
            Self::Whole(bytes) => Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty()),
            Self::Parts(parts, _) => parts.next(),
            Self::Open => None,
        };
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Parts(..) | Self::Open => SizeHint::default(),
        }
    }
}

/// When to try again where there was no room, or after a restart, in seconds.
pub const RETRY_AFTER_S: u32 = 5;

/// Whether a connection may bring one request after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// It ends with the first answer.
    No,
    /// Until it has been silent, or has lived, for too long.
    Yes,
}

/// The next connection, with the options that the gateway relies on.
pub async fn accept(listener: &TcpListener, limits: &Limits) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match wire::tune(&stream, limits) {
                Ok(()) => return (stream, peer),
                Err(error) => tracing::debug!(%peer, %error, "socket lost as it came"),
            },
            Err(error) => {
                // Out of descriptors, most likely: accepting again at once would spin.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves a connection until it is over, and gives back what is left of it: its socket, and the bytes behind the last
/// request. `None` when it broke, or when its life was too long.
pub async fn serve<S>(
    stream: TcpStream,
    service: S,
    keep_alive: KeepAlive,
    limits: &Limits,
) -> Option<http1::Parts<TokioIo<TcpStream>, S>>
where
    S: Service<Request<Incoming>, Response = Reply, Error = Infallible, Future: Unpin> + Unpin,
{
    let end = Instant::now() + limits.http_life;
    // What serves a connection takes its buffers at once: who is silent, or waits in a crowd, is not worth them yet.
    let first_byte = limits.handshake_timeout.min(limits.http_life);
    tokio::time::timeout(first_byte, stream.peek(&mut [0])).await.ok()?.ok()?;
    Box::pin(serve_ready(stream, service, keep_alive, limits, end)).await
}

async fn serve_ready<S>(
    stream: TcpStream,
    service: S,
    keep_alive: KeepAlive,
    limits: &Limits,
    end: Instant,
) -> Option<http1::Parts<TokioIo<TcpStream>, S>>
where
    S: Service<Request<Incoming>, Response = Reply, Error = Infallible, Future: Unpin> + Unpin,
{
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.handshake_timeout)
        .max_buf_size(limits.url_bytes_max)
        .keep_alive(keep_alive == KeepAlive::Yes)
        .serve_connection(TokioIo::new(stream), service);
    let served = poll_fn(|cx| connection.poll_without_shutdown(cx));
    let served = tokio::time::timeout_at(end, served).await;
    let parts = connection.into_parts();
    match served {
        Ok(Ok(())) => Some(parts),
        // The peer's fault: a broken request, a closed socket, a head that took too long.
        Ok(Err(_)) => None,
        Err(_) => {
            // A reader that does not read must not hold its answer, be it in the kernel. A socket that is gone has none.
            let _ = wire::forget(parts.io.inner());
            None
        }
    }
}

/// A short reply in words.
pub fn text(status: StatusCode, message: &str) -> Reply {
    let mut reply = reply("text/plain; charset=utf-8", Body::Whole(Bytes::from(format!("{message}\n"))));
    *reply.status_mut() = status;
    reply
}

/// A reply of this type.
pub fn reply(kind: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}
