//! A stock node in a process of its own, for tests that kill it: `stock-node HOST:PORT`.
//!
//! It has the services, a channel listener at `api` and a relay service, all reachable over TCP and through channels. It
//! prints its identifier when it is ready, and lives until it is killed.

use ockam::identity::SecureChannelListenerOptions;
use portolan_interop::runtime;
use portolan_interop::stock::Stock;

fn main() {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".to_owned());
    runtime().block_on(async {
        let stock = Stock::start().await;
        stock.listen_at(&address).await;
        let options = SecureChannelListenerOptions::new();
        let channels = options.spawner_flow_control_id();
        stock.accept(options);
        stock.serve_relays(&[channels]);
        println!("{}", stock.identifier);
        std::future::pending::<()>().await;
    });
}
