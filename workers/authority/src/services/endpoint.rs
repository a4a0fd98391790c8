//! What all services share: one request in, one answer out, and no client that can hold up another.
//!
//! A request is decoded on the worker's thread and carried out on a thread for blocking work, since it waits
//! for SQLite and for the disk. Each answer, also that to a malformed request, is sent by a short-lived task
//! of its own: when the asking peer does not take it, only that task waits, and not for long. The worker
//! itself never waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portolan_identity::Identifier;
use portolan_runtime::{
    AccessControl, Address, Capacity, Context, Envelope, Message, Payload, PeerIdentifier, Result,
    SyncWorker, WorkerOptions,
};
use tokio::sync::{Semaphore, watch};

use super::Services;
use crate::api::{Request, Response, Status};
use crate::refusal::Refusal;
use crate::rules::Caller;

/// Requests to one service that are being worked on or whose answers are not yet taken. Further ones are
/// dropped: the service is flooded, and the clients' time-outs are the answer.
const MAX_PENDING: usize = 512;

/// The same for one peer, so that one that floods, or takes no answers, is alone in being dropped.
const MAX_PENDING_OF_PEER: usize = 32;

/// Requests of one peer that may wait, for half a minute each: few, so that many peers together do not take every place.
const MAX_WAITING_OF_PEER: usize = 4;

/// Requests of one service that use the database at the same time. They take turns there anyway.
const MAX_AT_WORK: usize = 4;

/// How long an answer waits for room in the asking peer's channel.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a request waits for before it is carried out.
pub(super) struct Patience {
    /// Until this changes …
    pub(super) changed: watch::Receiver<i64>,
    /// … or this long.
    pub(super) seconds: u64,
}

/// One service: what it does with a well-formed request of an authenticated caller. May block.
pub(super) trait Service: Send + Sync + 'static {
    /// Requests that are being worked on, or wait, at a time.
    fn max_pending(&self) -> usize {
        MAX_PENDING
    }

    /// Whether a request may have to wait. Must not block.
    fn may_wait(&self, _request: &Request) -> bool {
        false
    }

    /// What a request shall wait for. It holds its place meanwhile and nothing else.
    fn patience(
        &self,
        _services: &Services,
        _caller: &Caller,
        _request: &Request,
    ) -> Result<Option<Patience>, Refusal> {
        Ok(None)
    }

    fn handle(
        &self,
        services: &Services,
        caller: &Caller,
        request: &Request,
        now: u64,
    ) -> Result<Response, Refusal>;
}

/// The worker of one service.
pub(super) struct Endpoint {
    shared: Arc<Shared>,
    pending: Arc<Mutex<Pending>>,
    /// Those of them that may wait.
    waiting: Arc<Mutex<Pending>>,
}

/// Who waits for how many answers. `None` stands for senders inside this node.
#[derive(Default)]
struct Pending {
    total: usize,
    of_peer: HashMap<Option<PeerIdentifier>, usize>,
}

/// The right to one answer.
struct Permit {
    pending: Arc<Mutex<Pending>>,
    peer: Option<PeerIdentifier>,
}

impl Permit {
    fn acquire(
        pending: &Arc<Mutex<Pending>>,
        max_pending: usize,
        max_of_peer: usize,
        peer: Option<PeerIdentifier>,
    ) -> Option<Self> {
        let mut counts = pending.lock();
        let of_peer = counts.of_peer.get(&peer).copied().unwrap_or(0);
        if counts.total >= max_pending || of_peer >= max_of_peer {
            return None;
        }
        counts.total += 1;
        counts.of_peer.insert(peer, of_peer + 1);
        Some(Self {
            pending: Arc::clone(pending),
            peer,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.pending.lock();
        counts.total = counts.total.saturating_sub(1);
        match counts.of_peer.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.of_peer.remove(&self.peer)),
        }
    }
}

struct Shared {
    services: Services,
    service: Box<dyn Service>,
    at_work: Semaphore,
}

impl Endpoint {
    pub(super) fn new(services: Services, service: impl Service) -> Self {
        let shared = Shared {
            services,
            service: Box::new(service),
            at_work: Semaphore::new(MAX_AT_WORK),
        };
        Self {
            shared: Arc::new(shared),
            pending: Arc::default(),
            waiting: Arc::default(),
        }
    }
}

impl SyncWorker for Endpoint {
    fn handle(&mut self, ctx: &mut Context, envelope: Envelope) -> Result<()> {
        let Message {
            back, payload, local, ..
        } = envelope.message;
        // Nobody to answer to.
        let Some(first) = back.next().cloned() else {
            return Ok(());
        };
        let peer = local.peer.map(|peer| peer.identifier);
        let Some(permit) = Permit::acquire(
            &self.pending,
            self.shared.service.max_pending(),
            MAX_PENDING_OF_PEER,
            peer,
        ) else {
            tracing::debug!(?peer, service = %ctx.address(), "request dropped: too many answers of this service are not yet taken");
            return Ok(());
        };
        let task = match (peer, Request::decode(payload.as_slice())) {
            (None, _) => Err(Response::secure_channel_required()),
            (Some(peer), Ok(request)) => Ok((Identifier::from(peer.0), request)),
            (Some(peer), Err(malformed)) => {
                tracing::debug!(%peer, %malformed, "malformed request");
                Err(malformed.answer())
            }
        };
        let mut place = None;
        if task
            .as_ref()
            .is_ok_and(|(_, request)| self.shared.service.may_wait(request))
        {
            let max = self.shared.service.max_pending();
            place = Permit::acquire(&self.waiting, max, MAX_WAITING_OF_PEER, peer);
            if place.is_none() {
                tracing::debug!(?peer, service = %ctx.address(), "request dropped: the peer has too many that wait");
                return Ok(());
            }
        }
        let shared = Arc::clone(&self.shared);
        let service = ctx.address().clone();
        let first_hop = first.clone();
        let options = WorkerOptions::new(Address::random())
            .incoming(AccessControl::DenyAll)
            .outgoing(AccessControl::only(first))
            .capacity(Capacity {
                messages: 1,
                bytes: 1,
            });
        let gone = ctx.node().ended(&first_hop);
        ctx.start_task(options, move |mut ctx| async move {
            let _permits = (permit, place);
            let stopping = ctx.stopping();
            let response = match task {
                Ok((peer, request)) => tokio::select! {
                    biased; // What is done is answered.
                    response = shared.run(peer, request) => response,
                    // Nobody is left to answer to, or nobody to answer: what waits must not hold its place.
                    () = gone => return,
                    () = stopping => return,
                },
                Err(answer) => answer,
            };
            let message = Message::new(back, service, Payload::from(response.encode(random_id())));
            match tokio::time::timeout(ANSWER_TIMEOUT, ctx.send_message(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(?peer, %error, "an answer could not be sent"),
                Err(_) => tracing::debug!(?peer, "an answer was not taken in time"),
            }
        })?;
        Ok(())
    }
}

impl Shared {
    async fn run(self: Arc<Self>, peer: Identifier, request: Request) -> Response {
        let re = request.header.id;
        let request = Arc::new(request);
        if self.service.may_wait(&request) {
            let (shared, asked) = (Arc::clone(&self), Arc::clone(&request));
            match self.blocking(re, move || shared.patience(peer, &asked)).await {
                Ok(None) => {}
                Ok(Some(Patience { mut changed, seconds })) => {
                    let limit = Duration::from_secs(seconds);
                    // Whatever woke it, the store is asked.
                    let _ = tokio::time::timeout(limit, changed.changed()).await;
                }
                Err(answer) => return *answer,
            }
        }
        let shared = Arc::clone(&self);
        let answer = self.blocking(re, move || Ok(shared.answer(peer, &request))).await;
        answer.unwrap_or_else(|answer| *answer)
    }

    /// Does what may block beside the arbiter, when it is its turn.
    async fn blocking<T: Send + 'static>(
        &self,
        re: u32,
        work: impl FnOnce() -> Result<T, Box<Response>> + Send + 'static,
    ) -> Result<T, Box<Response>> {
        let failed = |message: &str| {
            let message = Some(message.to_owned());
            let body = crate::api::ErrorBody {
                message,
                ..Default::default()
            };
            Box::new(Response::failure(re, Status::InternalServerError, body))
        };
        let Ok(_turn) = self.at_work.acquire().await else {
            return Err(failed("the authority is stopping"));
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a service panicked");
            Err(failed("the authority failed; its log has the reason"))
        })
    }

    fn patience(&self, peer: Identifier, request: &Request) -> Result<Option<Patience>, Box<Response>> {
        let caller = self.services.caller(peer, (self.services.clock)());
        self.service
            .patience(&self.services, &caller, request)
            .map_err(|refusal| Box::new(refuse(&peer, request, &refusal)))
    }

    fn answer(&self, peer: Identifier, request: &Request) -> Response {
        let now = (self.services.clock)();
        let caller = self.services.caller(peer, now);
        self.service
            .handle(&self.services, &caller, request, now)
            .unwrap_or_else(|refusal| refuse(&peer, request, &refusal))
    }
}

fn refuse(peer: &Identifier, request: &Request, refusal: &Refusal) -> Response {
    match refusal {
        Refusal::Store(error) => tracing::error!(%peer, %error, "the database of the authority failed"),
        refusal => tracing::debug!(%peer, %refusal, path = request.header.path, "refused"),
    }
    request.refuse(refusal.status(), refusal.to_string())
}

/// An id for a response. Nobody matches on it, so where there is no randomness any number does.
fn random_id() -> u32 {
    getrandom::u32().unwrap_or(1)
}

/// The 400 for a path or method that a service does not have.
pub(super) fn unknown_path() -> Refusal {
    Refusal::BadRequest(crate::api::UNKNOWN_PATH.to_owned())
}
