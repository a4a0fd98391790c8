//! From the application to the other end.

use std::sync::atomic::Ordering;
use std::task::{self, Poll};

use portolan_runtime::{Message, Payload, Route};
use tokio::time::Instant;

use super::Connection;
use super::ends::{End, broken, path_lost, unsent};
use super::time::{Due, LINGER};
use crate::application::SMALL_CHUNK;
use crate::protocol::{PortalMessage, payload_header};
use crate::stream::WORTHWHILE;

/// Less than this is not worth a message of its own before the Pong.
const WORTHWHILE_EARLY: usize = 1024;

impl Connection {
    /// Reads from the application and sends what was read. Whether there was something.
    pub(super) fn read(&mut self, cx: &mut task::Context<'_>) -> Result<bool, End> {
        if self.ctx.has_unsent() {
            // Bytes that nobody takes yet: no more are read, but what comes in is still taken.
            if self.ctx.poll_flush(cx).is_pending() {
                return Ok(false);
            }
            if self.stream.is_finished() {
                return Ok(true);
            }
        }
        if self.closing.is_some() {
            return Ok(false);
        }
        if self.asking.is_some() {
            return self.read_ahead(cx);
        }
        if let Some(held) = self.held.first_mut() {
            let sendable = self.stream.sendable();
            let payload = if held.len() <= sendable {
                self.held.remove(0)
            } else if sendable >= WORTHWHILE {
                // The first window may be smaller than what was read.
                let part = Payload::copy_from(&held.as_slice()[..sendable]);
                held.strip_front(sendable);
                part
            } else {
                return Ok(false);
            };
            self.send(payload)?;
            return Ok(true);
        }
        if self.local_end {
            return self.tell_local_end();
        }
        let sendable = self.stream.sendable();
        if sendable < WORTHWHILE {
            return Ok(false);
        }
        match self.poll_application(sendable, cx)? {
            Poll::Ready(Some(payload)) => self.send(payload)?,
            Poll::Ready(None) => {
                self.local_end = true;
                self.held = Vec::new();
            }
            Poll::Pending => return Ok(false),
        }
        Ok(true)
    }

    /// Reads while the Pong is awaited: what may be sent early, and sends it; else one chunk, so that a client that leaves
    /// is noticed.
    fn read_ahead(&mut self, cx: &mut task::Context<'_>) -> Result<bool, End> {
        let early = self.stream.may_send_early();
        let limit = match early {
            true => self.stream.sendable(),
            false if self.held.is_empty() => SMALL_CHUNK,
            false => 0,
        };
        if limit < WORTHWHILE_EARLY || self.local_end {
            return Ok(false);
        }
        match self.poll_application(limit, cx)? {
            Poll::Ready(Some(payload)) => {
                if early {
                    self.send(payload.clone())?;
                }
                self.held.push(payload);
            }
            Poll::Ready(None) => self.local_end = true,
            Poll::Pending => return Ok(false),
        }
        Ok(true)
    }

    /// `None`: it has sent its last byte.
    fn poll_application(
        &mut self,
        limit: usize,
        cx: &mut task::Context<'_>,
    ) -> Result<Poll<Option<Payload>>, End> {
        let Some(socket) = &mut self.socket else {
            return Ok(Poll::Pending);
        };
        match self.reader.poll_read(socket, limit, cx) {
            Poll::Ready(Ok(payload)) if payload.is_empty() => Ok(Poll::Ready(None)),
            Poll::Ready(Ok(payload)) => {
                self.open
                    .0
                    .from_application
                    .fetch_add(payload.len() as u64, Ordering::Relaxed);
                Ok(Poll::Ready(Some(payload)))
            }
            Poll::Ready(Err(error)) => Err(broken(&error)),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn tell_local_end(&mut self) -> Result<bool, End> {
        let Some(message) = self.stream.handle_local_end() else {
            return Ok(false);
        };
        self.tell(&message)?;
        if self.stream.is_lingering() {
            self.deadline = Some((Instant::now() + LINGER, Due::Lingered));
        }
        Ok(true)
    }

    fn send(&mut self, mut payload: Payload) -> Result<(), End> {
        let Some(to) = self.destination() else {
            return Err(path_lost());
        };
        let (header, used) = payload_header(payload.len());
        let message = Message {
            onward: to.clone(),
            back: Route::from(self.ctx.address()),
            payload: {
                self.stream.sent(payload.len());
                payload.prepend(&header[..used]);
                payload
            },
            local: Default::default(),
        };
        // If it cannot be sent the bytes are gone: the stream must not go on without them.
        self.ctx.forward(message).map_err(unsent)
    }

    pub(super) fn tell(&mut self, message: &PortalMessage) -> Result<(), End> {
        match self.message(message) {
            Some(message) => self.ctx.forward(message).map_err(unsent),
            None => Ok(()),
        }
    }

    pub(super) fn message(&self, message: &PortalMessage) -> Option<Message> {
        let to = self.destination()?;
        Some(Message::new(to, self.ctx.address(), message))
    }

    /// Before the Pong, everything goes to the outlet itself.
    fn destination(&self) -> Option<&Route> {
        let asked = self.asking.as_ref().map(|asking| &asking.route);
        self.remote.as_ref().or(asked)
    }
}
