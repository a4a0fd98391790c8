//! What happens to a connection by time alone: signs of life, and limits for those who take nothing or do not answer.

use std::io;
use std::sync::atomic::Ordering;
use std::task;
use std::time::Duration;

use tokio::time::Instant;

use super::Connection;
use super::ends::{End, broken, broken_protocol};
use crate::protocol::{PortalMessage, Reason};
use crate::socket::Socket;
use crate::status::FailureKind;
use crate::stream::Beat;

/// How long an application may take nothing while its buffer is full, with a peer that knows no window.
const STALL: Duration = Duration::from_secs(30);
/// The same while the channel waits, and with it all others that use it.
const GRACE: Duration = Duration::from_secs(5);
/// How often is looked whether it does: nobody tells.
const LOOK: Duration = Duration::from_secs(1);
/// After our application's end, how long a stock peer may still send what is in flight.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// How long the application may take nothing of the last bytes of an ended stream.
pub(super) const LAST_WRITE: Duration = Duration::from_secs(60);
/// How often an end that knows windows gives a sign of life, a credit of nothing: through a relay nobody else would
/// tell that the other node is gone.
pub(super) const BEAT: Duration = Duration::from_secs(10);
/// Beats without any message of the other end after which it is taken for dead.
const MISSED_BEATS: u32 = 3;

/// Why a time was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The Pong must have come, or the target be connected.
    Opened,
    /// The Pong usually has come; it may still.
    Expected,
    /// A stock peer has had its time after our end.
    Lingered,
    /// The application must have taken something; looked at so many times.
    Stalled(u8),
    /// The last bytes must have been written.
    Written,
}

impl Connection {
    /// Does what is due at this time. Whether there was something.
    pub(super) fn keep_time(&mut self, cx: &mut task::Context<'_>) -> Result<bool, End> {
        let beats = self.connecting.is_none() && self.stream.is_open() && self.stream.has_window();
        let next = match self.deadline {
            Some((at, _)) if beats => at.min(self.beat),
            Some((at, _)) => at,
            None if beats => self.beat,
            None => return Ok(false),
        };
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return Ok(false);
        }
        let deadline = self.deadline;
        match deadline {
            Some((at, Due::Written))
                if at <= next && self.closing.is_none() && self.unwritten().is_none() =>
            {
                // The application does not take the end of a wrapped stream; the other direction may go on.
                (self.remote_end, self.deadline) = (false, None);
                Ok(true)
            }
            Some((at, Due::Lingered)) if at <= next && self.unwritten().is_some() && !self.is_full() => {
                // The application is slower than the path: what has arrived is still its own.
                self.remote_end = true;
                self.write_the_rest(End::Finished);
                Ok(true)
            }
            Some((at, Due::Stalled(looks))) if at <= next => self.look_at_stall(looks).map(|()| true),
            Some((at, Due::Expected)) if at <= next => {
                self.deadline = Some((self.beat, Due::Opened));
                self.open.0.delayed();
                Ok(true)
            }
            Some((at, due)) if at <= next => Err(self.overdue(due)),
            _ => self.give_sign_of_life().map(|()| true),
        }
    }

    fn overdue(&mut self, due: Due) -> End {
        match due {
            Due::Opened | Due::Expected => {
                if let Some(connecting) = &self.connecting {
                    let limit = connecting.limit;
                    let late = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
                    return self.unreachable(&late);
                }
                let text = if self.ctx.has_unsent() {
                    "the outlet cannot be asked: the path to it takes nothing"
                } else {
                    "the outlet did not answer in time; its node, or the path to it, is down"
                };
                let failure = Some((FailureKind::NoAnswer, text.to_owned()));
                End::Silent { failure }
            }
            // The end of a stream that lacks its last bytes must not look like a clean one.
            Due::Lingered | Due::Written => match self.unwritten() {
                Some(bytes) => End::Local {
                    reason: Reason::Stalled,
                    kind: FailureKind::Stalled,
                    text: format!("the application did not take the last {bytes} bytes"),
                },
                None => self.closing.take().map_or(End::Finished, |end| *end),
            },
            Due::Stalled(looks) => {
                let time = LOOK * looks.into();
                let others = if time < STALL {
                    " while others waited behind it"
                } else {
                    ""
                };
                End::Local {
                    reason: Reason::Stalled,
                    kind: FailureKind::Stalled,
                    text: format!("the application took nothing for {time:?}{others}"),
                }
            }
        }
    }

    fn give_sign_of_life(&mut self) -> Result<(), End> {
        self.beat = Instant::now() + BEAT;
        // What has not left cannot have been answered.
        let heard = self.missed == 0 && !self.ctx.has_unsent();
        self.missed += 1;
        if self.missed > MISSED_BEATS {
            let text = format!("nothing was heard of the other end for {:?}", BEAT * MISSED_BEATS);
            return Err(End::Silent {
                failure: Some((FailureKind::PathLost, text)),
            });
        }
        match self.stream.handle_beat(heard) {
            Beat::Nothing => self.tell(&PortalMessage::Credit(0)),
            Beat::Tell(reclaim) => self.tell(&reclaim),
            Beat::Unanswered => Err(broken_protocol("the other end does not give unused credit back")),
        }
    }

    /// Bytes that have arrived for the application and that it has not taken; `None` if there are none.
    fn unwritten(&self) -> Option<usize> {
        let held = self.socket.as_ref().and_then(Socket::unwritten);
        match (self.arrived.is_empty(), held) {
            (true, held) => held,
            (false, held) => Some(self.arrived.bytes() + held.unwrap_or(0)),
        }
    }

    /// A stock peer's channel waits while the buffer and the mailbox of its connection are full, and others that use it too.
    pub(super) fn watch_stall(&mut self, moved: bool) {
        let stalled = self.is_full();
        match self.deadline {
            Some((_, Due::Stalled(_))) if moved || !stalled => self.deadline = None,
            None if stalled => self.deadline = Some((Instant::now() + LOOK, Due::Stalled(0))),
            _ => {}
        }
    }

    /// Looks at an application that took nothing since the last time: it has less time while others wait.
    fn look_at_stall(&mut self, looks: u8) -> Result<(), End> {
        self.deadline = None;
        if self.write_past_readiness()? {
            return Ok(());
        }
        let looks = looks.saturating_add(1);
        let limit = if self.ctx.is_waited_for() { GRACE } else { STALL };
        if LOOK * looks.into() >= limit {
            return Err(self.overdue(Due::Stalled(looks)));
        }
        self.deadline = Some((Instant::now() + LOOK, Due::Stalled(looks)));
        Ok(())
    }

    /// The system says that a socket takes more only when a third of its buffer is free, which may be megabytes. An
    /// application that reads slowly takes something long before.
    fn write_past_readiness(&mut self) -> Result<bool, End> {
        let (Some(socket), stream) = (&mut self.socket, &mut self.stream) else {
            return Ok(false);
        };
        if let Socket::Intercepted(intercepted) = socket {
            return match intercepted.write_now() {
                Ok(written) => Ok(written > 0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(broken(&error)),
            };
        }
        match self.arrived.write_now(socket, |length| stream.delivered(length)) {
            Ok(written) => {
                let count = &self.open.0.to_application;
                count.fetch_add(written as u64, Ordering::Relaxed);
                Ok(written > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(broken(&error)),
        }
    }
}
