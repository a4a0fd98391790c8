//! What the parts of a running node share: how to reach others, who we are, whom we believe.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use portolan_identity::{Identifier, Identity};
use portolan_portal::WindowMemory;
use portolan_runtime::{Address, Node};
use portolan_secure_channel::{ChannelOptions, CredentialSource, LocalIdentity};

use super::connect::{Appearance, Connector, blocking};
use super::membership::{Membership, authority_of};
use super::policies::{Issuer, Policies};
use super::removals::Removals;
use super::settings::{Settings, Trust};
use crate::error::{Error, Result};
use crate::multiaddr::MultiAddr;
use crate::state::{Home, OwnIdentity, Project};

/// Memberships that a node keeps: one for each of its identities that is used in each project.
const MAX_MEMBERSHIPS: usize = 64;

/// Shared by everything in a node. Nothing in it refers back to relays or portals.
pub(crate) struct Core {
    pub(crate) connector: Connector,
    pub(crate) policies: Arc<Policies>,
    pub(crate) removals: Arc<Removals>,
    own: OwnIdentity,
    /// The node's own membership, once the node belongs to a project.
    membership: RwLock<Option<Arc<Membership>>>,
    /// By identifier of ours and project id.
    memberships: Mutex<HashMap<(Identifier, String), Arc<Membership>>>,
    /// Our identities, as far as channels use them.
    locals: Mutex<HashMap<Identifier, LocalIdentity>>,
    /// Secure channel listeners beside `api` that the owner has made.
    listeners: Mutex<Vec<Address>>,
    /// What the windows of all portal connections of the node may promise together.
    pub(crate) windows: WindowMemory,
    /// An authority whose credentials the node believes without being a member itself: its own, on a project node, or one that
    /// whoever runs it has named.
    authority: Option<Identity>,
    /// What the node presents as long as it is no member of a project.
    credential: Option<Arc<dyn CredentialSource>>,
}

impl Core {
    pub(crate) fn new(
        connector: Connector,
        policies: Arc<Policies>,
        own: OwnIdentity,
        authority: Option<Identity>,
        settings: &Settings,
    ) -> Self {
        let trust = settings.trust.as_ref();
        let authority = authority.or_else(|| Some(trust?.authority.clone()));
        if let Some(authority) = &authority {
            policies.set_authority(Some(*authority.identifier()));
        }
        let removals = Arc::new(Removals::new(&connector, Arc::clone(policies.attributes())));
        Self {
            connector,
            policies,
            removals,
            own,
            membership: RwLock::new(None),
            memberships: Mutex::default(),
            locals: Mutex::default(),
            listeners: Mutex::default(),
            windows: settings.window_memory(),
            authority,
            credential: trust.and_then(Trust::source),
        }
    }

    pub(crate) fn node(&self) -> &Node {
        &self.connector.node
    }

    pub(crate) fn home(&self) -> &Home {
        &self.connector.home
    }

    /// Secure channel listeners beside `api` that the owner has made.
    pub(crate) fn listeners(&self) -> Vec<Address> {
        self.listeners.lock().clone()
    }

    /// There is another listener.
    pub(crate) fn add_listener(&self, listener: Address) {
        self.listeners.lock().push(listener);
    }

    /// The listener is gone.
    pub(crate) fn remove_listener(&self, listener: &Address) {
        self.listeners.lock().retain(|known| known != listener);
    }

    /// The node's own identity.
    pub(crate) fn own(&self) -> &OwnIdentity {
        &self.own
    }

    /// The node's own membership.
    pub(crate) fn membership(&self) -> Option<Arc<Membership>> {
        self.membership.read().clone()
    }

    /// From now on the node belongs to `project`.
    pub(crate) fn join(&self, project: Project) -> Result<Arc<Membership>> {
        let membership = self.member(project, self.local(&self.own))?;
        *self.membership.write() = Some(Arc::clone(&membership));
        self.policies
            .set_authority(Some(*membership.authority().identifier()));
        Ok(membership)
    }

    /// One of our identities, as channels use it.
    pub(crate) fn local(&self, own: &OwnIdentity) -> LocalIdentity {
        // One of each, so that everything that uses it learns of a rotation.
        self.locals
            .lock()
            .entry(*own.identity.identifier())
            .or_insert_with(|| {
                LocalIdentity::new(
                    own.identity.clone(),
                    own.vault.clone(),
                    Arc::new(self.home().clone()),
                )
            })
            .clone()
    }

    /// Look whether identities that this node uses were rotated, by itself or by a command. Those that were. May block.
    pub(crate) fn look_for_rotations(&self) -> Vec<Identity> {
        let locals: Vec<_> = self.locals.lock().values().cloned().collect();
        let rotated = locals.into_iter().filter(|local| {
            local.look_for_rotation().unwrap_or_else(|error| {
                tracing::warn!(identifier = %local.identifier(), "whether an identity was rotated cannot be found out: {error}");
                false
            })
        });
        rotated.map(|local| local.identity()).collect()
    }

    /// The identity of this local name; the node's own without a name.
    pub(crate) async fn identity(&self, name: Option<&str>) -> Result<LocalIdentity> {
        let Some(name) = name.filter(|name| *name != self.own.record.name) else {
            return Ok(self.local(&self.own));
        };
        let (home, name) = (self.home().clone(), name.to_owned());
        let own = blocking(move || home.own_identity(&name)).await?;
        Ok(self.local(&own))
    }

    fn member(&self, project: Project, identity: LocalIdentity) -> Result<Arc<Membership>> {
        let key = (*identity.identifier(), project.id.clone());
        let mut memberships = self.memberships.lock();
        if let Some(known) = memberships.get(&key) {
            if *known.project() == project {
                return Ok(Arc::clone(known));
            }
            // A project that was enrolled in anew may be at another address; with another authority it is another project.
            if authority_of(&project)?.identifier() == known.authority().identifier() {
                known.set_project(project)?;
                return Ok(Arc::clone(known));
            }
        }
        if memberships.len() >= MAX_MEMBERSHIPS {
            return Err(Error::failed(format!(
                "this node uses {MAX_MEMBERSHIPS} identities and projects already"
            )));
        }
        let membership = Membership::start(
            self.connector.clone(),
            project,
            identity,
            Some(Arc::clone(&self.removals)),
        )?;
        if let Some(older) = memberships.insert(key, Arc::clone(&membership)) {
            older.retire();
        }
        Ok(membership)
    }

    /// The membership of one of our identities in the project that a route leads through, or else in the node's project.
    async fn membership_for(
        &self,
        identity: &LocalIdentity,
        project: Option<&str>,
    ) -> Result<Option<Arc<Membership>>> {
        let project = match project {
            Some(name) => {
                let (home, name) = (self.home().clone(), name.to_owned());
                let project = blocking(move || home.project(&name)).await?;
                if !project.is_ready() {
                    return Err(Error::invalid(format!(
                        "what this home knows of the project `{}` is not complete",
                        project.name
                    ))
                    .hint("enroll with a ticket: portolan project enroll TICKET"));
                }
                project
            }
            None => match self.membership() {
                Some(membership) if membership.identity().identifier() == identity.identifier() => {
                    return Ok(Some(membership));
                }
                Some(membership) => (*membership.project()).clone(),
                None => return Ok(None),
            },
        };
        self.member(project, identity.clone()).map(Some)
    }

    /// How to appear on the way along `route`: which identity, with which credential, believing whom.
    ///
    /// # Errors
    ///
    /// When the route leads through a project of which we have no credential: nothing would be allowed there.
    pub(crate) async fn appearance(
        &self,
        route: &MultiAddr,
        identity: Option<&str>,
        authorized: &[Identifier],
        timeout: Duration,
    ) -> Result<Appearance> {
        let identity = self.identity(identity).await?;
        let project = route.project();
        let membership = self.membership_for(&identity, project).await?;
        if let Some(membership) = &membership {
            let ready = membership.ready().await;
            if project.is_some() {
                ready?;
            }
        }
        let authorities = match &membership {
            Some(membership) => vec![membership.authority()],
            None => self.authority.iter().cloned().collect(),
        };
        Ok(Appearance {
            authorities,
            credentials: match membership {
                Some(membership) => Some(membership as Arc<dyn CredentialSource>),
                // It is about the node's own identity.
                None => self
                    .credential
                    .clone()
                    .filter(|_| identity.identifier() == self.own.identity.identifier()),
            },
            identity,
            authorized: authorized.to_vec(),
            timeout,
            reachable: &[],
            waiting: None,
            borrow: false,
        })
    }

    /// How a listener of this node appears.
    pub(crate) fn listening(&self, identity: LocalIdentity) -> ChannelOptions {
        let options = ChannelOptions::new(identity);
        match self.membership() {
            Some(membership) => options
                .authorities([membership.authority()])
                .shared_credentials(Some(membership)),
            None => options
                .authorities(self.authority.iter().cloned())
                .shared_credentials(self.credential.clone()),
        }
    }

    /// Whose credentials count for what a route leads to.
    pub(crate) async fn issuer(&self, route: &MultiAddr) -> Result<Issuer> {
        let Some(name) = route.project() else {
            return Ok(Issuer::OfNode);
        };
        let (home, name) = (self.home().clone(), name.to_owned());
        let project = match blocking(move || home.project(&name)).await {
            Ok(project) => project,
            // Not known yet: the connection will say so. Until then nothing arrives that would have to be decided.
            Err(error) if error.code == crate::ErrorCode::NotFound => return Ok(Issuer::OfNode),
            Err(error) => return Err(error),
        };
        let authority = *authority_of(&project)?.identifier();
        Ok(if self.policies.authority() == Some(authority) {
            Issuer::OfNode
        } else {
            Issuer::This(authority)
        })
    }
}

/// The identifiers that a user gave.
pub(crate) fn identifiers<'a>(texts: impl IntoIterator<Item = &'a String>) -> Result<Vec<Identifier>> {
    texts
        .into_iter()
        .map(|text| {
            text.trim()
                .parse()
                .map_err(|error| Error::invalid(format!("`{text}` is not an identifier: {error}")))
        })
        .collect()
}
