//! Interceptors that do their work at once, on the thread of the connection.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use portolan_runtime::Payload;
use portolan_runtime::payload::CHUNK;

use super::{Direction, Ended, Interceptor};

/// What a [`Filter`] may give for one piece, in bytes, beside as many as the piece has.
pub const MAX_OUTPUT: usize = 1024 * 1024;

/// Bytes that are written one after the other go together up to this length.
const LEAST_PIECE: usize = 4 * 1024;

/// Changes the bytes of one connection. Each connection has its own.
///
/// It runs on the thread that carries the bytes of this connection and of others: it must not block, and should take no longer
/// than a copy of the bytes would.
pub trait Filter: Send {
    /// Bytes have come, never none. What `output` gets goes on in their place; what is kept back comes in a later call. How
    /// they are cut into pieces means nothing: a line may come in two calls, two lines in one.
    ///
    /// # Errors
    /// Why the connection shall end; see [`Ended::because`].
    fn data(&mut self, direction: Direction, bytes: Payload, output: &mut Output) -> Result<(), Ended>;

    /// No more bytes come in this direction; the other one goes on. What `output` gets is sent before the end: what was kept
    /// back, for instance.
    ///
    /// # Errors
    /// Why the connection shall end.
    fn end(&mut self, direction: Direction, output: &mut Output) -> Result<(), Ended> {
        let _ = (direction, output);
        Ok(())
    }
}

/// What goes on in place of what came.
#[derive(Debug)]
pub struct Output {
    pieces: VecDeque<Payload>,
    /// What may still be added.
    room: usize,
    /// What the last piece, which was written, has room for.
    fill: usize,
    overflown: bool,
}

impl Output {
    fn new() -> Self {
        Self {
            pieces: VecDeque::new(),
            room: 0,
            fill: 0,
            overflown: false,
        }
    }

    /// Lets a piece go on: the one that came, changed or not, without a copy, or another one.
    pub fn push(&mut self, bytes: Payload) {
        if bytes.is_empty() || self.overflown {
            return;
        }
        match self.room.checked_sub(bytes.len()) {
            Some(room) => {
                (self.room, self.fill) = (room, 0);
                self.pieces.push_back(bytes);
            }
            None => self.overflown = true,
        }
    }

    /// Lets a copy of these bytes go on. What is written bit by bit becomes pieces of a size that is worth carrying.
    pub fn write(&mut self, mut bytes: &[u8]) {
        if self.overflown || bytes.len() > self.room {
            self.overflown = true;
            return;
        }
        self.room -= bytes.len();
        while !bytes.is_empty() {
            if self.fill == 0 {
                let size = bytes.len().clamp(LEAST_PIECE, CHUNK);
                self.pieces.push_back(Payload::with_capacity(size));
                self.fill = size;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.fill));
            if let Some(last) = self.pieces.back_mut() {
                last.append(now);
            }
            self.fill -= now.len();
            bytes = later;
        }
    }
}

/// A [`Filter`] as an interceptor.
pub struct Inline<F> {
    filter: F,
    to_service: Lane,
    to_client: Lane,
    ended: Option<Ended>,
}

struct Lane {
    output: Output,
    over: bool,
}

impl<F: Filter + 'static> Inline<F> {
    /// As [`Intercept::open`](super::Intercept::open) returns it.
    pub fn boxed(filter: F) -> Box<dyn Interceptor> {
        let lane = || Lane {
            output: Output::new(),
            over: false,
        };
        Box::new(Self {
            filter,
            to_service: lane(),
            to_client: lane(),
            ended: None,
        })
    }

    fn work(
        &mut self,
        direction: Direction,
        room: usize,
        work: impl FnOnce(&mut F, &mut Output) -> Result<(), Ended>,
    ) -> &mut Lane {
        let lane = match direction {
            Direction::ToService => &mut self.to_service,
            Direction::ToClient => &mut self.to_client,
        };
        lane.output.room = room;
        let done = work(&mut self.filter, &mut lane.output);
        if let Err(ended) = done {
            self.ended = Some(ended);
        } else if lane.output.overflown {
            self.ended = Some(Ended::failed(format!(
                "it gave more than {MAX_OUTPUT} bytes beyond what came at once"
            )));
        }
        lane
    }

    fn check(&self) -> Result<(), Ended> {
        self.ended.clone().map_or(Ok(()), Err)
    }
}

impl<F: Filter + 'static> Interceptor for Inline<F> {
    fn held(&self, direction: Direction) -> usize {
        let lane = match direction {
            Direction::ToService => &self.to_service,
            Direction::ToClient => &self.to_client,
        };
        lane.output.pieces.iter().map(Payload::len).sum()
    }

    fn poll_ready(&mut self, _: Direction, _: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        Poll::Ready(self.check())
    }

    fn give(&mut self, direction: Direction, bytes: Payload) {
        let room = MAX_OUTPUT + bytes.len();
        self.work(direction, room, |filter, output| {
            filter.data(direction, bytes, output)
        });
    }

    fn end(&mut self, direction: Direction) {
        self.work(direction, MAX_OUTPUT, |filter, output| {
            filter.end(direction, output)
        })
        .over = true;
    }

    fn poll_take(
        &mut self,
        direction: Direction,
        _: &mut Context<'_>,
    ) -> Poll<Result<Option<Payload>, Ended>> {
        self.check()?;
        let lane = match direction {
            Direction::ToService => &mut self.to_service,
            Direction::ToClient => &mut self.to_client,
        };
        lane.output.fill = 0;
        match lane.output.pieces.pop_front() {
            Some(piece) => Poll::Ready(Ok(Some(piece))),
            None if lane.over => Poll::Ready(Ok(None)),
            // There is something only after something was given, and then this is asked again.
            None => Poll::Pending,
        }
    }
}
