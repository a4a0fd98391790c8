//! The caller's half of the control interface: one HTTP request over the node's Unix socket.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{api, socket};
use crate::error::{Error, ErrorCode, Result};
use crate::state::NodeFolder;

/// How long a node may take for an answer beyond what the request itself allows it to wait.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Speaks to one running node. Each request is a connection of its own; nothing is kept.
#[derive(Debug, Clone)]
pub struct NodeClient {
    folder: NodeFolder,
    timeout: Duration,
}

impl NodeClient {
    /// A client of the node in this folder.
    pub fn new(folder: NodeFolder) -> Self {
        Self {
            folder,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// The same client, with another time-out.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The node's folder.
    pub fn folder(&self) -> &NodeFolder {
        &self.folder
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        self.folder.name()
    }

    /// `GET`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<api::Done> {
        self.request(Method::DELETE, path, Bytes::new()).await
    }

    /// `POST` with a JSON body.
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T> {
        self.request(Method::POST, path, encode(body)?).await
    }

    /// `PUT` with a JSON body.
    pub async fn put<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T> {
        self.request(Method::PUT, path, encode(body)?).await
    }

    async fn request<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T> {
        let name = self.folder.name();
        if !self.folder.is_running() {
            return Err(if self.folder.exists() {
                Error::unreachable(format!("the node `{name}` is not running"))
                    .hint(format!("start it: portolan node start {name}"))
            } else {
                Error::not_found(format!("there is no node named `{name}`"))
            });
        }
        match tokio::time::timeout(self.timeout, self.exchange(method, path, body)).await {
            Ok(result) => result,
            Err(_) => Err(Error::timeout(format!(
                "the node `{name}` did not answer within {} s",
                self.timeout.as_secs_f32().ceil()
            ))
            .hint(format!("look into its log: portolan node logs {name}"))),
        }
    }

    async fn exchange<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T> {
        let name = self.folder.name();
        let lost = |what: &str, error: &dyn std::fmt::Display| {
            Error::unreachable(format!("the node `{name}` runs, but {what}: {error}"))
                .hint(format!("look into its log: portolan node logs {name}"))
        };
        let stream = socket::connect(self.folder.path())
            .and_then(UnixStream::from_std)
            .map_err(|error| lost("its control socket does not answer", &error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| lost("the request could not be sent", &error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::failed(format!("the request cannot be made: {error}")))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), api::MAX_BODY).collect().await;
            Ok::<_, hyper::Error>((status, body))
        };
        // The connection has to be driven while the answer is awaited; it ends with this request.
        let (status, body) = tokio::select! {
            biased;
            answer = answer => answer.map_err(|error| lost("it closed the connection", &error))?,
            // Once it has ended without an answer, the answer's future fails at its next turn.
            never = async { let _ = connection.await; std::future::pending().await } => never,
        };
        let body = body
            .map_err(|error| lost("its answer could not be read", &error))?
            .to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| lost("its answer was not understood", &error));
        }
        match serde_json::from_slice::<api::ErrorBody>(&body) {
            Ok(error) => Err(error.into()),
            Err(_) if status == StatusCode::NOT_FOUND || status == StatusCode::METHOD_NOT_ALLOWED => {
                Err(Error::failed(format!(
                    "the node `{name}` does not know this request; it may run another version"
                ))
                .hint(format!(
                    "restart it: portolan node stop {name} && portolan node start {name}"
                )))
            }
            Err(_) => Err(Error::new(
                ErrorCode::Failed,
                format!("the node `{name}` answered {status}"),
            )),
        }
    }
}

fn encode(body: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| Error::failed(format!("the request cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::{Done, ErrorBody, WorkerStatus, path};
    use crate::state::{Home, NodeRole, NodeSpec, OpenNode};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn node() -> (tempfile::TempDir, OpenNode) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path()).unwrap();
        let spec = NodeSpec {
            name: "n1".into(),
            identity: "default".into(),
            project: None,
            tcp_listener_address: "127.0.0.1:0".into(),
            role: NodeRole::Node,
            created_at: 1,
        };
        let node = home.node_folder("n1").unwrap().create(&spec).unwrap();
        (folder, node)
    }

    /// Answers one request with these bytes.
    fn answer(node: &OpenNode, bytes: Vec<u8>) {
        let listener = tokio::net::UnixListener::from_std(node.control_listener().unwrap()).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0u8; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        });
    }

    fn http(status: &str, body: &str) -> Vec<u8> {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    #[tokio::test]
    async fn an_answer_is_read_and_an_error_keeps_its_code_and_advice() {
        let (_folder, node) = node();
        let client = NodeClient::new(node.folder().clone());
        answer(&node, http("200 OK", r#"[{"address":"echo"}]"#));
        let workers: Vec<WorkerStatus> = client.get(path::WORKERS).await.unwrap();
        assert_eq!(workers[0].address, "echo");

        let body = ErrorBody::from(Error::exists("the port is taken").hint("take another"));
        answer(
            &node,
            http("409 Conflict", &serde_json::to_string(&body).unwrap()),
        );
        let error = client
            .post::<_, Done>(path::NODE_STOP, &Done {})
            .await
            .unwrap_err();
        assert_eq!(error, Error::exists("the port is taken").hint("take another"));
    }

    #[tokio::test]
    async fn garbage_and_a_closed_connection_are_errors_that_name_the_node() {
        let (_folder, node) = node();
        let client = NodeClient::new(node.folder().clone());
        for bytes in [b"garbage\r\n\r\n".to_vec(), Vec::new(), http("200 OK", "[{]")] {
            answer(&node, bytes);
            let error = client.get::<Done>(path::NODE).await.unwrap_err();
            assert!(error.message.contains("`n1`"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_given_up_in_time() {
        let (_folder, node) = node();
        let _listener = node.control_listener().unwrap();
        let client = NodeClient::new(node.folder().clone()).with_timeout(Duration::from_millis(50));
        assert_eq!(
            client.get::<Done>(path::NODE).await.unwrap_err().code,
            ErrorCode::Timeout
        );
        let folder = node.folder().clone();
        drop(node);
        let error = NodeClient::new(folder).get::<Done>(path::NODE).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unreachable);
        assert!(error.hint.unwrap().contains("node start n1"));
    }
}
