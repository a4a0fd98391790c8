//! One project node with many members that each have a relay there.
//!
//! The project node is a real process. The members live in this process, in one node; but each has an identity and a vault of its
//! own, becomes a member with a real ticket, fetches its credential from the project's authority, connects over TCP, opens a secure
//! channel with the credential, and keeps its relay registered with a session, as a node does. What the project node sees
//! is what it sees of so many machines.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use portolan_authority::client::AuthorityClient;
use portolan_authority::ticket::Ticket;
use portolan_relay::{
    Connection, RegisterOptions, RelayName, RelayRequest, SessionMonitor, SessionSettings, register,
};
use portolan_runtime::{AccessControl, Address, Node, Placement, Route, route};
use portolan_secure_channel::{ChannelOptions, FixedCredential, LocalIdentity, SecureChannels, TrustPolicy};
use portolan_tcp::TcpTransport;
use portolan_tests::process;
use tokio::sync::Semaphore;

use crate::chain::{Party, failed, identity, now};
use crate::checks::Check;
use crate::circle::{Circle, Load, Way};
use crate::idle::settled;
use crate::load::Failure;
use crate::paths::Hub;
use crate::plot;

/// Members, step by step.
pub const STEPS: [usize; 5] = [100, 250, 500, 1000, 2000];
/// Steps for a look.
pub const QUICK_STEPS: [usize; 2] = [20, 50];
/// Members that arrive at the same time when they come for the first time.
const ARRIVING: usize = 32;
/// How long all of them may take to be registered again.
const AGAIN: Duration = Duration::from_secs(180);
/// What circles through the relays.
const LOAD: Load = Load {
    in_flight: 4,
    size: 1024,
};
/// Relays through which messages go at the same time, at most: as many as it takes to keep the project node busy all the time.
const CIRCLES: usize = 100;

/// A member that keeps its relay registered.
struct Member {
    session: SessionMonitor,
    /// The channel of the moment.
    channel: Arc<parking_lot::Mutex<Option<Address>>>,
}

/// What one step gave.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Members.
    pub members: usize,
    /// KiB of the project node for each member, connected and registered.
    pub kib: f64,
    /// Seconds until all were registered again after the project node was killed, counted from when it was started again.
    pub again: f64,
    /// CPU seconds of the project node for that.
    pub again_cpu: f64,
    /// Messages of 1 KiB through relays, for each second.
    pub messages: f64,
    /// CPU µs of the project node for each.
    pub message_cpu: f64,
}

/// How members come to the project.
#[derive(Clone)]
struct Gate {
    node: Node,
    tcp: TcpTransport,
    channels: SecureChannels,
    ticket: Arc<Ticket>,
    address: String,
}

impl Gate {
    async fn connect(&self) -> Result<portolan_tcp::TcpConnection, Failure> {
        self.tcp
            .connect(&self.address)
            .await
            .map_err(failed("a connection"))
    }

    /// Becomes a member, and fetches the credential.
    async fn enroll(&self, identity: &LocalIdentity) -> Result<FixedCredential, Failure> {
        let project = self.ticket.project();
        let authority = project.authority();
        let connection = self.connect().await?;
        let options =
            ChannelOptions::new(identity.clone()).trust(TrustPolicy::Identifier(*authority.identifier()));
        let listener = route![connection.sender(), project.id(), "authority", "api"];
        let channel = self
            .channels
            .create(listener, options)
            .await
            .map_err(failed("the authority"))?;
        let context = self.node.context(Address::random()).map_err(Failure::of)?;
        let client = AuthorityClient::new(&context, channel.address());
        client
            .redeem(self.ticket.code())
            .await
            .map_err(failed("the ticket"))?;
        let credential = client
            .credential(identity.identifier(), authority, now())
            .await
            .map_err(failed("the credential"))?;
        channel.stop();
        let _ = self.tcp.disconnect(connection.sender());
        Ok(FixedCredential::new(credential))
    }

    /// Connects, opens the channel to the project, registers.
    async fn register(
        &self,
        number: usize,
        identity: LocalIdentity,
        credential: FixedCredential,
        present: Arc<parking_lot::Mutex<Option<Address>>>,
    ) -> Result<Connection, Failure> {
        let project = self.ticket.project();
        let connection = Closing {
            tcp: self.tcp.clone(),
            sender: self.connect().await?.sender().clone(),
        };
        let options = ChannelOptions::new(identity)
            .trust(TrustPolicy::Identifier(*project.identity().identifier()))
            .authorities([project.authority().clone()])
            .credentials(credential);
        let listener = route![&connection.sender, project.id(), "api"];
        let channel = self
            .channels
            .create(listener, options)
            .await
            .map_err(failed("the project"))?;
        let turn = turn_of(number);
        channel.add_consumer(&turn);
        let name = RelayName::new(format!("m{number}").as_str()).map_err(failed("a name"))?;
        let relay = register(
            &self.node,
            route![channel.address()],
            RelayRequest::Named(name),
            RegisterOptions::default(),
        )
        .await
        .map_err(failed("the relay"))?;
        *present.lock() = Some(channel.address().clone());
        let (lost, closed) = (relay.lost(), channel.closed());
        let lost = async move {
            tokio::select! {
                reason = lost => reason,
                reason = closed => reason.to_string(),
            }
        };
        Ok(Connection::new(channel.address(), lost).keep((relay, connection)))
    }
}

/// Closes the connection when the session gives its path up.
struct Closing {
    tcp: TcpTransport,
    sender: Address,
}

impl Drop for Closing {
    fn drop(&mut self) {
        let _ = self.tcp.disconnect(&self.sender);
    }
}

fn turn_of(number: usize) -> Address {
    format!("turn of m{number}").as_str().into()
}

/// Runs it, and draws the curve into `drawing` if that is given.
///
/// # Errors
/// When a member cannot be made or does not come back, or a message does not arrive.
pub fn run(
    binary: &Path,
    steps: &[usize],
    messages: u64,
    drawing: Option<PathBuf>,
) -> Result<Vec<Check>, Failure> {
    let most = steps.iter().copied().max().unwrap_or(0);
    let mut hub = Hub::start(binary)?;
    let ticket = hub.ticket(&[
        "--relay",
        "*",
        "--usage-count",
        &most.to_string(),
        "--expires-in",
        "1h",
    ])?;
    let party = Party::new(1)?;
    let gate = Gate {
        node: party.node.clone(),
        tcp: party.tcp.clone(),
        channels: party.channels.clone(),
        ticket: Arc::new(ticket.trim().parse::<Ticket>().map_err(failed("the ticket"))?),
        address: hub.address.to_string(),
    };
    // What a project node takes that has just been started and has no member.
    hub.restart()?;
    let empty = settled(&[hub.process])[0];
    let empty_cpu = process::cpu_time(hub.process);
    let mut members: Vec<Member> = Vec::new();
    let mut all = Vec::new();
    println!(
        "One project node ({:.1} MiB without members), each member with a connection, a channel and a relay.\n",
        empty as f64 / 1024.0
    );
    println!(
        "| members | KiB of each in the project node | enrolled, s | registered first, s | registered again after a restart, s | CPU s of that | messages/s through relays | CPU µs of each in the project node |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for &step in steps {
        let coming = step - members.len();
        let start = Instant::now();
        let credentials = arrive(&gate, coming)?;
        let enrolled = start.elapsed();
        let start = Instant::now();
        for (identity, credential) in credentials {
            members.push(begin(&gate, members.len(), identity, credential)?);
            if members.len().is_multiple_of(ARRIVING) {
                wait_for(&members, None)?;
            }
        }
        wait_for(&members, None)?;
        let registered = start.elapsed();
        let before: Vec<u64> = members.iter().map(Member::reconnects).collect();
        let start = hub.restart()?;
        wait_for(&members, Some(&before))?;
        let again = start.elapsed();
        let again_cpu = process::cpu_time(hub.process).saturating_sub(empty_cpu);
        let kib = settled(&[hub.process])[0].saturating_sub(empty) as f64 / step as f64;
        let (rate, cpu) = saturate(&gate, &hub, &members, messages)?;
        let figures = Figures {
            members: step,
            kib,
            again: again.as_secs_f64(),
            again_cpu: again_cpu.as_secs_f64(),
            messages: rate,
            message_cpu: cpu,
        };
        println!(
            "| {step} | {kib:.1} | {:.1} (for {coming}) | {:.1} (for {coming}) | {:.1} | {:.1} | {rate:.0} | {cpu:.2} |",
            enrolled.as_secs_f64(),
            registered.as_secs_f64(),
            figures.again,
            figures.again_cpu
        );
        all.push(figures);
    }
    if let Some(file) = drawing {
        plot::relay_scale(&all, &file)?;
        println!("\nDrawn into {}.", file.display());
    }
    // Each session says goodbye before the node ends.
    drop(members);
    party.node.stop_blocking();
    Ok(checks(&all))
}

/// The cost of a member must not grow with their number.
fn checks(all: &[Figures]) -> Vec<Check> {
    let (Some(few), Some(many)) = (all.first(), all.last()) else {
        return vec![Check::missed("a curve", "there are no steps")];
    };
    vec![
        Check::at_most(
            format!("memory of a member, {} members / {}", many.members, few.members),
            many.kib / few.kib,
            MOST_GROWTH,
        ),
        Check::at_most(
            format!(
                "CPU time of a message, {} members / {}",
                many.members, few.members
            ),
            many.message_cpu / few.message_cpu,
            MOST_GROWTH,
        ),
        Check::at_most(
            format!(
                "CPU time of registering a member again, {} members / {}",
                many.members, few.members
            ),
            (many.again_cpu / many.members as f64) / (few.again_cpu / few.members as f64),
            MOST_GROWTH,
        ),
    ]
}

/// How much more each member may cost where there are many.
pub const MOST_GROWTH: f64 = 1.5;

/// Lets so many identities become members.
fn arrive(gate: &Gate, count: usize) -> Result<Vec<(LocalIdentity, FixedCredential)>, Failure> {
    let (gate, places) = (gate.clone(), Arc::new(Semaphore::new(ARRIVING)));
    let node = gate.node.clone();
    let arrived = node.block_on(move || async move {
        let arriving: Vec<_> = (0..count)
            .map(|_| {
                let (gate, places) = (gate.clone(), Arc::clone(&places));
                tokio::task::spawn_local(async move {
                    let _place = places.acquire().await.map_err(Failure::of)?;
                    let identity = identity()?;
                    let credential = gate.enroll(&identity).await?;
                    Ok::<_, Failure>((identity, credential))
                })
            })
            .collect();
        let mut arrived = Vec::with_capacity(count);
        for one in arriving {
            arrived.push(one.await.map_err(Failure::of)??);
        }
        Ok(arrived)
    });
    arrived.map_err(Failure::of)?
}

/// Begins the session of a member.
fn begin(
    gate: &Gate,
    number: usize,
    identity: LocalIdentity,
    credential: FixedCredential,
) -> Result<Member, Failure> {
    let channel = Arc::new(parking_lot::Mutex::new(None));
    let (connecting, present) = (gate.clone(), Arc::clone(&channel));
    let session = SessionMonitor::start(&gate.node, SessionSettings::default(), move || {
        let (gate, present) = (connecting.clone(), Arc::clone(&present));
        let (identity, credential) = (identity.clone(), credential.clone());
        async move { gate.register(number, identity, credential, present).await }
    })
    .map_err(Failure::of)?;
    Ok(Member { session, channel })
}

impl Member {
    fn reconnects(&self) -> u64 {
        self.session.current().reconnects
    }
}

/// Waits until all are registered; with what `before` says, once more than so often.
fn wait_for(members: &[Member], before: Option<&[u64]>) -> Result<(), Failure> {
    let end = Instant::now() + AGAIN;
    let is_there = |number: usize, member: &Member| {
        let current = member.session.current();
        current.is_up() && before.is_none_or(|before| current.reconnects > before[number])
    };
    // The last to come first: most of the others are there by then.
    for (number, member) in members.iter().enumerate().rev() {
        while !is_there(number, member) {
            if Instant::now() > end {
                let missing = (0..members.len()).filter(|&number| !is_there(number, &members[number]));
                let reason = member.session.current().reason;
                return Err(Failure(format!(
                    "{} of {} members were not registered within {AGAIN:?}: {}",
                    missing.count(),
                    members.len(),
                    reason.as_deref().unwrap_or("no reason")
                )));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// Sends messages through many relays at the same time: for each second, and CPU µs of the project node for each.
fn saturate(gate: &Gate, hub: &Hub, members: &[Member], messages: u64) -> Result<(f64, f64), Failure> {
    // Evenly from all members; each sends to another one's relay, whose way ends at its own turn.
    let circles: Vec<usize> = (0..members.len())
        .step_by(members.len().div_ceil(CIRCLES))
        .collect();
    let mut running = Vec::new();
    for &number in &circles {
        let next = (number + members.len() / 2) % members.len();
        let channel = members[number].channel.lock().clone();
        let channel = channel.ok_or_else(|| Failure("a member has no channel".into()))?;
        let receiving = members[next].channel.lock().clone();
        let receiving = receiving.and_then(|channel| gate.channels.get(&channel));
        let receiving = receiving.ok_or_else(|| Failure("a member has no channel".into()))?;
        let turn = turn_of(number);
        receiving.add_consumer(&turn);
        let relay: Address = format!("forward_to_m{next}").as_str().into();
        let way = Way {
            onward: route![channel, relay, &turn],
            turn,
            back: Route::new(),
            incoming: AccessControl::AllowAll,
            flow: None,
        };
        running.push(Circle::start_on(&gate.node, way, LOAD, Placement::Index(0)).map_err(Failure::of)?);
    }
    let each = messages / running.len() as u64;
    let (start, before) = (Instant::now(), process::cpu_time(hub.process));
    for circle in &running {
        circle.begin(each)?;
    }
    let mut end = start;
    for circle in &running {
        end = end.max(circle.wait()?);
    }
    let done = (each * running.len() as u64) as f64;
    let cpu = process::cpu_time(hub.process).saturating_sub(before);
    for circle in running {
        circle.stop();
    }
    Ok((done / (end - start).as_secs_f64(), cpu.as_secs_f64() * 1e6 / done))
}
