//! The cast of the main story: a hub that runs the project, and members that enroll with a ticket.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::interposer::Interposer;
use crate::{Home, eventually};

/// A relay or an inlet that has all it needs is up within this time.
pub const UP_LIMIT: Duration = Duration::from_secs(15);

/// A project with its administrator: authority and relay service in one node, in a home of its own.
#[derive(Debug)]
pub struct Project {
    /// The administrator's home, in which the project node runs.
    pub home: Home,
    /// Where the project node listens, as its tickets say.
    pub address: SocketAddr,
}

impl Project {
    /// Starts a project on a free port of loopback.
    ///
    /// # Panics
    /// When `project create` fails.
    #[track_caller]
    pub fn start() -> Self {
        let home = Home::new();
        let address = free_address();
        home.ok([
            "project",
            "create",
            "default",
            "--tcp-listener-address",
            &address.to_string(),
        ]);
        Self { home, address }
    }

    /// Starts a project whose credentials live only this long, as `--credential-ttl` has it.
    ///
    /// # Panics
    /// When `project create` fails.
    #[track_caller]
    pub fn start_with_credentials_for(life: &str) -> Self {
        let home = Home::new();
        let address = free_address();
        let listen = address.to_string();
        home.ok([
            "project",
            "create",
            "default",
            "--tcp-listener-address",
            &listen,
            "--credential-ttl",
            life,
        ]);
        Self { home, address }
    }

    /// Starts a project whose members reach it through an interposer, as through a forwarded port.
    ///
    /// # Panics
    /// When `project create` fails.
    #[track_caller]
    pub fn start_behind_an_interposer() -> (Self, Interposer) {
        let home = Home::new();
        let address = free_address();
        let link = Interposer::start(address);
        let (listen, public) = (address.to_string(), link.address.to_string());
        home.ok([
            "project",
            "create",
            "default",
            "--tcp-listener-address",
            &listen,
            "--public-address",
            &public,
        ]);
        (Self { home, address }, link)
    }

    /// A ticket made with these further arguments, as a script would take it from standard output.
    ///
    /// # Panics
    /// When `project ticket` fails.
    #[track_caller]
    pub fn ticket(&self, arguments: &[&str]) -> String {
        self.home
            .ok(["project", "ticket"].into_iter().chain(arguments.iter().copied()))
    }

    /// A new machine that enrolls with a ticket made with these arguments, and starts a node of that name.
    ///
    /// # Panics
    /// When a command fails.
    #[track_caller]
    pub fn member(&self, name: &str, ticket_arguments: &[&str]) -> Member {
        let home = Home::new();
        home.ok(["project", "enroll", &self.ticket(ticket_arguments)]);
        home.ok(["node", "create", name]);
        Member {
            home,
            name: name.to_owned(),
        }
    }

    /// The bank of the story: member with `role=service` and the right to the relay `bank`, whose outlet for `target` lets in
    /// members with `role=client`.
    ///
    /// # Panics
    /// When a command fails or the relay does not come up.
    #[track_caller]
    pub fn bank(&self, target: SocketAddr) -> Member {
        let bank = self.member("bank", &["--attribute", "role=service", "--relay", "bank"]);
        bank.home.ok([
            "policy",
            "create",
            "--resource-type",
            "tcp-outlet",
            "--expression",
            r#"(= subject.role "client")"#,
        ]);
        bank.home
            .ok(["tcp-outlet", "create", "--to", &target.to_string()]);
        bank.home.ok(["relay", "create", "bank"]);
        bank.relay_is_up("bank");
        bank
    }

    /// As [`Project::bank`], with a node that others can connect to directly at `listen`, and without a relay.
    ///
    /// # Panics
    /// When a command fails.
    #[track_caller]
    pub fn home_of_a_bank_at(&self, listen: SocketAddr, target: SocketAddr) -> Home {
        let home = Home::new();
        home.ok([
            "project",
            "enroll",
            &self.ticket(&["--attribute", "role=service"]),
        ]);
        home.ok([
            "node",
            "create",
            "bank",
            "--tcp-listener-address",
            &listen.to_string(),
        ]);
        home.ok([
            "policy",
            "create",
            "--resource-type",
            "tcp-outlet",
            "--expression",
            r#"(= subject.role "client")"#,
        ]);
        home.ok(["tcp-outlet", "create", "--to", &target.to_string()]);
        home
    }

    /// The analysis company of the story: member with `role=client`, whose inlet trusts outlets of members with `role=service`.
    /// Returns it with the address of its inlet `inlet`, which is up.
    ///
    /// # Panics
    /// When a command fails or the inlet does not come up.
    #[track_caller]
    pub fn analysis(&self) -> (Member, SocketAddr) {
        let analysis = self.member("analysis", &["--attribute", "role=client"]);
        analysis.home.ok([
            "policy",
            "create",
            "--resource-type",
            "tcp-inlet",
            "--expression",
            r#"(= subject.role "service")"#,
        ]);
        let address = analysis.inlet("inlet", &["--via", "bank"]);
        analysis.inlet_is_up("inlet");
        (analysis, address)
    }

    /// The processes of the project node.
    pub fn processes(&self) -> Vec<u32> {
        self.home.processes()
    }

    /// The name of the project node in its home.
    ///
    /// # Panics
    /// When the home has no node.
    #[track_caller]
    pub fn node_name(&self) -> String {
        let nodes = self.home.json(["node", "list"]);
        let name = nodes
            .as_array()
            .and_then(|nodes| nodes.first())
            .and_then(|node| node["node_name"].as_str());
        name.unwrap_or_else(|| panic!("the project's home has no node: {nodes}"))
            .to_owned()
    }
}

/// An enrolled machine with one running node.
#[derive(Debug)]
pub struct Member {
    /// Its home.
    pub home: Home,
    /// The name of its node.
    pub name: String,
}

impl Member {
    /// Creates an inlet on a free port; its address.
    ///
    /// # Panics
    /// When `tcp-inlet create` fails or prints no address.
    #[track_caller]
    pub fn inlet(&self, name: &str, arguments: &[&str]) -> SocketAddr {
        let from = free_address().to_string();
        let printed = self.home.ok(["tcp-inlet", "create", name, "--from", &from]
            .into_iter()
            .chain(arguments.iter().copied()));
        assert_eq!(
            printed, from,
            "when piped, `tcp-inlet create` prints the bound address alone"
        );
        from.parse().expect("it was an address before")
    }

    /// What `tcp-inlet show` says.
    #[track_caller]
    pub fn show_inlet(&self, name: &str) -> Value {
        self.home.json(["tcp-inlet", "show", name])
    }

    /// What `relay show` says.
    #[track_caller]
    pub fn show_relay(&self, name: &str) -> Value {
        self.home.json(["relay", "show", name])
    }

    /// Whether the relay is up now. One that was refused may not exist at all.
    pub fn relay_up(&self, name: &str) -> bool {
        let shown = self.home.run(["relay", "show", name, "--output", "json"]);
        serde_json::from_str::<Value>(&shown.stdout).is_ok_and(|shown| shown["connection_status"] == "Up")
    }

    /// Whether the inlet is connected now.
    #[track_caller]
    pub fn inlet_up(&self, name: &str) -> bool {
        self.show_inlet(name)["status"] == "Up"
    }

    /// Waits until the relay is up.
    ///
    /// # Panics
    /// When it is not up within [`UP_LIMIT`].
    #[track_caller]
    pub fn relay_is_up(&self, name: &str) {
        eventually(&format!("the relay {name} is up"), UP_LIMIT, || {
            self.relay_up(name)
        });
    }

    /// Waits until the inlet is connected.
    ///
    /// # Panics
    /// When it is not within [`UP_LIMIT`].
    #[track_caller]
    pub fn inlet_is_up(&self, name: &str) {
        eventually(&format!("the inlet {name} is up"), UP_LIMIT, || {
            self.inlet_up(name)
        });
    }

    /// Number of live workers of the node.
    ///
    /// # Panics
    /// When `worker list` fails or lists none.
    #[track_caller]
    pub fn workers(&self) -> usize {
        let listed = self.home.json(["worker", "list"]);
        let workers = listed["list"].as_array().map_or(0, Vec::len);
        assert!(workers > 0, "a running node has workers: {listed}");
        workers
    }

    /// The number of workers once the node has started what it starts by itself, for instance the channel on which it
    /// hears of removals: when it has not changed for a while.
    pub fn settled_workers(&self) -> usize {
        const STILL: Duration = Duration::from_millis(1500);
        let mut workers = self.workers();
        let mut since = Instant::now();
        eventually(
            "the node has started all that it starts by itself",
            Duration::from_secs(20),
            || {
                let now = self.workers();
                if now != workers {
                    (workers, since) = (now, Instant::now());
                }
                since.elapsed() >= STILL
            },
        );
        workers
    }

    /// The process of the node.
    #[track_caller]
    pub fn process(&self) -> u32 {
        self.home.node_process(&self.name)
    }
}

/// An address of loopback whose port was free a moment ago.
///
/// # Panics
/// When no port is free.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("a bound socket has an address")
}
