//! The reference's published library and the product, against each other.
//!
//! The reference (crate `ockam` 0.150.0) runs inside the test process and is used through its published interface only, as a
//! black box. The product runs as processes: [`peer`] drives its libraries, and `portolan_tests` the binary `portolan`. They
//! talk over TCP on loopback. The tests are in `tests/suite/`, one module for each case; `docs/interop.md` has the matrix.

// A harness: what cannot be set up stops the test.

pub mod middle;
pub mod peer;
pub mod stock;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// No test takes longer.
const TEST_LIMIT: Duration = Duration::from_secs(170);

/// The runtime that all stock nodes of this process live on.
pub fn runtime() -> Arc<Runtime> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    let make = || {
        let runtime = Builder::new_multi_thread().enable_all().build();
        Arc::new(runtime.expect("threads can be started"))
    };
    RUNTIME.get_or_init(make).clone()
}

/// Runs a test to its end.
///
/// # Panics
/// When it takes too long.
#[track_caller]
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let limited = async { tokio::time::timeout(TEST_LIMIT, test).await };
    match runtime().block_on(limited) {
        Ok(value) => value,
        Err(_) => panic!("not done in {TEST_LIMIT:?}"),
    }
}

/// Asks `look` until it holds.
///
/// # Panics
/// When it does not within `limit`, with `what` as the claim that failed.
pub async fn eventually(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + limit;
    while !look().await {
        assert!(tokio::time::Instant::now() < end, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Bytes that no compression, alignment or repetition makes easy.
pub fn noise(length: usize) -> Vec<u8> {
    use rand::RngCore;
    let mut bytes = vec![0; length];
    rand::thread_rng().fill_bytes(&mut bytes);
    bytes
}
