//! From the other end to the application.

use std::io;
use std::sync::atomic::Ordering;
use std::task::{self, Poll};

use portolan_runtime::{Envelope, Route};
use tokio::time::Instant;

use super::Connection;
use super::ends::{End, broken, broken_protocol, stopped};
use super::time::{BEAT, Due, LAST_WRITE};
use crate::application::GATHERED;
use crate::intercept;
use crate::protocol::{PortalMessage, Reason};
use crate::status::FailureKind;
use crate::stream::Event;

impl Connection {
    /// Takes what the other end has sent. Whether there was something.
    pub(super) fn receive(&mut self, cx: &mut task::Context<'_>) -> Result<bool, End> {
        for taken in 0..GATHERED {
            if self.is_full() {
                if self.ctx.poll_stopping(cx).is_ready() {
                    return Err(stopped());
                }
                return Ok(taken > 0);
            }
            match self.ctx.poll_next(cx) {
                Poll::Ready(Some(_)) if self.closing.is_some() => {}
                Poll::Ready(Some(envelope)) => self.interpret(envelope)?,
                Poll::Ready(None) => return Err(stopped()),
                Poll::Pending => return Ok(taken > 0),
            }
        }
        Ok(true)
    }

    pub(super) fn interpret(&mut self, envelope: Envelope) -> Result<(), End> {
        let Envelope { source, mut message } = envelope;
        self.missed = 0;
        if message.onward.len() != 1 {
            return Ok(()); // Nothing lies behind this worker (spec 01 §10.4).
        }
        let peer = message.peer().map(|peer| peer.identifier);
        if self.pinned && peer != self.peer {
            tracing::warn!("a portal message of another identity is ignored");
            return Ok(());
        }
        if self
            .early
            .as_ref()
            .is_some_and(|early| *early.channel() == source)
        {
            // The inlet knows this connection's own address now: nothing more comes by way of the outlet's.
            self.early = None;
        }
        if self.early.is_some()
            && !self.stream.takes_early()
            && PortalMessage::is_payload(message.payload.as_slice())
        {
            // The Pong says that it was not taken: it comes again, from the inlet itself.
            return Ok(());
        }
        let event = match self.stream.handle_message(message.payload.as_slice()) {
            Ok(event) => event,
            Err(error) => {
                tracing::debug!("a portal message is ignored: {error}");
                return Ok(());
            }
        };
        match event {
            Event::Opened { early } => {
                (self.peer, self.pinned) = (peer, true);
                self.opened(early, std::mem::take(&mut message.back));
                Ok(())
            }
            Event::Data { start, end } => {
                message.payload.truncate(end);
                message.payload.strip_front(start);
                self.arrived.push(message.payload);
                Ok(())
            }
            Event::Credit => Ok(()),
            Event::Ignored => self.grant(),
            Event::RemoteEnd => {
                self.remote_end = true;
                Ok(())
            }
            Event::Answer(answer) => self.tell(&answer),
            Event::Overrun => Err(broken_protocol("the other end sends more than the window allows")),
            Event::Withheld => Err(broken_protocol(
                "the other end has given back less of its credit than it must have",
            )),
            Event::NoMemory => Err(End::Local {
                reason: Reason::Limit,
                kind: FailureKind::Limit,
                text: self.stream.memory().exhausted(),
            }),
            Event::Closed(reason) => match self.blame(reason) {
                None if self.socket.is_some() => {
                    // All that came before the end is still delivered.
                    self.remote_end = true;
                    self.write_the_rest(End::Remote { failure: None });
                    Ok(())
                }
                failure => Err(End::Remote { failure }),
            },
        }
    }

    /// All that is left is to write what has arrived.
    pub(super) fn write_the_rest(&mut self, end: End) {
        self.closing = Some(Box::new(end));
        self.deadline = Some((Instant::now() + LAST_WRITE, Due::Written));
    }

    /// The Pong has come. What was read from the client is sent now, unless the outlet has taken it already.
    fn opened(&mut self, early: bool, remote: Route) {
        if let Some(asking) = self.asking.take() {
            asking
                .takes_early
                .store(self.stream.takes_early(), Ordering::Relaxed);
        }
        if early {
            self.held = Vec::new();
        }
        self.remote = Some(remote);
        self.deadline = None;
        self.beat = Instant::now() + BEAT;
    }

    /// Writes what has arrived to the application, and grants credit for it. Whether it took something.
    pub(super) fn write(&mut self, cx: &mut task::Context<'_>) -> Result<bool, End> {
        let Some(socket) = &mut self.socket else {
            return Ok(false);
        };
        let mut moved = false;
        while !self.arrived.is_empty() {
            let stream = &mut self.stream;
            match self
                .arrived
                .poll_write(socket, cx, |length| stream.delivered(length))
            {
                Poll::Ready(Ok(written)) => {
                    moved = true;
                    self.open
                        .0
                        .to_application
                        .fetch_add(written as u64, Ordering::Relaxed);
                }
                Poll::Ready(Err(error)) => return Err(self.unwritable(&error)),
                Poll::Pending => break,
            }
        }
        self.unflushed |= moved;
        if self.unflushed {
            match socket.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) if self.closing.is_none() || socket.is_intercepted() => {
                    return Err(self.unwritable(&error));
                }
                Poll::Ready(Err(_)) => {}
                Poll::Pending => moved |= socket.has_progressed(),
            }
        }
        if self.arrived.is_empty() {
            if self.remote_end {
                match socket.poll_shutdown(cx) {
                    Poll::Pending => {
                        if socket.has_progressed() {
                            self.deadline.take_if(|(_, due)| *due == Due::Written);
                        }
                        let limit = (Instant::now() + LAST_WRITE, Due::Written);
                        self.deadline.get_or_insert(limit);
                        return Ok(moved);
                    }
                    // What an interceptor had still to say is lost.
                    Poll::Ready(Err(error)) if socket.is_intercepted() => return Err(self.unwritable(&error)),
                    Poll::Ready(_) => {}
                }
                self.remote_end = false;
                self.deadline.take_if(|(_, due)| *due == Due::Written);
            }
            if let Some(end) = self.closing.take() {
                return Err(*end);
            }
            if self.stream.is_finished() && !self.ctx.has_unsent() {
                return Err(End::Finished);
            }
        }
        self.watch_stall(moved);
        if moved {
            // An application that is slow is not one that takes nothing.
            if self.closing.is_some() {
                self.deadline = Some((Instant::now() + LAST_WRITE, Due::Written));
            }
            self.grant()?;
        }
        Ok(moved)
    }

    /// What the application, or an interceptor before it, does not take any more.
    fn unwritable(&mut self, error: &io::Error) -> End {
        match self.closing.take() {
            // It is gone, and all that was left to do was to write to it.
            Some(end) if intercept::said(error).is_none() => *end,
            _ => broken(error),
        }
    }

    /// Whether a stock peer has sent all that may wait here. What comes after the end is not kept.
    pub(super) fn is_full(&mut self) -> bool {
        self.closing.is_none() && !self.stream.has_room()
    }

    fn grant(&mut self) -> Result<(), End> {
        match self.stream.poll_credit() {
            Some(credit) => self.tell(&credit),
            None => Ok(()),
        }
    }
}
