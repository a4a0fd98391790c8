//! How much of a channel is on its way, in simulated time.

mod common;

use std::time::Duration;

use common::*;
use portolan_runtime::services::Hop;
use portolan_runtime::{Address, Context, Message, Result, Route, Routed, Worker, WorkerOptions, route};
use portolan_secure_channel::{ChannelOptions, ListenerOptions, window};
use portolan_simulated::{Connection, Link, Network, SimulatedNode, run};
use tokio::time::timeout;

/// Two nodes with a third one between them.
struct Line {
    a: Party,
    b: Party,
    between: SimulatedNode,
    connection: Connection,
    to_b: Connection,
}

impl Line {
    async fn new(network: &Network, at_b: impl FnOnce(ChannelOptions) -> ChannelOptions) -> Self {
        let [a, between, b] = ["a", "between", "b"].map(|name| network.node(name));
        let far = b.listen();
        let (a, b) = (Party::on(&a), Party::on(&b));
        let listener = b.listen_with(ListenerOptions::new(at_b(b.options())));
        listener.accept_from(far.flow());
        between.start_sync_worker("hop", Hop).unwrap();
        between.add_consumer(between.listen().flow(), &"hop".into());
        let to_b = between.connect("b").await.unwrap();
        between.add_consumer(to_b.flow(), &"hop".into());
        let connection = network.node("a").connect("between").await.unwrap();
        Self {
            a,
            b,
            between,
            connection,
            to_b,
        }
    }

    fn route(&self) -> Route {
        route![self.connection.sender(), "hop", self.to_b.sender(), "api"]
    }
}

/// Somebody at the other end who counts what comes.
fn counter(party: &Party) -> Context {
    let counter = party.node.context(WorkerOptions::new("counter")).unwrap();
    for channel in party.channels.list() {
        let flow = party.node.flow_of(&channel.encryptor).unwrap();
        party.node.add_consumer(&flow, &"counter".into());
    }
    counter
}

#[test]
fn there_is_a_window_where_somebody_lies_between_and_both_ends_want_it() {
    type Wants = fn(ChannelOptions) -> ChannelOptions;
    let (with, without): (Wants, Wants) = (|options| options, |options| options.windows(false));
    let cases = [(with, with, true), (with, without, false), (without, with, false)];
    for (here, there, agreed) in cases {
        run(1, async |network| {
            let line = Line::new(&network, there).await;
            let options = here(line.a.options());
            let channel = line.a.channels.create(line.route(), options).await.unwrap();
            let answer = echo(&line.a.node, through(channel.address(), &["echo"]), "x").await;
            assert_eq!(answer.as_deref(), Some("x"));
            let expected = agreed.then_some(window::LEAST);
            assert_eq!(channel.info().window, expected);
            assert_eq!(line.b.channels.list()[0].window, expected);
        });
    }
    run(1, async |network| {
        let (near, far) = (network.node("a"), network.node("b"));
        let (a, b) = (Party::on(&near), Party::on(&far));
        b.listen().accept_from(far.listen().flow());
        let connection = near.connect("b").await.unwrap();
        let direct = route![connection.sender(), "api"];
        let channel = a.channels.create(direct, a.options()).await.unwrap();
        assert_eq!(channel.info().window, None, "nobody lies between");
    });
}

#[test]
fn no_more_than_a_window_is_on_its_way_to_who_takes_nothing_and_all_arrives_in_order_afterwards() {
    const MESSAGE: usize = 60_000;
    const MESSAGES: u32 = 400;
    run(2, async |network| {
        network.usual_link(Link {
            latency: Duration::from_millis(5),
            ..Link::default()
        });
        let line = Line::new(&network, |options| options).await;
        let channel = line
            .a
            .channels
            .create(line.route(), line.a.options())
            .await
            .unwrap();
        let open = echo(&line.a.node, through(channel.address(), &["echo"]), "x").await;
        assert!(open.is_some());
        let mut counter = counter(&line.b);
        let to = route![channel.address(), "counter"];
        network.partition("between", "b");
        let mut sender = line.a.node.context(Address::random()).unwrap();
        let sending = tokio::task::spawn_local(async move {
            for number in 0..MESSAGES {
                let mut body = number.to_be_bytes().to_vec();
                body.resize(MESSAGE, 7);
                let message = Message::new(&to, Route::new(), body);
                sender.send_message(message).await.unwrap();
            }
        });
        network.sleep(Duration::from_secs(20)).await;
        assert!(!sending.is_finished(), "nobody has had to wait");
        let sent = channel.info().sent_bytes;
        assert!(sent <= window::LEAST + MESSAGE as u64, "{sent}");
        assert!(channel.is_open() && line.to_b.is_open());
        network.heal("between", "b");
        for number in 0..MESSAGES {
            let body = counter.next().await.unwrap().message.payload.to_vec();
            assert_eq!(body.len(), MESSAGE);
            assert_eq!(body[..4], number.to_be_bytes());
        }
        sending.await.unwrap();
        drop(line.between);
    });
}

#[test]
fn an_end_that_waits_for_room_still_says_what_has_arrived() {
    const MESSAGE: usize = 60_000;
    run(3, async |network| {
        let line = Line::new(&network, |options| options).await;
        let channel = line
            .a
            .channels
            .create(line.route(), line.a.options())
            .await
            .unwrap();
        let mut asker = line.a.node.context(Address::random()).unwrap();
        channel.add_consumer(asker.address());
        // Both directions at once, each many windows long, with answers that wait behind one another.
        let to = route![channel.address(), "echo"];
        let own = asker.address().clone();
        let mut sender = line.a.node.context(Address::random()).unwrap();
        let sending = tokio::task::spawn_local(async move {
            for number in 0..200_u8 {
                let message = Message::new(&to, Route::from(&own), vec![number; MESSAGE]);
                sender.send_message(message).await.unwrap();
            }
        });
        for number in 0..200_u8 {
            let body = asker.next().await.unwrap().message.payload.to_vec();
            assert_eq!((body.len(), body[0]), (MESSAGE, number));
        }
        sending.await.unwrap();
    });
}

/// Answers with much more than it is asked for. While the window is closed it waits, and who brings it messages waits for it: the
/// connection, which brings the receipts, too.
struct Talkative;

impl Worker for Talkative {
    type Message = Vec<u8>;

    async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Vec<u8>>) -> Result<()> {
        let number = message.payload()[0];
        let answer = Message::new(message.return_route(), Route::new(), vec![number; 60_000]);
        ctx.send_message(answer).await
    }
}

#[test]
fn answers_that_wait_for_a_window_do_not_keep_the_receipts_back_that_open_it() {
    const REQUESTS: usize = 2_000;
    run(4, async |network| {
        let line = Line::new(&network, |options| options).await;
        let channel = line
            .a
            .channels
            .create(line.route(), line.a.options())
            .await
            .unwrap();
        let open = echo(&line.a.node, through(channel.address(), &["echo"]), "x").await;
        assert!(open.is_some());
        line.b.node.start_worker("talkative", Talkative).unwrap();
        for channel in line.b.channels.list() {
            let flow = line.b.node.flow_of(&channel.encryptor).unwrap();
            line.b.node.add_consumer(&flow, &"talkative".into());
        }
        let mut asker = line.a.node.context(Address::random()).unwrap();
        channel.add_consumer(asker.address());
        let to = route![channel.address(), "talkative"];
        let own = asker.address().clone();
        let mut sender = line.a.node.context(Address::random()).unwrap();
        let sending = tokio::task::spawn_local(async move {
            for number in 0..REQUESTS {
                let message = Message::new(&to, Route::from(&own), vec![number as u8; 100]);
                sender.send_message(message).await.unwrap();
            }
        });
        for number in 0..REQUESTS {
            let answer = timeout(Duration::from_secs(60), asker.next()).await;
            let body = answer
                .expect("the answers have come to a stop")
                .unwrap()
                .message
                .payload
                .to_vec();
            assert_eq!((body.len(), body[0]), (60_000, number as u8));
        }
        sending.await.unwrap();
    });
}
