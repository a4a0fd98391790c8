//! Sessions over connections that are cut, fall silent, or cannot be made, with the times that a node has, in simulated time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use portolan_relay::{
    AllowEverybody, Connection, RegisterOptions, RelayName, RelayRequest, RelayService, RelayServiceOptions,
    RelayTable, SessionMonitor, SessionSettings, SessionState, register,
};
use portolan_runtime::Route;
use portolan_runtime::services::Echo;
use portolan_simulated::{Network, SimulatedNode, run};

struct World {
    network: Network,
    relay_node: SimulatedNode,
    table: RelayTable,
    target: SimulatedNode,
    attempts: Arc<AtomicUsize>,
    /// The present connection.
    connection: Arc<Mutex<Option<portolan_simulated::Connection>>>,
}

impl World {
    fn new(network: Network) -> Self {
        let relay_node = network.node("relay");
        let listener = relay_node.listen();
        relay_node.start_sync_worker("echo", Echo).unwrap();
        relay_node.add_consumer(listener.flow(), &"echo".into());
        let options = RelayServiceOptions {
            reachable_from: vec![Arc::clone(listener.flow())],
            ..Default::default()
        };
        Self {
            table: RelayService::start(&relay_node, AllowEverybody, options).unwrap(),
            relay_node,
            target: network.node("target"),
            network,
            attempts: Arc::default(),
            connection: Arc::default(),
        }
    }

    /// A session for a relay `blue` from the target to the relay node.
    fn session(&self) -> SessionMonitor {
        let (target, attempts, present) = (
            self.target.clone(),
            Arc::clone(&self.attempts),
            Arc::clone(&self.connection),
        );
        SessionMonitor::start(&self.target, SessionSettings::default(), move || {
            attempts.fetch_add(1, Ordering::Relaxed);
            let (target, present) = (target.clone(), Arc::clone(&present));
            async move {
                let connection = target.connect("relay").await.map_err(|error| error.to_string())?;
                let closes = connection.close_on_drop();
                *present.lock() = Some(connection.clone());
                let name = RelayRequest::Named(RelayName::new("blue").map_err(|error| error.to_string())?);
                let relay = register(&target, connection.sender(), name, RegisterOptions::default())
                    .await
                    .map_err(|error| error.to_string())?;
                let (lost, ended) = (relay.lost(), connection.ended());
                let ended = async move {
                    tokio::select! {
                        biased;
                        reason = lost => reason,
                        () = ended => "the connection has ended".to_owned(),
                    }
                };
                Ok::<_, String>(Connection::new(connection.sender(), ended).keep((closes, relay)))
            }
        })
        .unwrap()
    }

    fn present(&self) -> portolan_simulated::Connection {
        self.connection.lock().clone().unwrap()
    }

    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::Relaxed)
    }
}

#[test]
fn a_session_comes_up_and_measures_the_way() {
    run(1, async |network| {
        let world = World::new(network);
        let session = world.session();
        session.up().await.unwrap();
        let mut status = session.status();
        let measured = status
            .wait_for(|status| status.round_trip.is_some())
            .await
            .unwrap()
            .clone();
        assert_eq!(measured.state, SessionState::Up);
        assert_eq!(measured.round_trip, Some(Duration::from_millis(20)));
        assert_eq!(measured.reconnects, 0);
        assert!(measured.reason.is_none());
        // Many pings later it is the same path.
        for _ in 0..20 {
            status.changed().await.unwrap();
        }
        assert_eq!(session.current().reconnects, 0);
        assert_eq!(world.attempts(), 1);
    });
}

#[test]
fn a_cut_connection_is_noticed_and_built_again_at_once() {
    run(1, async |network| {
        let world = World::new(network);
        let session = world.session();
        session.up().await.unwrap();
        let collector = session.collector().clone();
        for round in 1..=5 {
            // It was a good one.
            world.network.sleep(Duration::from_secs(11)).await;
            let begun = world.network.now();
            world.present().close();
            let mut status = session.status();
            let again = status
                .wait_for(|status| status.is_up() && status.reconnects == round)
                .await;
            assert!(again.unwrap().reason.is_some());
            // A round trip for the connection and one for the registration: pings would take half a minute to notice.
            assert_eq!(world.network.now() - begun, Duration::from_millis(40));
        }
        assert_eq!(*session.collector(), collector);
        assert!(
            world.target.has_worker(&collector),
            "the collector stays the same"
        );
        let one = || world.table.counts().relays == 1;
        world.network.eventually("there is one relay", one).await;
    });
}

#[test]
fn a_path_that_falls_silent_is_given_up_and_closed() {
    run(1, async |network| {
        let world = World::new(network);
        let session = world.session();
        session.up().await.unwrap();
        let old = world.present();
        // The node at the other end answers no more, and the connection stays open.
        world.relay_node.stop_worker(&"echo".into()).unwrap();
        let begun = world.network.now();
        let mut status = session.status();
        let down = status
            .wait_for(|status| status.reason.is_some())
            .await
            .unwrap()
            .clone();
        assert_eq!(down.reason.as_deref(), Some("3 pings remained unanswered"));
        // The fourth is due 30 s after the first of them, and that was sent up to 10 s later.
        let took = world.network.now() - begun;
        assert!(
            took >= Duration::from_secs(30) && took <= Duration::from_secs(40),
            "{took:?}"
        );
        let closed = || !world.target.has_worker(old.sender());
        world
            .network
            .eventually("the old connection is closed", closed)
            .await;
    });
}

#[test]
fn an_unreachable_node_is_tried_again_with_its_reason_shown() {
    run(1, async |network| {
        let world = World::new(network);
        world.relay_node.stop_listening();
        let session = world.session();
        let mut status = session.status();
        let down = status
            .wait_for(|status| status.retry_at.is_some())
            .await
            .unwrap()
            .clone();
        assert_eq!(down.state, SessionState::Down);
        assert_eq!(down.reason.as_deref(), Some("relay refuses connections"));
        world
            .network
            .eventually("it is tried again", || world.attempts() >= 4)
            .await;
        let listener = world.relay_node.listen();
        for service in ["echo", "forwarding_service", "static_forwarding_service"] {
            world.relay_node.add_consumer(listener.flow(), &service.into());
        }
        let begun = world.network.now();
        session.up().await.unwrap();
        assert!(world.network.now() - begun <= Duration::from_secs(11));
    });
}

#[test]
fn a_stopped_session_leaves_nothing_behind() {
    run(1, async |network| {
        let world = World::new(network);
        let before = world.network.census();
        for dropped in [false, true] {
            let session = world.session();
            session.up().await.unwrap();
            if dropped {
                drop(session);
            } else {
                session.stop().await;
            }
            world.network.returns_to(&before).await;
            assert!(world.table.relays().is_empty());
        }
    });
}

#[test]
fn an_attempt_that_never_ends_is_abandoned_with_what_it_has_opened() {
    run(1, async |network| {
        let world = World::new(network);
        let before = world.network.census();
        let target = world.target.clone();
        let session = SessionMonitor::start(&world.target, SessionSettings::default(), move || {
            let target = target.clone();
            async move {
                let connection = target.connect("relay").await.map_err(|error| error.to_string())?;
                let _open = connection.close_on_drop();
                std::future::pending::<Result<Connection, String>>().await
            }
        })
        .unwrap();
        let mut status = session.status();
        let down = status
            .wait_for(|status| status.reason.is_some())
            .await
            .unwrap()
            .clone();
        assert_eq!(down.reason.as_deref(), Some("there was no connection within 45s"));
        assert_eq!(world.network.now(), Duration::from_secs(45));
        session.stop().await;
        world.network.returns_to(&before).await;
    });
}

#[test]
fn a_session_without_hops_pings_its_own_node() {
    run(1, async |network| {
        let world = World::new(network);
        let session = SessionMonitor::start(&world.relay_node, SessionSettings::default(), || async {
            Ok::<_, String>(Connection::new(Route::new(), std::future::pending()))
        })
        .unwrap();
        let mut status = session.status();
        status
            .wait_for(|status| status.round_trip.is_some())
            .await
            .unwrap();
        assert!(session.current().is_up());
    });
}
