//! What a worker's task does: from the first message to the last.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::context::Context;
use crate::message::{Envelope, Routed};
use crate::worker::{Processor, SyncWorker, Worker};

/// How long a worker keeps the space that its handler runs in after a message, at least. A worker that is asked again and again
/// allocates nothing for it; one that does nothing holds none.
const KEPT_MS: u64 = 1000;

/// What runs once, or now and then, is boxed, so that it has space while it runs. What is left is the worker itself: there
/// may be a hundred thousand that wait. A block and not an `async fn`, whose future would have space for its parameters twice.
pub(crate) fn run_worker<W: Worker>(ctx: Context, worker: W) -> impl Future<Output = ()> {
    run_worker_keeping::<W, KEPT_MS>(ctx, worker)
}

#[allow(clippy::manual_async_fn)]
fn run_worker_keeping<W: Worker, const KEPT_MS: u64>(
    mut ctx: Context,
    mut worker: W,
) -> impl Future<Output = ()> {
    async move {
        if let Err(error) = Box::pin(worker.initialize(&mut ctx)).await {
            tracing::warn!(address = %ctx.address(), "a worker could not be initialized: {error}");
            return;
        }
        while poll_fn(|cx| ctx.poll_arrived(cx)).await {
            Box::pin(handle_while_busy(
                &mut ctx,
                &mut worker,
                Duration::from_millis(KEPT_MS),
            ))
            .await;
        }
        if let Err(error) = Box::pin(worker.shutdown(&mut ctx)).await {
            tracing::debug!(address = %ctx.address(), "a worker did not shut down cleanly: {error}");
        }
    }
}

/// Handles messages until none has come for a while, or the worker has been asked to stop.
async fn handle_while_busy<W: Worker>(ctx: &mut Context, worker: &mut W, kept: Duration) {
    let mut stopping = pin!(ctx.stopping());
    let mut pause = pin!(sleep_until(Instant::now() + kept));
    let (mut is_set, mut was_busy) = (false, false);
    loop {
        let arrived = poll_fn(|cx| {
            if let Poll::Ready(is_open) = ctx.poll_arrived(cx) {
                return Poll::Ready(Some(is_open));
            }
            // Set once and then only looked at: a message costs no timer. It is one task that is woken, always the same.
            if is_set && !pause.is_elapsed() {
                return Poll::Pending;
            }
            is_set = true;
            pause.as_mut().poll(cx).map(|()| None)
        });
        match arrived.await {
            Some(true) => was_busy = true,
            None if was_busy => {
                (is_set, was_busy) = (false, false);
                pause.as_mut().reset(Instant::now() + kept);
                continue;
            }
            Some(false) | None => return,
        }
        let Some(envelope) = ctx.next().await else {
            return;
        };
        let handled = tokio::select! {
            biased;
            handled = worker.handle_message(ctx, Routed::new(envelope)) => handled,
            () = &mut stopping => return,
        };
        if let Err(error) = handled {
            tracing::debug!(address = %ctx.address(), "a message could not be handled: {error}");
        }
        ctx.flush().await;
    }
}

/// A block, as [`run_worker`].
#[allow(clippy::manual_async_fn)]
pub(crate) fn run_sync_worker<W: SyncWorker>(mut ctx: Context, mut worker: W) -> impl Future<Output = ()> {
    async move {
        if let Err(error) = worker.initialize(&mut ctx) {
            tracing::warn!(address = %ctx.address(), "a worker could not be initialized: {error}");
            return;
        }
        loop {
            // What is there already needs no waiting, which would move each message twice more.
            while !ctx.has_unsent()
                && let Some(envelope) = ctx.next_at_once()
            {
                handle_sync(&mut ctx, &mut worker, envelope);
            }
            if ctx.has_unsent() {
                ctx.flush().await;
                continue;
            }
            match ctx.next().await {
                Some(envelope) => handle_sync(&mut ctx, &mut worker, envelope),
                None => break,
            }
        }
        worker.shutdown(&mut ctx);
    }
}

#[inline]
fn handle_sync<W: SyncWorker>(ctx: &mut Context, worker: &mut W, envelope: Envelope) {
    if let Err(error) = worker.handle(ctx, envelope) {
        tracing::debug!(address = %ctx.address(), "a message could not be handled: {error}");
    }
}

pub(crate) async fn run_processor<P: Processor>(mut ctx: Context, mut processor: P) {
    if let Err(error) = processor.initialize(&mut ctx).await {
        tracing::warn!(address = %ctx.address(), "a processor could not be initialized: {error}");
        return;
    }
    let stopping = ctx.stopping();
    tokio::pin!(stopping);
    loop {
        let step = tokio::select! {
            biased;
            () = &mut stopping => break,
            step = processor.process(&mut ctx) => step,
        };
        match step {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                tracing::debug!(address = %ctx.address(), "a processor ends: {error}");
                break;
            }
        }
    }
    if let Err(error) = processor.shutdown(&mut ctx).await {
        tracing::debug!(address = %ctx.address(), "a processor did not shut down cleanly: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::{Address, Node, Result, WorkerOptions};

    /// Its handler needs space while it waits in the middle of a message.
    struct Spacious(Arc<AtomicBool>);

    impl Worker for Spacious {
        type Message = Vec<u8>;

        async fn handle_message(&mut self, ctx: &mut Context, message: Routed<Vec<u8>>) -> Result<()> {
            let mut space = [1_u8; 4096];
            tokio::task::yield_now().await;
            let route = message.return_route().clone();
            let body = message.into_body()?;
            space[0] = body.first().copied().unwrap_or_default();
            let sum = space.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            ctx.send(route, vec![sum]).await
        }

        async fn shutdown(&mut self, _ctx: &mut Context) -> Result<()> {
            self.0.store(true, Ordering::Relaxed);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_worker_has_space_for_its_handler_while_it_is_asked_and_none_while_it_waits() {
        let node = Node::builder().arbiters(1).build().unwrap();
        let shut_down = Arc::new(AtomicBool::new(false));
        let ctx = node.context(WorkerOptions::new("spacious")).unwrap();
        let worker = run_worker_keeping::<_, 10>(ctx, Spacious(Arc::clone(&shut_down)));
        assert!(size_of_val(&worker) <= 256, "{}", size_of_val(&worker));
        let asking = async {
            let mut asker = node.context(Address::random()).unwrap();
            for round in 0..4_u8 {
                for question in 0..3_u8 {
                    asker.send("spacious", vec![question]).await.unwrap();
                    let answer: Routed<Vec<u8>> = asker.receive().await.unwrap();
                    assert_eq!(
                        answer.into_body().unwrap(),
                        [255_u8.wrapping_add(question)],
                        "{round}"
                    );
                }
                // Longer than the space is kept, and not as long.
                tokio::time::sleep(Duration::from_millis(10) * u32::from(round)).await;
            }
            assert!(!shut_down.load(Ordering::Relaxed));
            node.stop_worker(&"spacious".into()).unwrap();
        };
        tokio::join!(worker, asking);
        assert!(shut_down.load(Ordering::Relaxed));
        node.stop().await;
    }
}
