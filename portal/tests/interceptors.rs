//! Interceptors at inlet and outlet: what they let through arrives byte for byte, and what they end never looks complete.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use portolan_portal::intercept::{
    ConnectionInfo, Direction, Ended, Filter, Inline, Intercept, Interception, Interceptor, Output, Side,
    Task, remote,
};
use portolan_portal::protocol::{PortalMessage, payload_header};
use portolan_portal::{FailureKind, InletOptions, OutletOptions};
use portolan_runtime::{Message, Payload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::*;

mod world;

/// Interceptors that are made by a function.
struct Made<F>(F);

impl<F> Intercept for Made<F>
where
    F: Fn(&ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended> + Send + Sync,
{
    fn name(&self) -> &str {
        "test"
    }

    fn open(&self, connection: &ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended> {
        (self.0)(connection)
    }
}

fn made<F>(make: F) -> Interception
where
    F: Fn(&ConnectionInfo) -> Result<Box<dyn Interceptor>, Ended> + Send + Sync + 'static,
{
    Interception::new("portal", Arc::new(Made(make)))
}

fn at_inlet(intercept: Interception) -> InletOptions {
    InletOptions {
        intercept: Some(intercept),
        ..InletOptions::default()
    }
}

fn at_outlet(intercept: Interception) -> OutletOptions {
    OutletOptions {
        intercept: Some(intercept),
        ..OutletOptions::default()
    }
}

/// What an interceptor does to the bytes of a direction, said for all of them at once.
#[derive(Debug, Clone, Copy)]
enum Edit {
    Pass,
    Upper,
    /// Puts `++` behind each 7.
    Insert,
    /// Leaves out each byte below 100.
    Delete,
    /// Says how many bytes there were, at the end.
    Count,
    /// Holds everything back until the end. For little.
    Hold,
}

impl Edit {
    fn whole(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Pass | Self::Hold => bytes.to_vec(),
            Self::Upper => bytes.to_ascii_uppercase(),
            Self::Insert => {
                let mut out = Vec::new();
                for byte in bytes {
                    out.push(*byte);
                    if *byte == 7 {
                        out.extend(b"++");
                    }
                }
                out
            }
            Self::Delete => bytes.iter().copied().filter(|byte| *byte >= 100).collect(),
            Self::Count => [bytes, format!("{} bytes", bytes.len()).as_bytes()].concat(),
        }
    }
}

/// The same, piece by piece.
#[derive(Default)]
struct Editing {
    held: Vec<u8>,
    count: usize,
}

impl Editing {
    fn data(&mut self, edit: Edit, mut bytes: Payload, output: &mut Output) {
        self.count += bytes.len();
        match edit {
            Edit::Pass | Edit::Count => output.push(bytes),
            Edit::Upper => {
                bytes.as_mut_slice().make_ascii_uppercase();
                output.push(bytes);
            }
            Edit::Insert | Edit::Delete => output.write(&edit.whole(bytes.as_slice())),
            Edit::Hold => self.held.extend(bytes.as_slice()),
        }
    }

    fn end(&mut self, edit: Edit, output: &mut Output) {
        match edit {
            Edit::Count => output.write(format!("{} bytes", self.count).as_bytes()),
            Edit::Hold => output.write(&self.held),
            _ => {}
        }
    }
}

struct Editor {
    up: (Edit, Editing),
    down: (Edit, Editing),
}

impl Editor {
    fn of(&mut self, direction: Direction) -> &mut (Edit, Editing) {
        match direction {
            Direction::ToService => &mut self.up,
            Direction::ToClient => &mut self.down,
        }
    }
}

impl Filter for Editor {
    fn data(&mut self, direction: Direction, bytes: Payload, output: &mut Output) -> Result<(), Ended> {
        let (edit, editing) = self.of(direction);
        editing.data(*edit, bytes, output);
        Ok(())
    }

    fn end(&mut self, direction: Direction, output: &mut Output) -> Result<(), Ended> {
        let (edit, editing) = self.of(direction);
        editing.end(*edit, output);
        Ok(())
    }
}

fn editor(up: Edit, down: Edit) -> Interception {
    made(move |_| {
        Ok(Inline::boxed(Editor {
            up: (up, Editing::default()),
            down: (down, Editing::default()),
        }))
    })
}

/// The same on a thread for each connection.
fn elsewhere(up: Edit, down: Edit) -> Interception {
    made(move |_| {
        let (interceptor, mut work) = remote();
        let mut filter = Inline::boxed(Editor {
            up: (up, Editing::default()),
            down: (down, Editing::default()),
        });
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut cx = Context::from_waker(Waker::noop());
                while let Some(Task { direction, bytes }) = work.next().await {
                    match bytes {
                        Some(bytes) => filter.give(direction, bytes),
                        None => filter.end(direction),
                    }
                    let mut output = Vec::new();
                    while let Poll::Ready(Ok(Some(piece))) = filter.poll_take(direction, &mut cx) {
                        output.extend(piece.as_slice());
                    }
                    work.done(Some(Payload::copy_from(&output)));
                }
            });
        });
        Ok(interceptor)
    })
}

/// Sends both, ends both directions, and returns what came at service and client.
async fn exchange(
    client: TcpStream,
    server: TcpStream,
    up: &[u8],
    down: &[u8],
    slowly: Duration,
) -> (Vec<u8>, Vec<u8>) {
    let (mut client_reads, mut client_writes) = client.into_split();
    let (mut server_reads, mut server_writes) = server.into_split();
    let send = async |to: &mut tokio::net::tcp::OwnedWriteHalf, bytes: &[u8]| {
        to.write_all(bytes).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let take = async |from: &mut tokio::net::tcp::OwnedReadHalf| {
        let mut received = Vec::new();
        let mut piece = vec![0; 200_000];
        loop {
            let read = from.read(&mut piece).await.unwrap();
            if read == 0 {
                return received;
            }
            received.extend(&piece[..read]);
            if !slowly.is_zero() {
                tokio::time::sleep(slowly).await;
            }
        }
    };
    let all = async {
        tokio::join!(
            send(&mut client_writes, up),
            send(&mut server_writes, down),
            take(&mut server_reads),
            take(&mut client_reads)
        )
    };
    let ((), (), at_server, at_client) = soon("both directions", all).await;
    (at_server, at_client)
}

fn same(what: &str, received: &[u8], expected: &[u8]) {
    assert_eq!(received.len(), expected.len(), "{what}");
    assert!(received == expected, "{what}: the bytes differ");
}

async fn nothing_is_left(world: &World) {
    eventually("nothing is left", || {
        world.inlet.status().open() == 0 && world.outlet.status().open() == 0
    })
    .await;
}

/// What an interceptor does arrives, at either end, done at once and on another thread.
async fn arrives(up: Edit, down: Edit, bytes: usize) {
    let (sent_up, sent_down) = (pattern(bytes, 1), pattern(bytes, 2));
    let (expected_up, expected_down) = (up.whole(&sent_up), down.whole(&sent_down));
    for (place, make) in [
        ("inline", editor as fn(Edit, Edit) -> Interception),
        ("elsewhere", elsewhere),
    ] {
        for (side, inlet, outlet) in [
            ("inlet", at_inlet(make(up, down)), OutletOptions::default()),
            ("outlet", InletOptions::default(), at_outlet(make(up, down))),
        ] {
            let what = format!("{up:?} and {down:?}, {place}, at the {side}");
            let world = world_with(inlet, outlet).await;
            let (client, server) = world.pair().await;
            let (at_server, at_client) = exchange(client, server, &sent_up, &sent_down, Duration::ZERO).await;
            same(&what, &at_server, &expected_up);
            same(&what, &at_client, &expected_down);
            nothing_is_left(&world).await;
            assert!(world.inlet.status().last_failure().is_none(), "{what}");
            assert!(world.outlet.status().last_failure().is_none(), "{what}");
            world.stop().await;
        }
    }
}

#[tokio::test]
async fn bytes_that_pass_arrive_as_they_are() {
    arrives(Edit::Pass, Edit::Pass, 16 << 20).await;
}

#[tokio::test]
async fn changed_bytes_arrive_changed() {
    arrives(Edit::Upper, Edit::Pass, 8 << 20).await;
}

#[tokio::test]
async fn bytes_can_be_added_and_left_out() {
    arrives(Edit::Insert, Edit::Delete, 8 << 20).await;
    arrives(Edit::Delete, Edit::Insert, 8 << 20).await;
}

#[tokio::test]
async fn last_bytes_come_before_the_end_of_a_direction() {
    arrives(Edit::Count, Edit::Count, 3 << 20).await;
    arrives(Edit::Hold, Edit::Count, 700_000).await;
    arrives(Edit::Count, Edit::Hold, 0).await;
}

#[tokio::test]
async fn both_ends_can_have_one() {
    let world = world_with(
        at_inlet(editor(Edit::Upper, Edit::Insert)),
        at_outlet(elsewhere(Edit::Insert, Edit::Count)),
    )
    .await;
    let (client, server) = world.pair().await;
    let (up, down) = (pattern(5 << 20, 1), pattern(5 << 20, 2));
    let (at_server, at_client) = exchange(client, server, &up, &down, Duration::ZERO).await;
    same("up", &at_server, &Edit::Insert.whole(&Edit::Upper.whole(&up)));
    same("down", &at_client, &Edit::Insert.whole(&Edit::Count.whole(&down)));
    world.stop().await;
}

#[tokio::test]
async fn applications_that_read_slowly_get_everything() {
    for intercept in [
        editor(Edit::Insert, Edit::Count),
        elsewhere(Edit::Insert, Edit::Count),
    ] {
        let world = world_with(at_inlet(intercept.clone()), at_outlet(intercept)).await;
        let (client, server) = world.pair().await;
        let (up, down) = (pattern(6 << 20, 1), pattern(6 << 20, 2));
        let slowly = Duration::from_millis(5);
        let (at_server, at_client) = exchange(client, server, &up, &down, slowly).await;
        same("up", &at_server, &Edit::Insert.whole(&Edit::Insert.whole(&up)));
        same("down", &at_client, &Edit::Count.whole(&Edit::Count.whole(&down)));
        world.stop().await;
    }
}

#[tokio::test]
async fn eight_streams_have_interceptors_of_their_own() {
    let opened = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&opened);
    let world = world_with(
        at_inlet(elsewhere(Edit::Insert, Edit::Pass)),
        at_outlet(made(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(Inline::boxed(Editor {
                up: (Edit::Pass, Editing::default()),
                down: (Edit::Count, Editing::default()),
            }))
        })),
    )
    .await;
    let mut pairs = Vec::new();
    for _ in 0..8 {
        pairs.push(world.pair().await);
    }
    let streams = pairs.into_iter().enumerate().map(|(index, (client, server))| {
        tokio::spawn(async move {
            let (up, down) = (
                pattern(2 << 20, 10 + index as u64),
                pattern(2 << 20, 20 + index as u64),
            );
            let (at_server, at_client) = exchange(client, server, &up, &down, Duration::ZERO).await;
            same("up", &at_server, &Edit::Insert.whole(&up));
            same("down", &at_client, &Edit::Count.whole(&down));
        })
    });
    for stream in streams.collect::<Vec<_>>() {
        stream.await.unwrap();
    }
    assert_eq!(opened.load(Ordering::Relaxed), 8);
    world.stop().await;
}

#[tokio::test]
async fn one_direction_ends_and_the_other_goes_on_through_an_interceptor() {
    let world = world_with(
        at_inlet(editor(Edit::Count, Edit::Count)),
        OutletOptions::default(),
    )
    .await;
    let (mut client, mut server) = world.pair().await;
    client.write_all(b"request, ").await.unwrap();
    client.shutdown().await.unwrap();
    let mut request = Vec::new();
    soon("the request", server.read_to_end(&mut request))
        .await
        .unwrap();
    assert_eq!(request, b"request, 9 bytes");
    // Each answer arrives although the other direction is over.
    for answer in 0..100u8 {
        transfer(&mut server, &mut client, &[answer]).await;
    }
    drop(server);
    let mut rest = Vec::new();
    soon("the end", client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"100 bytes");
    world.stop().await;
}

#[tokio::test]
async fn an_interceptor_that_waits_delays_nobody_else() {
    // Of those whose first byte is a 1 nothing goes on until it is told to.
    struct Waiting {
        first: Option<u8>,
        inner: Box<dyn Interceptor>,
        gate: Arc<Gate>,
    }
    #[derive(Default)]
    struct Gate(Mutex<(bool, Option<Waker>)>);
    impl Waiting {
        fn waits(&self, direction: Direction, cx: &Context<'_>) -> bool {
            let mut gate = self.gate.0.lock();
            let waits = direction == Direction::ToService && self.first == Some(1) && !gate.0;
            if waits {
                gate.1 = Some(cx.waker().clone());
            }
            waits
        }
    }
    impl Interceptor for Waiting {
        fn poll_ready(&mut self, direction: Direction, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
            if self.waits(direction, cx) {
                return Poll::Pending;
            }
            self.inner.poll_ready(direction, cx)
        }
        fn give(&mut self, direction: Direction, bytes: Payload) {
            if direction == Direction::ToService {
                self.first.get_or_insert(bytes.as_slice()[0]);
            }
            self.inner.give(direction, bytes);
        }
        fn end(&mut self, direction: Direction) {
            self.inner.end(direction);
        }
        fn poll_take(
            &mut self,
            direction: Direction,
            cx: &mut Context<'_>,
        ) -> Poll<Result<Option<Payload>, Ended>> {
            if self.waits(direction, cx) {
                return Poll::Pending;
            }
            self.inner.poll_take(direction, cx)
        }
    }
    let gate = Arc::<Gate>::default();
    let opened = Arc::clone(&gate);
    let intercept = made(move |_| {
        Ok(Box::new(Waiting {
            first: None,
            inner: Inline::boxed(Editor {
                up: (Edit::Pass, Editing::default()),
                down: (Edit::Pass, Editing::default()),
            }),
            gate: Arc::clone(&opened),
        }))
    });
    let world = world_with(InletOptions::default(), at_outlet(intercept)).await;
    let (mut waiting, mut waiting_server) = world.pair().await;
    waiting.write_all(&[1, 2, 3]).await.unwrap();
    let (mut other, mut other_server) = world.pair().await;
    for _ in 0..200 {
        transfer(&mut other, &mut other_server, &pattern(10_000, 4)).await;
        transfer(&mut other_server, &mut other, &[5]).await;
    }
    // Its own other direction goes on as well.
    transfer(&mut waiting_server, &mut waiting, b"hello").await;
    let waker = {
        let mut gate = gate.0.lock();
        gate.0 = true;
        gate.1.take()
    };
    waker.unwrap().wake();
    let mut received = [0; 3];
    soon("what waited", waiting_server.read_exact(&mut received))
        .await
        .unwrap();
    assert_eq!(received, [1, 2, 3]);
    world.stop().await;
}

/// Ends the connection in some way when a direction has had so many bytes.
struct Ending {
    left: usize,
    how: fn() -> Result<(), Ended>,
}

impl Filter for Ending {
    fn data(&mut self, direction: Direction, bytes: Payload, output: &mut Output) -> Result<(), Ended> {
        if direction == Direction::ToService {
            match self.left.checked_sub(bytes.len()) {
                Some(left) => self.left = left,
                None => return (self.how)(),
            }
        }
        output.push(bytes);
        Ok(())
    }
}

/// Both applications see an error, and both ends know why.
async fn ends(how: fn() -> Result<(), Ended>, text: &str) {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    let ending = || made(move |_| Ok(Inline::boxed(Ending { left: 300_000, how })));
    for (inlet, outlet) in [
        (at_inlet(ending()), OutletOptions::default()),
        (InletOptions::default(), at_outlet(ending())),
    ] {
        let world = world_with(inlet, outlet).await;
        let (mut client, mut server) = world.pair().await;
        transfer(&mut client, &mut server, &pattern(100_000, 1)).await;
        transfer(&mut server, &mut client, b"so far so good").await;
        let all = pattern(4 << 20, 2);
        let (written, at_server) = tokio::join!(client.write_all(&all), async {
            let mut received = Vec::new();
            let end = soon("the end", server.read_to_end(&mut received)).await;
            assert!(received.len() < all.len());
            assert!(all.starts_with(&received), "what arrived is what was sent");
            end
        });
        // The system tells each application once, at its next read or write.
        let at_client = match written {
            Ok(()) => soon("the end", client.read_to_end(&mut Vec::new()))
                .await
                .map(|_| ()),
            failed => failed,
        };
        assert_eq!(at_server.unwrap_err().kind(), ConnectionReset);
        assert!(matches!(
            at_client.unwrap_err().kind(),
            ConnectionReset | BrokenPipe
        ));
        nothing_is_left(&world).await;
        for status in [world.inlet.status(), world.outlet.status()] {
            let failure = status.last_failure().unwrap();
            assert_eq!(failure.kind, FailureKind::Intercepted, "{}", failure.text);
            assert!(
                failure.text.contains("the interceptor `test`"),
                "{}",
                failure.text
            );
            assert!(failure.text.contains(text), "{}", failure.text);
        }
        // The next connection has nothing of it.
        let (mut client, mut server) = world.pair().await;
        transfer(&mut client, &mut server, b"hello").await;
        world.stop().await;
    }
}

#[tokio::test]
async fn a_connection_that_is_ended_in_the_middle_never_looks_complete() {
    ends(
        || Err(Ended::because("no more than 300000 bytes")),
        "ended the connection: no more than 300000 bytes",
    )
    .await;
}

#[tokio::test]
async fn a_panic_ends_its_connection_and_nothing_else() {
    ends(|| panic!("by intent of this test"), "failed: it panicked").await;
}

#[tokio::test]
async fn too_much_output_for_one_piece_ends_the_connection() {
    struct Flood;
    impl Filter for Flood {
        fn data(&mut self, _: Direction, bytes: Payload, output: &mut Output) -> Result<(), Ended> {
            for _ in 0..1_000_000 {
                output.write(&[0; 100_000]);
                output.push(Payload::copy_from(bytes.as_slice()));
            }
            Ok(())
        }
    }
    let world = world_with(
        at_inlet(made(|_| Ok(Inline::boxed(Flood)))),
        OutletOptions::default(),
    )
    .await;
    let (mut client, mut server) = world.pair().await;
    client.write_all(b"x").await.unwrap();
    let end = soon("the end", server.read_to_end(&mut Vec::new())).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let failure = world.inlet.status().last_failure().unwrap();
    assert!(
        failure.text.contains("bytes beyond what came"),
        "{}",
        failure.text
    );
    world.stop().await;
}

#[tokio::test]
async fn work_elsewhere_that_stops_ends_its_connection_and_learns_of_the_end_of_others() {
    for says_why in [false, true] {
        let (tell, told) = std::sync::mpsc::channel();
        let stopping = made(move |_| {
            let (interceptor, mut work) = remote();
            let tell = tell.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    while let Some(task) = work.next().await {
                        if task
                            .bytes
                            .as_ref()
                            .is_some_and(|bytes| bytes.as_slice() == b"stop")
                        {
                            if says_why {
                                work.end(Ended::because("it was asked to"));
                            }
                            return;
                        }
                        work.done(task.bytes);
                    }
                    tell.send(()).unwrap();
                });
            });
            Ok(interceptor)
        });
        let world = world_with(InletOptions::default(), at_outlet(stopping)).await;
        let (mut client, mut server) = world.pair().await;
        let (mut other, mut other_server) = world.pair().await;
        transfer(&mut client, &mut server, b"hello").await;
        transfer(&mut other, &mut other_server, b"hello").await;
        client.write_all(b"stop").await.unwrap();
        let end = soon("the end", client.read(&mut [0; 1])).await;
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        let text = world.outlet.status().last_failure().unwrap().text;
        let words = if says_why {
            "it was asked to"
        } else {
            "it was stopped"
        };
        assert!(text.contains(words), "{text}");
        transfer(&mut other_server, &mut other, b"still there").await;
        drop((other, other_server));
        let learnt = tokio::task::spawn_blocking(move || told.recv_timeout(Duration::from_secs(20)));
        learnt.await.unwrap().unwrap();
        world.stop().await;
    }
}

/// Never answers: takes the first piece and no more, or never says that a direction is over.
struct Silent {
    taken: bool,
    takes_more: bool,
}

impl Interceptor for Silent {
    fn poll_ready(&mut self, _: Direction, _: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.taken && !self.takes_more {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn give(&mut self, _: Direction, _: Payload) {
        self.taken = true;
    }

    fn end(&mut self, _: Direction) {}

    fn poll_take(&mut self, _: Direction, _: &mut Context<'_>) -> Poll<Result<Option<Payload>, Ended>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn an_interceptor_that_does_not_answer_ends_its_connection_at_both_ends() {
    for takes_more in [false, true] {
        for from_client in [false, true] {
            let silent = made(move |_| {
                Ok(Box::new(Silent {
                    taken: false,
                    takes_more,
                }))
            })
            .answer_within(Duration::from_millis(200));
            let world = world_with(at_inlet(silent), OutletOptions::default()).await;
            let (mut client, mut server) = world.pair().await;
            let (near, far) = match from_client {
                true => (&mut client, &mut server),
                false => (&mut server, &mut client),
            };
            near.write_all(b"hello").await.unwrap();
            near.shutdown().await.unwrap();
            let end = soon("the end", far.read_to_end(&mut Vec::new())).await;
            // Where nothing has come an end at once says enough.
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
            nothing_is_left(&world).await;
            for status in [world.inlet.status(), world.outlet.status()] {
                let failure = status.last_failure().unwrap();
                assert!(
                    failure.text.contains("it did not answer for 200ms"),
                    "{}",
                    failure.text
                );
            }
            world.stop().await;
        }
    }
}

#[tokio::test]
async fn a_connection_can_be_refused_before_it_begins() {
    let refusing = || {
        made(|connection| match connection.side {
            Side::Inlet => Err(Ended::because("not from here")),
            Side::Outlet => Err(Ended::because("not to there")),
        })
    };
    let world = world_with(at_inlet(refusing()), OutletOptions::default()).await;
    let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
    let end = soon("the end", client.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    eventually("the inlet says why", || {
        let failure = world.inlet.status().last_failure();
        failure.is_some_and(|failure| failure.text.ends_with("not from here"))
    })
    .await;
    assert_eq!(world.outlet.status().total(), 0, "the outlet was not asked");
    world.stop().await;

    let world = world_with(InletOptions::default(), at_outlet(refusing())).await;
    let mut client = TcpStream::connect(world.inlet.local()).await.unwrap();
    let end = soon("the end", client.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    eventually("both ends know", || {
        let inlet = world.inlet.status().last_failure();
        let outlet = world.outlet.status().last_failure();
        [inlet, outlet].into_iter().all(|failure| {
            failure.is_some_and(|failure| {
                failure.kind == FailureKind::Intercepted && failure.text.ends_with("not to there")
            })
        })
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn an_interceptor_is_told_where_it_stands() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noting = || {
        let seen = Arc::clone(&seen);
        made(move |connection| {
            seen.lock().push(connection.clone());
            Ok(Inline::boxed(Editor {
                up: (Edit::Pass, Editing::default()),
                down: (Edit::Pass, Editing::default()),
            }))
        })
    };
    let world = world_with(at_inlet(noting()), at_outlet(noting())).await;
    let (mut client, mut server) = world.pair().await;
    transfer(&mut client, &mut server, b"hello").await;
    let of = |side, endpoint: std::net::SocketAddr| ConnectionInfo {
        side,
        portal: "portal".into(),
        peer: None,
        attributes: Vec::new(),
        endpoint: Some(endpoint.to_string()),
    };
    assert_eq!(
        *seen.lock(),
        [
            of(Side::Inlet, client.local_addr().unwrap()),
            of(Side::Outlet, world.target.local_addr().unwrap())
        ]
    );
    world.stop().await;
}

#[tokio::test]
async fn a_stock_inlet_notices_nothing_of_an_interceptor() {
    for intercept in [
        editor(Edit::Upper, Edit::Insert),
        elsewhere(Edit::Upper, Edit::Insert),
    ] {
        let world = world_with(InletOptions::default(), at_outlet(intercept)).await;
        let mut peer = stock_inlet(&world).await;
        let (mut server, _) = soon("the target is connected to", world.target.accept())
            .await
            .unwrap();
        let (pong, back) = receive(&mut peer).await;
        assert_eq!(pong, [1], "no extension");
        let sent = pattern(3 << 20, 1);
        let sending = async {
            for chunk in sent.chunks(48 * 1024) {
                let (header, used) = payload_header(chunk.len());
                let bytes = [&header[..used], chunk].concat();
                peer.send_message(Message::new(back.clone(), "stock-inlet", bytes))
                    .await
                    .unwrap();
            }
        };
        let mut received = vec![0; sent.len()];
        let ((), read) = tokio::join!(sending, server.read_exact(&mut received));
        read.unwrap();
        same("up", &received, &Edit::Upper.whole(&sent));

        // The end of a direction is the end of both, after all that was sent.
        let answer = pattern(1 << 20, 2);
        let expected = Edit::Insert.whole(&answer);
        let answering = tokio::spawn(async move {
            server.write_all(&answer).await.unwrap();
            server.shutdown().await.unwrap();
            server
        });
        let mut received = Vec::new();
        loop {
            let (message, _) = receive(&mut peer).await;
            match PortalMessage::decode(&message).unwrap() {
                PortalMessage::Payload { start, end } => received.extend(&message[start..end]),
                PortalMessage::Disconnect => break,
                other => panic!("{other:?}"),
            }
        }
        same("down", &received, &expected);
        drop(answering.await.unwrap());
        world.stop().await;
    }
}
