//! The paths that are compared, each with its processes.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portolan_tests::home::{self, COMMAND_LIMIT};
use portolan_tests::project::free_address;
use portolan_tests::{process, wait};

use crate::cleanup;
use crate::load::Failure;

/// A path that is ready to be measured.
#[derive(Debug)]
pub struct Path {
    /// Where clients connect.
    pub entry: SocketAddr,
    /// The processes that bytes pass on their way.
    pub processes: Vec<u32>,
}

/// Names of the processes of a path through a relay, in their order.
pub const ROLES: [&str; 3] = ["inlet", "relay", "outlet"];

/// A path that is there soon is there within this time.
const READY: Duration = Duration::from_secs(15);

/// Straight to the service.
pub fn no_tunnel(service: SocketAddr) -> Path {
    Path {
        entry: service,
        processes: Vec::new(),
    }
}

/// Three plain copying proxies, one after the other, each in a process of its own: this program, started with `copy`.
///
/// # Errors
/// When a proxy does not start.
pub fn copying_proxies(service: SocketAddr) -> Result<Path, Failure> {
    let mut path = no_tunnel(service);
    for _ in 0..3 {
        let (pid, address) =
            own_process(&["copy", "--listen", "127.0.0.1:0", "--to", &path.entry.to_string()])?;
        path.processes.push(pid);
        path.entry = address;
    }
    Ok(path)
}

/// Inlet, relay and outlet of the libraries alone, without what the product's binary puts around them, in one process: this
/// program, started with `chain`.
///
/// # Errors
/// When it does not start.
pub fn chain(service: SocketAddr) -> Result<Path, Failure> {
    let (process, entry) = own_process(&["chain", "--to", &service.to_string()])?;
    Ok(Path {
        entry,
        processes: vec![process],
    })
}

/// Starts this program once more, in another role: its process, and the address that it prints when it listens.
///
/// # Errors
/// When it does not start.
pub fn own_process(arguments: &[&str]) -> Result<(u32, SocketAddr), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take();
    let pid = cleanup::process(child);
    let mut line = String::new();
    BufReader::new(output.ok_or_else(|| Failure("a process has no output".into()))?).read_line(&mut line)?;
    let address = line.trim().parse();
    Ok((
        pid,
        address.map_err(|_| Failure(format!("`{}` did not start", arguments.join(" "))))?,
    ))
}

/// Two stunnel processes with TLS between them.
///
/// # Errors
/// When stunnel or openssl are not installed, or do not start.
pub fn stunnel_pair(service: SocketAddr) -> Result<Path, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("portolan-bench-stunnel-")
        .tempdir()?
        .keep();
    cleanup::folder(folder.clone());
    let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args(["-days", "1", "-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| not_installed("openssl", error))?;
    if !made.success() {
        return Err(Failure("openssl did not make a certificate".into()));
    }
    let (outer, inner) = (free_address(), free_address());
    let server = format!(
        "cert = {}\nkey = {}\n[s]\naccept = {inner}\nconnect = {service}\n",
        certificate.display(),
        key.display()
    );
    let client = format!("[c]\nclient = yes\naccept = {outer}\nconnect = {inner}\n");
    let mut processes = Vec::new();
    for (name, sections) in [("server", server), ("client", client)] {
        let file = folder.join(format!("{name}.conf"));
        let nodelay = "socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n";
        fs::write(
            &file,
            format!("foreground = yes\npid =\ndebug = err\n{nodelay}{sections}"),
        )?;
        let child = Command::new(stunnel_binary())
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| not_installed("stunnel", error))?;
        processes.push(cleanup::process(child));
    }
    listens(inner)?;
    listens(outer)?;
    Ok(Path {
        entry: outer,
        processes,
    })
}

/// Debian keeps it where the PATH of a normal user may not lead.
fn stunnel_binary() -> PathBuf {
    ["/usr/bin/stunnel", "/usr/sbin/stunnel", "/usr/local/bin/stunnel"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .unwrap_or_else(|| "stunnel".into())
}

fn not_installed(what: &str, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure(format!("{what} is not installed")),
        _ => error.into(),
    }
}

fn listens(address: SocketAddr) -> Result<(), Failure> {
    wait::until(READY, || TcpStream::connect(address).ok())
        .map(drop)
        .ok_or_else(|| Failure(format!("nothing listens at {address} after {READY:?}")))
}

fn new_home() -> Result<PathBuf, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("portolan-bench-")
        .tempdir()?
        .keep();
    cleanup::home(folder.clone());
    Ok(folder)
}

/// A project's node alone.
#[derive(Debug)]
pub struct Hub {
    binary: PathBuf,
    home: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process at the moment.
    pub process: u32,
}

impl Hub {
    /// Starts one.
    ///
    /// # Errors
    /// When a command fails, with what it said.
    pub fn start(binary: &FilePath) -> Result<Self, Failure> {
        let (home, address) = (new_home()?, free_address());
        run(
            binary,
            &home,
            &[
                "project",
                "create",
                "default",
                "--tcp-listener-address",
                &address.to_string(),
            ],
        )?;
        let mut hub = Self {
            binary: binary.to_owned(),
            home,
            address,
            process: 0,
        };
        hub.find()?;
        Ok(hub)
    }

    fn find(&mut self) -> Result<(), Failure> {
        self.process = wait::until(READY, || process::of_home(&self.home).into_iter().next())
            .ok_or_else(|| Failure("the project node has no process".into()))?;
        Ok(())
    }

    /// Kills it as a machine takes a process away, and starts it again: when that began.
    ///
    /// # Errors
    /// When a command fails, with what it said.
    pub fn restart(&mut self) -> Result<Instant, Failure> {
        process::kill(self.process);
        // Not only ended but gone: until somebody has taken note of its end, its number is in use.
        let gone = || (!FilePath::new(&format!("/proc/{}", self.process)).exists()).then_some(());
        wait::until(READY, gone).ok_or_else(|| Failure("the project node does not end".into()))?;
        let start = Instant::now();
        run(&self.binary, &self.home, &["node", "start", "project-default"])?;
        self.find()?;
        Ok(start)
    }

    /// A ticket with these arguments.
    ///
    /// # Errors
    /// When the command fails, with what it said.
    pub fn ticket(&self, arguments: &[&str]) -> Result<String, Failure> {
        run(
            &self.binary,
            &self.home,
            &[&["project", "ticket"], arguments].concat(),
        )
    }
}

fn run(binary: &FilePath, home: &FilePath, arguments: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new(binary);
    command
        .args(arguments)
        .env("PORTOLAN_HOME", home)
        .stdin(Stdio::null());
    let outcome = home::run(command, COMMAND_LIMIT);
    if outcome.succeeded() {
        Ok(outcome.stdout)
    } else {
        Err(Failure(outcome.to_string()))
    }
}

/// A project and two members in three homes, with an outlet for the service: what both of our paths share.
#[derive(Debug)]
pub struct Portolan {
    binary: PathBuf,
    hub: PathBuf,
    bank: PathBuf,
    analysis: PathBuf,
    bank_address: SocketAddr,
}

impl Portolan {
    /// Sets it up, with the given binary.
    ///
    /// # Errors
    /// When a command fails, with what it said.
    pub fn start(binary: &FilePath, service: SocketAddr) -> Result<Self, Failure> {
        let this = Self {
            binary: binary.to_owned(),
            hub: new_home()?,
            bank: new_home()?,
            analysis: new_home()?,
            bank_address: free_address(),
        };
        let hub_address = free_address().to_string();
        this.run(
            &this.hub,
            &[
                "project",
                "create",
                "default",
                "--tcp-listener-address",
                &hub_address,
            ],
        )?;
        this.furnish_bank(&this.bank, "bench", this.bank_address, service)?;
        let ticket = this.run(&this.hub, &["project", "ticket", "--attribute", "role=client"])?;
        this.run(&this.analysis, &["project", "enroll", &ticket])?;
        this.run(&this.analysis, &["node", "create", "analysis"])?;
        this.allow(&this.analysis, "tcp-inlet", r#"(= subject.role "service")"#)?;
        Ok(this)
    }

    /// A member with an outlet for the service, reachable at an address and through a relay of this name.
    fn furnish_bank(
        &self,
        home: &FilePath,
        relay: &str,
        address: SocketAddr,
        service: SocketAddr,
    ) -> Result<(), Failure> {
        let ticket = self.run(
            &self.hub,
            &[
                "project",
                "ticket",
                "--attribute",
                "role=service",
                "--relay",
                relay,
            ],
        )?;
        self.run(home, &["project", "enroll", &ticket])?;
        self.run(
            home,
            &[
                "node",
                "create",
                "bank",
                "--tcp-listener-address",
                &address.to_string(),
            ],
        )?;
        self.allow(home, "tcp-outlet", r#"(= subject.role "client")"#)?;
        self.run(home, &["tcp-outlet", "create", "--to", &service.to_string()])?;
        self.run(home, &["relay", "create", relay]).map(drop)
    }

    /// A second node behind the same relay's node, with an outlet of its own for the service, and an inlet for it at the same node
    /// as the first: the entry, and the process of the outlet.
    ///
    /// # Errors
    /// When a command fails, with what it said.
    pub fn second_destination(&self, service: SocketAddr) -> Result<(SocketAddr, u32), Failure> {
        let home = new_home()?;
        self.furnish_bank(&home, "other", free_address(), service)?;
        let entry = self.inlet("other", &["--via", "other"])?;
        let process = process::of_home(&home).into_iter().next();
        Ok((
            entry,
            process.ok_or_else(|| Failure("the second outlet has no process".into()))?,
        ))
    }

    /// A second node with an inlet for the same outlet, through the relay: the entry, and its process.
    ///
    /// # Errors
    /// When a command fails, with what it said.
    pub fn second_client(&self) -> Result<(SocketAddr, u32), Failure> {
        let home = new_home()?;
        let ticket = self.run(&self.hub, &["project", "ticket", "--attribute", "role=client"])?;
        self.run(&home, &["project", "enroll", &ticket])?;
        self.run(&home, &["node", "create", "second"])?;
        self.allow(&home, "tcp-inlet", r#"(= subject.role "service")"#)?;
        let entry = self.inlet_of(&home, "second", &["--via", "bench"])?;
        let process = process::of_home(&home).into_iter().next();
        Ok((
            entry,
            process.ok_or_else(|| Failure("the second inlet has no process".into()))?,
        ))
    }

    /// Inlet to outlet over one TCP connection between the two nodes.
    ///
    /// # Errors
    /// When the inlet cannot be created.
    pub fn without_relay(&self) -> Result<Path, Failure> {
        let to = format!(
            "/ip4/127.0.0.1/tcp/{}/secure/api/service/outlet",
            self.bank_address.port()
        );
        let entry = self.inlet("direct", &["--to", &to])?;
        Ok(Path {
            entry,
            processes: self.processes(&[&self.analysis, &self.bank]),
        })
    }

    /// Inlet to outlet through the relay of the project node, encrypted from end to end.
    ///
    /// # Errors
    /// When the inlet cannot be created.
    pub fn through_relay(&self) -> Result<Path, Failure> {
        let entry = self.inlet("relayed", &["--via", "bench"])?;
        Ok(Path {
            entry,
            processes: self.processes(&[&self.analysis, &self.hub, &self.bank]),
        })
    }

    /// As [`Self::through_relay`], with further arguments of `tcp-inlet create`.
    ///
    /// # Errors
    /// When the inlet cannot be created.
    pub fn through_relay_with(&self, name: &str, arguments: &[&str]) -> Result<Path, Failure> {
        let entry = self.inlet(name, &[&["--via", "bench"], arguments].concat())?;
        Ok(Path {
            entry,
            processes: self.processes(&[&self.analysis, &self.hub, &self.bank]),
        })
    }

    fn inlet(&self, name: &str, route: &[&str]) -> Result<SocketAddr, Failure> {
        self.inlet_of(&self.analysis, name, route)
    }

    fn inlet_of(&self, home: &FilePath, name: &str, route: &[&str]) -> Result<SocketAddr, Failure> {
        let address = free_address();
        let from = address.to_string();
        let create = ["tcp-inlet", "create", name, "--from", from.as_str()];
        self.run(home, &[&create[..], route].concat())?;
        // Created does not mean connected.
        let shown = wait::until(READY, || {
            let shown = self
                .run(home, &["tcp-inlet", "show", name, "--output", "json"])
                .ok()?;
            (serde_json::from_str::<serde_json::Value>(&shown).ok()?["status"] == "Up").then_some(())
        });
        shown.ok_or_else(|| Failure(format!("the inlet {name} was not up after {READY:?}")))?;
        Ok(address)
    }

    /// What the nodes say of themselves, as far as they answer: for whoever has to find out why nothing moves.
    pub fn state(&self) -> String {
        let questions: [&[&str]; 4] = [
            &["tcp-inlet", "list"],
            &["tcp-outlet", "list"],
            &["secure-channel", "list"],
            &["worker", "list"],
        ];
        let mut state = String::new();
        for (name, home) in [
            ("inlet", &self.analysis),
            ("relay", &self.hub),
            ("outlet", &self.bank),
        ] {
            for question in questions {
                let question = [question, &["--output", "json"]].concat();
                let answer = self.run(home, &question).unwrap_or_else(|failure| failure.0);
                state.push_str(&format!("{name}, {}:\n{answer}\n", question.join(" ")));
            }
        }
        state
    }

    fn processes(&self, homes: &[&PathBuf]) -> Vec<u32> {
        homes.iter().flat_map(|home| process::of_home(home)).collect()
    }

    fn allow(&self, home: &FilePath, resource_type: &str, expression: &str) -> Result<(), Failure> {
        self.run(
            home,
            &[
                "policy",
                "create",
                "--resource-type",
                resource_type,
                "--allow",
                expression,
            ],
        )
        .map(drop)
    }

    fn run(&self, home: &FilePath, arguments: &[&str]) -> Result<String, Failure> {
        run(&self.binary, home, arguments)
    }
}
