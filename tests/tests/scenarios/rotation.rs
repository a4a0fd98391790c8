//! Credentials and keys that are replaced, or that cannot be: what is open goes on, or ends.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portolan_tests::project::free_address;
use portolan_tests::service::{ask, check_pattern, connect, echoes, end_of, pattern_bytes};
use portolan_tests::{Home, Member, Project, Service, eventually};

/// How long credentials live in these scenarios.
const LIFE: Duration = Duration::from_secs(10);

/// A bank and its client, with a portal on a direct path and one through the project's relay.
struct Pair {
    project: Project,
    bank: Home,
    client: Member,
    direct: SocketAddr,
    relayed: SocketAddr,
    route: String,
    service: Service,
}

impl Pair {
    fn start() -> Self {
        let project = Project::start_with_credentials_for("10s");
        let (bank, address, service) = (Home::new(), free_address(), Service::echo());
        let ticket = project.ticket(&["--attribute", "role=service", "--relay", "bank"]);
        bank.ok(["project", "enroll", &ticket]);
        let (listen, target) = (address.to_string(), service.address.to_string());
        bank.ok(["node", "create", "bank", "--tcp-listener-address", &listen]);
        let allow = r#"(= subject.role "client")"#;
        bank.ok(["tcp-outlet", "create", "--to", &target, "--allow", allow]);
        bank.ok(["relay", "create", "bank"]);
        let client = project.member("client", &["--attribute", "role=client"]);
        let route = format!("/ip4/127.0.0.1/tcp/{}/secure/api/service/outlet", address.port());
        let direct = client.inlet("direct", &["--to", &route]);
        let relayed = client.inlet("relayed", &["--via", "bank"]);
        for inlet in [direct, relayed] {
            eventually("the portal is open", Duration::from_secs(15), || echoes(inlet));
        }
        Self {
            project,
            bank,
            client,
            direct,
            relayed,
            route,
            service,
        }
    }

    fn transfers(&self, length: Duration) -> [JoinHandle<u64>; 2] {
        [self.direct, self.relayed].map(|inlet| transfer(inlet, length))
    }
}

fn identifier(home: &Home) -> String {
    home.json(["identity", "show"])["identifier"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Sends a pattern to an echo service and checks what comes back, without a pause, for this long. Returns how many bytes went
/// there and back.
fn transfer(inlet: SocketAddr, length: Duration) -> JoinHandle<u64> {
    let mut sending = connect(inlet);
    let mut receiving = sending.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let (start, mut sent) = (Instant::now(), 0);
        while start.elapsed() < length {
            let piece = pattern_bytes(sent, 20_000);
            sending
                .write_all(&piece)
                .unwrap_or_else(|error| panic!("{error} after {:?} and {sent} bytes", start.elapsed()));
            sent += piece.len() as u64;
            // Some megabytes a second are enough; the machine has other things to do.
            std::thread::sleep(Duration::from_millis(10));
        }
        sending.shutdown(std::net::Shutdown::Write).unwrap();
        sent
    });
    std::thread::spawn(move || {
        let (start, mut received, mut buffer) = (Instant::now(), 0, vec![0; 64 * 1024]);
        loop {
            match receiving.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    if let Err(at) = check_pattern(received, &buffer[..n]) {
                        panic!("the byte at {at} is wrong");
                    }
                    received += n as u64;
                }
                Err(error) => panic!("{error} after {:?} and {received} bytes", start.elapsed()),
            }
        }
        let sent = writer.join().unwrap();
        assert_eq!(received, sent, "bytes are missing at the end");
        received
    })
}

#[test]
fn credentials_of_ten_seconds_are_renewed_under_transfers_without_losing_a_byte() {
    let pair = Pair::start();
    for transfer in pair.transfers(5 * LIFE) {
        assert!(transfer.join().unwrap() > 1_000_000);
    }
}

#[test]
fn the_keys_of_a_channel_are_replaced_by_themselves_and_that_can_be_seen() {
    let home = Home::new();
    home.ok(["node", "create", "one"]);
    let address = free_address();
    let listen = address.to_string();
    home.ok(["node", "create", "two", "--tcp-listener-address", &listen]);
    let to = format!("/ip4/127.0.0.1/tcp/{}/service/api", address.port());
    let channel = home.ok(["secure-channel", "create", "--from", "one", "--to", &to]);
    let name = channel.strip_prefix("/service/").unwrap();
    for number in 0..33 {
        let (text, to) = (number.to_string(), format!("{channel}/service/uppercase"));
        home.ok(["message", "send", &text, "--from", "one", "--to", &to]);
    }
    let shown = home.json(["secure-channel", "show", name, "--at", "one"]);
    for direction in ["sent", "received"] {
        assert_eq!(shown[direction]["messages"], 33, "{shown}");
        assert_eq!(shown[direction]["rekeys"], 1, "{shown}");
    }
    assert_eq!(shown["rejected"], 0);
}

#[test]
fn a_credential_that_cannot_be_renewed_ends_idle_portals_at_whichever_end_asks_for_it() {
    let pair = Pair::start();
    let (bank, client) = (identifier(&pair.bank), identifier(&pair.client.home));
    // An outlet that asks for a credential and an inlet that does not, and the other way round.
    let by_name = |identifier: &str| format!("(= subject.identifier \"{identifier}\")");
    let with_credential = "(= subject.has_credential true)";
    let target = pair.service.address.to_string();
    pair.bank.ok([
        "tcp-outlet",
        "create",
        "--from",
        "open",
        "--to",
        &target,
        "--allow",
        &by_name(&client),
    ]);
    let asked_by_outlet = pair.client.inlet(
        "asked-by-outlet",
        &["--to", &pair.route, "--allow", &by_name(&bank)],
    );
    let open = pair.route.replace("/service/outlet", "/service/open");
    let asked_by_inlet = pair
        .client
        .inlet("asked-by-inlet", &["--to", &open, "--allow", with_credential]);
    let asked_by_nobody = pair
        .client
        .inlet("asked-by-nobody", &["--to", &open, "--allow", &by_name(&bank)]);
    for inlet in [asked_by_outlet, asked_by_inlet, asked_by_nobody] {
        eventually("the portal is open", Duration::from_secs(15), || echoes(inlet));
    }
    let mut idle = [asked_by_outlet, asked_by_inlet].map(connect);
    let mut other = connect(asked_by_nobody);
    for stream in idle.iter_mut().chain([&mut other]) {
        assert_eq!(ask(stream, b"hello").unwrap(), b"hello");
    }
    pair.project.home.kill_processes();
    let start = Instant::now();
    for stream in &mut idle {
        // Renewed when half of it was over, a credential has at least half of its life left, and not more than all of it.
        assert_eq!(
            ask(stream, b"still here").unwrap(),
            b"still here",
            "with the authority away, nodes keep working until credentials expire"
        );
    }
    for stream in &mut idle {
        let left = (LIFE + Duration::from_secs(4)).saturating_sub(start.elapsed());
        assert!(
            end_of(stream, left).is_closed(),
            "an idle portal outlived the credential: {:?}",
            start.elapsed()
        );
    }
    assert_eq!(
        ask(&mut other, b"no credential needed").unwrap(),
        b"no credential needed",
        "a portal that needs no credential ended with it"
    );
    for inlet in [asked_by_outlet, asked_by_inlet] {
        assert!(!echoes(inlet), "an expired credential let somebody in");
    }
}

#[test]
fn keys_are_rotated_by_command_under_transfers_without_losing_a_byte() {
    let pair = Pair::start();
    let before = [&pair.bank, &pair.client.home].map(identifier);
    let transfers = pair.transfers(3 * LIFE);
    pair.bank.ok(["identity", "rotate"]);
    pair.client.home.ok(["identity", "rotate", "--purpose-keys"]);
    pair.client.home.ok(["identity", "rotate"]);
    for inlet in [pair.direct, pair.relayed] {
        assert!(echoes(inlet), "a new connection failed after the rotation");
    }
    for transfer in transfers {
        assert!(transfer.join().unwrap() > 1_000_000);
    }
    assert_eq!([&pair.bank, &pair.client.home].map(identifier), before);
    let shown = pair.bank.json(["identity", "show", "--full"]);
    assert_eq!(shown["changes"].as_array().map(Vec::len), Some(2), "{shown}");
    // New channels with the new keys, at nodes that know the old ones: the authority, the relay, the other end.
    pair.client.home.ok(["node", "stop", "client"]);
    pair.client.home.ok(["node", "start", "client"]);
    for inlet in [pair.direct, pair.relayed] {
        eventually("the portal is open again", Duration::from_secs(20), || {
            echoes(inlet)
        });
    }
    pair.bank.ok(["node", "stop", "bank"]);
    pair.bank.ok(["node", "start", "bank"]);
    for inlet in [pair.direct, pair.relayed] {
        eventually("the portal is open again", Duration::from_secs(20), || {
            echoes(inlet)
        });
    }
}

#[test]
fn when_the_authority_is_rotated_its_members_follow_and_transfers_go_on() {
    let pair = Pair::start();
    let transfers = pair.transfers(3 * LIFE);
    let identities = pair.project.home.json(["identity", "list"]);
    let authority = identities
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|identity| identity["name"].as_str())
        .find(|name| name.contains("authority"))
        .unwrap_or_else(|| panic!("no authority: {identities}"))
        .to_owned();
    pair.project.home.ok(["identity", "rotate", &authority]);
    for transfer in transfers {
        assert!(transfer.join().unwrap() > 1_000_000);
    }
    for inlet in [pair.direct, pair.relayed] {
        assert!(echoes(inlet), "a new connection failed after the rotation");
    }
    // The administrator's home has seen the rotation or not: tickets of now are good all the same.
    let newcomer = pair.project.member("newcomer", &["--attribute", "role=client"]);
    let inlet = newcomer.inlet("direct", &["--to", &pair.route]);
    eventually("a newcomer's portal is open", Duration::from_secs(15), || {
        echoes(inlet)
    });
    // A removal is still told.
    let mut stream = connect(inlet);
    assert_eq!(ask(&mut stream, b"hello").unwrap(), b"hello");
    let member = identifier(&newcomer.home);
    pair.project.home.ok(["project-member", "delete", &member]);
    assert!(end_of(&mut stream, Duration::from_secs(5)).is_closed());
}

#[test]
fn the_schedule_of_rotations_is_shown_and_set() {
    let home = Home::new();
    home.ok(["identity", "create", "me"]);
    let default = home.json(["identity", "schedule"]);
    assert_eq!(default["identity_key"], 365 * 24 * 3600, "{default}");
    assert_eq!(default["purpose_keys"], 90 * 24 * 3600, "{default}");
    home.ok([
        "identity",
        "schedule",
        "me",
        "--identity-key",
        "never",
        "--purpose-keys",
        "1d",
    ]);
    let set = home.json(["identity", "schedule", "me"]);
    assert!(
        set["identity_key"].is_null() && set["purpose_keys"] == 86_400,
        "{set}"
    );
    home.fails(["identity", "schedule", "me", "--identity-key", "1h"])
        .says(&["86400", "128 changes"]);
    home.fails(["identity", "schedule", "nobody"]).says(&["nobody"]);
}
