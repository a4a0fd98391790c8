//! Removed members: cut off wherever a node decides, soon, and for good.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use portolan_tests::project::free_address;
use portolan_tests::service::{ask, connect, echoes, end_of};
use portolan_tests::{Home, Member, Project, Service, eventually, process};

/// A removal counts everywhere within this time.
const LIMIT: Duration = Duration::from_secs(5);

/// A bank that can be reached directly and through its relay `bank`.
struct Bank {
    home: Home,
    address: SocketAddr,
    service: Service,
}

impl Bank {
    fn open(project: &Project) -> Self {
        let home = Home::new();
        let (address, service) = (free_address(), Service::echo());
        let ticket = project.ticket(&["--attribute", "role=service", "--relay", "bank"]);
        home.ok(["project", "enroll", &ticket]);
        let (listen, target) = (address.to_string(), service.address.to_string());
        home.ok(["node", "create", "bank", "--tcp-listener-address", &listen]);
        let allow = r#"(= subject.role "client")"#;
        home.ok(["tcp-outlet", "create", "--to", &target, "--allow", allow]);
        home.ok(["relay", "create", "bank"]);
        Self {
            home,
            address,
            service,
        }
    }

    fn route(&self) -> String {
        format!(
            "/ip4/127.0.0.1/tcp/{}/secure/api/service/outlet",
            self.address.port()
        )
    }
}

/// A company with an inlet that leads directly to the bank, and one that leads through the relay.
struct Client {
    member: Member,
    direct: SocketAddr,
    relayed: SocketAddr,
}

impl Client {
    fn open(project: &Project, bank: &Bank, name: &str) -> Self {
        let member = project.member(name, &["--attribute", "role=client"]);
        let direct = member.inlet("direct", &["--to", &bank.route()]);
        let relayed = member.inlet("relayed", &["--via", "bank"]);
        for inlet in [direct, relayed] {
            eventually("the portal is open", Duration::from_secs(15), || echoes(inlet));
        }
        Self {
            member,
            direct,
            relayed,
        }
    }

    fn identifier(&self) -> String {
        identifier(&self.member.home, &self.member.name)
    }

    /// Open connections on which something was said, and nothing is any more.
    fn streams(&self) -> [TcpStream; 2] {
        [self.direct, self.relayed].map(|inlet| {
            let mut stream = connect(inlet);
            assert_eq!(ask(&mut stream, b"good morning").unwrap(), b"good morning");
            stream
        })
    }
}

fn identifier(home: &Home, node: &str) -> String {
    let shown = home.json(["node", "show", node]);
    shown["identifier"].as_str().unwrap().to_owned()
}

/// Waits until each connection was closed by the other side, all within [`LIMIT`] after `since`.
fn are_cut(streams: &mut [TcpStream], since: Instant) {
    for (number, stream) in streams.iter_mut().enumerate() {
        let left = LIMIT
            .saturating_sub(since.elapsed())
            .max(Duration::from_millis(1));
        let end = end_of(stream, left);
        assert!(
            end.is_closed(),
            "connection {number} is still open {:?} after the removal",
            since.elapsed()
        );
    }
}

fn refuse_newcomers(inlets: [SocketAddr; 2]) {
    for inlet in inlets {
        assert!(
            !echoes(inlet),
            "a removed member opened a new connection at {inlet}"
        );
    }
}

#[test]
fn removing_somebody_who_is_no_member_is_an_error_that_says_so() {
    let project = Project::start();
    let typo = format!("I{}", "07".repeat(32));
    let outcome = project.home.fails(["project-member", "delete", &typo, "--yes"]);
    assert_eq!(outcome.code, crate::exit::NOT_FOUND, "{outcome}");
    outcome.says(&["no member", "nobody was removed", "project-member list"]);
}

#[test]
fn a_removed_member_loses_idle_portals_on_a_direct_path_and_through_a_relay_within_five_seconds() {
    let project = Project::start();
    let bank = Bank::open(&project);
    let (removed, other) = (
        Client::open(&project, &bank, "removed"),
        Client::open(&project, &bank, "other"),
    );
    let (mut streams, mut others) = (removed.streams(), other.streams());
    let member = removed.identifier();
    let start = Instant::now();
    project.home.ok(["project-member", "delete", &member]);
    are_cut(&mut streams, start);
    refuse_newcomers([removed.direct, removed.relayed]);
    for stream in &mut others {
        assert_eq!(
            ask(stream, b"and I").unwrap(),
            b"and I",
            "another member was cut off too"
        );
    }
    // Only what the others have open is left at the service.
    eventually("the service sees the end too", LIMIT, || bank.service.open() == 2);
    let outlet = bank.home.json(["tcp-outlet", "show", "outlet"]).to_string();
    assert!(
        outlet.contains("no valid credential"),
        "the outlet says why: {outlet}"
    );
}

#[test]
fn when_the_services_side_is_removed_the_other_side_closes_its_portals_within_five_seconds() {
    let project = Project::start();
    let bank = Bank::open(&project);
    let client = Client::open(&project, &bank, "client");
    let mut streams = client.streams();
    let member = identifier(&bank.home, "bank");
    let start = Instant::now();
    project.home.ok(["project-member", "delete", &member]);
    are_cut(&mut streams, start);
    refuse_newcomers([client.direct, client.relayed]);
    let node = project.node_name();
    eventually("its relay is gone", LIMIT, || {
        let shown = project.home.json(["node", "show", &node]);
        shown["served_relays"].as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn a_removal_outlives_the_end_of_the_node_and_of_the_authority() {
    let project = Project::start();
    let bank = Bank::open(&project);
    let (removed, other) = (
        Client::open(&project, &bank, "removed"),
        Client::open(&project, &bank, "other"),
    );
    let mut streams = removed.streams();
    let start = Instant::now();
    project
        .home
        .ok(["project-member", "delete", &removed.identifier()]);
    are_cut(&mut streams, start);
    // Nobody can be asked any more, and the credential of the removed member would be good for most of an hour.
    project.home.kill_processes();
    bank.home.kill_processes();
    bank.home.ok(["node", "start", "bank"]);
    eventually(
        "members work while the authority is away",
        Duration::from_secs(20),
        || echoes(other.direct),
    );
    let before = bank.service.accepted();
    assert!(
        !echoes(removed.direct),
        "an old credential was believed after a restart"
    );
    assert_eq!(bank.service.accepted(), before);
}

#[test]
fn a_node_that_hears_nothing_while_a_member_is_removed_learns_of_it_when_it_can() {
    let project = Project::start();
    let bank = Bank::open(&project);
    let removed = Client::open(&project, &bank, "removed");
    let mut streams = removed.streams();
    let (member, node) = (removed.identifier(), project.node_name());
    let asleep = bank.home.node_process("bank");
    process::pause(asleep);
    project.home.ok(["project-member", "delete", &member]);
    project.home.kill_processes();
    project.home.ok(["node", "start", &node]);
    process::resume(asleep);
    // The bank has to find out that its connection to the authority is dead, and to build another one.
    for stream in &mut streams {
        assert!(end_of(stream, Duration::from_secs(15)).is_closed());
    }
    refuse_newcomers([removed.direct, removed.relayed]);
}

#[test]
fn a_removed_member_that_is_invited_again_works_again() {
    let project = Project::start();
    let bank = Bank::open(&project);
    let client = Client::open(&project, &bank, "client");
    let mut streams = client.streams();
    let start = Instant::now();
    project
        .home
        .ok(["project-member", "delete", &client.identifier()]);
    are_cut(&mut streams, start);
    let ticket = project.ticket(&["--attribute", "role=client"]);
    client.member.home.ok(["project", "enroll", &ticket]);
    for inlet in [client.direct, client.relayed] {
        eventually("the portal is open again", Duration::from_secs(30), || {
            echoes(inlet)
        });
    }
    // The removal was told before, and is not told again to whom it does not concern any more.
    for stream in &mut client.streams() {
        assert_eq!(ask(stream, b"back again").unwrap(), b"back again");
    }
}
