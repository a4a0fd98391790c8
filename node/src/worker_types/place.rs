//! Where a worker is started, and with what.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_runtime::{
    AccessControl, Address, Capacity, Context, MailboxOptions, Node, Passage, SyncWorker, Worker,
    WorkerOptions,
};

use super::tally::{Alive, Counted, CountedPassage, Tally};
use crate::engine::runtime_error;
use crate::error::Result;

/// Where a worker is started: its address, who may reach it, and the node around it. Starting a worker uses it up.
#[derive(Debug)]
pub struct Place {
    node: Node,
    address: Address,
    options: WorkerOptions,
    tally: Arc<Tally>,
    folder: PathBuf,
}

impl Place {
    /// A place at `address` of `node`, which workers of the node reach.
    pub(crate) fn new(node: Node, address: Address, folder: PathBuf) -> Self {
        Self {
            node,
            options: WorkerOptions::new(address.clone()),
            address,
            tally: Arc::default(),
            folder,
        }
    }

    /// Who may reach it.
    pub(crate) fn incoming(mut self, control: AccessControl) -> Self {
        self.options = self.options.incoming(control);
        self
    }

    /// The address that the worker will have.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The node that it is in.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The node's folder: what a relative path in a configuration is relative to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is counted for the worker: for tasks, which count for themselves, and for the memory that a worker has.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// How much may wait for the worker. Default: 256 messages, 1 MiB.
    #[must_use]
    pub fn capacity(mut self, capacity: Capacity) -> Self {
        self.options = self.options.capacity(capacity);
        self
    }

    /// A further address of the same worker.
    #[must_use]
    pub fn mailbox(mut self, mailbox: MailboxOptions) -> Self {
        self.options = self.options.mailbox(mailbox);
        self
    }

    /// Start a worker that may wait in the middle of a message.
    ///
    /// # Errors
    ///
    /// When the address is in use, or the node is stopping.
    pub fn start<W: Worker>(self, worker: W) -> Result<()> {
        let tally = Alive(self.tally);
        let started = self.node.start_worker(self.options, Counted { worker, tally });
        started.map(|_| ()).map_err(runtime_error)
    }

    /// Start a worker that handles each message at once.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_sync<W: SyncWorker>(self, worker: W) -> Result<()> {
        if let Some(passage) = worker.as_passage() {
            return self.start_passage(passage);
        }
        let tally = Alive(self.tally);
        let started = self
            .node
            .start_sync_worker(self.options, Counted { worker, tally });
        started.map(|_| ()).map_err(runtime_error)
    }

    /// Start a worker that only changes a message and sends it on.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_passage(self, passage: Arc<dyn Passage>) -> Result<()> {
        let tally = Arc::clone(&self.tally);
        let counted = CountedPassage {
            passage,
            tally: Alive(self.tally),
        };
        self.node
            .start_passage(self.options, Arc::new(counted))
            .map_err(runtime_error)?;
        tally.set_running();
        Ok(())
    }

    /// Start a task with a mailbox, the most general form. It counts its messages itself, with [`tally`](Self::tally), and says
    /// with [`Tally::set_running`] that it takes messages, or with [`Tally::set_failed`] that it cannot.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_task<F, T>(self, task: F) -> Result<()>
    where
        F: FnOnce(Context) -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        let alive = Alive(self.tally);
        let started = self.node.start_task(self.options, move |ctx| {
            let running = task(ctx);
            async move {
                let _alive = alive;
                running.await;
            }
        });
        started.map(|_| ()).map_err(runtime_error)
    }
}
