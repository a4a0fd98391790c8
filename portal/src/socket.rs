//! The application's side of a connection: a TCP socket, or a stream that was wrapped around one, as TLS is.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BufMut;
use portolan_runtime::Payload;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use crate::intercept::Intercepted;

/// A stream of bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// Wraps a stream around a socket that was just connected, as a TLS client does. Dropping the stream without a shutdown
/// must be noticed by its other end as a break.
pub type Wrap = Arc<dyn Fn(TcpStream) -> Wrapping + Send + Sync>;

/// Makes a connection to a target, `host:port` or whatever the outlet was told, that is no TCP connection: to a socket of another kind,
/// or to a service in this process. Dropping the stream without a shutdown should be noticed by its other end as a break.
pub type Dial = Arc<dyn Fn(&str) -> Wrapping + Send + Sync>;

/// What a [`Wrap`] or a [`Dial`] does.
pub type Wrapping = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send>>;

/// A connection to the application.
pub(crate) enum Socket {
    Plain(TcpStream),
    Wrapped(Box<dyn ByteStream>),
    /// With an interceptor before it.
    Intercepted(Box<Intercepted>),
}

impl Socket {
    /// Reads once into what `make` gives, at most `limit` bytes. Empty at the end of the stream. No buffer is held while
    /// there is nothing.
    pub(crate) fn poll_read(
        &mut self,
        limit: usize,
        make: impl FnOnce() -> Payload,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Payload>> {
        let mut payload;
        match self {
            Socket::Plain(socket) => {
                ready!(socket.poll_read_ready(cx))?;
                payload = make();
                // A read that does not fill the room is not followed by one that finds nothing.
                let mut room = payload.buffer_mut().limit(limit);
                ready!(pin!(socket.read_buf(&mut room)).poll(cx))?;
            }
            Socket::Wrapped(stream) => {
                payload = make();
                let mut room = payload.buffer_mut().limit(limit);
                ready!(pin!(stream.read_buf(&mut room)).poll(cx))?;
            }
            Socket::Intercepted(intercepted) => return intercepted.poll_read(limit, cx),
        }
        Poll::Ready(Ok(payload))
    }

    /// Writes what is taken at once.
    pub(crate) fn poll_write(
        &mut self,
        slices: &[IoSlice<'_>],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match (self, slices) {
            (Socket::Plain(socket), [one]) => Pin::new(socket).poll_write(cx, one),
            (Socket::Plain(socket), all) => Pin::new(socket).poll_write_vectored(cx, all),
            (Socket::Wrapped(stream), all) => Pin::new(stream).poll_write_vectored(cx, all),
            (Socket::Intercepted(intercepted), all) => intercepted.poll_write(all, cx),
        }
    }

    /// Writes what is taken at once by a plain socket that was not said to be ready. A wrapped stream can only be asked
    /// when it is: it is as if it took nothing.
    pub(crate) fn write_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(socket) => SockRef::from(&*socket).send(bytes),
            Socket::Wrapped(_) | Socket::Intercepted(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Passes on what a wrapped stream has taken and keeps.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Plain(_) => Poll::Ready(Ok(())),
            Socket::Wrapped(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Intercepted(intercepted) => intercepted.poll_flush(cx),
        }
    }

    /// Ends the direction towards the application. A wrapped stream has something to say then, which the application may
    /// not take.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Wrapped(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Intercepted(intercepted) => intercepted.poll_shutdown(cx),
        }
    }

    /// Whether an interceptor stands before it.
    pub(crate) fn is_intercepted(&self) -> bool {
        matches!(self, Socket::Intercepted(_))
    }

    /// Whether the application has taken something from an interceptor since this was asked last.
    pub(crate) fn has_progressed(&mut self) -> bool {
        match self {
            Socket::Plain(_) | Socket::Wrapped(_) => false,
            Socket::Intercepted(intercepted) => intercepted.has_progressed(),
        }
    }

    /// Bytes that an interceptor has for the application and that it has not taken; `None` if it has said its last word.
    pub(crate) fn unwritten(&self) -> Option<usize> {
        match self {
            Socket::Plain(_) | Socket::Wrapped(_) => None,
            Socket::Intercepted(intercepted) => intercepted.unwritten(),
        }
    }

    /// When it is dropped, the application shall see an error and not a clean end that looks like a complete answer.
    pub(crate) fn end_with_an_error(&self) {
        match self {
            Socket::Plain(socket) => {
                let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
            Socket::Wrapped(_) => {}
            Socket::Intercepted(intercepted) => intercepted.end_with_an_error(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_wrapped_stream_that_is_full_takes_more_when_its_other_end_has_read() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut socket = Socket::Wrapped(Box::new(near));
        let write = async |socket: &mut Socket, bytes: &[u8]| {
            poll_fn(|cx| socket.poll_write(&[IoSlice::new(bytes)], cx)).await
        };
        assert_eq!(write(&mut socket, b"0123456789").await.unwrap(), 8);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(socket.poll_write(&[IoSlice::new(b"89")], &mut cx).is_pending());
        let mut taken = [0; 8];
        let (written, read) = tokio::join!(write(&mut socket, b"89"), far.read_exact(&mut taken));
        assert_eq!((written.unwrap(), read.unwrap()), (2, 8));
        poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();

        far.write_all(b"back").await.unwrap();
        let read = async |socket: &mut Socket| {
            poll_fn(|cx| socket.poll_read(3, || Payload::with_capacity(16), cx))
                .await
                .unwrap()
        };
        assert_eq!(read(&mut socket).await.as_slice(), b"bac");
        drop(far);
        assert_eq!(read(&mut socket).await.as_slice(), b"k");
        assert_eq!(read(&mut socket).await.as_slice(), b"");
    }
}
