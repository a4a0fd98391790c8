//! Several nodes in one process, joined by a stand-in for a transport.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part.

use std::sync::Arc;
use std::time::Duration;

use portolan_relay::{RelayAuthority, RelayService, RelayServiceOptions, RelayTable};
use portolan_runtime::services::Echo;
use portolan_runtime::{
    AccessControl, Address, Body, Context, Flow, MailboxOptions, Message, Node, Payload, Peer,
    PeerIdentifier, Route, WorkerOptions,
};
use tokio::sync::mpsc;

/// Waits for something that is about to happen.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 5 s: {what}");
}

/// What is waited for must happen within five seconds.
pub async fn soon<F: Future>(future: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(5), future).await {
        Ok(output) => output,
        Err(_) => panic!("it does not happen within 5 s"),
    }
}

type Wire = (Route, Route, Vec<u8>);

/// A connection between two nodes.
pub struct Link {
    /// The address on the first node that leads to the second.
    pub here: Address,
    /// The address on the second node that leads to the first.
    pub there: Address,
    nodes: [Node; 2],
}

impl Link {
    /// Ends the connection, as the transports at both ends notice it.
    pub fn cut(&self) {
        let _ = self.nodes[0].stop_worker(&self.here);
        let _ = self.nodes[1].stop_worker(&self.there);
    }
}

/// Joins two nodes. What comes out of the first is known to the second as from `peer`.
pub fn link(from: &Node, to: &Node, listener: &Arc<Flow>, peer: Option<u8>) -> Link {
    let (send, to_receives) = mpsc::channel(1024);
    let (to_sends, receive) = mpsc::channel(1024);
    let here = end(from, from.new_flow(None), send, receive, None);
    let flow = to.new_flow(Some(listener));
    let there = end(to, flow, to_sends, to_receives, peer);
    Link {
        here,
        there,
        nodes: [from.clone(), to.clone()],
    }
}

fn end(
    node: &Node,
    flow: Arc<Flow>,
    send: mpsc::Sender<Wire>,
    mut receive: mpsc::Receiver<Wire>,
    peer: Option<u8>,
) -> Address {
    let sender = Address::random();
    let options = WorkerOptions::with_mailbox(
        MailboxOptions::new(&sender)
            .incoming(AccessControl::AllowAll)
            .terminal()
            .flow_alias(Arc::clone(&flow)),
    )
    .mailbox(
        MailboxOptions::new(Address::random())
            .outgoing(AccessControl::AllowAll)
            .producer(flow),
    );
    let peer = peer.map(|number| {
        Arc::new(Peer {
            identifier: PeerIdentifier([number; 32]),
            channel: sender.clone(),
        })
    });
    let own = sender.clone();
    node.start_task(options, move |mut ctx| async move {
        loop {
            tokio::select! {
                envelope = ctx.next() => {
                    let Some(envelope) = envelope else { return };
                    let mut message = envelope.message;
                    message.onward.step();
                    let wire = (message.onward, message.back, message.payload.to_vec());
                    if send.send(wire).await.is_err() {
                        return;
                    }
                }
                wire = receive.recv() => {
                    let Some((onward, back, payload)) = wire else { return };
                    let mut message = Message::new(onward, back, payload);
                    message.back.prepend(own.clone());
                    message.local.peer = peer.clone();
                    if !message.onward.is_empty() {
                        let _ = ctx.forward_from(1, message);
                        ctx.flush().await;
                    }
                }
            }
        }
    })
    .unwrap();
    sender
}

/// A node that can be reached by everybody, with a relay service and `echo`.
pub struct RelayNode {
    pub node: Node,
    pub listener: Arc<Flow>,
    pub table: RelayTable,
}

impl RelayNode {
    pub fn new(authority: impl RelayAuthority, options: RelayServiceOptions) -> Self {
        let node = Node::builder().arbiters(2).build().unwrap();
        let listener = node.new_flow(None);
        let options = RelayServiceOptions {
            reachable_from: vec![Arc::clone(&listener)],
            ..options
        };
        let table = RelayService::start(&node, authority, options).unwrap();
        node.start_sync_worker("echo", Echo).unwrap();
        node.add_consumer(&listener, &"echo".into());
        Self {
            node,
            listener,
            table,
        }
    }

    /// A node with a connection to this one, authenticated as `peer`.
    pub fn connected(&self, peer: Option<u8>) -> (Node, Link) {
        let node = Node::builder().arbiters(1).build().unwrap();
        let link = link(&node, &self.node, &self.listener, peer);
        (node, link)
    }
}

/// A worker of a peer's that sends and receives raw messages over a connection.
pub struct Raw {
    pub ctx: Context,
    link: Address,
}

impl Raw {
    pub fn new(node: &Node, link: &Link) -> Self {
        let ctx = node.context(Address::random()).unwrap();
        node.add_consumer(&node.flow_of(&link.here).unwrap(), ctx.address());
        Self {
            ctx,
            link: link.here.clone(),
        }
    }

    /// Sends along a route that begins behind the connection.
    pub async fn send_from(&mut self, back: impl Into<Route>, onward: Route, payload: impl Into<Payload>) {
        let mut route = Route::from(&self.link);
        route.extend(&onward);
        let message = Message::new(route, back, payload);
        self.ctx.send_message(message).await.unwrap();
    }

    pub async fn send(&mut self, onward: Route, payload: impl Into<Payload>) {
        let back = self.ctx.address().clone();
        self.send_from(back, onward, payload).await;
    }

    pub async fn next(&mut self) -> Message {
        soon(self.ctx.next()).await.unwrap().message
    }

    /// Shows that nothing has arrived: what was sent last on the same way has been answered by then.
    pub async fn nothing(&mut self) {
        self.send(Route::from("echo"), b"marker".as_slice()).await;
        assert_eq!(self.next().await.payload.as_slice(), b"marker");
    }

    pub async fn text(&mut self) -> String {
        String::decode(self.next().await.payload.as_slice()).unwrap()
    }
}

pub fn text(text: &str) -> Payload {
    text.to_owned().encode()
}
