//! Somebody on the path who knows the frames of the TCP transport (spec 01 §6.2) and does what he likes with them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// It is lost.
    Drop,
    /// It comes twice.
    Repeat,
    /// It comes after the next one.
    Reorder,
    /// One bit of it changes, anywhere.
    Flip,
}

/// Which frames are attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the side that connected.
    Up,
    /// To the side that connected.
    Down,
}

/// A running middle.
#[derive(Clone, Debug)]
pub struct Middle {
    /// Where it listens.
    pub address: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    attack: Mutex<Option<(Attack, Direction, u64)>>,
    attacked: AtomicU64,
}

impl Middle {
    /// Starts one in front of `to`, harmless for now.
    pub async fn start(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let state = Arc::new(State {
            attack: Mutex::default(),
            attacked: AtomicU64::new(0),
        });
        let (to, shared) = (to.to_owned(), Arc::clone(&state));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&to).await else {
                    continue;
                };
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(copy(from_client, to_server, Direction::Up, Arc::clone(&shared)));
                tokio::spawn(copy(from_server, to_client, Direction::Down, Arc::clone(&shared)));
            }
        });
        Self { address, state }
    }

    /// Attacks one of `every` frames of one direction from now on.
    pub fn attack(&self, attack: Attack, direction: Direction, every: u64) {
        *self.state.attack.lock().expect("nobody panics with it") = Some((attack, direction, every));
    }

    /// How many frames were attacked.
    pub fn attacked(&self) -> u64 {
        self.state.attacked.load(Ordering::SeqCst)
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, direction: Direction, state: Arc<State>) {
    // An error is the end of one of the two connections; what is dropped here closes the other.
    let _ = copy_frames(&mut from, &mut to, direction, &state).await;
}

async fn copy_frames(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    direction: Direction,
    state: &State,
) -> std::io::Result<()> {
    to.write_u8(from.read_u8().await?).await?;
    let (mut seen, mut held) = (0, None);
    loop {
        let length = from.read_u32().await?;
        let mut frame = length.to_be_bytes().to_vec();
        frame.resize(4 + length as usize, 0);
        from.read_exact(&mut frame[4..]).await?;
        let attack = *state.attack.lock().expect("nobody panics with it");
        let due = match attack {
            Some((attack, wanted, every)) if wanted == direction => {
                seen += 1;
                (seen % every == 0).then_some(attack)
            }
            _ => None,
        };
        state
            .attacked
            .fetch_add(u64::from(due.is_some()), Ordering::SeqCst);
        match due {
            Some(Attack::Drop) => continue,
            Some(Attack::Reorder) => {
                held = Some(frame);
                continue;
            }
            Some(Attack::Repeat) => to.write_all(&frame).await?,
            Some(Attack::Flip) => {
                let (at, bit) = (
                    rand::thread_rng().gen_range(4..frame.len()),
                    rand::thread_rng().gen_range(0..8),
                );
                frame[at] ^= 1 << bit;
            }
            None => {}
        }
        to.write_all(&frame).await?;
        if let Some(late) = held.take() {
            to.write_all(&late).await?;
        }
    }
}
