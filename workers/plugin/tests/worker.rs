//! What a plugin worker does in a node.

mod support;

use portolan_plugin::{PluginWorker, State, WorkerSettings};
use portolan_runtime::Node;
use support::{ask, asker, load, puppet, rights};

#[tokio::test]
async fn a_message_is_handled_and_answered() {
    let node = Node::new().unwrap();
    let plugin = load(&puppet());
    assert_eq!(plugin.info().name, "puppet");
    assert_eq!(plugin.info().version, "1.2.3");
    assert_eq!(plugin.info().wants, rights(&["reply", "from:local"]));
    let settings = WorkerSettings::new("p").rights(plugin.info().wants.clone());
    let worker = PluginWorker::start(&node, &plugin, settings).await.unwrap();
    let mut ctx = asker(&node, "asker");
    assert_eq!(ask(&mut ctx, "p", b"echo this").await, b"echo this");
    assert_eq!(ask(&mut ctx, "p", b"a").await, b"0#p");
    assert_eq!(worker.status().state, State::Running);
    worker.stop().await;
    assert_eq!(worker.status().handled, 2);
    assert!(!node.has_worker(&"p".into()));
    node.stop().await;
}
