//! A client's connection, with a timeout for writes and a reason in every refusal.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::refusal::final_answer;
use crate::limits::WRITE_STALL_MS;

/// A stream that ends with an error when its client takes nothing for too long.
///
/// Refusals that the HTTP library makes by itself, such as that of a head that is no HTTP or too long, have no body; here
/// they get their reason in JSON, as all others have theirs.
pub(crate) struct ClientStream<S> {
    inner: S,
    stall: Option<Pin<Box<Sleep>>>,
    /// Bytes to write instead of the library's own refusal, and the number of those written.
    refusal: Option<(Vec<u8>, usize)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, stall: None, refusal: None }
    }

    /// Ends with an error what has made no progress for too long.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stall = None;
            return polled;
        }
        // From the first write that found no room: whoever takes some bytes in between begins anew.
        let until = || Box::pin(sleep_until(Instant::now() + Duration::from_millis(WRITE_STALL_MS)));
        ready!(self.stall.get_or_insert_with(until).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((bytes, written)) = &mut self.refusal {
            let polled = Pin::new(&mut self.inner).poll_write(cx, &bytes[*written..]);
            if let Poll::Ready(Ok(count)) = polled {
                *written += count;
                if *written >= bytes.len() {
                    self.refusal = None;
                }
            }
            ready!(self.bounded(cx, polled))?;
        }
        Poll::Ready(Ok(()))
    }
}

/// The answer to write instead of one that the HTTP library made by itself: a refusal without a body.
fn explained(head: &[u8]) -> Option<Vec<u8>> {
    // Every refusal of a handler has a body, so that a 4xx without one is the library's. The library writes head and
    // body in one piece, since this stream offers no vectored writes.
    let code = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?.get(..3)?;
    let text = std::str::from_utf8(head).ok()?;
    if code[0] != b'4' || !text.ends_with("\r\n\r\n") || !text.contains("content-length: 0\r\n") {
        return None;
    }
    let status = StatusCode::from_bytes(code).ok()?;
    let (kind, message) = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            ("head_too_large", "the request's head is too large; send fewer headers")
        }
        StatusCode::URI_TOO_LONG => ("address_too_long", "the request's address is too long"),
        StatusCode::REQUEST_TIMEOUT => ("head_too_slow", "the request's head did not come in time"),
        _ => ("not_http", "this is no HTTP/1.1 request"),
    };
    Some(final_answer(status, kind, message, None))
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_refusal(cx))?;
        if let Some(answer) = explained(bytes) {
            self.refusal = Some((answer, 0));
            // What is pending of it is written by the flush that follows.
            let _ = self.poll_refusal(cx)?;
            // The library counts its own bytes: for it they are written.
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.bounded(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.bounded(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// The bytes that a client receives when these pieces are written, through a pipe of `room` bytes.
    async fn received(pieces: &[&[u8]], room: usize) -> String {
        let (near, mut far) = tokio::io::duplex(room);
        let mut stream = ClientStream::new(near);
        let reader = async move {
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            text
        };
        let writer = async move {
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
            }
            stream.shutdown().await.unwrap();
        };
        tokio::join!(reader, writer).0
    }

    #[tokio::test]
    async fn refusals_without_a_body_get_one_and_nothing_else_changes() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        for room in [7, 4096] {
            let text = received(&[bare], room).await;
            assert!(text.starts_with("HTTP/1.1 431 ") && text.contains("\"kind\":\"head_too_large\""), "{text}");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
        }
        for own in
            ["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"]
        {
            assert_eq!(received(&[own.as_bytes()], 4096).await, own);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (near, _far) = tokio::io::duplex(16);
        let mut stream = ClientStream::new(near);
        let began = Instant::now();
        let error = stream.write_all(&[b'x'; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_millis() as u64, WRITE_STALL_MS);
    }
}
