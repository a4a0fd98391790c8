//! Interceptors around a stream in memory, cut into pieces in every way.

use std::future::poll_fn;
use std::io::IoSlice;

use portolan_runtime::Payload;
use portolan_runtime::payload::CHUNK;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Puts what stands between two line breaks into brackets: holds back, adds and leaves out.
#[derive(Default)]
struct Brackets {
    lines: [Vec<u8>; 2],
}

impl Filter for Brackets {
    fn data(&mut self, direction: Direction, bytes: Payload, output: &mut Output) -> Result<(), Ended> {
        let line = &mut self.lines[direction as usize];
        for byte in bytes.as_slice() {
            if *byte == b'\n' {
                output.write(&[b"[", line.as_slice(), b"]"].concat());
                line.clear();
            } else {
                line.push(*byte);
            }
        }
        Ok(())
    }

    fn end(&mut self, direction: Direction, output: &mut Output) -> Result<(), Ended> {
        output.write(&[b"[", self.lines[direction as usize].as_slice(), b"]."].concat());
        Ok(())
    }
}

fn expected(bytes: &[u8]) -> Vec<u8> {
    let lines: Vec<Vec<u8>> = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| [b"[", line, b"]"].concat())
        .collect();
    [lines.concat().as_slice(), b"."].concat()
}

struct Made;

impl Intercept for Made {
    fn name(&self) -> &str {
        "brackets"
    }

    fn open(&self, _: &ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended> {
        Ok(Inline::boxed(Brackets::default()))
    }
}

fn intercepted(room: usize) -> (Socket, tokio::io::DuplexStream) {
    let (near, far) = tokio::io::duplex(room);
    let opened = Interception::new("portal", Arc::new(Made))
        .open(Side::Outlet, None, None)
        .unwrap();
    (opened.around(Socket::Wrapped(Box::new(near))), far)
}

/// The parts of `bytes`, cut where the lengths say, round and round.
fn cut<'a>(mut bytes: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    std::iter::from_fn(move || {
        let length = (*lengths.next()?).min(bytes.len());
        let (piece, rest) = bytes.split_at(length);
        bytes = rest;
        (length > 0).then_some(piece)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn however_the_bytes_are_cut_the_output_is_the_same(
        lines in proptest::collection::vec((0usize..3000, any::<u8>()), 1..12),
        pieces in proptest::collection::vec(1usize..5000, 1..6),
        limit in 1usize..5000,
        room in 1usize..5000,
    ) {
        let bytes: Vec<u8> = lines
            .iter()
            .flat_map(|(length, byte)| [vec![*byte; *length], vec![b'\n']].concat())
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            // To the application, in slices that come in twos.
            let (mut socket, mut far) = intercepted(room);
            let write = async {
                let parts: Vec<&[u8]> = cut(&bytes, &pieces).collect();
                for two in parts.chunks(2) {
                    let mut left: Vec<u8> = two.concat();
                    let mut first = two[0].len();
                    while !left.is_empty() {
                        let (one, other) = left.split_at(first.min(left.len()));
                        let slices = [IoSlice::new(one), IoSlice::new(other)];
                        let written = poll_fn(|cx| socket.poll_write(&slices, cx)).await.unwrap();
                        left.drain(..written);
                        first = first.saturating_sub(written);
                    }
                }
                poll_fn(|cx| socket.poll_shutdown(cx)).await.unwrap();
                socket
            };
            let mut received = Vec::new();
            let (socket, read) = tokio::join!(write, far.read_to_end(&mut received));
            read.unwrap();
            assert_eq!(received, expected(&bytes));
            assert_eq!(socket.unwritten(), None);

            // From the application.
            let (mut socket, mut far) = intercepted(room);
            let write = async {
                for piece in cut(&bytes, &pieces) {
                    far.write_all(piece).await.unwrap();
                }
                far.shutdown().await.unwrap();
            };
            let read = async {
                let mut received: Vec<u8> = Vec::new();
                loop {
                    let piece = poll_fn(|cx| socket.poll_read(limit, Payload::new, cx)).await.unwrap();
                    if piece.is_empty() {
                        return received;
                    }
                    assert!(piece.len() <= limit);
                    received.extend(piece.as_slice());
                }
            };
            let ((), received) = tokio::join!(write, read);
            assert_eq!(received, expected(&bytes));
        });
    }
}

#[test]
fn what_an_interceptor_may_hold_back_for_an_application_is_bounded() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        // Nobody reads at the other end.
        let (mut socket, _far) = intercepted(1);
        let lines = vec![b'\n'; 16 * 1024];
        let mut taken = 0;
        poll_fn(|cx| {
            while let Poll::Ready(written) = socket.poll_write(&[IoSlice::new(&lines)], cx) {
                taken += written.unwrap();
                assert!(taken < 1 << 20, "it takes no end");
            }
            Poll::Ready(())
        })
        .await;
        let held = socket.unwritten().unwrap();
        assert!(
            held + 1 >= HELD,
            "all but the byte that the stream has room for: {held}"
        );
        assert!(held <= HELD + 2 * lines.len() + CHUNK, "{held}");
    });
}

/// Never says that anything is done.
#[derive(Default)]
struct Silent(parking_lot::Mutex<Vec<Work>>);

impl Intercept for Silent {
    fn name(&self) -> &str {
        "silent"
    }

    fn open(&self, _: &ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended> {
        let (interceptor, work) = remote();
        self.0.lock().push(work);
        Ok(interceptor)
    }
}

#[tokio::test]
async fn what_interceptors_hold_comes_out_of_the_memory_of_portals_and_goes_back() {
    let memory = WindowMemory::new(8 << 20);
    let interception = Interception::new("db", Arc::new(Silent::default())).counted_in(&memory);
    let bytes = vec![0; CHUNK];
    let (mut taken, mut open) = (Vec::new(), Vec::new());
    let ended = loop {
        let (near, far) = tokio::io::duplex(64);
        let socket = Socket::Wrapped(Box::new(near));
        let mut socket = interception
            .open(Side::Outlet, None, None)
            .unwrap()
            .around(socket);
        let mut total = 0;
        let written = loop {
            let slices = [IoSlice::new(&bytes)];
            match poll_fn(|cx| Poll::Ready(socket.poll_write(&slices, cx))).await {
                Poll::Ready(Ok(count)) => total += count,
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Pending => break Ok(()),
            }
        };
        assert!(memory.used() <= memory.limit());
        if let Err(error) = written {
            break error;
        }
        taken.push(total);
        open.push((socket, far));
        assert!(open.len() < 10_000, "there is no end of it");
    };
    assert!(ended.to_string().contains("PORTOLAN_PORTAL_MEMORY"), "{ended}");
    // Much where there is much, little where it is scarce.
    assert_eq!(taken.first(), Some(&(3 * CHUNK)));
    assert_eq!(taken.last(), Some(&crate::application::SMALL_CHUNK));
    drop(open);
    assert_eq!(memory.used(), 0);
}
