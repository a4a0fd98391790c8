//! Secure channels, listeners and TCP connections that the owner asks for by hand (spec 05 §1.12).

use std::sync::Arc;
use std::time::Duration;

use portolan_identity::{AttributeRepository, CredentialAndPurposeKey, Identifier};
use portolan_runtime::Address;
use portolan_secure_channel::{ChannelInfo, FixedCredential, ListenerOptions, Role};
use portolan_tcp::TcpConnection;

use super::connect::{channel_error, tcp_error};
use super::core::identifiers;
use super::running::{API, ChannelListener, OwnChannel, Running, tcp_listener_status, trust};
use super::services::local_name;
use crate::control::api::{
    ChannelTraffic, CreateSecureChannel, CreateSecureChannelListener, CreateTcpConnection, CreateTcpListener,
    SecureChannelListenerStatus, SecureChannelStatus, TcpConnectionStatus, TcpListenerStatus,
};
use crate::error::{Error, Result};
use crate::host_port::HostPort;
use crate::multiaddr::MultiAddr;
use crate::state::{check_alias, now};

/// Time-outs that a request may ask for.
const LONGEST: Duration = Duration::from_secs(3600);

/// The time-out of a request, which 0 leaves to us.
pub(super) fn limit(milliseconds: u64, default: Duration) -> Duration {
    match milliseconds {
        0 => default,
        some => Duration::from_millis(some).min(LONGEST),
    }
}

impl Running {
    fn channel_status(&self, info: &ChannelInfo) -> SecureChannelStatus {
        let own = self.channels.lock();
        let address = local_name(&info.encryptor);
        let authority = self.core.policies.authority();
        let attributes = authority
            .and_then(|authority| self.core.policies.attributes().get(&info.peer, &authority, now()))
            .map(|known| {
                known
                    .attributes
                    .iter()
                    .map(|(name, value)| {
                        (
                            String::from_utf8_lossy(name).into_owned(),
                            String::from_utf8_lossy(value).into_owned(),
                        )
                    })
                    .collect()
            })
            .unwrap_or_default();
        SecureChannelStatus {
            to: match (own.get(&address), info.role) {
                (Some(channel), _) => channel.to.clone(),
                // What a relay or an inlet has opened for itself.
                (None, Role::Initiator) => info
                    .route
                    .iter()
                    .map(|hop| format!("/service/{}", local_name(hop)))
                    .collect(),
                (None, Role::Responder) => String::new(),
            },
            address,
            peer: info.peer.to_string(),
            role: match info.role {
                Role::Initiator => "initiator",
                Role::Responder => "responder",
            }
            .to_owned(),
            attributes,
            suite: info.suite.to_string(),
            sent: ChannelTraffic {
                messages: info.sent_messages,
                bytes: info.sent_bytes,
                rekeys: info.sent_rekeys(),
            },
            received: ChannelTraffic {
                messages: info.received_messages,
                bytes: info.received_bytes,
                rekeys: info.received_rekeys(),
            },
            rejected: info.rejected,
        }
    }

    /// Open a channel to the listener at the end of a route.
    pub(crate) async fn create_secure_channel(
        &self,
        request: CreateSecureChannel,
    ) -> Result<SecureChannelStatus> {
        let to = MultiAddr::from_argument(&request.to)?;
        let authorized = identifiers(&request.authorized)?;
        let timeout = limit(request.timeout_ms, Duration::from_secs(20));
        self.adopt_project();
        let mut appearance = self
            .core
            .appearance(&to, request.identity.as_deref(), &authorized, timeout)
            .await?;
        if let Some(text) = &request.credential {
            let credential = CredentialAndPurposeKey::from_hex(text.trim())
                .map_err(|error| Error::invalid(format!("the credential cannot be read: {error}")))?;
            appearance.credentials = Some(Arc::new(FixedCredential::new(credential)));
        }
        let path = self.core.connector.connect_listener(&to, &appearance).await?;
        let channel = path
            .channel()
            .cloned()
            .ok_or_else(|| Error::invalid(format!("`{to}` leads to no secure channel listener")))?;
        let address = local_name(channel.address());
        let own = OwnChannel {
            to: to.to_string(),
            _path: path,
        };
        self.channels.lock().insert(address, own);
        Ok(self.channel_status(&channel.info()))
    }

    /// All open channels, oldest first.
    pub(crate) fn secure_channels(&self) -> Vec<SecureChannelStatus> {
        let open = self.core.connector.channels.list();
        // Channels that have ended by themselves are forgotten here.
        self.channels
            .lock()
            .retain(|address, _| open.iter().any(|info| local_name(&info.encryptor) == *address));
        open.iter().map(|info| self.channel_status(info)).collect()
    }

    /// One channel, by its encryptor's or its decryptor's address.
    pub(crate) fn secure_channel(&self, address: &str) -> Result<SecureChannelStatus> {
        self.channel_info(address).map(|info| self.channel_status(&info))
    }

    fn channel_info(&self, address: &str) -> Result<ChannelInfo> {
        let address = address.trim_start_matches("/service/");
        self.core
            .connector
            .channels
            .list()
            .into_iter()
            .find(|info| local_name(&info.encryptor) == address || local_name(&info.decryptor) == address)
            .ok_or_else(|| Error::not_found(format!("this node has no secure channel at `{address}`")))
    }

    /// Close a channel.
    pub(crate) async fn delete_secure_channel(&self, address: &str) -> Result<()> {
        let info = self.channel_info(address)?;
        self.channels.lock().remove(&local_name(&info.encryptor));
        let _ = self.core.node().stop_worker_and_wait(&info.encryptor).await;
        Ok(())
    }

    /// Listen for secure channels at another address than `api`.
    pub(crate) async fn create_secure_channel_listener(
        &self,
        request: CreateSecureChannelListener,
    ) -> Result<SecureChannelListenerStatus> {
        check_alias("listeners", &request.address)?;
        let authorized = identifiers(&request.authorized)?;
        let identity = self.core.identity(request.identity.as_deref()).await?;
        let identifier = *identity.identifier();
        let options = self.core.listening(identity).trust(trust(&authorized));
        let mut listeners = self.channel_listeners.lock();
        let listener = self
            .core
            .connector
            .channels
            .listen(request.address.as_str(), ListenerOptions::new(options))
            .map_err(channel_error)?;
        for address in self.through_channels() {
            listener.add_consumer(&address);
        }
        for tcp in self.core.connector.tcp.listeners() {
            listener.accept_from(tcp.flow());
        }
        // Channels may lead to further channels through this node.
        let own_address = listener.address().clone();
        for other in listeners.values() {
            other.listener.add_consumer(&own_address);
        }
        // Relays that lead here lead to it too.
        self.core.add_listener(own_address.clone());
        self.reachable_through_relays(&own_address);
        let status = SecureChannelListenerStatus {
            address: request.address.clone(),
            identifier: identifier.to_string(),
            authorized: authorized.iter().map(Identifier::to_string).collect(),
        };
        listeners.insert(
            request.address,
            ChannelListener {
                listener,
                identifier,
                authorized,
            },
        );
        Ok(status)
    }

    /// One listener.
    pub(crate) fn secure_channel_listener(&self, address: &str) -> Result<SecureChannelListenerStatus> {
        self.secure_channel_listeners()
            .into_iter()
            .find(|listener| listener.address == address)
            .ok_or_else(|| unknown_listener(address))
    }

    /// Accept no more channels at an address. Those that are open stay.
    pub(crate) fn delete_secure_channel_listener(&self, address: &str) -> Result<()> {
        if address == API {
            return Err(Error::refused(
                "the listener `api` belongs to the node: without it nobody could reach the node",
            ));
        }
        let removed = self.channel_listeners.lock().remove(address);
        let listener = removed.ok_or_else(|| unknown_listener(address))?;
        self.core.remove_listener(listener.listener.address());
        listener.listener.stop();
        Ok(())
    }

    /// Connect the TCP transport to another node. The connection stays until it is deleted or ends.
    pub(crate) async fn create_tcp_connection(
        &self,
        request: CreateTcpConnection,
    ) -> Result<TcpConnectionStatus> {
        let to: HostPort = request
            .to
            .parse()
            .map_err(|error| Error::invalid(format!("`{}`: {error}", request.to)))?;
        let timeout = limit(request.timeout_ms, Duration::from_secs(10));
        let connection = tokio::time::timeout(timeout, self.core.connector.tcp.connect(&to.to_string()))
            .await
            .map_err(|_| Error::timeout(format!("{to} did not answer within {} s", timeout.as_secs_f32())))?
            .map_err(tcp_error)?;
        // What the node at the other end may reach here (01 §4.2).
        for name in [API, "echo", "uppercase"] {
            self.core
                .node()
                .add_consumer(connection.flow(), &Address::local(name));
        }
        Ok(tcp_status(&connection))
    }

    /// All TCP connections.
    pub(crate) fn tcp_connections(&self) -> Vec<TcpConnectionStatus> {
        let mut connections = self.core.connector.tcp.connections();
        connections.sort_by_key(TcpConnection::since);
        connections.iter().map(tcp_status).collect()
    }

    fn find_tcp(&self, address: &str) -> Result<TcpConnection> {
        self.core
            .connector
            .tcp
            .connections()
            .into_iter()
            .find(|connection| local_name(connection.sender()) == address || connection.peer() == address)
            .ok_or_else(|| Error::not_found(format!("this node has no TCP connection `{address}`")))
    }

    /// One TCP connection, by worker address or by the other end's `host:port`.
    pub(crate) fn tcp_connection(&self, address: &str) -> Result<TcpConnectionStatus> {
        self.find_tcp(address).map(|connection| tcp_status(&connection))
    }

    /// Close a TCP connection.
    pub(crate) fn delete_tcp_connection(&self, address: &str) -> Result<()> {
        let connection = self.find_tcp(address)?;
        let _ = self.core.connector.tcp.disconnect(connection.sender());
        Ok(())
    }

    /// Listen for other nodes at a further address.
    pub(crate) async fn create_tcp_listener(&self, request: CreateTcpListener) -> Result<TcpListenerStatus> {
        let address: HostPort = request
            .address
            .parse()
            .map_err(|error| Error::invalid(format!("`{}`: {error}", request.address)))?;
        let listener = self
            .core
            .connector
            .tcp
            .listen(&address.to_string())
            .await
            .map_err(tcp_error)?;
        // The same as at the first listener.
        for consumer in self.listener.flow().consumers() {
            self.core.node().add_consumer(listener.flow(), &consumer);
        }
        Ok(tcp_listener_status(&listener))
    }

    /// One TCP listener, by worker address or socket address.
    pub(crate) fn tcp_listener(&self, address: &str) -> Result<TcpListenerStatus> {
        self.tcp_listeners()
            .into_iter()
            .find(|listener| {
                listener.address == address || listener.worker_address.as_deref() == Some(address)
            })
            .ok_or_else(|| Error::not_found(format!("this node has no TCP listener `{address}`")))
    }

    /// Stop listening at an address. Connections that are open stay.
    pub(crate) fn delete_tcp_listener(&self, address: &str) -> Result<()> {
        let found = self.tcp_listener(address)?;
        let worker = found.worker_address.unwrap_or_default();
        if worker == local_name(self.listener.address()) {
            return Err(Error::refused(
                "this is the listener that the node was created with: stop the node instead",
            ));
        }
        self.core
            .connector
            .tcp
            .stop_listener(&Address::local(&worker))
            .map_err(super::running::runtime_error)
    }
}

fn unknown_listener(address: &str) -> Error {
    Error::not_found(format!("this node has no secure channel listener at `{address}`"))
}

fn tcp_status(connection: &TcpConnection) -> TcpConnectionStatus {
    TcpConnectionStatus {
        address: local_name(connection.sender()),
        peer: connection.peer().to_owned(),
        role: match connection.role() {
            portolan_tcp::transport::Role::Initiated => "initiator",
            portolan_tcp::transport::Role::Accepted => "responder",
        }
        .to_owned(),
        flow_control_id: Some(connection.flow().id().to_string()),
    }
}
