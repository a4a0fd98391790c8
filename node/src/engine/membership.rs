//! The credential of one of our identities in one project: fetched, kept, renewed (spec 02 §4.6, 03 §6.1).
//!
//! A node must not depend on the authority at every start. The credential of the last time, kept in the home, is presented as
//! long as it is valid; meanwhile the node asks for a newer one when the old one's end comes near, and goes on asking until it
//! gets one. Every open channel that presents the credential is told of the new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use portolan_authority::api::{Failure, Method, Request, Response};
use portolan_authority::protocol::CREDENTIAL_ISSUER;
use portolan_identity::{CredentialAndPurposeKey, HistoryOrder, Identifier, Identity, VerifiedCredential};
use portolan_runtime::{Address, Node, Route};
use portolan_secure_channel::{CredentialSource, CurrentCredential, LocalIdentity};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::connect::{Appearance, Connector, blocking};
use super::removals::Removals;
use crate::control::api::CredentialStatus;
use crate::error::{Error, ErrorCode, Result};
use crate::state::{CredentialRecord, Home, Project, now};

/// A credential is renewed this long before its end (03 §6.1), or when half of its life is over, whichever is later: one with
/// a short life must not be renewed without pause.
const RENEW_BEFORE: u64 = 120;
/// Pause after a failed attempt; up to a quarter more or less, so that many nodes do not come at once.
const RETRY: Duration = Duration::from_secs(10);
/// Longest sleep at a time: a clock that was set, a machine that slept, or a credential that a command has put into the home
/// meanwhile (after an enrollment, say) must not be noticed late.
const LONGEST_SLEEP: u64 = 5;
/// Limit for one attempt: connection, channel, request.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
/// After a rotation of the authority, the time until a new credential is fetched: who has not heard of the rotation would not
/// believe it.
const OTHERS_LEARN_TOO: Duration = Duration::from_secs(3);
/// How long a connection waits for the first credential.
pub(crate) const FIRST_CREDENTIAL: Duration = Duration::from_secs(10);

/// What is known about the credential.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// Until when the presented credential is valid, UTC seconds.
    pub(crate) expires_at: Option<u64>,
    /// Why there is no valid credential, or why it could not be renewed.
    pub(crate) failure: Option<Error>,
    /// The first attempt is over.
    settled: bool,
}

/// One of our identities as a member of one project.
pub(crate) struct Membership {
    /// With the authority's history as of the last rotation that we know of.
    project: RwLock<Arc<Project>>,
    authority: RwLock<Identity>,
    identity: LocalIdentity,
    credential: watch::Sender<CurrentCredential>,
    standing: watch::Sender<Standing>,
    look_again: Notify,
    retired: watch::Sender<bool>,
    /// The number of the last removal that the authority has told us of.
    last_removal: AtomicU64,
}

impl CredentialSource for Membership {
    fn subscribe(&self) -> watch::Receiver<CurrentCredential> {
        self.credential.subscribe()
    }
}

impl Membership {
    /// Begin to keep the credential of `identity` for `project` up to date, until the node stops, and to make `removals` count of
    /// which the project's authority tells.
    ///
    /// # Errors
    ///
    /// When the project's record does not verify, what the home knows of removed members cannot be read, or the node is
    /// stopping.
    pub(crate) fn start(
        connector: Connector,
        project: Project,
        identity: LocalIdentity,
        removals: Option<Arc<Removals>>,
    ) -> Result<Arc<Self>> {
        let authority = authority_of(&project)?;
        // Whoever shows a chain of before, with keys that were given up, is not the authority.
        let _ = connector.channels.identities().update(authority.clone());
        let mut last_removal = 0;
        if let Some(removals) = &removals {
            // Before anybody can present an old credential.
            let told = connector
                .home
                .database()?
                .removals(&authority.identifier().to_string())?;
            removals.void(authority.identifier(), &told.1);
            last_removal = told.0;
        }
        let membership = Arc::new(Self {
            project: RwLock::new(Arc::new(project)),
            authority: RwLock::new(authority),
            identity,
            credential: watch::channel(None).0,
            standing: watch::channel(Standing::default()).0,
            look_again: Notify::new(),
            retired: watch::channel(false).0,
            last_removal: AtomicU64::new(last_removal),
        });
        let (kept, followed) = (Arc::clone(&membership), Arc::clone(&membership));
        let node: Node = connector.node.clone();
        node.start_task(Address::random(), move |ctx| async move {
            let stopping = ctx.stopping();
            let following = async {
                match removals {
                    Some(removals) => removals.follow(followed, connector.clone()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopping => {}
                () = kept.keep(&connector) => {}
                () = following => {}
            }
        })
        .map_err(|error| Error::failed(error.to_string()))?;
        Ok(membership)
    }

    /// The project.
    pub(crate) fn project(&self) -> Arc<Project> {
        Arc::clone(&self.project.read())
    }

    /// Whose credentials count in the project.
    pub(crate) fn authority(&self) -> Identity {
        self.authority.read().clone()
    }

    /// The same project, of which something else is known now: another address, or a rotation of its authority. Whoever presents
    /// our credential goes on.
    ///
    /// # Errors
    ///
    /// When the record does not verify.
    pub(super) fn set_project(&self, project: Project) -> Result<()> {
        let authority = authority_of(&project)?;
        let mut current = self.authority.write();
        if authority.compare(&current) == HistoryOrder::Newer {
            *current = authority;
        }
        drop(current);
        *self.project.write() = Arc::new(project);
        self.look_again();
        Ok(())
    }

    /// What the authority has shown in a handshake, if that is more than we know: it was rotated.
    fn rotated_authority(&self, connector: &Connector) -> Option<Identity> {
        let known = self.authority();
        let latest = latest(connector, &known);
        (latest.compare(&known) == HistoryOrder::Newer).then_some(latest)
    }

    /// After a handshake with the authority. Where that has shown a rotation, a new credential is fetched a little later.
    pub(super) async fn look_at_authority(&self, connector: &Connector) {
        if self.rotated_authority(connector).is_some() {
            tokio::time::sleep(OTHERS_LEARN_TOO).await;
            self.follow_authority(connector).await;
            self.look_again();
        }
    }

    /// From now on credentials by the authority's newest key count, also after the next start.
    async fn follow_authority(&self, connector: &Connector) {
        let Some(latest) = self.rotated_authority(connector) else {
            return;
        };
        let mut project = (*self.project()).clone();
        project.authority_identity = Some(hex::encode(latest.history().encode()));
        tracing::info!(project = project.name, "the authority of the project was rotated");
        *self.authority.write() = latest;
        *self.project.write() = Arc::new(project.clone());
        let home = connector.home.clone();
        let kept = blocking(move || home.database()?.put_project(&project, false)).await;
        if let Err(error) = kept {
            tracing::warn!("that the authority was rotated cannot be kept for the next start: {error}");
        }
    }

    /// Our identity in it.
    pub(crate) fn identity(&self) -> &LocalIdentity {
        &self.identity
    }

    /// What is known about the credential.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Look into the home again: somebody has put a credential there, or has just become a member.
    pub(crate) fn look_again(&self) {
        self.look_again.notify_one();
    }

    /// Renew no more: another one takes its place.
    pub(crate) fn retire(&self) {
        self.retired.send_replace(true);
        self.look_again.notify_one();
    }

    /// Resolves when another one takes its place.
    pub(super) async fn retired(&self) {
        // The sender lives as long as we do.
        let _ = self.retired.subscribe().wait_for(|retired| *retired).await;
    }

    /// The number of the last removal that the authority has told us of.
    pub(super) fn last_removal(&self) -> u64 {
        self.last_removal.load(Ordering::Relaxed)
    }

    /// The authority has told us of removals up to this number.
    pub(super) fn set_last_removal(&self, last: u64) {
        self.last_removal.store(last, Ordering::Relaxed);
    }

    /// Wait until there is a credential to present, or until an attempt to get one has failed.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(crate) async fn ready(&self) -> Result<()> {
        if self.credential.borrow().is_some() {
            return Ok(());
        }
        let mut standing = self.standing.subscribe();
        let settled = standing.wait_for(|standing| standing.settled);
        match tokio::time::timeout(FIRST_CREDENTIAL, settled).await {
            Ok(Ok(standing)) => match (&standing.failure, standing.expires_at) {
                (Some(failure), None) => Err(Error {
                    message: format!(
                        "this node has no credential of the project `{}`: {}",
                        self.project().name,
                        failure.message
                    ),
                    ..failure.clone()
                }),
                _ => Ok(()),
            },
            _ => Err(Error::timeout(format!(
                "the authority of the project `{}` has not answered yet",
                self.project().name
            ))),
        }
    }

    async fn keep(&self, connector: &Connector) {
        let home = connector.home.clone();
        // What is presented although the home does not have it or cannot be read: a full disk must not end a membership.
        let mut held: Option<(CurrentCredential, VerifiedCredential)> = None;
        let mut unsaved = false;
        // Whoever had not heard of a rotation of the authority did not believe the first credential after it: there is a second.
        let mut authority_changes = self.authority().history().len();
        let mut once_more: Option<Instant> = None;
        while !*self.retired.borrow() {
            let stored = self.load(&home).await;
            let known = match stored {
                Ok(Some(stored)) if !unsaved || is_newer(&stored.1, held.as_ref()) => {
                    unsaved = false;
                    Some(stored)
                }
                Ok(None) if !unsaved => None,
                _ => held.take().filter(|(_, verified)| now() < verified.expires_at),
            };
            held.clone_from(&known);
            let presented = known.as_ref().map(|(_, verified)| verified.expires_at);
            if let Some((credential, verified)) = known {
                self.present(credential);
                let (end, renew) = (verified.expires_at, renew_at(&verified));
                if now() < renew && once_more.is_none_or(|at| Instant::now() < at) {
                    self.tell(Standing {
                        expires_at: Some(end),
                        failure: None,
                        settled: true,
                    });
                    self.sleep_until(renew, once_more).await;
                    continue;
                }
            } else {
                self.present(None);
            }
            match fetch(connector, &self.project(), &self.authority(), &self.identity).await {
                Ok(fetched) => {
                    self.follow_authority(connector).await;
                    let changes = self.authority().history().len();
                    once_more = (changes != authority_changes).then(|| Instant::now() + OTHERS_LEARN_TOO);
                    authority_changes = changes;
                    tracing::info!(
                        project = self.project().name,
                        expires_at = fetched.expires_at,
                        "credential received"
                    );
                    let fresh = self.verified(&fetched);
                    let home = home.clone();
                    if let Err(error) = blocking(move || home.database()?.put_credential(&fetched)).await {
                        // Presented all the same; the next start will have to ask again.
                        tracing::warn!("the credential cannot be kept: {error}");
                        (held, unsaved) = (fresh, true);
                    }
                }
                Err(failure) => {
                    tracing::warn!(
                        project = self.project().name,
                        "no credential: {failure}; trying again"
                    );
                    self.tell(Standing {
                        expires_at: presented.filter(|end| *end > now()),
                        failure: Some(failure),
                        settled: true,
                    });
                    let pause = RETRY.mul_f64(0.75 + f64::from(getrandom::u32().unwrap_or(0) % 512) / 1024.0);
                    let again = self.look_again.notified();
                    let _ = tokio::time::timeout(pause, again).await;
                }
            }
        }
    }

    async fn sleep_until(&self, time: u64, or_until: Option<Instant>) {
        let pause = Duration::from_secs(time.saturating_sub(now()).clamp(1, LONGEST_SLEEP));
        let end = Instant::now() + pause;
        let again = self.look_again.notified();
        let _ = tokio::time::timeout_at(or_until.map_or(end, |until| until.min(end)), again).await;
    }

    /// The credential that the home has, if it is valid.
    async fn load(&self, home: &Home) -> Result<Option<(CurrentCredential, VerifiedCredential)>> {
        let (home, subject, scope) = (
            home.clone(),
            self.identity.identifier().to_string(),
            self.project().credential_scope(),
        );
        let record = blocking(move || home.database()?.credential(&subject, &scope))
            .await
            .inspect_err(|error| tracing::warn!("the credentials of this home cannot be read: {error}"))?;
        Ok(record.and_then(|record| self.verified(&record)))
    }

    fn verified(&self, record: &CredentialRecord) -> Option<(CurrentCredential, VerifiedCredential)> {
        verify(&record.credential, self.identity.identifier(), &self.authority())
            .inspect_err(|error| tracing::debug!("the credential of this home is of no use: {error}"))
            .map(|(credential, verified)| (Some(Arc::new(credential)), verified))
            .ok()
    }

    fn present(&self, credential: CurrentCredential) {
        self.credential.send_if_modified(|current| {
            let same = match (&*current, &credential) {
                (None, None) => true,
                (Some(current), Some(new)) => current.encode() == new.encode(),
                _ => false,
            };
            if !same {
                *current = credential;
            }
            !same
        });
    }

    fn tell(&self, standing: Standing) {
        self.standing.send_replace(standing);
    }
}

/// Whether a stored credential was issued after the one that could not be stored.
fn is_newer(stored: &VerifiedCredential, held: Option<&(CurrentCredential, VerifiedCredential)>) -> bool {
    held.is_none_or(|(_, held)| stored.created_at > held.created_at)
}

fn renew_at(credential: &VerifiedCredential) -> u64 {
    let life = credential.expires_at.saturating_sub(credential.created_at);
    credential.expires_at - RENEW_BEFORE.min(life / 2).min(credential.expires_at)
}

fn verify(
    bytes: &[u8],
    subject: &Identifier,
    authority: &Identity,
) -> Result<(CredentialAndPurposeKey, VerifiedCredential)> {
    let not_verified = |error: &dyn std::fmt::Display| {
        Error::new(
            ErrorCode::NotVerified,
            format!("the credential does not verify: {error}"),
        )
    };
    let credential = CredentialAndPurposeKey::decode(bytes).map_err(|error| not_verified(&error))?;
    let verified = credential
        .verify(Some(subject), std::slice::from_ref(authority), now())
        .map_err(|error| not_verified(&error))?;
    Ok((credential, verified))
}

/// An identity as of the last rotation that our channels have been shown.
pub(super) fn latest(connector: &Connector, identity: &Identity) -> Identity {
    match connector.channels.identities().get(identity.identifier()) {
        Ok(Some(known)) if known.compare(identity) == HistoryOrder::Newer => known,
        _ => identity.clone(),
    }
}

/// The verified identity of a project's authority.
pub(crate) fn authority_of(project: &Project) -> Result<Identity> {
    let damaged = |what: &dyn std::fmt::Display| {
        Error::new(
            ErrorCode::NotVerified,
            format!(
                "the record of the project `{}` cannot be used: {what}",
                project.name
            ),
        )
        .hint("enroll again with a fresh ticket: portolan project enroll TICKET")
    };
    let history = project
        .authority_identity
        .as_deref()
        .ok_or_else(|| damaged(&"it names no authority"))?;
    let history = hex::decode(history.trim()).map_err(|error| damaged(&error))?;
    Identity::decode(&history, None).map_err(|error| damaged(&error))
}

/// Ask a project's authority for the credential of one of our identities (03 §4.5), over a channel made for it. The answer is
/// verified, and not yet stored.
///
/// # Errors
///
/// When the authority cannot be reached, is another one, or does not know us as a member.
pub(crate) async fn fetch(
    connector: &Connector,
    project: &Project,
    authority: &Identity,
    identity: &LocalIdentity,
) -> Result<CredentialRecord> {
    let asking = async {
        let route = project.authority_access_route.as_deref().ok_or_else(|| {
            Error::invalid(format!(
                "the project `{}` has no route to its authority",
                project.name
            ))
        })?;
        let appearance = Appearance {
            identity: identity.clone(),
            authorities: Vec::new(),
            credentials: None,
            authorized: Vec::new(),
            timeout: FETCH_TIMEOUT,
            reachable: &[],
            waiting: None,
            borrow: false,
        };
        let path = connector
            .connect_described(route, *authority.identifier(), &appearance)
            .await
            .map_err(|error| Error {
                message: format!("the authority cannot be reached: {}", error.message),
                ..error
            })?;
        let request = Request::new(getrandom::u32().unwrap_or(1), Method::Post, "/");
        let mut route: Route = path.route().clone();
        route.push(Address::local(CREDENTIAL_ISSUER));
        let answer = connector
            .node
            .send_and_receive_within::<Vec<u8>, Vec<u8>>(FETCH_TIMEOUT, route, request.encode())
            .await
            .map_err(|error| Error::unreachable(format!("the authority does not answer: {error}")))?;
        let body = Response::decode(answer.payload())
            .map_err(|error| Error::failed(format!("the authority's answer cannot be read: {error}")))?
            .into_success()
            .map_err(|failure: Failure| {
                Error::refused(format!("the authority refused: {failure}")).hint(
                    "ask an administrator of the project for a ticket and run portolan project enroll TICKET",
                )
            })?
            .unwrap_or_default();
        // In the handshake it may have shown that it was rotated.
        let authority = latest(connector, authority);
        let (credential, verified) = verify(&body, identity.identifier(), &authority)?;
        Ok(record(&credential, &verified, &project.credential_scope()))
    };
    tokio::time::timeout(FETCH_TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| {
            Err(Error::timeout(format!(
                "the authority did not answer within {} s",
                FETCH_TIMEOUT.as_secs()
            )))
        })
}

/// A verified credential as the home keeps it.
pub(crate) fn record(
    credential: &CredentialAndPurposeKey,
    verified: &VerifiedCredential,
    scope: &str,
) -> CredentialRecord {
    CredentialRecord {
        subject: verified.subject.to_string(),
        issuer: verified.issuer.to_string(),
        scope: scope.to_owned(),
        created_at: verified.created_at,
        expires_at: verified.expires_at,
        attributes: verified
            .attributes
            .iter()
            .map(|(name, value)| {
                (
                    String::from_utf8_lossy(name).into_owned(),
                    String::from_utf8_lossy(value).into_owned(),
                )
            })
            .collect(),
        credential: credential.encode(),
    }
}

/// A stored credential as it is shown.
pub(crate) fn credential_status(record: CredentialRecord) -> CredentialStatus {
    CredentialStatus {
        subject: record.subject,
        issuer: record.issuer,
        scope: record.scope,
        created_at: record.created_at,
        expires_at: record.expires_at,
        attributes: record.attributes,
        credential: hex::encode(record.credential),
    }
}
