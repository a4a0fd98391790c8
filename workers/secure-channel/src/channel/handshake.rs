//! What initiator and responder have in common: the workers' addresses, and the step from keys to an open channel.

use std::sync::Arc;

use parking_lot::Mutex;
use portolan_identity::Identity;
use portolan_runtime::{
    AccessControl, Address, Context, Flow, MailboxOptions, Node, Peer, PeerIdentifier, Placement, Route,
    Stage, WorkerOptions,
};
use tokio::sync::watch;

use super::decryptor::{Decryptor, Opening};
use super::encryptor::{Credentials, Encryptor};
use super::service::Shared;
use super::slots::Slot;
use super::{Role, State, Windows};
use crate::aead::KeyBytes;
use crate::credentials::CurrentCredential;
use crate::error::Error;
use crate::extensions::Agreement;
use crate::handshake::SessionKeys;
use crate::options::ChannelOptions;
use crate::record::{Opener, Sealer};

/// 32 bytes for an ephemeral key.
pub(super) fn ephemeral() -> Result<KeyBytes, Error> {
    let mut bytes = KeyBytes::default();
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| Error::Randomness)?;
    Ok(bytes)
}

/// The addresses of the worker that runs a handshake and then decrypts: the remote one, which the peer sends to, and the
/// internal one, which decrypted messages are sent from (spec 02 §5.7). It runs where the connection that the channel
/// goes over does, so that messages between them cross no thread.
pub(super) fn worker_options(
    shared: &Shared,
    remote: &Address,
    flow: &Arc<Flow>,
    over: Option<&Address>,
) -> WorkerOptions {
    let remote = MailboxOptions::new(remote.clone())
        .incoming(AccessControl::AllowAll)
        .outgoing(AccessControl::AllowAll)
        .opens_records();
    let internal = MailboxOptions::new(Address::random())
        .outgoing(AccessControl::AllowAll)
        .producer(Arc::clone(flow));
    let arbiter = over.and_then(|hop| shared.node.arbiter_of(hop));
    WorkerOptions::with_mailbox(remote)
        .mailbox(internal)
        .stage(stage(&shared.node, over))
        .placement(arbiter.map_or_else(Placement::default, Placement::Index))
}

/// When a channel whose records begin their way at `over` stops with its node: before the channel that carries it, if one does.
pub(super) fn stage(node: &Node, over: Option<&Address>) -> Stage {
    match over.and_then(|hop| node.peer_of(hop)) {
        Some(_) => Stage::InnerChannel,
        None => Stage::Channel,
    }
}

/// A handshake that has succeeded.
pub(super) struct Finished {
    pub(super) role: Role,
    pub(super) keys: SessionKeys,
    pub(super) peer: Identity,
    pub(super) agreement: Agreement,
    /// Where the peer's decryptor is.
    pub(super) route: Route,
    pub(super) flow: Arc<Flow>,
    pub(super) presented: CurrentCredential,
    pub(super) slot: Option<Slot>,
}

/// Starts the encryptor and makes the decryptor; `ctx` is the worker that the latter will run in.
pub(super) fn open(
    shared: &Arc<Shared>,
    ctx: &Context,
    options: &ChannelOptions,
    finished: Finished,
) -> Result<Decryptor, Error> {
    let Finished {
        role,
        keys,
        peer,
        agreement,
        route,
        flow,
        presented,
        slot,
    } = finished;
    let remote = *peer.identifier();
    // The peer at the other end of the connection has proven who it is, unless somebody in between forwards for it. What we
    // connected to by ourselves is as trusted either way.
    if (role == Role::Initiator || route.len() == 2)
        && let Some(under) = route.next().and_then(|hop| shared.node.flow_of(hop))
    {
        under.mark_authenticated();
    }
    let state = Arc::new(State {
        role,
        local: *options.identity.identifier(),
        remote,
        agreement,
        peer: Arc::new(Peer {
            identifier: PeerIdentifier(*remote.as_bytes()),
            channel: Address::random(),
        }),
        decryptor: ctx.address().clone(),
        flow,
        opened_at: shared.now(),
        route: Mutex::new(route),
        closed: watch::Sender::new(None),
        traffic: Default::default(),
        windows: agreement.windows.then(|| Box::new(Windows::new())),
    });
    let credentials = options.credentials.as_ref().map(|source| Credentials {
        identity: options.identity.clone(),
        source: source.subscribe(),
        presented,
    });
    let sealer = Sealer::new(agreement.suite, keys.send);
    let registration = shared.register(&state);
    Encryptor::new(Arc::clone(&state), sealer, credentials).start(ctx)?;
    tracing::debug!(channel = %state.peer.channel, peer = %remote, ?role, "open");
    let opener = Opener::new(agreement.suite, keys.receive).accept_sealed_headers(agreement.sealed_headers);
    Ok(Decryptor {
        opening: Opening::new(state, opener, options.gaps),
        judge: shared.judge(options),
        shared: Arc::clone(shared),
        _registration: registration,
        _slot: slot,
    })
}
