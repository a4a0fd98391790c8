//! What the two workers of a channel know of what is on its way (extension X6).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::window::{Arrivals, SendWindow};

/// Shared by both workers, and by whoever sends or receives through them in its own turn.
#[derive(Debug)]
pub(crate) struct Windows {
    pub(crate) sending: Mutex<SendWindow>,
    /// Of `sending`, to be asked for each message.
    is_open: AtomicBool,
    arrivals: Mutex<Arrivals>,
    /// The receipt to send next; 0 when there is none.
    due: AtomicU64,
    /// Tells the encryptor's worker of a receipt to send, or that there is room again.
    told: Notify,
}

impl Windows {
    pub(crate) fn new() -> Self {
        Self {
            sending: Mutex::new(SendWindow::new()),
            is_open: AtomicBool::new(true),
            arrivals: Mutex::default(),
            due: AtomicU64::new(0),
            told: Notify::new(),
        }
    }

    /// Whether more may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// A message with a payload of this length was sealed.
    pub(crate) fn sent(&self, payload: usize) {
        let mut sending = self.sending.lock();
        sending.handle_sent(payload, Instant::now);
        if !sending.is_open() {
            self.is_open.store(false, Ordering::Release);
        }
    }

    /// A message with a payload of this length was opened.
    pub(crate) fn arrived(&self, payload: usize) {
        if let Some(total) = self.arrivals.lock().handle_arrived(payload) {
            self.due.store(total, Ordering::Release);
            self.told.notify_one();
        }
    }

    /// The peer says that so much has arrived. `false` if that cannot be.
    #[must_use]
    pub(crate) fn handle_receipt(&self, total: u64) -> bool {
        let mut sending = self.sending.lock();
        let is_possible = sending.handle_receipt(total, Instant::now());
        if sending.is_open() && !self.is_open.swap(true, Ordering::AcqRel) {
            self.told.notify_one();
        }
        is_possible
    }

    /// The receipt to send, if one is due.
    pub(crate) fn take_due(&self) -> Option<u64> {
        Some(self.due.swap(0, Ordering::AcqRel)).filter(|total| *total > 0)
    }

    /// Waits until there is a receipt to send, or room again.
    pub(crate) async fn told(&self) {
        self.told.notified().await;
    }
}
