//! Workers in one node: sending, owning, stopping, refusing, waiting.

use std::time::Duration;

use portolan_runtime::services::{Echo, Hop, Uppercase};
use portolan_runtime::{
    AccessControl, Address, Capacity, Context, Envelope, Error, MailboxOptions, Message, Node, Payload,
    Processor, Refusal, Result, Route, Routed, Sealing, SendError, SyncWorker, Worker, WorkerOptions, route,
};

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

fn refusal(result: Result<()>) -> Refusal {
    match result {
        Err(Error::Send(SendError::Refused(refused))) => refused.reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn a_message_travels_over_hops_and_its_answer_comes_back_over_them() {
    let node = Node::new().unwrap();
    node.start_sync_worker("echo", Echo).unwrap();
    for hop in ["h1", "h2", "h3"] {
        node.start_sync_worker(hop, Hop).unwrap();
    }
    let answer: Routed<String> = node
        .send_and_receive(route!["h1", "h2", "h3", "echo"], "hello".to_owned())
        .await
        .unwrap();
    assert_eq!(answer.body().unwrap(), "hello");
    assert_eq!(*answer.return_route(), route!["h1", "h2", "h3", "echo"]);
    node.stop().await;
}

#[tokio::test]
async fn uppercase_answers_text_and_ignores_garbage() {
    let node = Node::new().unwrap();
    node.start_sync_worker("uppercase", Uppercase).unwrap();
    let answer: Routed<String> = node
        .send_and_receive("uppercase", "straße".to_owned())
        .await
        .unwrap();
    assert_eq!(answer.into_body().unwrap(), "STRASSE");
    let context = node.context("app").unwrap();
    let garbage = context
        .send_and_receive::<_, Vec<u8>>("uppercase", vec![9, 1])
        .await;
    assert!(matches!(garbage, Err(Error::Send(SendError::NotPassed(_)))));
    drop(context);
    node.stop().await;
}

#[tokio::test]
async fn an_address_is_used_once_and_free_again_after_stopping() {
    let node = Node::new().unwrap();
    node.start_sync_worker("echo", Echo).unwrap();
    assert!(matches!(
        node.start_sync_worker("echo", Echo),
        Err(Error::AddressInUse(_))
    ));
    node.stop_worker(&"echo".into()).unwrap();
    assert!(matches!(
        node.stop_worker(&"echo".into()),
        Err(Error::NoWorker(_))
    ));
    node.start_sync_worker("echo", Echo).unwrap();
    node.stop().await;
}

#[tokio::test]
async fn sending_to_nobody_is_an_error_and_not_a_silence() {
    let node = Node::new().unwrap();
    let mut app = node.context("app").unwrap();
    assert!(matches!(
        app.send("nobody", String::new()).await,
        Err(Error::Send(SendError::NotFound(address))) if address == "nobody".into()
    ));
    let tcp: Address = "1#127.0.0.1:4000".parse().unwrap();
    assert!(matches!(
        app.send(tcp, String::new()).await,
        Err(Error::Send(SendError::NotLocal(_)))
    ));
    assert!(matches!(
        app.send(Route::new(), String::new()).await,
        Err(Error::Send(SendError::NoRoute))
    ));
    drop(app);
    node.stop().await;
}

#[tokio::test]
async fn access_control_refuses_and_says_why() {
    let node = Node::new().unwrap();
    node.start_sync_worker(
        WorkerOptions::new("shy").incoming(AccessControl::only("friend")),
        Echo,
    )
    .unwrap();
    let mut stranger = node.context("stranger").unwrap();
    let refused = stranger.send("shy", String::new()).await;
    assert!(matches!(refusal(refused), Refusal::Incoming(_)));
    let mut friend = node.context("friend").unwrap();
    friend.send("shy", "hi".to_owned()).await.unwrap();
    let answer: Routed<String> = friend.receive().await.unwrap();
    assert_eq!(answer.body().unwrap(), "hi");
    let mut narrow = node
        .context(WorkerOptions::new("narrow").outgoing(AccessControl::only("friend")))
        .unwrap();
    let refused = narrow.send("shy", String::new()).await;
    assert!(matches!(refusal(refused), Refusal::Outgoing(_)));
    drop((stranger, friend, narrow));
    node.stop().await;
}

#[tokio::test]
async fn a_carried_record_reaches_only_who_opens_records_or_sends_them_on() {
    struct Swallow;
    impl SyncWorker for Swallow {
        fn handle(&mut self, _: &mut Context, _: Envelope) -> Result<()> {
            Ok(())
        }
    }
    let mailbox = |address: &str| {
        MailboxOptions::new(address)
            .incoming(AccessControl::AllowAll)
            .outgoing(AccessControl::AllowAll)
    };
    let node = Node::new().unwrap();
    node.start_sync_worker("ordinary", Swallow).unwrap();
    node.start_sync_worker(
        WorkerOptions::with_mailbox(mailbox("opener").opens_records()),
        Swallow,
    )
    .unwrap();
    node.start_sync_worker(
        WorkerOptions::with_mailbox(mailbox("leaving").terminal()),
        Swallow,
    )
    .unwrap();
    node.start_sync_worker("hop", Hop).unwrap();
    node.start_sync_worker("echo", Echo).unwrap();
    let send = async |onward: Route, sealing: Sealing| {
        let mut message = Message::new(onward, "opener", vec![1; 10]);
        message.payload.set_sealing(sealing);
        node.send_message(message).await
    };
    for (onward, allowed) in [
        (route!["opener"], true),
        (route!["leaving"], true),
        (route!["hop", "opener"], true),
        (route!["hop", "hop", "leaving"], true),
        (route!["ordinary"], false),
        (route!["hop", "ordinary"], false),
        (route!["echo"], false),
        (route!["hop", "echo"], false),
    ] {
        let sent = send(onward.clone(), Sealing::Carried).await;
        if allowed {
            assert!(sent.is_ok(), "{onward}");
        } else {
            assert_eq!(refusal(sent), Refusal::Record, "{onward}");
        }
        // What this node has sealed itself, or what is no record, goes everywhere.
        for sealing in [Sealing::Record, Sealing::Unknown] {
            assert!(send(onward.clone(), sealing).await.is_ok(), "{onward}");
        }
    }
    assert_eq!(
        node.refusals().records.load(std::sync::atomic::Ordering::Relaxed),
        4
    );
    node.stop().await;
}

#[tokio::test]
async fn what_comes_from_outside_reaches_consumers_only() {
    let node = Node::new().unwrap();
    node.start_sync_worker("echo", Echo).unwrap();
    node.start_sync_worker("uppercase", Uppercase).unwrap();
    let listener = node.new_flow(None);
    let connection = node.new_flow(Some(&listener));
    let mut outside = node.context("connection").unwrap();
    outside.set_producer(0, connection.clone());
    let refused = outside.send("echo", String::new()).await;
    assert!(matches!(refusal(refused), Refusal::FlowControl));
    node.add_consumer(&listener, &"echo".into());
    outside.send("echo", String::new()).await.unwrap();
    node.add_consumer(&connection, &"uppercase".into());
    outside.send("uppercase", String::new()).await.unwrap();
    node.stop_worker(&"echo".into()).unwrap();
    assert!(
        !connection.allows(&"echo".into()),
        "a worker that stops is no consumer any more"
    );
    drop(outside);
    node.stop().await;
}

struct Owner;

impl Worker for Owner {
    type Message = String;

    async fn initialize(&mut self, ctx: &mut Context) -> Result<()> {
        ctx.start_worker("child", Child)?;
        Ok(())
    }

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<String>) -> Result<()> {
        ctx.stop();
        ctx.send(message.return_route().clone(), "stopping".to_owned())
            .await
    }
}

struct Child;

impl Worker for Child {
    type Message = String;

    async fn initialize(&mut self, ctx: &mut Context) -> Result<()> {
        ctx.start_sync_worker("grandchild", Echo)?;
        Ok(())
    }

    async fn handle_message(&mut self, _: &mut Context, _: Routed<String>) -> Result<()> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn what_a_worker_owns_stops_with_it_even_in_the_middle_of_a_message() {
    let node = Node::new().unwrap();
    let before = node.workers().len();
    node.start_worker("owner", Owner).unwrap();
    eventually("the grandchild is there", || {
        node.has_worker(&"grandchild".into())
    })
    .await;
    node.send("child", "wait for ever".to_owned()).await.unwrap();
    let answer: Routed<String> = node.send_and_receive("owner", String::new()).await.unwrap();
    assert_eq!(answer.body().unwrap(), "stopping");
    eventually("all are gone", || node.workers().len() == before).await;
    assert!(node.addresses().is_empty());
    node.stop().await;
}

struct Slow;

impl SyncWorker for Slow {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let mut message = envelope.message;
        message.onward.step();
        ctx.forward(message)?;
        Ok(())
    }
}

#[tokio::test]
async fn a_full_mailbox_makes_senders_wait_and_loses_nothing() {
    let node = Node::builder().arbiters(2).build().unwrap();
    let mut sink = node
        .context(WorkerOptions::new("sink").capacity(Capacity {
            messages: 4,
            bytes: 1 << 20,
        }))
        .unwrap();
    node.start_sync_worker(
        WorkerOptions::new("slow").capacity(Capacity {
            messages: 4,
            bytes: 1 << 20,
        }),
        Slow,
    )
    .unwrap();
    let sender = node.clone();
    let sending = tokio::spawn(async move {
        let mut app = sender.context("app").unwrap();
        for i in 0u32..1000 {
            app.send_message(Message::new(
                route!["slow", "sink"],
                "app",
                i.to_be_bytes().as_slice(),
            ))
            .await
            .unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!sending.is_finished(), "the sender waits while nobody takes");
    assert!(node.waiting_at(&"sink".into()) <= 4);
    for i in 0u32..1000 {
        let message: Routed<Vec<u8>> = sink.receive().await.unwrap();
        assert_eq!(message.payload(), i.to_be_bytes());
    }
    sending.await.unwrap();
    drop(sink);
    node.stop().await;
}

struct Counter(u32);

impl Processor for Counter {
    async fn process(&mut self, ctx: &mut Context) -> Result<bool> {
        self.0 += 1;
        ctx.send("sink", self.0.to_string()).await?;
        Ok(self.0 < 3)
    }
}

#[tokio::test]
async fn a_processor_runs_until_it_says_so() {
    let node = Node::new().unwrap();
    let mut sink = node.context("sink").unwrap();
    node.start_processor("counter", Counter(0)).unwrap();
    for expected in ["1", "2", "3"] {
        let message: Routed<String> = sink.receive().await.unwrap();
        assert_eq!(message.body().unwrap(), expected);
    }
    eventually("the processor is gone", || !node.has_worker(&"counter".into())).await;
    drop(sink);
    node.stop().await;
}

struct Panics;

impl SyncWorker for Panics {
    fn handle(&mut self, _: &mut Context, _: Envelope) -> Result<()> {
        panic!("a worker with a bug");
    }
}

#[tokio::test]
async fn a_worker_that_panics_takes_nobody_with_it() {
    let node = Node::builder().arbiters(1).build().unwrap();
    node.start_sync_worker("echo", Echo).unwrap();
    node.start_sync_worker("bug", Panics).unwrap();
    node.send("bug", String::new()).await.unwrap();
    eventually("the worker is gone", || !node.has_worker(&"bug".into())).await;
    let answer: Routed<String> = node
        .send_and_receive("echo", "still here".to_owned())
        .await
        .unwrap();
    assert_eq!(answer.body().unwrap(), "still here");
    node.stop().await;
}

#[tokio::test]
async fn two_nodes_live_in_one_process() {
    let (one, two) = (Node::new().unwrap(), Node::new().unwrap());
    one.start_sync_worker("echo", Echo).unwrap();
    two.start_sync_worker("echo", Echo).unwrap();
    one.stop().await;
    let answer: Routed<Vec<u8>> = two.send_and_receive("echo", vec![1]).await.unwrap();
    assert_eq!(answer.payload(), [1]);
    two.stop().await;
    assert!(matches!(two.start_sync_worker("late", Echo), Err(Error::Stopped)));
}

#[test]
fn a_node_works_from_synchronous_code() {
    let node = Node::new().unwrap();
    node.start_sync_worker("echo", Echo).unwrap();
    let handle = node.clone();
    let length = node
        .block_on(move || async move {
            handle
                .send_and_receive::<_, Payload>("echo", vec![0; 10])
                .await
                .map(|answer| answer.payload().len())
        })
        .unwrap()
        .unwrap();
    assert_eq!(length, 10);
    node.stop_blocking();
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answers_delays_nobody_else() {
    let node = Node::new().unwrap();
    node.start_sync_worker("echo", Echo).unwrap();
    let small = Capacity {
        messages: 2,
        bytes: 1 << 20,
    };
    let lazy = node.context(WorkerOptions::new("lazy").capacity(small)).unwrap();
    let sender = node.clone();
    let stuck = tokio::spawn(async move {
        let mut sender = sender.context("sender").unwrap();
        for _ in 0..100 {
            sender
                .send_message(Message::new("echo", "lazy", [1u8].as_slice()))
                .await
                .unwrap();
        }
    });
    eventually("the lazy one's mailbox is full", || {
        node.waiting_at(&"lazy".into()) == 2
    })
    .await;
    for i in 0..100u8 {
        let answer: Routed<Vec<u8>> = node.send_and_receive("echo", vec![i]).await.unwrap();
        assert_eq!(answer.payload(), [i]);
    }
    assert!(!stuck.is_finished());
    drop(lazy);
    let _ = stuck.await;
    node.stop().await;
}

#[tokio::test]
async fn a_circle_of_passages_is_found_out() {
    let node = Node::new().unwrap();
    node.start_sync_worker(
        "a",
        portolan_runtime::services::Strip {
            replacement: route!["a", "a"],
        },
    )
    .unwrap();
    let mut app = node.context("app").unwrap();
    let circle = app.send("a", String::new()).await;
    assert!(matches!(circle, Err(Error::Send(SendError::NotPassed(_)))));
    drop(app);
    node.stop().await;
    assert!(node.workers().is_empty());
}

#[test]
fn what_is_placed_aside_shares_no_thread_with_what_is_not() {
    use portolan_runtime::{Placement, WorkerOptions};
    let node = portolan_runtime::Node::builder()
        .arbiters(2)
        .aside_arbiters(2)
        .build()
        .unwrap();
    let place = |name: &str, placement| {
        let thread = std::sync::mpsc::channel();
        node.start_task(
            WorkerOptions::new(name).placement(placement),
            move |_| async move {
                thread.0.send(std::thread::current().id()).unwrap();
            },
        )
        .unwrap();
        thread.1.recv().unwrap()
    };
    let data = [place("a", Placement::Next), place("b", Placement::Next)];
    let aside = [
        place("c", Placement::Aside),
        place("d", Placement::Aside),
        place("e", Placement::Aside),
    ];
    assert!(!data.contains(&aside[0]) && !data.contains(&aside[1]));
    assert_ne!(aside[0], aside[1]);
    assert_eq!(aside[0], aside[2]);
    node.stop_blocking();
}

#[test]
fn nodes_that_share_an_arbiter_share_its_thread_and_leave_it_as_it_was() {
    let runner = actix::System::new();
    runner.block_on(async {
        let here = std::thread::current().id();
        let nodes: Vec<_> = (0..3)
            .map(|_| Node::builder().on_current_arbiter().build().unwrap())
            .collect();
        for node in &nodes {
            node.start_sync_worker("echo", Echo).unwrap();
            let (told, thread) = tokio::sync::oneshot::channel();
            node.start_task("where", move |_ctx| async move {
                let _ = told.send(std::thread::current().id());
            })
            .unwrap();
            assert_eq!(thread.await.unwrap(), here);
            assert_eq!(
                node.run_blocking(|| std::thread::current().id()).await,
                Some(here)
            );
            let answer: Routed<String> = node.send_and_receive("echo", "hello".to_owned()).await.unwrap();
            assert_eq!(answer.into_body().unwrap(), "hello");
            // It would wait for itself.
            let error = node.block_on(|| async {}).unwrap_err();
            assert!(error.to_string().contains("wait for itself"), "{error}");
        }
        nodes[0].stop().await;
        assert!(nodes[0].workers().is_empty());
        assert!(nodes[1].has_worker(&"echo".into()), "the others go on");
        nodes[1].stop().await;
        nodes[2].stop().await;
    });
}

#[test]
fn a_thread_that_is_no_arbiter_cannot_be_a_nodes_arbiter() {
    let error = std::thread::spawn(|| Node::builder().on_current_arbiter().build().unwrap_err())
        .join()
        .unwrap();
    assert!(error.to_string().contains("no arbiter"), "{error}");
}
