//! How often a peer may present a wrong code.
//!
//! A code has 256 bits and is not found by guessing; the limit keeps a peer from filling the log and the
//! disk's queue. It counts per identity, and identities are free: against floods of fresh ones stand the
//! limits of the secure-channel listener.

use std::collections::HashMap;

use portolan_identity::Identifier;

/// Wrong codes per peer and [`WINDOW`].
pub(crate) const MAX_GUESSES: u32 = 10;

/// Seconds after which a peer's wrong codes are forgotten.
pub(crate) const WINDOW: u64 = 60;

/// Peers that are counted. When there are more, the one that began first is forgotten.
pub(crate) const MAX_PEERS: usize = 4096;

/// Counts wrong codes per peer.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    peers: HashMap<Identifier, (u64, u32)>,
}

impl Guesses {
    /// Seconds that `peer` has to wait, if it has to.
    pub(crate) fn wait(&self, peer: &Identifier, now: u64) -> Option<u64> {
        let (since, count) = self.peers.get(peer)?;
        let end = since.saturating_add(WINDOW);
        (*count >= MAX_GUESSES && now < end).then(|| (end - now).min(WINDOW))
    }

    /// Counts one wrong code.
    pub(crate) fn count(&mut self, peer: &Identifier, now: u64) {
        if !self.peers.contains_key(peer) && self.peers.len() >= MAX_PEERS {
            self.peers
                .retain(|_, (since, _)| now < since.saturating_add(WINDOW));
            if self.peers.len() >= MAX_PEERS
                && let Some(oldest) = self
                    .peers
                    .iter()
                    .min_by_key(|(_, (since, _))| *since)
                    .map(|(peer, _)| *peer)
            {
                self.peers.remove(&oldest);
            }
        }
        let entry = self.peers.entry(*peer).or_insert((now, 0));
        if now >= entry.0.saturating_add(WINDOW) {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }

    /// Forgets a peer that has presented a good code.
    pub(crate) fn forget(&mut self, peer: &Identifier) {
        self.peers.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_ten_wrong_codes_a_peer_waits_for_the_rest_of_the_minute() {
        let (peer, other) = (Identifier::from([1; 32]), Identifier::from([2; 32]));
        let mut guesses = Guesses::default();
        for _ in 0..MAX_GUESSES {
            assert_eq!(guesses.wait(&peer, 1000), None);
            guesses.count(&peer, 1000);
        }
        assert_eq!(guesses.wait(&peer, 1000), Some(WINDOW));
        assert_eq!(guesses.wait(&peer, 1059), Some(1));
        assert_eq!(guesses.wait(&peer, 1060), None);
        assert_eq!(guesses.wait(&other, 1000), None);
        guesses.count(&peer, 1060);
        assert_eq!(guesses.wait(&peer, 1060), None);
    }

    #[test]
    fn the_number_of_counted_peers_is_bounded() {
        let mut guesses = Guesses::default();
        for n in 0..(MAX_PEERS as u64 + 100) {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            guesses.count(&Identifier::from(bytes), n / 1000);
        }
        assert!(guesses.peers.len() <= MAX_PEERS);
    }
}
