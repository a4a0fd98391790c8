//! The services of an authority as workers of a node.
//!
//! | address | asks for |
//! |---|---|
//! | `enrollment_token_issuer` | a one-time code |
//! | `enrollment_token_acceptor` | membership, with a code |
//! | `credential_issuer` | the credential of a member |
//! | `direct_authenticator` | members: list, show, add, delete |
//! | `member_service` | what concerns all members: who was removed. Not in the reference |
//!
//! The caller is the authenticated peer of the message's local information and nobody else: a request that
//! did not come out of a secure channel gets 400, and no field of a request says who is asking.
//!
//! The services must be made consumers of the flow of the secure-channel listener ([`Running::consume`]);
//! nothing else reaches them from outside.

mod credential_issuer;
mod direct_authenticator;
mod endpoint;
mod member_service;
mod token_acceptor;
mod token_issuer;

use std::sync::Arc;

use portolan_identity::{AttributeRepository, Identifier};
use portolan_runtime::{Address, Flow, Node, Result};

use crate::authority::Authority;
use crate::issuer::Issuer;
use crate::protocol::{
    CREDENTIAL_ISSUER, DIRECT_AUTHENTICATOR, MEMBER_SERVICE, TOKEN_ACCEPTOR, TOKEN_ISSUER,
};
use crate::rules::Caller;
use endpoint::{Endpoint, Service};

/// UTC seconds. A test gives its own.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The clock of the operating system.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        portolan_runtime::environment::system_time()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs())
    })
}

/// Whose credentials make administrators (§4.2).
#[derive(Clone)]
pub struct AccountAuthority {
    /// The account authority.
    pub identifier: Identifier,
    /// Where the secure-channel listener keeps what credentials said.
    pub attributes: Arc<dyn AttributeRepository>,
}

/// All that the services work with.
#[derive(Clone)]
pub struct Services {
    /// Records and rules.
    pub authority: Arc<Authority>,
    /// Makes credentials.
    pub issuer: Arc<Issuer>,
    /// `None`: there are no administrators by credential.
    pub account_authority: Option<AccountAuthority>,
    /// The time.
    pub clock: Clock,
    /// Start the services for one-time codes.
    pub token_enrollment: bool,
    /// Start the service for members.
    pub direct_authentication: bool,
}

/// Services that were started.
#[derive(Clone, Debug)]
pub struct Running {
    node: Node,
    addresses: Vec<Address>,
}

impl Services {
    /// Services with the system's clock, all of them.
    pub fn new(authority: Arc<Authority>, issuer: Arc<Issuer>) -> Self {
        Self {
            authority,
            issuer,
            account_authority: None,
            clock: system_clock(),
            token_enrollment: true,
            direct_authentication: true,
        }
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// If one of the addresses is in use or the node is stopping.
    pub fn start(self, node: &Node) -> Result<Running> {
        let mut running = Running {
            node: node.clone(),
            addresses: Vec::new(),
        };
        if self.token_enrollment {
            running.start(TOKEN_ISSUER, &self, token_issuer::TokenIssuer)?;
            running.start(TOKEN_ACCEPTOR, &self, token_acceptor::TokenAcceptor)?;
        }
        if self.direct_authentication {
            running.start(
                DIRECT_AUTHENTICATOR,
                &self,
                direct_authenticator::DirectAuthenticator,
            )?;
        }
        running.start(CREDENTIAL_ISSUER, &self, credential_issuer::CredentialIssuer)?;
        running.start(MEMBER_SERVICE, &self, member_service::MemberService)?;
        Ok(running)
    }

    fn caller(&self, identifier: Identifier, now: u64) -> Caller {
        let account_admin = self.account_authority.as_ref().is_some_and(|account| {
            let project = &self.issuer.settings().project_id;
            account
                .attributes
                .get(&identifier, &account.identifier, now)
                .is_some_and(|entry| entry.attributes.has("project", project))
        });
        Caller {
            identifier,
            account_admin,
        }
    }
}

impl Running {
    fn start(&mut self, address: &str, services: &Services, service: impl Service) -> Result<()> {
        let endpoint = Endpoint::new(services.clone(), service);
        self.addresses
            .push(self.node.start_sync_worker(address, endpoint)?);
        Ok(())
    }

    /// Lets what comes out of channels of this flow (that of the secure-channel listener) reach the services.
    pub fn consume(&self, flow: &Arc<Flow>) {
        for address in &self.addresses {
            self.node.add_consumer(flow, address);
        }
    }

    /// Addresses of the services.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Stops the services and waits until they have ended. Answers that are being worked on are not sent.
    pub async fn stop(&self) {
        for address in &self.addresses {
            // One that has ended already is what is wanted.
            let _ = self.node.stop_worker_and_wait(address).await;
        }
    }
}
