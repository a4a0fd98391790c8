//! What operations are asked for, in short: each request from what it needs, the rest as usual.

use std::path::Path;
use std::time::Duration;

use crate::control::api::{
    AddPlugin, CreateInlet, CreateOutlet, CreateRelay, CreateSecureChannel, CreateSecureChannelListener,
    InterceptedBy, PluginLimits, PolicyTarget, StartWorker,
};
use crate::engine::remote::TicketRequest;

/// How long a relay or an inlet may take to be up, before its creation is answered.
const WAIT: Duration = Duration::from_secs(10);
/// How long a channel may take.
const CHANNEL: Duration = Duration::from_secs(20);

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl PolicyTarget {
    /// Every inlet of the node.
    pub fn inlets() -> Self {
        Self::Type("tcp-inlet".to_owned())
    }

    /// Every outlet of the node.
    pub fn outlets() -> Self {
        Self::Type("tcp-outlet".to_owned())
    }

    /// Every relay that others register at the node.
    pub fn relays() -> Self {
        Self::Type("relay".to_owned())
    }

    /// Every worker that was started by name, or that a policy [protects](crate::Node::protected).
    pub fn workers() -> Self {
        Self::Type("worker".to_owned())
    }

    /// One inlet by its alias, or one outlet or worker by its address.
    pub fn resource(name: impl Into<String>) -> Self {
        Self::Resource(name.into())
    }
}

impl CreateOutlet {
    /// An outlet to a service, `host:port`, at the address `outlet` or, if that is taken, a random one.
    pub fn to(service: impl Into<String>) -> Self {
        Self {
            address: None,
            to: service.into(),
            tls: false,
            tls_ca: None,
            allow: None,
            skip_handshake: false,
            enable_nagle: false,
            intercept: None,
        }
    }

    /// At this address.
    #[must_use]
    pub fn at(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// For peers that this policy lets in.
    #[must_use]
    pub fn allow(mut self, policy: impl Into<String>) -> Self {
        self.allow = Some(policy.into());
        self
    }

    /// With this interceptor before the service.
    #[must_use]
    pub fn intercept(mut self, by: InterceptedBy) -> Self {
        self.intercept = Some(by);
        self
    }

    /// Speak TLS to the service; with PEM certificates, only these may have signed the service's.
    #[must_use]
    pub fn tls(mut self, certificates: Option<String>) -> Self {
        self.tls = true;
        self.tls_ca = certificates;
        self
    }
}

impl InterceptedBy {
    /// The interceptor of this name: one that the program has ([`NodeBuilder::interceptor`](crate::NodeBuilder::interceptor)), or a
    /// plugin that was added to the node. Without a configuration.
    pub fn name(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            config: serde_json::Value::Null,
        }
    }

    /// With this configuration. A plugin gets a text as it is, and everything else as JSON.
    #[must_use]
    pub fn config(mut self, config: impl Into<serde_json::Value>) -> Self {
        self.config = config.into();
        self
    }
}

impl AddPlugin {
    /// The plugin in this file, under this name: a component, or the module that `cargo build --target wasm32-unknown-unknown` writes. The
    /// node keeps a copy. Of the rights that it asks for it gets `reply`, `from:local` and `storage`; its limits are the usual ones.
    pub fn new(name: impl Into<String>, file: impl AsRef<Path>) -> Self {
        let file = file.as_ref();
        // What has no absolute form cannot be read either, and that is said when it is added.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        Self {
            name: name.into(),
            file: file.to_string_lossy().into_owned(),
            digest: None,
            grant: None,
            also: Vec::new(),
            grant_all: false,
            limits: PluginLimits::default(),
            replace: false,
        }
    }

    /// Only if the file has this SHA-256, in hex.
    #[must_use]
    pub fn digest(mut self, digest: impl Into<String>) -> Self {
        self.digest = Some(digest.into());
        self
    }

    /// With this right, `reply` or `send:ADDRESS` for instance, and those that are said in the same way, instead of the usual ones.
    #[must_use]
    pub fn grant(mut self, right: impl Into<String>) -> Self {
        self.grant.get_or_insert_default().push(right.into());
        self
    }

    /// With this right beside the others.
    #[must_use]
    pub fn also(mut self, right: impl Into<String>) -> Self {
        self.also.push(right.into());
        self
    }

    /// With every right that it asks for.
    #[must_use]
    pub fn grant_all(mut self) -> Self {
        self.grant_all = true;
        self
    }

    /// With these limits.
    #[must_use]
    pub fn limits(mut self, limits: PluginLimits) -> Self {
        self.limits = limits;
        self
    }

    /// In the place of the plugin that has this name now, if there is one. What is not said stays as it was.
    #[must_use]
    pub fn replace(mut self) -> Self {
        self.replace = true;
        self
    }
}

impl CreateInlet {
    /// An inlet that applications reach at `from`, `host:port`, and that leads along the route `to` to an outlet. Its creation is
    /// answered when it is up, or after 10 s.
    pub fn new(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self {
            alias: None,
            from: from.into(),
            to: to.into(),
            identity: None,
            authorized: None,
            allow: None,
            wait_ms: milliseconds(WAIT),
            retry_wait_ms: 0,
            skip_handshake: false,
            enable_nagle: false,
            stripes: 1,
            intercept: None,
        }
    }

    /// An inlet that leads to an outlet behind a relay of the default project.
    pub fn via(from: impl Into<String>, relay: &str, outlet: &str) -> Self {
        Self::new(
            from,
            format!("/project/default/service/forward_to_{relay}/secure/api/service/{outlet}"),
        )
    }

    /// Under this name.
    #[must_use]
    pub fn named(mut self, alias: impl Into<String>) -> Self {
        self.alias = Some(alias.into());
        self
    }

    /// Towards peers that this policy lets in.
    #[must_use]
    pub fn allow(mut self, policy: impl Into<String>) -> Self {
        self.allow = Some(policy.into());
        self
    }

    /// Towards exactly this identity.
    #[must_use]
    pub fn authorized(mut self, identifier: impl ToString) -> Self {
        self.authorized = Some(identifier.to_string());
        self
    }

    /// With this interceptor behind the applications.
    #[must_use]
    pub fn intercept(mut self, by: InterceptedBy) -> Self {
        self.intercept = Some(by);
        self
    }

    /// Over so many paths side by side, 1 to 16.
    #[must_use]
    pub fn stripes(mut self, count: u8) -> Self {
        self.stripes = count;
        self
    }

    /// How long its creation waits for it to be up; zero does not wait.
    #[must_use]
    pub fn wait(mut self, limit: Duration) -> Self {
        self.wait_ms = milliseconds(limit);
        self
    }
}

impl CreateRelay {
    /// A relay under this name at the default project. Its creation is answered when it is up, when it is refused, or after 10 s.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            relay_address: None,
            at: "/project/default".to_owned(),
            authorized: None,
            wait_ms: milliseconds(WAIT),
        }
    }

    /// At the node or project that this route leads to.
    #[must_use]
    pub fn at(mut self, route: impl Into<String>) -> Self {
        self.at = route.into();
        self
    }

    /// At exactly this identity.
    #[must_use]
    pub fn authorized(mut self, identifier: impl ToString) -> Self {
        self.authorized = Some(identifier.to_string());
        self
    }

    /// How long its creation waits for it to be up; zero does not wait.
    #[must_use]
    pub fn wait(mut self, limit: Duration) -> Self {
        self.wait_ms = milliseconds(limit);
        self
    }
}

impl StartWorker {
    /// A worker of this type, at the address of the same name, with an empty configuration.
    pub fn of_type(name: impl Into<String>) -> Self {
        Self {
            kind: name.into(),
            is_plugin: false,
            grant: Vec::new(),
            address: None,
            config: serde_json::Value::Object(serde_json::Map::new()),
            allow: None,
        }
    }

    /// A worker that runs the plugin of this name, at the address of the same name, without a configuration.
    pub fn of_plugin(name: impl Into<String>) -> Self {
        Self {
            is_plugin: true,
            config: serde_json::Value::Null,
            ..Self::of_type(name)
        }
    }

    /// With this configuration. A plugin gets a text as it is, and everything else as JSON.
    #[must_use]
    pub fn config(mut self, config: impl Into<serde_json::Value>) -> Self {
        self.config = config.into();
        self
    }

    /// With this right beside those that its plugin has: `from:peers`, for instance.
    #[must_use]
    pub fn grant(mut self, right: impl Into<String>) -> Self {
        self.grant.push(right.into());
        self
    }

    /// At this address.
    #[must_use]
    pub fn at(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// With this value in its configuration.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        if self.config.is_null() {
            self.config = serde_json::Value::Object(serde_json::Map::new());
        }
        if let serde_json::Value::Object(fields) = &mut self.config {
            fields.insert(name.into(), value.into());
        }
        self
    }

    /// For peers that this policy lets in.
    #[must_use]
    pub fn allow(mut self, policy: impl Into<String>) -> Self {
        self.allow = Some(policy.into());
        self
    }
}

impl CreateSecureChannel {
    /// A channel to the listener at the end of this route.
    pub fn to(route: impl Into<String>) -> Self {
        Self {
            to: route.into(),
            authorized: Vec::new(),
            identity: None,
            credential: None,
            timeout_ms: milliseconds(CHANNEL),
        }
    }

    /// With this identity at the other end; said several times, with one of them.
    #[must_use]
    pub fn authorized(mut self, identifier: impl ToString) -> Self {
        self.authorized.push(identifier.to_string());
        self
    }
}

impl CreateSecureChannelListener {
    /// A listener at this address, with the node's identity, for everybody.
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            authorized: Vec::new(),
            identity: None,
        }
    }

    /// For this identity; said several times, for each of them.
    #[must_use]
    pub fn authorized(mut self, identifier: impl ToString) -> Self {
        self.authorized.push(identifier.to_string());
        self
    }
}

impl TicketRequest {
    /// A ticket for one identity, without attributes, that lives as long as the authority lets it: ten minutes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whoever redeems it gets this attribute. Said several times, each of them.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    /// Whoever redeems it may register the relay of this name; `*` is any.
    #[must_use]
    pub fn relay(self, name: impl Into<String>) -> Self {
        self.attribute("ockam-relay", name)
    }

    /// Whoever redeems it may invite others.
    #[must_use]
    pub fn enroller(self) -> Self {
        self.attribute("ockam-role", "enroller")
    }

    /// It lives so long.
    #[must_use]
    pub fn expires_in(mut self, life: Duration) -> Self {
        self.expires_in = Some(life);
        self
    }

    /// So many identities can redeem it.
    #[must_use]
    pub fn uses(mut self, count: u64) -> Self {
        self.usage_count = Some(count);
        self
    }
}
