//! The commands.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use portolan_identity::{
    AttributeRepository, Attributes, CredentialAndPurposeKey, Identifier, Identity, IdentityRepository,
    KeyType,
};
use portolan_portal::{Inlet, InletOptions, Outlet, OutletOptions};
use portolan_relay::{
    AllowEverybody, RegisterOptions, RelayName, RelayRequest, RelayService, RelayServiceOptions,
};
use portolan_runtime::{Address, Flow, Message, Payload, Route};
use portolan_secure_channel::{ChannelOptions, FixedCredential, ListenerOptions, SecureChannel, TrustPolicy};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::carriers;
use crate::party::{Failure, Party, SERVICES, now};

pub(crate) async fn run(party: &mut Party, command: &Value) -> Result<Value, Failure> {
    match text(command, "do")? {
        "identity" => Ok(identity(party)),
        "rotate" => {
            // The first rotation finds nothing stored, later ones what is being rotated.
            let _ = party.identities.update(party.identity.clone())?;
            let rotated = party.identity.rotate(
                party.vault.as_ref(),
                party.identities.as_ref(),
                now(),
                KeyType::Ed25519,
            )?;
            party.identity = rotated;
            Ok(identity(party))
        }
        "issue" => issue(party, command),
        "listen" => {
            let listener = party.tcp.listen("127.0.0.1:0").await?;
            for service in SERVICES {
                party.node.add_consumer(listener.flow(), &service.into());
            }
            for channels in &party.listeners {
                channels.accept_from(listener.flow());
            }
            party.flows.push(Arc::clone(listener.flow()));
            Ok(json!({ "address": listener.local().to_string() }))
        }
        "connect" => {
            let connection = party.tcp.connect(text(command, "to")?).await?;
            for service in SERVICES {
                party.node.add_consumer(connection.flow(), &service.into());
            }
            for channels in &party.listeners {
                channels.accept_from(connection.flow());
            }
            Ok(json!({ "sender": connection.sender().to_string() }))
        }
        "disconnect" => {
            party.tcp.disconnect(&address(text(command, "sender")?))?;
            Ok(json!({}))
        }
        "accept" => accept(party, command),
        "channel" => channel(party, command).await,
        "close" => {
            one(party, command)?.stop();
            Ok(json!({}))
        }
        "closed" => {
            let reason = timeout(within(command), one(party, command)?.closed()).await?;
            Ok(json!({ "reason": reason.to_string() }))
        }
        "info" => {
            let info: Vec<Value> = party
                .channels
                .list()
                .into_iter()
                .map(|channel| {
                    json!({
                        "peer": channel.peer.to_string(), "encryptor": channel.encryptor.to_string(),
                        "rejected": channel.rejected, "gaps": channel.gaps,
                        "received": channel.received_messages, "sent": channel.sent_messages,
                    })
                })
                .collect();
            let counters = party.channels.counters();
            Ok(
                json!({ "channels": info, "opened": counters.opened, "failed": counters.failed,
                "untrusted": counters.untrusted }),
            )
        }
        "ask" => ask(party, command).await,
        "send" => {
            let payload = Payload::copy_from(&bytes(command, "payload")?);
            let message = Message::new(route(command)?, Address::local("inbox"), payload);
            party.node.send_message(message).await?;
            Ok(json!({}))
        }
        "storm" => storm(party, command).await,
        "inbox" => {
            let received = party.inbox.0.lock();
            let messages: Vec<Value> = received
                .iter()
                .map(|message| {
                    json!({ "payload": hex::encode(&message.payload), "back": message.back,
                        "peer": message.peer.map(|peer| Identifier::from(peer).to_string()) })
                })
                .collect();
            Ok(json!({ "messages": messages }))
        }
        "attributes" => {
            let peer: Identifier = text(command, "peer")?.parse()?;
            let authority: Identifier = text(command, "authority")?.parse()?;
            let Some(known) = party.attributes.get(&peer, &authority, now()) else {
                return Ok(json!({ "attributes": null }));
            };
            let map: serde_json::Map<String, Value> = known
                .attributes
                .iter()
                .map(|(name, value)| (lossy(name), json!(lossy(value))))
                .collect();
            Ok(json!({ "attributes": map }))
        }
        "relays" => {
            let options = RelayServiceOptions {
                reachable_from: party.flows.clone(),
                ..RelayServiceOptions::default()
            };
            RelayService::start(&party.node, AllowEverybody, options)?;
            Ok(json!({}))
        }
        "register" => register(party, command).await,
        "lost" => {
            let name = text(command, "name")?;
            let relay = party.relays.get(name).ok_or("no such relay")?;
            let reason = timeout(within(command), relay.lost()).await?;
            Ok(json!({ "reason": reason }))
        }
        "outlet" => {
            let outlet = Outlet::start(
                &party.node,
                text(command, "at")?,
                text(command, "to")?,
                OutletOptions::default(),
            )?;
            reachable(party, outlet.address());
            party.outlets.push(outlet);
            Ok(json!({}))
        }
        "inlet" => {
            let inlet = Inlet::start(&party.node, "127.0.0.1:0", InletOptions::default()).await?;
            inlet.connect(route(command)?);
            let local = inlet.local().to_string();
            party.inlets.push(inlet);
            Ok(json!({ "address": local }))
        }
        "initiate" => {
            let said = bytes(command, "payload")?;
            let (offer, extra) = (bytes(command, "offer")?, bytes(command, "extra")?);
            let echo = carriers::initiate(party, route(command)?, &offer, &extra, &said).await?;
            Ok(json!({ "payload": hex::encode(echo) }))
        }
        "respond" => {
            let (said, offer) = carriers::respond(party, &bytes(command, "extra")?).await?;
            Ok(json!({ "payload": hex::encode(said), "offer": hex::encode(offer) }))
        }
        other => Err(format!("no command {other}").into()),
    }
}

/// Makes a worker reachable over the TCP listeners and the channels that were accepted.
fn reachable(party: &Party, worker: &Address) {
    for flow in &party.flows {
        party.node.add_consumer(flow, worker);
    }
    for listener in &party.listeners {
        listener.add_consumer(worker);
    }
}

fn identity(party: &Party) -> Value {
    json!({ "identifier": party.identity.identifier().to_string(), "history": party.identity.history().to_hex() })
}

fn issue(party: &Party, command: &Value) -> Result<Value, Failure> {
    let attributes = command["attributes"]
        .as_object()
        .ok_or("no attributes")?
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    // Issued in the past, so that it can have expired.
    let age = command["age"].as_u64().unwrap_or(0);
    let credential = CredentialAndPurposeKey::issue(
        party.vault.as_ref(),
        party.purpose_keys.as_ref(),
        &party.identity,
        &text(command, "subject")?.parse()?,
        None,
        Attributes::with_schema(1).with_all(attributes)?,
        now() - age,
        command["ttl"].as_u64().unwrap_or(3600),
    )?;
    Ok(json!({ "credential": credential.to_hex() }))
}

trait WithAll: Sized {
    fn with_all(self, pairs: impl Iterator<Item = (String, String)>) -> Result<Self, Failure>;
}

impl WithAll for Attributes {
    fn with_all(mut self, pairs: impl Iterator<Item = (String, String)>) -> Result<Self, Failure> {
        for (name, value) in pairs {
            self.insert(name, value)?;
        }
        Ok(self)
    }
}

fn options(party: &Party, command: &Value) -> Result<ChannelOptions, Failure> {
    let mut options = ChannelOptions::new(party.local()).timeout(within(command));
    if let Some(trusted) = command["trust"].as_array() {
        let trusted: BTreeSet<Identifier> = trusted
            .iter()
            .map(|one| one.as_str().unwrap_or_default().parse())
            .collect::<Result<_, _>>()?;
        options = options.trust(match trusted.first() {
            Some(only) if trusted.len() == 1 => TrustPolicy::Identifier(*only),
            _ => TrustPolicy::identifiers(trusted),
        });
    }
    if let Some(histories) = command["authorities"].as_array() {
        let authorities: Vec<Identity> = histories
            .iter()
            .map(|history| Identity::from_hex(history.as_str().unwrap_or_default(), None))
            .collect::<Result<_, _>>()?;
        options = options.authorities(authorities);
    }
    if let Some(credential) = command["credential"].as_str() {
        options = options.credentials(FixedCredential::new(CredentialAndPurposeKey::from_hex(
            credential,
        )?));
    }
    Ok(options)
}

fn accept(party: &mut Party, command: &Value) -> Result<Value, Failure> {
    let options = ListenerOptions::new(options(party, command)?);
    let listener = party.channels.listen(text(command, "at")?, options)?;
    for flow in &party.flows {
        listener.accept_from(flow);
    }
    for connection in party.tcp.connections() {
        listener.accept_from(connection.flow());
    }
    for service in SERVICES {
        listener.add_consumer(&service.into());
    }
    party.listeners.push(listener);
    Ok(json!({}))
}

async fn channel(party: &mut Party, command: &Value) -> Result<Value, Failure> {
    let options = options(party, command)?;
    let channel = party.channels.create(route(command)?, options).await?;
    for service in SERVICES {
        channel.add_consumer(&service.into());
    }
    let encryptor = channel.address().to_string();
    let peer = channel.peer().to_string();
    party.open.insert(encryptor.clone(), channel);
    Ok(json!({ "encryptor": encryptor, "peer": peer }))
}

/// The channel that the command names, or the only open one (which a peer may have opened).
fn one(party: &Party, command: &Value) -> Result<SecureChannel, Failure> {
    if let Some(encryptor) = command["encryptor"].as_str() {
        return Ok(party.open.get(encryptor).ok_or("no such channel")?.clone());
    }
    let open = party.channels.list();
    let [only] = open.as_slice() else {
        return Err(format!("{} channels are open", open.len()).into());
    };
    Ok(party.channels.get(&only.encryptor).ok_or("it has just closed")?)
}

async fn ask(party: &Party, command: &Value) -> Result<Value, Failure> {
    let mut context = party.node.context(Address::random())?;
    let onward = route(command)?;
    admit(party, &onward, context.address());
    let payload = Payload::copy_from(&bytes(command, "payload")?);
    let back = context.address().clone();
    context.send_message(Message::new(onward, back, payload)).await?;
    let Some(answer) = timeout(within(command), context.next()).await? else {
        return Err("the node is stopping".into());
    };
    Ok(json!({
        "payload": hex::encode(answer.message.payload.as_slice()),
        "back": answer.message.back.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "peer": answer.message.peer().map(|peer| Identifier::from(peer.identifier.0).to_string()),
    }))
}

/// Lets answers that come along the first hop of `onward` reach `worker`.
fn admit(party: &Party, onward: &Route, worker: &Address) {
    let flow: Option<Arc<Flow>> = onward.next().and_then(|first| party.node.flow_of(first));
    if let Some(flow) = flow {
        party.node.add_consumer(&flow, worker);
    }
}

/// What the `number`-th message of a storm carries.
fn numbered(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(size.max(8), number as u8);
    bytes
}

async fn storm(party: &Party, command: &Value) -> Result<Value, Failure> {
    let count = command["count"].as_u64().ok_or("no count")?;
    let size = usize::try_from(command["size"].as_u64().unwrap_or(8))?;
    let mut context = party.node.context(Address::random())?;
    let onward = route(command)?;
    admit(party, &onward, context.address());
    let back = context.address().clone();
    let sending = async {
        for number in 0..count {
            let payload = Payload::copy_from(&numbered(number, size));
            let message = Message::new(onward.clone(), back.clone(), payload);
            party.node.send_message(message).await?;
        }
        Ok::<_, portolan_runtime::Error>(())
    };
    let receiving = async {
        let (mut received, mut wrong) = (0, 0);
        while received < count {
            let Ok(Some(answer)) = timeout(within(command), context.next()).await else {
                break;
            };
            if answer.message.payload.as_slice() != numbered(received, size) {
                wrong += 1;
            }
            received += 1;
        }
        (received, wrong)
    };
    let (sent, (received, wrong)) = tokio::join!(sending, receiving);
    let sent = sent.map_or_else(|error| json!(error.to_string()), |()| json!(count));
    Ok(json!({ "sent": sent, "received": received, "wrong": wrong }))
}

async fn register(party: &mut Party, command: &Value) -> Result<Value, Failure> {
    let request = match command["name"].as_str() {
        Some(name) => RelayRequest::Named(RelayName::new(name)?),
        None => RelayRequest::Ephemeral,
    };
    let options = RegisterOptions {
        timeout: within(command),
        ..RegisterOptions::default()
    };
    let relay = portolan_relay::register(&party.node, route(command)?, request, options).await?;
    let remote = relay.remote_address().to_owned();
    let name = command["name"].as_str().unwrap_or(&remote).to_owned();
    party.relays.insert(name, relay);
    Ok(json!({ "address": remote }))
}

fn text<'a>(command: &'a Value, key: &str) -> Result<&'a str, Failure> {
    command[key].as_str().ok_or_else(|| format!("no {key}").into())
}

fn bytes(command: &Value, key: &str) -> Result<Vec<u8>, Failure> {
    Ok(hex::decode(text(command, key)?)?)
}

/// The limit of a command, in milliseconds; 10 s without one.
fn within(command: &Value) -> Duration {
    Duration::from_millis(command["within"].as_u64().unwrap_or(10_000))
}

fn address(name: &str) -> Address {
    Address::local(name.strip_prefix("0#").unwrap_or(name))
}

fn route(command: &Value) -> Result<Route, Failure> {
    let hops = command["route"].as_array().ok_or("no route")?;
    let mut route = Route::new();
    for hop in hops {
        route.push(address(hop.as_str().ok_or("a hop is a name")?));
    }
    Ok(route)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
