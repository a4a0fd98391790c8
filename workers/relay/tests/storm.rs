//! Peers that register, replace, send garbage and go, in every order: the relay node stays consistent.

mod common;

use common::{Link, RelayNode, eventually, link};
use portolan_relay::{AllowEverybody, RelayServiceOptions};
use portolan_runtime::{Address, Message, Node, Payload, Route};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const PEERS: usize = 4;
const PER_PEER: usize = 3;
const TOTAL: usize = 8;

#[derive(Debug, Clone)]
enum Step {
    Register { peer: usize, name: u8 },
    Garbage { peer: usize, payload: Vec<u8>, hops: u8 },
    Through { peer: usize, name: u8 },
    Cut { peer: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 0..PEERS;
    prop_oneof![
        5 => (peer.clone(), 0..10u8).prop_map(|(peer, name)| Step::Register { peer, name }),
        2 => (peer.clone(), proptest::collection::vec(any::<u8>(), 0..50), 0..20u8)
            .prop_map(|(peer, payload, hops)| Step::Garbage { peer, payload, hops }),
        2 => (peer.clone(), 0..10u8).prop_map(|(peer, name)| Step::Through { peer, name }),
        1 => peer.prop_map(|peer| Step::Cut { peer }),
    ]
}

struct World {
    relay_node: RelayNode,
    peers: Node,
    links: Vec<Link>,
}

impl World {
    fn link(&self, peer: usize) -> Link {
        // Two with an identity, two without.
        let identity = (peer < 2).then_some(peer as u8);
        link(
            &self.peers,
            &self.relay_node.node,
            &self.relay_node.listener,
            identity,
        )
    }

    async fn send(&self, peer: usize, to: &str, back: Route, payload: impl Into<Payload>) {
        let onward = [self.links[peer].here.clone(), Address::from(to)];
        let message = Message::new(onward, back, payload);
        self.peers.send_message(message).await.unwrap();
    }

    /// Waits until what was sent before over this connection has been delivered.
    async fn settle(&self, peer: usize) {
        let route = [self.links[peer].here.clone(), Address::from("echo")];
        let answer = self.peers.send_and_receive::<_, Vec<u8>>(route, Vec::new()).await;
        assert!(answer.is_ok());
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Register { peer, name } => {
                let payload = common::text(&format!("n{name}"));
                self.send(peer, "static_forwarding_service", "w".into(), payload)
                    .await;
            }
            Step::Garbage { peer, payload, hops } => {
                let back = (0..hops).map(|hop| Address::new(hop % 3, b"hop")).collect();
                self.send(peer, "forwarding_service", back, payload).await;
            }
            Step::Through { peer, name } => {
                let relay = format!("forward_to_n{name}");
                self.send(peer, &relay, "w".into(), b"x".as_slice()).await;
            }
            Step::Cut { peer } => {
                self.links[peer].cut();
                self.links[peer] = self.link(peer);
            }
        }
        let relays = self.relay_node.table.relays();
        assert!(relays.len() <= TOTAL);
        for relay in &relays {
            let owned = relays.iter().filter(|other| other.owner == relay.owner).count();
            assert!(owned <= PER_PEER, "{} has {owned}", relay.owner);
        }
    }
}

#[test]
fn whatever_peers_do_the_table_and_the_workers_agree_and_nothing_stays() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let registered = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config::with_cases(24));
    runner
        .run(&proptest::collection::vec(step(), 1..120), |steps| {
            runtime.block_on(async {
                let options = RelayServiceOptions {
                    relays_per_peer: PER_PEER,
                    relays: TOTAL,
                    ..Default::default()
                };
                let mut world = World {
                    relay_node: RelayNode::new(AllowEverybody, options),
                    peers: Node::builder().arbiters(1).build().unwrap(),
                    links: Vec::new(),
                };
                let before = world.relay_node.node.workers();
                world.links = (0..PEERS).map(|peer| world.link(peer)).collect();
                for step in steps {
                    world.run(step).await;
                }
                for peer in 0..PEERS {
                    world.settle(peer).await;
                }
                registered.set(registered.get() + world.relay_node.table.counts().registered);
                let (node, table) = (world.relay_node.node.clone(), world.relay_node.table.clone());
                let is_relay = |address: &Address| address.as_bytes().starts_with(b"forward_to_");
                eventually("the table and the workers agree", || {
                    let listed: Vec<Address> =
                        table.relays().iter().map(|relay| relay.name.address()).collect();
                    listed == node.addresses().into_iter().filter(is_relay).collect::<Vec<_>>()
                })
                .await;
                world.links.iter().for_each(Link::cut);
                eventually("nothing stays", || {
                    node.workers() == before && table.relays().is_empty()
                })
                .await;
                node.stop().await;
                world.peers.stop().await;
            });
            Ok(())
        })
        .unwrap();
    assert!(
        registered.get() > 100,
        "{} registrations are no storm",
        registered.get()
    );
}
