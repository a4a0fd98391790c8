//! Removed members: learned from the authority, and cut off here (`docs/protocol/authority.md` §8).
//!
//! A removal must count wherever a node decides, not only where the authority runs. So every member's node keeps a channel to the
//! authority and asks it, again and again, who was removed; the authority answers as soon as there is something to say.
//! What it says is kept in the home, so that it also counts when the node starts and the authority is away.
//!
//! A removal voids the credentials that were issued until then. First every open portal asks its rules again, so that both ends are told why it
//! ends; a moment later the relays and the channels of the removed member end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_authority::client::{AuthorityClient, ClientError};
use portolan_authority::protocol::{Removal, RemovalsQuestion};
use portolan_identity::{AttributeRepository, Identifier, MemoryAttributeRepository};
use portolan_relay::RelayTable;
use portolan_runtime::{Address, Error as RuntimeError, Node, PeerIdentifier};
use portolan_secure_channel::{CloseReason, SecureChannels};
use tokio::sync::Notify;

use super::connect::{Appearance, Connector, blocking};
use super::membership::Membership;
use crate::error::Error;
use crate::state::now;

/// Between the end of a removed member's rights and that of its channels: time to tell the ends of portals why they were closed.
const GOODBYE: Duration = Duration::from_millis(200);
/// How long the authority may wait for a removal before it answers that there is none. Shorter than what firewalls forget
/// connections after.
const WAIT: u64 = 25;
/// How long a removal waits to be written before it counts.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the authority may take beyond that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for connection and channel.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Before the first question.
const START_PAUSE: Duration = Duration::from_secs(1);
/// Pauses after a failure: doubled from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// Pause after an authority that did not answer at all, such as a stock one, which does not know the question.
const UNANSWERED_PAUSE: Duration = Duration::from_secs(60);
/// A question that waits and comes back without news sooner than this is not asked again before [`EMPTY_PAUSE`].
const SOON: Duration = Duration::from_secs(1);
const EMPTY_PAUSE: Duration = Duration::from_secs(1);

/// Up to a quarter more or less, so that many nodes do not come at once.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + f64::from(getrandom::u32().unwrap_or(0) % 512) / 1024.0)
}

/// What removals act on in a node.
pub(crate) struct Removals {
    node: Node,
    channels: SecureChannels,
    attributes: Arc<MemoryAttributeRepository>,
    /// The relays that others have registered here.
    relays: Mutex<Option<RelayTable>>,
    lost: Notify,
}

/// Removed members that have nothing valid left of the authority that removed them. Others have joined again since.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Voided {
    /// All of them: to be [cut off](Removals::cut_off) at the node of the authority itself.
    pub(super) all: Vec<Identifier>,
    /// Those that had something of it here: to be cut off at the nodes of members. Everybody else here is somebody by another
    /// project, or by name, and this authority has no say in that.
    pub(super) credited: Vec<Identifier>,
}

fn void(
    attributes: &MemoryAttributeRepository,
    authority: &Identifier,
    removals: &[Removal],
    now: u64,
) -> Voided {
    let mut out = Voided::default();
    for Removal { member, removed_at } in removals {
        let had_some = attributes
            .revoke(member, authority, *removed_at)
            .unwrap_or_else(|error| {
                tracing::error!(%member, "a removal cannot be enforced: {error}");
                true
            });
        if attributes.get(member, authority, now).is_none() {
            out.all.push(*member);
            if had_some {
                out.credited.push(*member);
            }
        }
    }
    out
}

/// Why listening to an authority has ended.
enum Ended {
    /// It did not answer the first question.
    Unanswered,
    Failed(Error),
}

impl Removals {
    pub(super) fn new(connector: &Connector, attributes: Arc<MemoryAttributeRepository>) -> Self {
        Self {
            node: connector.node.clone(),
            channels: connector.channels.clone(),
            attributes,
            relays: Mutex::default(),
            lost: Notify::new(),
        }
    }

    /// From now on these are the relays that others have registered here.
    pub(super) fn set_relays(&self, relays: RelayTable) {
        *self.relays.lock() = Some(relays);
    }

    /// Resolves when somebody may have lost a right just now.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Void what this authority credited to the members until they were removed.
    pub(super) fn void(&self, authority: &Identifier, removals: &[Removal]) -> Voided {
        void(&self.attributes, authority, removals, now())
    }

    /// End everything that these peers have open here.
    pub(super) fn cut_off(self: &Arc<Self>, members: Vec<Identifier>) {
        if members.is_empty() {
            return;
        }
        self.lost.notify_one();
        let removals = Arc::clone(self);
        let end = move |_| async move {
            tokio::time::sleep(GOODBYE).await;
            removals.end(&members.into_iter().collect());
        };
        // Fails only while the node stops.
        let _ = self.node.start_task(Address::random(), end);
    }

    fn end(&self, members: &HashSet<Identifier>) {
        let relays = self.relays.lock().clone();
        if let Some(relays) = relays {
            for member in members {
                for name in relays.names_of(PeerIdentifier(*member.as_bytes())) {
                    relays.end(&self.node, &name);
                }
            }
        }
        // Once a path through a relay is open, its messages go past the relay from channel to channel (01 §4.1), so that it is
        // the channel that has to end.
        for info in self.channels.list() {
            if members.contains(&info.peer)
                && let Some(channel) = self.channels.get(&info.encryptor)
            {
                channel.stop_because(CloseReason::Removed);
                tracing::info!(member = %info.peer, "a channel of a removed member was closed");
            }
        }
    }

    /// Listen to the authority of a membership until that is given up.
    pub(super) async fn follow(self: Arc<Self>, membership: Arc<Membership>, connector: Connector) {
        let following = async {
            let mut pause = FIRST_PAUSE;
            // The connection of a relay or an inlet will do, and saves the project's node one. If that did not work, one of our own.
            let mut borrow = true;
            // They are opened first.
            tokio::time::sleep(spread(START_PAUSE)).await;
            loop {
                let mut answered = false;
                let ended = self.listen(&membership, &connector, borrow, &mut answered).await;
                borrow = answered;
                let wait = match ended {
                    Ended::Unanswered => UNANSWERED_PAUSE,
                    Ended::Failed(error) => {
                        tracing::debug!(
                            project = membership.project().name,
                            "the authority does not tell who is removed at present: {error}"
                        );
                        pause = if answered {
                            FIRST_PAUSE
                        } else {
                            (pause * 2).min(LONGEST_PAUSE)
                        };
                        pause
                    }
                };
                tokio::time::sleep(spread(wait)).await;
            }
        };
        tokio::select! {
            () = following => {}
            () = membership.retired() => {}
        }
    }

    async fn listen(
        self: &Arc<Self>,
        membership: &Membership,
        connector: &Connector,
        borrow: bool,
        answered: &mut bool,
    ) -> Ended {
        let failed = |error: &dyn std::fmt::Display| Ended::Failed(Error::failed(error.to_string()));
        let project = membership.project();
        let Some(route) = project.authority_access_route.as_deref() else {
            return failed(&"the project has no route to its authority");
        };
        let appearance = Appearance {
            identity: membership.identity().clone(),
            authorities: Vec::new(),
            credentials: None,
            authorized: Vec::new(),
            timeout: CONNECT_TIMEOUT,
            reachable: &[],
            waiting: None,
            borrow,
        };
        let authority = *membership.authority().identifier();
        let path = match connector.connect_described(route, authority, &appearance).await {
            Ok(path) => path,
            Err(error) => return Ended::Failed(error),
        };
        membership.look_at_authority(connector).await;
        let context = match connector.node.context(Address::random()) {
            Ok(context) => context,
            Err(error) => return failed(&error),
        };
        let client = AuthorityClient::new(&context, path.route().clone()).with_timeout(ANSWER_TIMEOUT);
        loop {
            let question = RemovalsQuestion {
                after: membership.last_removal(),
                // The first answer comes at once, and shows that the question is understood.
                wait: if *answered { WAIT } else { 0 },
            };
            let asked = tokio::time::Instant::now();
            let answer = tokio::select! {
                answer = client.removals(&question) => answer,
                reason = path.lost() => return failed(&reason),
            };
            let told = match answer {
                Ok(told) => told,
                Err(ClientError::Unreachable(RuntimeError::Timeout { .. })) if !*answered => {
                    return Ended::Unanswered;
                }
                Err(error) => return failed(&error),
            };
            *answered = true;
            let news = !told.removals.is_empty();
            self.take(membership, connector, &authority, told.last, told.removals)
                .await;
            if came_back_at_once(question.wait, news, asked.elapsed()) {
                tokio::select! {
                    () = tokio::time::sleep(spread(EMPTY_PAUSE) + EMPTY_PAUSE) => {}
                    reason = path.lost() => return failed(&reason),
                }
            }
        }
    }

    async fn take(
        self: &Arc<Self>,
        membership: &Membership,
        connector: &Connector,
        authority: &Identifier,
        last: u64,
        removals: Vec<Removal>,
    ) {
        if removals.is_empty() && last == membership.last_removal() {
            return;
        }
        // Written first, so that whoever is cut off stays cut off should the node end now. A home that cannot be written must not
        // keep anybody in, though.
        let removals = Arc::new(removals);
        let (home, of, kept) = (
            connector.home.clone(),
            authority.to_string(),
            Arc::clone(&removals),
        );
        let writing = blocking(move || home.database()?.put_removals(&of, last, &kept, now()));
        let problem = match tokio::time::timeout(WRITE_TIMEOUT, writing).await {
            Ok(written) => written.err().map(|error| error.to_string()),
            Err(_) => Some(format!("writing takes longer than {} s", WRITE_TIMEOUT.as_secs())),
        };
        if let Some(problem) = problem {
            tracing::warn!("who was removed may not be kept for the next start: {problem}");
        }
        self.cut_off(self.void(authority, &removals).credited);
        membership.set_last_removal(last);
    }
}

/// Whether the authority answers questions that should wait without waiting and without news.
fn came_back_at_once(wait: u64, news: bool, took: Duration) -> bool {
    wait > 0 && !news && took < SOON
}

#[cfg(test)]
mod tests {
    use portolan_identity::Attributes;

    use super::*;

    #[test]
    fn only_a_waiting_question_that_comes_back_at_once_without_news_is_paced() {
        let soon = Duration::from_millis(5);
        assert!(came_back_at_once(WAIT, false, soon));
        assert!(!came_back_at_once(WAIT, true, soon));
        assert!(!came_back_at_once(0, false, soon));
        assert!(!came_back_at_once(WAIT, false, Duration::from_secs(WAIT)));
    }

    #[test]
    fn an_authority_cuts_off_whom_it_has_credited_and_nobody_elses_members() {
        let [authority, other, ours, theirs, back] = [1, 2, 3, 4, 5].map(|n| Identifier::from([n; 32]));
        let known = MemoryAttributeRepository::default();
        let credit = |member, by, at| {
            let put = known.put(member, Attributes::default(), by, at, None);
            put.expect("a repository in memory");
        };
        credit(&ours, &authority, 10);
        credit(&theirs, &other, 10);
        credit(&back, &authority, 21);
        let removals = [ours, theirs, back].map(|member| Removal {
            member,
            removed_at: 20,
        });
        let voided = void(&known, &authority, &removals, 30);
        assert_eq!(voided.credited, [ours]);
        assert_eq!(voided.all, [ours, theirs]);
        assert!(known.get(&theirs, &other, 30).is_some());
        // Told once more, as after the authority's return from a copy of its database.
        assert!(void(&known, &authority, &removals, 30).credited.is_empty());
    }
}
