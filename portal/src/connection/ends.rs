//! How a connection ends, and who is told why.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use portolan_runtime::{AccessControl, Address, MailboxOptions, Refusal, SendError, WorkerOptions};
use tokio::time::{timeout, timeout_at};

use super::{ANSWER_TIMEOUT, Connection};
use crate::application::GATHERED;
use crate::intercept;
use crate::protocol::{PortalMessage, Reason};
use crate::status::FailureKind;
use crate::stream::Role;

/// How a connection ends.
pub(crate) enum End {
    /// Both applications are done.
    Finished,
    /// The other end closed it; clean, unless it gave a reason that says otherwise.
    Remote { failure: Option<(FailureKind, String)> },
    /// We close it.
    Local {
        reason: Reason,
        kind: FailureKind,
        text: String,
    },
    /// There is nobody to tell.
    Silent { failure: Option<(FailureKind, String)> },
}

impl Connection {
    /// Says why, to whom it concerns.
    pub(crate) async fn end(mut self, end: End) {
        let failure = match end {
            End::Finished => None,
            End::Remote { failure } | End::Silent { failure } => failure,
            End::Local { reason, kind, text } => {
                if !self.stream.can_be_closed() {
                    self.hear_of_outlet().await;
                }
                if let Some(message) = self.stream.close(reason, &text) {
                    self.say_goodbye(&message).await;
                }
                Some((kind, text))
            }
        };
        let Some((kind, text)) = failure else {
            return;
        };
        self.open.0.fail(kind, text);
        if self.stream.has_carried_data()
            && let Some(socket) = &self.socket
        {
            socket.end_with_an_error();
        }
    }

    /// Waits for the Pong of an outlet that cannot be told of an end before: else it would keep a connection that nobody uses until
    /// its signs of life have been missed.
    async fn hear_of_outlet(&mut self) {
        // The time until which the Pong may come; see `Connection::inlet`.
        let limit = self.beat;
        let answered = poll_fn(|cx| {
            while self.asking.is_some() {
                match self.ctx.poll_next(cx) {
                    Poll::Ready(Some(envelope)) => {
                        if self.interpret(envelope).is_err() {
                            break;
                        }
                    }
                    Poll::Ready(None) => break,
                    Poll::Pending => {
                        let _ = self.ctx.poll_flush(cx);
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(())
        });
        let _ = timeout_at(limit, answered).await;
    }

    /// That the stream is over may be told to whom nothing else may be sent any more: then from an address of its own, past
    /// the rule.
    async fn say_goodbye(&mut self, message: &PortalMessage) {
        let Some(goodbye) = self.message(message) else {
            return;
        };
        if let Err(SendError::Refused(_)) = self.ctx.forward(goodbye) {
            let options = MailboxOptions::new(Address::random()).outgoing(AccessControl::AllowAll);
            if let Ok(mut ctx) = self.ctx.detached(WorkerOptions::with_mailbox(options))
                && let Some(goodbye) = self.message(message)
                && ctx.forward(goodbye).is_ok()
            {
                let _ = timeout(ANSWER_TIMEOUT, ctx.flush()).await;
            }
        }
        // What still comes must not wait for an end that is not told for want of room.
        let told = poll_fn(|cx| {
            for _ in 0..GATHERED {
                match self.ctx.poll_next(cx) {
                    Poll::Ready(Some(_)) => {}
                    Poll::Ready(None) => {
                        let _ = self.ctx.poll_flush(cx);
                        return Poll::Ready(());
                    }
                    Poll::Pending => return self.ctx.poll_flush(cx),
                }
            }
            cx.waker().wake_by_ref();
            self.ctx.poll_flush(cx)
        });
        let _ = timeout(ANSWER_TIMEOUT, told).await;
    }

    pub(super) fn unreachable(&mut self, error: &io::Error) -> End {
        if let Some(text) = intercept::said(error) {
            return match self.answer() {
                Ok(()) => intercepted(text),
                Err(_) => End::Silent {
                    failure: Some((FailureKind::Intercepted, text)),
                },
            };
        }
        let target = self
            .connecting
            .as_ref()
            .map(|connecting| Arc::clone(&connecting.target));
        let text = format!(
            "the target {} cannot be reached: {error}",
            target.unwrap_or_default()
        );
        // A stock inlet takes a refusal only after a Pong.
        match self.answer() {
            Ok(()) => End::Local {
                reason: Reason::Unreachable,
                kind: FailureKind::Unreachable,
                text,
            },
            Err(_) => End::Silent {
                failure: Some((FailureKind::Unreachable, text)),
            },
        }
    }

    /// What the peer's reason says about whose fault it is; `None` for a clean end.
    pub(super) fn blame(&self, reason: Option<(Reason, String)>) -> Option<(FailureKind, String)> {
        let (reason, text) = match reason {
            None if self.stream.has_carried_data() || self.stream.role() == Role::Outlet => return None,
            None => {
                return Some((
                    FailureKind::Peer,
                    "the outlet closed the connection at once".to_owned(),
                ));
            }
            Some(given) => given,
        };
        let kind = match reason {
            Reason::Finished => return None,
            Reason::Unreachable => FailureKind::Unreachable,
            Reason::Denied => FailureKind::DeniedByPeer,
            Reason::Limit => FailureKind::Limit,
            Reason::Reset => FailureKind::Reset,
            Reason::Intercepted => FailureKind::Intercepted,
            Reason::Stopped | Reason::Stalled | Reason::Protocol | Reason::Other(_) => FailureKind::Peer,
        };
        // What a peer says is shown to people: one line, no control characters.
        let text: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        Some((kind, format!("the other end says: {text}")))
    }
}

pub(super) fn broken(error: &io::Error) -> End {
    if let Some(text) = intercept::said(error) {
        return intercepted(text);
    }
    End::Local {
        reason: Reason::Reset,
        kind: FailureKind::Reset,
        text: format!("the application's connection broke: {error}"),
    }
}

fn intercepted(text: String) -> End {
    End::Local {
        reason: Reason::Intercepted,
        kind: FailureKind::Intercepted,
        text,
    }
}

pub(super) fn broken_protocol(text: &str) -> End {
    End::Local {
        reason: Reason::Protocol,
        kind: FailureKind::Peer,
        text: text.to_owned(),
    }
}

pub(super) fn stopped() -> End {
    End::Local {
        reason: Reason::Stopped,
        kind: FailureKind::Peer,
        text: "the portal was deleted or its node is stopping".to_owned(),
    }
}

pub(super) fn denied(text: String) -> End {
    End::Local {
        reason: Reason::Denied,
        kind: FailureKind::Denied,
        text,
    }
}

pub(super) fn path_lost() -> End {
    End::Silent {
        failure: Some((
            FailureKind::PathLost,
            "the connection or channel to the other end was lost".to_owned(),
        )),
    }
}

/// A message could not be sent.
pub(super) fn unsent(error: SendError) -> End {
    if let SendError::Refused(refused) = &error
        && let Refusal::Outgoing(denial) = &refused.reason
    {
        return denied(denial.to_string());
    }
    End::Silent {
        failure: Some((FailureKind::PathLost, error.to_string())),
    }
}
