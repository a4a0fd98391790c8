//! Projects, tickets, members, credentials, keys.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::{AUTHORITY_TIMEOUT, ENROLL_TIMEOUT, Node};
use crate::control::api::{CredentialStatus, StoreCredential};
use crate::credential;
use crate::engine::remote::{self, Caller, IssuedTicket, Member, TicketRequest};
use crate::engine::{self, Running};
use crate::error::{Error, Result};
use crate::project::{self, Joined};
use crate::state::{Project, RotationSchedule, now};

/// The project that the node belongs to, as a member.
impl Node {
    /// The project that the node belongs to, if any.
    ///
    /// # Errors
    ///
    /// When the home cannot be read.
    pub fn project(&self) -> Result<Option<Project>> {
        self.running().node.project()
    }

    /// Join the project of a ticket, as the node's identity, and belong to it from now on.
    ///
    /// # Errors
    ///
    /// When the ticket cannot be read, is refused, or the authority cannot be reached.
    pub async fn enroll(&self, ticket: &str) -> Result<Joined> {
        let ticket = remote::read_ticket(ticket)?;
        self.on(move |running| async move {
            let own = running.core.own().record.name.clone();
            let joined = project::join(running.node.home(), &ticket, Some(&own), ENROLL_TIMEOUT).await?;
            running.adopt_project();
            // The node may have looked while it was no member yet, and would ask again only later.
            if let Some(membership) = running.core.membership() {
                membership.look_again();
            }
            Ok(joined)
        })
        .await
    }

    /// Fetch a new credential from the authority: what it says of this node may have changed. The node renews its credential in
    /// time without being asked.
    ///
    /// # Errors
    ///
    /// When the authority cannot be reached, or the node is no member.
    pub async fn fetch_credential(&self) -> Result<CredentialStatus> {
        self.on(|running| async move {
            let fetched = remote::fetch_credential(&caller(&running)?).await?;
            if let Some(membership) = running.core.membership() {
                membership.look_again();
            }
            Ok(fetched)
        })
        .await
    }
}

/// Who speaks for this node with its authority: on a project's node the administrator, else the node.
fn caller(running: &Arc<Running>) -> Result<Caller> {
    let home = running.node.home();
    let (identity, project) = match running.administrator()? {
        Some((administrator, project)) => (administrator, project),
        None => {
            let project = running.node.project()?.ok_or_else(|| {
                Error::not_found("this node belongs to no project")
                    .hint("join one with Node::enroll, or serve one with NodeBuilder::serve_project")
            })?;
            (running.core.own().record.name.clone(), project)
        }
    };
    Ok(Caller {
        home: home.clone(),
        identity,
        project,
        timeout: AUTHORITY_TIMEOUT,
    })
}

/// What the administrator of a project does, and whoever was given the role `enroller`. On the node that serves the project these speak
/// for its administrator, elsewhere for the node's own identity.
impl Node {
    async fn with_caller<T, F>(&self, ask: impl FnOnce(Caller) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        self.on(|running| async move { ask(caller(&running)?).await })
            .await
    }

    /// Make a ticket: whoever redeems it becomes a member with these attributes.
    ///
    /// # Errors
    ///
    /// When the authority cannot be reached, or this identity may not invite. So for all that follow.
    pub async fn issue_ticket(&self, request: TicketRequest) -> Result<IssuedTicket> {
        self.with_caller(|caller| async move { remote::create_ticket(&caller, &request).await })
            .await
    }

    /// All members and what the authority attests of them.
    ///
    /// # Errors
    ///
    /// As [`issue_ticket`](Self::issue_ticket).
    pub async fn members(&self) -> Result<Vec<Member>> {
        self.with_caller(|caller| async move { remote::list_members(&caller).await })
            .await
    }

    /// One member.
    ///
    /// # Errors
    ///
    /// As [`issue_ticket`](Self::issue_ticket).
    pub async fn member(&self, identifier: &str) -> Result<Member> {
        let identifier = identifier.to_owned();
        self.with_caller(|caller| async move { remote::show_member(&caller, &identifier).await })
            .await
    }

    /// Add a member without a ticket, or change the attributes of one: what the authority said of it before, if it was one.
    ///
    /// # Errors
    ///
    /// As [`issue_ticket`](Self::issue_ticket).
    pub async fn add_member(
        &self,
        identifier: &str,
        attributes: BTreeMap<String, String>,
    ) -> Result<Option<Member>> {
        let identifier = identifier.to_owned();
        self.with_caller(|caller| async move { remote::add_member(&caller, &identifier, &attributes).await })
            .await
    }

    /// Remove a member. It gets no credential any more, and what it has open ends within seconds.
    ///
    /// # Errors
    ///
    /// As [`issue_ticket`](Self::issue_ticket).
    pub async fn remove_member(&self, identifier: &str) -> Result<()> {
        let identifier = identifier.to_owned();
        self.with_caller(|caller| async move { remote::delete_member(&caller, &identifier).await })
            .await
    }

    /// Those of the attributes that no member has and no open ticket gives: probably misspelt.
    ///
    /// # Errors
    ///
    /// When the authority cannot be reached, or the caller is no member.
    pub async fn unknown_attributes(&self, names: &[&str]) -> Result<Vec<String>> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.with_caller(|caller| async move {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            remote::unknown_attributes(&caller, &names).await
        })
        .await
    }
}

/// Credentials by hand: statements that this node signs, or that others have signed about it.
impl Node {
    /// Sign a statement about an identity, in the name of this node's: `subject` has these attributes, for so long. The result is
    /// hex; [`NodeBuilder::credential`](crate::NodeBuilder::credential) presents it.
    ///
    /// # Errors
    ///
    /// When the subject is no identifier, the attributes are too many or too long, or the keys cannot be used.
    pub async fn issue_credential(
        &self,
        subject: &str,
        attributes: BTreeMap<String, String>,
        life: Duration,
    ) -> Result<String> {
        let subject = subject.to_owned();
        self.on(move |running| async move {
            let own = running.core.own().record.name.clone();
            let home = running.node.home().clone();
            engine::blocking(move || credential::issue(&home, Some(&own), &subject, &attributes, life)).await
        })
        .await
    }

    /// The credentials about this node's identity that its home has.
    ///
    /// # Errors
    ///
    /// When the home cannot be read.
    pub fn credentials(&self) -> Result<Vec<CredentialStatus>> {
        self.running().credentials()
    }

    /// Verify a credential about this node's identity and keep it. If it is for the node's project, the node presents it from now on.
    ///
    /// # Errors
    ///
    /// When it does not verify, or its issuer is not known here.
    pub async fn store_credential(&self, credential: StoreCredential) -> Result<CredentialStatus> {
        self.on(move |running| async move { running.store_credential(&credential) })
            .await
    }
}

/// The keys of the node's identity.
impl Node {
    /// Replace the signing key and the purpose keys. The identifier, the credentials and the open channels stay.
    ///
    /// # Errors
    ///
    /// When the keys cannot be used or written.
    pub async fn rotate_identity(&self) -> Result<()> {
        self.rotate(false).await
    }

    /// Replace the purpose keys only.
    ///
    /// # Errors
    ///
    /// When the keys cannot be used or written.
    pub async fn rotate_purpose_keys(&self) -> Result<()> {
        self.rotate(true).await
    }

    async fn rotate(&self, purpose_keys: bool) -> Result<()> {
        self.on(move |running| async move {
            let home = running.node.home().clone();
            let name = running.core.own().record.name.clone();
            engine::blocking(move || {
                if purpose_keys {
                    home.rotate_purpose_keys(&name)?;
                } else {
                    home.rotate_identity(&name)?;
                }
                home.delete_retired_keys(None, now()).map(drop)
            })
            .await?;
            running.look_for_rotations().await;
            Ok(())
        })
        .await
    }

    /// When the node replaces its keys by itself.
    ///
    /// # Errors
    ///
    /// When the home cannot be read.
    pub fn rotation_schedule(&self) -> Result<RotationSchedule> {
        self.home()
            .rotation_schedule(&self.running().core.own().record.name)
    }

    /// Say when the node replaces its keys by itself.
    ///
    /// # Errors
    ///
    /// When the ages are shorter than allowed, or the home cannot be written.
    pub fn set_rotation_schedule(&self, schedule: RotationSchedule) -> Result<()> {
        self.home()
            .set_rotation_schedule(&self.running().core.own().record.name, schedule)
    }
}
