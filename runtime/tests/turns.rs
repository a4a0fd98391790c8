//! Workers that run in the turn of whoever sends to them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test that fails must stop.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use portolan_runtime::{
    Address, Capacity, Context, Envelope, Message, Node, Passage, Result, Route, Routed, SyncWorker,
    WorkerOptions, route,
};
use tokio::sync::Notify;
use tokio::time::timeout;

/// After this a message does not come any more.
const LOST: Duration = Duration::from_secs(30);

/// Gives each message the next number.
#[derive(Default)]
struct Numbers(AtomicU32);

impl Passage for Numbers {
    fn pass(&self, _: &Node, _: &Address, message: &mut Message) -> Result<bool> {
        message.onward.step();
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        message.payload.append(&number.to_be_bytes());
        Ok(true)
    }
}

fn start_numbering(node: &Node) {
    let numbers = Arc::<Numbers>::default();
    let run = |mut ctx: Context| async move {
        ctx.set_passage(Arc::clone(&numbers) as Arc<dyn Passage>, 0);
        while let Some(Envelope { source, mut message }) = ctx.next().await {
            numbers.pass(ctx.node(), &source, &mut message).unwrap();
            ctx.forward(message).unwrap();
            ctx.flush().await;
        }
    };
    node.start_task("numbering", run).unwrap();
}

async fn send_numbers(ctx: &mut Context, sender: u32, count: u32) {
    for i in 0..count {
        let mut bytes = sender.to_be_bytes().to_vec();
        bytes.extend(i.to_be_bytes());
        let message = Message::new(route!["numbering", "sink"], Route::new(), bytes);
        ctx.send_message(message).await.unwrap();
    }
}

#[tokio::test]
async fn numbered_messages_keep_their_order_past_a_full_mailbox_whoever_sends_them() {
    const EACH: u32 = 400;
    let node = Node::builder().arbiters(2).build().unwrap();
    let narrow = Capacity {
        messages: 4,
        bytes: 1 << 20,
    };
    let mut sink = node.context(WorkerOptions::new("sink").capacity(narrow)).unwrap();
    start_numbering(&node);
    // On the arbiter of the worker, where messages go through, on the other one, and on a thread that is none.
    for sender in 0..4 {
        let run = move |mut ctx: Context| async move { send_numbers(&mut ctx, sender, EACH).await };
        node.start_task(format!("sender {sender}").as_str(), run).unwrap();
    }
    let outside = node.clone();
    tokio::spawn(async move {
        let mut ctx = outside.context("outside").unwrap();
        send_numbers(&mut ctx, 4, EACH).await;
    });
    let mut next = [0; 5];
    for number in 0..5 * EACH {
        // Six may wait for room, each with one message: the senders and the worker.
        assert!(node.waiting_at(&"sink".into()) <= 4 + 6);
        let message: Routed<Vec<u8>> = sink.receive().await.unwrap();
        let field =
            |index: usize| u32::from_be_bytes(message.payload()[4 * index..][..4].try_into().unwrap());
        assert_eq!(field(2), number);
        let sender = field(0) as usize;
        assert_eq!(field(1), next[sender], "sender {sender}");
        next[sender] += 1;
    }
    drop(sink);
    node.stop().await;
}

/// Sends what it gets to two others.
struct Both;

impl SyncWorker for Both {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        for to in ["breaks", "sink"] {
            let _ = ctx.forward(Message::new(to, Route::new(), envelope.message.payload.clone()));
        }
        Ok(())
    }
}

struct Breaks;

impl SyncWorker for Breaks {
    fn handle(&mut self, _: &mut Context, _: Envelope) -> Result<()> {
        panic!("what a worker of this test does");
    }
}

#[tokio::test]
async fn a_worker_that_panics_in_the_turn_of_another_takes_nobody_with_it() {
    let node = Node::builder().arbiters(1).build().unwrap();
    let mut sink = node.context("sink").unwrap();
    node.start_sync_worker("both", Both).unwrap();
    node.start_sync_worker("breaks", Breaks).unwrap();
    let ended = node.ended(&"breaks".into());
    for i in 0u8..10 {
        node.send("both", vec![i]).await.unwrap();
        let message: Routed<Vec<u8>> = sink.receive().await.unwrap();
        assert_eq!(message.into_body().unwrap(), [i]);
        if i == 0 {
            ended.await;
            break;
        }
    }
    for i in 1u8..10 {
        node.send("both", vec![i]).await.unwrap();
        let message: Routed<Vec<u8>> = sink.receive().await.unwrap();
        assert_eq!(message.into_body().unwrap(), [i]);
    }
    assert!(!node.has_worker(&"breaks".into()));
    drop(sink);
    node.stop().await;
}

/// Sends what it gets to one other.
struct Sends(&'static str);

impl SyncWorker for Sends {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let message = Message::new(self.0, Route::new(), envelope.message.payload);
        Ok(ctx.forward(message)?)
    }
}

async fn pass_on(mut ctx: Context) {
    while let Some(envelope) = ctx.next().await {
        let message = Message::new("sink", Route::new(), envelope.message.payload);
        ctx.forward(message).unwrap();
    }
}

/// Such a part is not woken by running the whole: another task of the thread, or one of several futures that go on only when each was
/// woken itself.
#[tokio::test]
async fn a_worker_that_gave_its_mailbox_to_a_part_with_a_waker_of_its_own_hears_of_messages() {
    let node = Node::builder().arbiters(1).build().unwrap();
    let mut sink = node.context("sink").unwrap();
    let elsewhere = |ctx: Context| async move {
        let _ = tokio::task::spawn_local(pass_on(ctx)).await;
    };
    let among_several = |ctx: Context| async move {
        type Part = Pin<Box<dyn Future<Output = ()>>>;
        let mut parts = FuturesUnordered::<Part>::new();
        parts.push(Box::pin(std::future::pending()));
        parts.push(Box::pin(pass_on(ctx)));
        parts.next().await;
    };
    node.start_task("elsewhere", elsewhere).unwrap();
    node.start_task("among several", among_several).unwrap();
    for (way, to) in [("one", "elsewhere"), ("other", "among several")] {
        node.start_sync_worker(way, Sends(to)).unwrap();
        for i in 0u8..10 {
            node.send(way, vec![i]).await.unwrap();
            let message = timeout(LOST, sink.receive::<Vec<u8>>()).await;
            assert_eq!(message.expect(to).unwrap().into_body().unwrap(), [i]);
        }
    }
    drop(sink);
    node.stop().await;
}

/// Sends each message back to whoever it came from.
struct Bounces;

impl SyncWorker for Bounces {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let _ = ctx.forward(Message::new(
            envelope.source,
            ctx.address(),
            envelope.message.payload,
        ));
        Ok(())
    }
}

#[tokio::test]
async fn two_that_answer_each_other_without_end_let_others_have_their_turn() {
    let node = Node::builder().arbiters(1).build().unwrap();
    node.start_sync_worker("one", Bounces).unwrap();
    let other = |mut ctx: Context| async move {
        let begin = Message::new("one", Route::new(), vec![0]);
        ctx.send_message(begin).await.unwrap();
        while let Some(envelope) = ctx.next().await {
            let _ = ctx.forward(Message::new(
                envelope.source,
                Route::new(),
                envelope.message.payload,
            ));
        }
    };
    node.start_task("other", other).unwrap();
    node.start_sync_worker("third", Bounces).unwrap();
    let mut app = node.context("app").unwrap();
    for i in 0u8..100 {
        app.send("third", vec![i]).await.unwrap();
        let answer: Routed<Vec<u8>> = app.receive().await.unwrap();
        assert_eq!(answer.into_body().unwrap(), [i]);
    }
    drop(app);
    node.stop().await;
}

/// As [`Numbers`], but not always.
#[derive(Default)]
struct Sometimes {
    numbers: Numbers,
    is_closed: AtomicBool,
    opened: Notify,
}

impl Passage for Sometimes {
    fn pass(&self, node: &Node, source: &Address, message: &mut Message) -> Result<bool> {
        self.numbers.pass(node, source, message)
    }

    fn is_ready(&self) -> bool {
        !self.is_closed.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_message_does_not_overtake_those_of_its_sender_that_wait_for_room() {
    let node = Node::builder().arbiters(1).build().unwrap();
    let mut sink = node.context("sink").unwrap();
    let sometimes = Arc::<Sometimes>::default();
    sometimes.is_closed.store(true, Ordering::Relaxed);
    let (drained, is_drained) = tokio::sync::oneshot::channel();
    let passage = Arc::clone(&sometimes);
    let opens = |mut ctx: Context| async move {
        ctx.set_passage(Arc::clone(&passage) as Arc<dyn Passage>, 0);
        passage.opened.notified().await;
        passage.is_closed.store(false, Ordering::Relaxed);
        let mut drained = Some(drained);
        loop {
            let next = std::future::poll_fn(|cx| {
                let polled = ctx.poll_next(cx);
                if polled.is_pending() {
                    // All is handled, and messages go through from here on.
                    drained
                        .take()
                        .into_iter()
                        .for_each(|drained| drained.send(()).unwrap());
                }
                polled
            });
            let Some(Envelope { source, mut message }) = next.await else {
                return;
            };
            passage.pass(ctx.node(), &source, &mut message).unwrap();
            ctx.forward(message).unwrap();
            ctx.flush().await;
        }
    };
    let one = Capacity {
        messages: 1,
        bytes: 1 << 20,
    };
    node.start_task(WorkerOptions::new("opens").capacity(one), opens)
        .unwrap();
    let sends = |mut ctx: Context| async move {
        let message = |number: u8| Message::new(route!["opens", "sink"], Route::new(), vec![number]);
        ctx.forward(message(1)).unwrap();
        ctx.forward(message(2)).unwrap();
        assert!(ctx.has_unsent());
        sometimes.opened.notify_one();
        is_drained.await.unwrap();
        ctx.forward(message(3)).unwrap();
        ctx.flush().await;
        let _ = ctx.next().await;
    };
    node.start_task("sends", sends).unwrap();
    for number in 1..=3 {
        let message: Routed<Vec<u8>> = timeout(LOST, sink.receive()).await.unwrap().unwrap();
        assert_eq!(message.payload()[0], number);
    }
    drop(sink);
    node.stop().await;
}
