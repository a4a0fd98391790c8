//! Sessions over connections that are cut, fall silent, or cannot be made.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Link, RelayNode, eventually, link, soon};
use parking_lot::Mutex;
use portolan_relay::{
    AllowEverybody, Connection, RegisterOptions, RelayName, RelayRequest, RelayServiceOptions,
    SessionMonitor, SessionSettings, SessionState, register,
};
use portolan_runtime::Node;

/// Closes a link when dropped, as a node closes its transport connection.
struct Closes(Arc<Link>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.cut();
    }
}

struct World {
    relay_node: RelayNode,
    target: Node,
    attempts: Arc<AtomicUsize>,
    reachable: Arc<AtomicBool>,
    /// The present link.
    link: Arc<Mutex<Option<Arc<Link>>>>,
}

fn quick() -> SessionSettings {
    SessionSettings {
        ping_interval: Duration::from_millis(40),
        first_delay: Duration::from_millis(10),
        longest_delay: Duration::from_millis(20),
        stable_after: Duration::ZERO,
        connect_timeout: Duration::from_millis(500),
        ..Default::default()
    }
}

impl World {
    fn new() -> Self {
        Self {
            relay_node: RelayNode::new(AllowEverybody, RelayServiceOptions::default()),
            target: Node::builder().arbiters(1).build().unwrap(),
            attempts: Arc::default(),
            reachable: Arc::new(AtomicBool::new(true)),
            link: Arc::default(),
        }
    }

    /// A session for a relay `blue` from the target to the relay node.
    fn session(&self, settings: SessionSettings) -> SessionMonitor {
        let (target, far, listener) = (
            self.target.clone(),
            self.relay_node.node.clone(),
            Arc::clone(&self.relay_node.listener),
        );
        let (attempts, reachable, present) = (
            Arc::clone(&self.attempts),
            Arc::clone(&self.reachable),
            Arc::clone(&self.link),
        );
        SessionMonitor::start(&self.target, settings, move || {
            attempts.fetch_add(1, Ordering::Relaxed);
            let up = reachable.load(Ordering::Relaxed);
            let made = up.then(|| Arc::new(link(&target, &far, &listener, Some(1))));
            *present.lock() = made.clone();
            let target = target.clone();
            async move {
                let link = made.ok_or("nobody listens there")?;
                let closes = Closes(Arc::clone(&link));
                let name = RelayRequest::Named(RelayName::new("blue").map_err(|_| "not a name")?);
                let relay = register(&target, &link.here, name, RegisterOptions::default())
                    .await
                    .map_err(|_| "not registered")?;
                let (lost, ended) = (relay.lost(), target.ended(&link.here));
                let ended = async move {
                    tokio::select! {
                        reason = lost => reason,
                        () = ended => "the connection has ended".to_owned(),
                    }
                };
                Ok::<_, &str>(Connection::new(&link.here, ended).keep((closes, relay)))
            }
        })
        .unwrap()
    }

    fn present(&self) -> Arc<Link> {
        self.link.lock().clone().unwrap()
    }
}

#[tokio::test]
async fn a_session_comes_up_and_measures_the_way() {
    let world = World::new();
    let session = world.session(SessionSettings {
        // However busy the machine that runs this is.
        unanswered_pings: 1000,
        ping_interval: Duration::from_millis(10),
        ..Default::default()
    });
    soon(session.up()).await.unwrap();
    let mut status = session.status();
    let measured = soon(status.wait_for(|status| status.round_trip.is_some()))
        .await
        .unwrap()
        .clone();
    assert_eq!(measured.state, SessionState::Up);
    assert_eq!(measured.reconnects, 0);
    assert!(measured.reason.is_none());
    // Many pings later it is the same path.
    for _ in 0..20 {
        soon(status.changed()).await.unwrap();
    }
    assert_eq!(session.current().reconnects, 0);
    assert_eq!(world.attempts.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_cut_connection_is_noticed_and_built_again_at_once() {
    let world = World::new();
    // Pings would take half a minute to notice it.
    let session = world.session(SessionSettings {
        stable_after: Duration::ZERO,
        ..Default::default()
    });
    soon(session.up()).await.unwrap();
    let collector = session.collector().clone();
    for round in 1..=5 {
        world.present().cut();
        let mut status = session.status();
        let again = soon(status.wait_for(|status| status.is_up() && status.reconnects == round)).await;
        assert!(again.unwrap().reason.is_some());
    }
    assert_eq!(*session.collector(), collector);
    assert!(
        world.target.has_worker(&collector),
        "the collector stays the same"
    );
    soon(async {
        while world.relay_node.table.counts().relays != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_path_that_falls_silent_is_given_up_and_closed() {
    let world = World::new();
    let session = world.session(quick());
    soon(session.up()).await.unwrap();
    let old = world.present();
    // The node at the other end answers no more, and the connection stays open.
    world.relay_node.node.stop_worker(&"echo".into()).unwrap();
    let mut status = session.status();
    let down = soon(status.wait_for(|status| status.reason.is_some()))
        .await
        .unwrap()
        .clone();
    assert_eq!(down.reason.as_deref(), Some("3 pings remained unanswered"));
    eventually("the old connection is closed", || {
        !world.target.has_worker(&old.here)
    })
    .await;
}

#[tokio::test]
async fn an_unreachable_node_is_tried_again_with_its_reason_shown() {
    let world = World::new();
    world.reachable.store(false, Ordering::Relaxed);
    let session = world.session(quick());
    let mut status = session.status();
    let down = soon(status.wait_for(|status| status.retry_at.is_some()))
        .await
        .unwrap()
        .clone();
    assert_eq!(down.state, SessionState::Down);
    assert_eq!(down.reason.as_deref(), Some("nobody listens there"));
    eventually("it is tried again", || {
        world.attempts.load(Ordering::Relaxed) >= 4
    })
    .await;
    world.reachable.store(true, Ordering::Relaxed);
    soon(session.up()).await.unwrap();
}

#[tokio::test]
async fn a_stopped_session_leaves_nothing_behind() {
    let world = World::new();
    for dropped in [false, true] {
        let session = world.session(quick());
        soon(session.up()).await.unwrap();
        if dropped {
            drop(session);
        } else {
            soon(session.stop()).await;
        }
        eventually("nothing is left on the target", || {
            world.target.workers().is_empty()
        })
        .await;
        eventually("the relay is gone", || world.relay_node.table.relays().is_empty()).await;
    }
}

#[tokio::test]
async fn an_attempt_that_never_ends_is_abandoned_with_what_it_has_opened() {
    let world = World::new();
    let (target, far, listener) = (
        world.target.clone(),
        world.relay_node.node.clone(),
        Arc::clone(&world.relay_node.listener),
    );
    let session = SessionMonitor::start(&world.target, quick(), move || {
        let closes = Closes(Arc::new(link(&target, &far, &listener, None)));
        async move {
            let _open = closes;
            std::future::pending::<Result<Connection, String>>().await
        }
    })
    .unwrap();
    let mut status = session.status();
    let down = soon(status.wait_for(|status| status.reason.is_some()))
        .await
        .unwrap()
        .clone();
    assert_eq!(
        down.reason.as_deref(),
        Some("there was no connection within 500ms")
    );
    soon(session.stop()).await;
    eventually("nothing is left", || world.target.workers().is_empty()).await;
}

#[tokio::test]
async fn a_session_without_hops_pings_its_own_node() {
    let world = World::new();
    let session = SessionMonitor::start(&world.relay_node.node, quick(), || async {
        Ok::<_, String>(Connection::new(
            portolan_runtime::Route::new(),
            std::future::pending(),
        ))
    })
    .unwrap();
    let mut status = session.status();
    soon(status.wait_for(|status| status.round_trip.is_some()))
        .await
        .unwrap();
    assert!(session.current().is_up());
}
