//! An inlet with several paths side by side: load is spread over them, and one that breaks takes nothing with it but its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use portolan_tests::project::{UP_LIMIT, free_address};
use portolan_tests::service::{ask, connect, echoes, end_of};
use portolan_tests::{Home, Member, Project, Service, eventually};
use serde_json::Value;

/// A connection whose path ends is closed within this time.
const CLOSED: Duration = Duration::from_secs(5);

struct Cast {
    project: Project,
    bank: Home,
    bank_address: SocketAddr,
    analysis: Member,
    service: Service,
}

/// A bank that can be connected to directly, and a member that may use its outlet.
fn cast() -> Cast {
    let service = Service::echo();
    let project = Project::start();
    let bank_address = free_address();
    let bank = project.home_of_a_bank_at(bank_address, service.address);
    let analysis = project.member("analysis", &["--attribute", "role=client"]);
    let allow = r#"(= subject.role "service")"#;
    analysis.home.ok([
        "policy",
        "create",
        "--resource-type",
        "tcp-inlet",
        "--allow",
        allow,
    ]);
    Cast {
        project,
        bank,
        bank_address,
        analysis,
        service,
    }
}

impl Cast {
    fn route(&self) -> String {
        format!(
            "/ip4/127.0.0.1/tcp/{}/secure/api/service/outlet",
            self.bank_address.port()
        )
    }

    /// Of each path: whether it is up, and how many connections it has.
    fn stripes(&self) -> Vec<(bool, u64)> {
        let shown = self.analysis.show_inlet("inlet");
        let stripes = shown["stripes"].as_array().unwrap();
        let of = |stripe: &Value| (stripe["status"] == "Up", stripe["connections"].as_u64().unwrap());
        stripes.iter().map(of).collect()
    }

    /// The TCP connections to the bank.
    fn connections(&self) -> BTreeSet<String> {
        let listed = self.analysis.home.json(["tcp-connection", "list"]);
        let to = self.bank_address.to_string();
        let all = listed.as_array().unwrap().iter();
        all.filter(|one| one["to"] == to.as_str())
            .map(|one| one["address"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn connections_are_spread_over_the_paths_and_a_dead_path_is_replaced_without_hurting_the_others() {
    let cast = cast();
    let inlet = cast
        .analysis
        .inlet("inlet", &["--to", &cast.route(), "--stripes", "3"]);
    eventually("all paths are up", UP_LIMIT, || {
        cast.stripes() == [(true, 0), (true, 0), (true, 0)]
    });
    let before = cast.connections();
    assert_eq!(before.len(), 3, "each path has a connection of its own");

    let mut clients: Vec<_> = (0..6).map(|_| connect(inlet)).collect();
    for client in &mut clients {
        assert_eq!(ask(client, b"hello").unwrap(), b"hello");
    }
    assert_eq!(cast.stripes(), [(true, 2), (true, 2), (true, 2)]);

    let broken = before.first().unwrap();
    cast.analysis
        .home
        .ok(["tcp-connection", "delete", broken, "--yes"]);
    // Two clients were on it; the others notice nothing.
    let mut rest = Vec::new();
    let mut closed = 0;
    for mut client in clients {
        match ask(&mut client, b"still there") {
            Ok(answer) => {
                assert_eq!(answer, b"still there");
                rest.push(client);
            }
            Err(_) => {
                assert!(end_of(&mut client, CLOSED).is_closed());
                closed += 1;
            }
        }
    }
    assert_eq!((closed, rest.len()), (2, 4));
    eventually("the path is there again", UP_LIMIT, || {
        cast.stripes().iter().all(|(up, _)| *up) && cast.connections().len() == 3
    });
    let after = cast.connections();
    assert!(!after.contains(broken));
    assert_eq!(after.intersection(&before).count(), 2, "the others stayed");

    // New clients come to the one with the fewest.
    let mut new: Vec<_> = (0..2).map(|_| connect(inlet)).collect();
    for client in new.iter_mut().chain(&mut rest) {
        assert_eq!(ask(client, b"and again").unwrap(), b"and again");
    }
    assert_eq!(cast.stripes(), [(true, 2), (true, 2), (true, 2)]);

    drop((new, rest));
    eventually("no connection is left", CLOSED, || cast.service.open() == 0);
    cast.analysis.home.ok(["tcp-inlet", "delete", "inlet", "--yes"]);
    eventually("no path is left", CLOSED, || cast.connections().is_empty());
}

#[test]
fn paths_come_back_with_their_inlet_after_a_restart_and_go_through_a_relay_too() {
    let cast = cast();
    cast.bank.ok(["node", "stop"]);
    let service = Service::echo();
    let bank = cast.project.bank(service.address);
    let inlet = cast.analysis.inlet("inlet", &["--via", "bank", "--stripes", "2"]);
    eventually("both paths are up", UP_LIMIT, || {
        cast.stripes() == [(true, 0), (true, 0)]
    });
    assert!(echoes(inlet));
    cast.analysis.home.ok(["node", "stop"]);
    cast.analysis.home.ok(["node", "start"]);
    eventually("both paths are up again", UP_LIMIT, || {
        cast.stripes() == [(true, 0), (true, 0)]
    });
    let mut clients = [connect(inlet), connect(inlet)];
    for client in &mut clients {
        assert_eq!(ask(client, b"hello").unwrap(), b"hello");
    }
    assert_eq!(cast.stripes(), [(true, 1), (true, 1)]);
    drop(bank);
}

#[test]
fn a_number_of_paths_that_makes_no_sense_is_refused() {
    let home = Home::new();
    for wrong in ["0", "17", "many", "-1"] {
        let stripes = format!("--stripes={wrong}");
        let arguments = [
            "tcp-inlet",
            "create",
            "inlet",
            "--to",
            "/service/outlet",
            &stripes,
        ];
        home.fails(arguments).says(&["--stripes"]);
    }
}
