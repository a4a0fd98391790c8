//! The application's side of a connection: a TCP socket, or a stream that was wrapped around one, as TLS is.
//!
//! The data path asks a socket whether it would block. A wrapped stream can only be polled; it is polled with a waker
//! that rings a bell, so that both can be used in the same way.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::BufMut;
use portolan_runtime::Payload;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

/// A stream of bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// Wraps a stream around a socket that was just connected, as a TLS client does. Dropping the stream without a shutdown
/// must be noticed by its other end as a break.
pub type Wrap = Arc<dyn Fn(TcpStream) -> Wrapping + Send + Sync>;

/// What a [`Wrap`] does.
pub type Wrapping = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send>>;

/// A connection to the application.
pub(crate) enum Socket {
    Plain(TcpStream),
    Wrapped(Box<dyn ByteStream>),
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Socket::Plain(socket)
    }
}

impl Socket {
    pub(crate) fn into_split(self) -> (Reading, Writing) {
        match self {
            Socket::Plain(socket) => {
                let (reading, writing) = socket.into_split();
                (Reading::Plain(reading), Writing::Plain(writing))
            }
            Socket::Wrapped(stream) => {
                let (reading, writing) = tokio::io::split(stream);
                let bell = Arc::new(Bell::default());
                let waker = Waker::from(Arc::clone(&bell));
                let writing = Writing::Wrapped { writing, bell, waker };
                (Reading::Wrapped(reading), writing)
            }
        }
    }
}

/// Rung when a wrapped stream that could take nothing can be asked again.
#[derive(Default)]
pub(crate) struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

/// What comes from the application.
pub(crate) enum Reading {
    Plain(OwnedReadHalf),
    Wrapped(ReadHalf<Box<dyn ByteStream>>),
}

impl Reading {
    /// Reads once into what `make` gives, at most `limit` bytes. Empty at the end of the stream. No buffer is held while
    /// there is nothing. Nothing is lost when it is dropped.
    pub(crate) async fn read(&mut self, limit: usize, make: impl Fn() -> Payload) -> io::Result<Payload> {
        match self {
            Reading::Plain(reading) => loop {
                reading.readable().await?;
                let mut payload = make();
                let mut buffer = payload.buffer_mut().limit(limit);
                match reading.try_read_buf(&mut buffer) {
                    Ok(_) => return Ok(payload),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            },
            Reading::Wrapped(reading) => {
                std::future::poll_fn(|cx| {
                    let mut payload = make();
                    let mut buffer = payload.buffer_mut().limit(limit);
                    let polled = std::pin::pin!(reading.read_buf(&mut buffer)).poll(cx);
                    polled.map(|read| read.map(|_| payload))
                })
                .await
            }
        }
    }
}

/// What goes to the application.
pub(crate) enum Writing {
    Plain(OwnedWriteHalf),
    Wrapped {
        writing: WriteHalf<Box<dyn ByteStream>>,
        bell: Arc<Bell>,
        waker: Waker,
    },
}

/// `Pending` as sockets say it.
fn would_block<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Writing {
    /// Writes what is taken at once.
    pub(crate) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Writing::Plain(writing) => writing.try_write_vectored(slices),
            Writing::Wrapped { writing, waker, .. } => {
                let mut cx = Context::from_waker(waker);
                would_block(Pin::new(writing).poll_write_vectored(&mut cx, slices))
            }
        }
    }

    /// Passes on what a wrapped stream has taken and keeps.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        match self {
            Writing::Plain(_) => Ok(()),
            Writing::Wrapped { writing, waker, .. } => {
                would_block(Pin::new(writing).poll_flush(&mut Context::from_waker(waker)))
            }
        }
    }

    /// Returns when it is worth trying again.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Writing::Plain(writing) => writing.writable().await,
            Writing::Wrapped { bell, .. } => {
                bell.0.notified().await;
                Ok(())
            }
        }
    }

    /// Ends this direction.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Writing::Plain(writing) => writing.shutdown().await,
            Writing::Wrapped { writing, .. } => writing.shutdown().await,
        }
    }

    /// Ends the connection so that the application sees an error and not a clean end that looks like a complete answer.
    pub(crate) fn abort(self) {
        if let Writing::Plain(writing) = self {
            let _ = SockRef::from(writing.as_ref()).set_linger(Some(Duration::ZERO));
            writing.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wrapped_stream_that_is_full_takes_more_when_its_bell_has_rung() {
        let (near, mut far) = tokio::io::duplex(8);
        let (mut reading, mut writing) = Socket::Wrapped(Box::new(near)).into_split();
        assert_eq!(
            writing
                .try_write_vectored(&[IoSlice::new(b"0123456789")])
                .unwrap(),
            8
        );
        let full = writing.try_write_vectored(&[IoSlice::new(b"89")]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let mut taken = [0; 8];
        far.read_exact(&mut taken).await.unwrap();
        writing.writable().await.unwrap();
        assert_eq!(writing.try_write_vectored(&[IoSlice::new(b"89")]).unwrap(), 2);
        writing.try_flush().unwrap();

        far.write_all(b"back").await.unwrap();
        let payload = reading.read(3, || Payload::with_capacity(16)).await.unwrap();
        assert_eq!(payload.as_slice(), b"bac");
        drop(far);
        let payload = reading.read(3, || Payload::with_capacity(16)).await.unwrap();
        assert_eq!(payload.as_slice(), b"k");
        let end = reading.read(3, || Payload::with_capacity(16)).await.unwrap();
        assert_eq!(end.as_slice(), b"");
    }
}
