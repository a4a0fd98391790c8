//! What a project node runs beyond an ordinary one: the authority, behind a listener of its own (spec 03 §4, §5.4).
//!
//! Routes to the two listeners have the project's id in them, as hosted projects have:
//!
//! ```text
//! /dnsaddr/hub/tcp/4000/service/<id>/service/api                       the project: relays, echo
//! /dnsaddr/hub/tcp/4000/service/<id>/service/authority/service/api     the authority
//! ```
//!
//! The worker at `<id>` takes itself off and forwards; it may forward to these two and to nothing else, as it would lead past
//! flow control otherwise. Behind the authority's listener only the authority's four services can be reached.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use portolan_authority::attributes::MemberAttributes;
use portolan_authority::authority::Authority;
use portolan_authority::issuer::{CredentialSettings, Issuer};
use portolan_authority::protocol::Removal;
use portolan_authority::rules::RoleSettings;
use portolan_authority::services::{Running as RunningServices, Services};
use portolan_authority::store::{Store, StoreError};
use portolan_identity::{Identifier, Identity, IdentityRepository, MemoryIdentityRepository};
use portolan_runtime::services::Strip;
use portolan_runtime::{
    AccessControl, Address, Message, Node, Passage, Result as RuntimeResult, WorkerOptions,
};
use portolan_secure_channel::{ChannelOptions, ListenerOptions, SecureChannelListener};
use portolan_tcp::TcpListener;

use super::core::Core;
use super::removals::Removals;
use super::running::{API, runtime_error};
use super::services::local_name;
use crate::control::api::{SecureChannelListenerStatus, ServiceStatus};
use crate::error::{Error, Result};
use crate::state::{OwnIdentity, ProjectNodeSpec, now};

/// The name by which routes lead to the authority.
const AUTHORITY: &str = "authority";
/// The authority's own secure channel listener.
const AUTHORITY_API: &str = "authority_api";
/// How often removed members are looked for. A removal is in force here at most this much later.
const LOOK_FOR_REMOVALS: Duration = Duration::from_millis(250);
/// Removals read at a time.
const REMOVALS: u32 = 256;

/// The authority of a project node.
pub(super) struct ProjectNode {
    removals: Arc<OwnRemovals>,
    services: RunningServices,
    listener: SecureChannelListener,
    identifier: Identifier,
    project_id: String,
}

/// Leads `[authority, api]` to the authority's listener.
struct Entrance;

impl Passage for Entrance {
    fn pass(&self, _: &Node, _: &Address, message: &mut Message) -> RuntimeResult<bool> {
        message.onward.step();
        let leads_in = message.onward.next() == Some(&Address::local(API));
        if leads_in {
            message.onward.step();
            message.onward.prepend(Address::local(AUTHORITY_API));
        }
        Ok(leads_in)
    }
}

impl ProjectNode {
    /// Start the authority: its services, its listener, and the names that lead there.
    pub(super) fn start(
        core: &Core,
        role: &ProjectNodeSpec,
        own: OwnIdentity,
        identities: Arc<MemoryIdentityRepository>,
        database: PathBuf,
        tcp: &TcpListener,
    ) -> Result<Self> {
        let failed =
            |error: &dyn std::fmt::Display| Error::state(format!("the authority cannot start: {error}"));
        // The first one of this identity in a repository that holds the node's own only.
        let _ = identities.pin(own.identity.clone());
        let identifier = *own.identity.identifier();
        let store = Store::open(&database, identifier).map_err(|error| failed(&error))?;
        let authority = Arc::new(Authority::new(store, RoleSettings::default()));
        let mut administrators = Vec::new();
        for (administrator, attributes) in &role.administrators {
            let administrator: Identifier = administrator
                .parse()
                .map_err(|error| failed(&format!("`{administrator}` is not an identifier: {error}")))?;
            let attributes = MemberAttributes::new(attributes.clone()).map_err(|error| failed(&error))?;
            administrators.push((administrator, attributes));
        }
        authority
            .set_pre_trusted(administrators, now())
            .map_err(|error| failed(&error))?;
        let issuer = Issuer::new(
            own.identity.clone(),
            own.vault.clone(),
            Arc::new(core.home().clone()),
            identities as Arc<dyn IdentityRepository>,
            CredentialSettings {
                project_id: role.project_id.clone(),
                include_trust_context_id: true,
                ttl: role.credential_ttl,
            },
        )
        .map_err(|error| Error::invalid(error.to_string()))?;

        let removals = Arc::new(OwnRemovals {
            authority: Arc::clone(&authority),
            identifier,
            acting: Arc::clone(&core.removals),
            seen: AtomicI64::new(0),
        });
        // Before anybody can present an old credential.
        while removals.read().map_err(|error| failed(&error))?.more {}

        let node = core.node();
        let services = Services::new(Arc::clone(&authority), Arc::new(issuer))
            .start(node)
            .map_err(runtime_error)?;
        let listener = core
            .connector
            .channels
            // Anybody may ask; what they may is decided by who they are. Credentials play no part here.
            .listen(
                AUTHORITY_API,
                ListenerOptions::new(ChannelOptions::new(core.local(&own))),
            )
            .map_err(super::connect::channel_error)?;
        services.consume(listener.flow());
        listener.accept_from(tcp.flow());

        let only = |addresses: &[&str]| AccessControl::Only(addresses.iter().map(Address::local).collect());
        let entrance = WorkerOptions::new(AUTHORITY).outgoing(only(&[AUTHORITY_API]));
        node.start_passage(entrance, Arc::new(Entrance))
            .map_err(runtime_error)?;
        let project = WorkerOptions::new(Address::local(&role.project_id)).outgoing(only(&[API, AUTHORITY]));
        node.start_sync_worker(project, Strip::default())
            .map_err(runtime_error)?;
        node.add_consumer(tcp.flow(), &Address::local(&role.project_id));
        Ok(Self {
            removals,
            services,
            listener,
            identifier,
            project_id: role.project_id.clone(),
        })
    }

    /// One of our identities was rotated. If it is the authority, members have to learn of it before they meet credentials by its
    /// new key: those that listen for removals come again at once, and the handshake shows it.
    pub(super) fn rotated(&self, core: &Core, identity: &Identity) {
        let _ = core.connector.channels.identities().update(identity.clone());
        if *identity.identifier() != self.identifier {
            return;
        }
        for info in core.connector.channels.list() {
            if info.local == self.identifier {
                let _ = core.node().stop_worker(&info.encryptor);
            }
        }
    }

    /// The services, for the list.
    pub(super) fn services(&self) -> Vec<ServiceStatus> {
        let named = |addr: &str, kind: &str| ServiceStatus {
            addr: addr.to_owned(),
            kind: kind.to_owned(),
        };
        let mut services: Vec<_> = self
            .services
            .addresses()
            .iter()
            .map(|address| named(&local_name(address), "authority"))
            .collect();
        services.push(named(&self.project_id, "project"));
        services
    }

    /// The listener, for the list.
    pub(super) fn listener(&self) -> SecureChannelListenerStatus {
        SecureChannelListenerStatus {
            address: local_name(self.listener.address()),
            identifier: self.identifier.to_string(),
            authorized: Vec::new(),
        }
    }

    /// Make removals of members count at this node from now on, also those that another process writes to the database. Runs
    /// until it is dropped.
    pub(super) async fn enforce_removals(&self, core: &Core) {
        loop {
            let removals = Arc::clone(&self.removals);
            let Ok(read) = tokio::task::spawn_blocking(move || removals.read()).await else {
                return;
            };
            let read = read.unwrap_or_else(|error| {
                tracing::error!("the authority's removals cannot be read: {error}");
                Found::default()
            });
            core.removals.cut_off(read.cut_off);
            if !read.more {
                tokio::time::sleep(LOOK_FOR_REMOVALS).await;
            }
        }
    }
}

/// The removals that the authority has recorded, as far as this node has taken note of them.
struct OwnRemovals {
    authority: Arc<Authority>,
    identifier: Identifier,
    acting: Arc<Removals>,
    seen: AtomicI64,
}

#[derive(Default)]
struct Found {
    /// Who has to be cut off.
    cut_off: Vec<Identifier>,
    /// There may be further ones.
    more: bool,
}

impl OwnRemovals {
    /// Void what was credited to members that were removed since the last call; at most [`REMOVALS`].
    fn read(&self) -> std::result::Result<Found, StoreError> {
        let read = self
            .authority
            .revocations_after(self.seen.load(Ordering::Relaxed), REMOVALS)?;
        let Some(last) = read.last() else {
            return Ok(Found::default());
        };
        let removals: Vec<_> = read
            .iter()
            .map(|removal| Removal {
                member: removal.member,
                removed_at: removal.revoked_at,
            })
            .collect();
        let cut_off = self.acting.void(&self.identifier, &removals).all;
        self.seen.store(last.serial, Ordering::Relaxed);
        // Members that wait to be told.
        self.authority.look_for_removals()?;
        Ok(Found {
            cut_off,
            more: read.len() == REMOVALS as usize,
        })
    }
}
