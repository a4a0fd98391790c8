//! The node's half of the control interface: [`api`](super::api) over the Unix socket, on top of the running node.
//!
//! Each handler reads the request, calls one method of the running node and writes what it gives. Whoever can open the socket
//! is the owner, so nothing is decided here.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::{self, Done, ErrorBody, PolicyTarget};
use crate::engine::Running;
use crate::error::{Error, Result};

/// Between the answer to a request to stop and the stop, so that the answer arrives.
const STOP_DELAY: Duration = Duration::from_millis(20);

type Node = State<Arc<Running>>;
type Answer<T> = std::result::Result<Json<T>, Failure>;

/// An error as an answer.
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody::from(self.0))).into_response()
    }
}

/// A JSON body, whatever content type it claims to be.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> std::result::Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| Error::invalid(format!("the request's body cannot be read: {error}")))?;
        serde_json::from_slice(&bytes).map(Body).map_err(|error| {
            Failure(Error::invalid(format!(
                "the request's body is not understood: {error}"
            )))
        })
    }
}

fn answer<T: Serialize>(result: Result<T>) -> Answer<T> {
    result.map(Json).map_err(Failure)
}

fn done(result: Result<()>) -> Answer<Done> {
    answer(result.map(|()| Done {}))
}

/// Serve the interface until `stop` resolves. Requests that are being worked on are finished.
pub(crate) async fn serve(
    listener: std::os::unix::net::UnixListener,
    node: Arc<Running>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    axum::serve(listener, router(node))
        .with_graceful_shutdown(stop)
        .await
}

fn router(node: Arc<Running>) -> Router {
    use api::path;
    let member = |collection: &str| format!("{collection}/{{name}}");
    Router::new()
        .route(path::NODE, get(|State(node): Node| async move { Json(node.status()) }))
        .route(path::NODE_STOP, post(stop))
        .route(
            path::RELAYS,
            get(|State(node): Node| async move { Json(node.relays()) })
                .post(|State(node): Node, Body(body)| async move { answer(node.create_relay(body).await) }),
        )
        .route(
            &member(path::RELAYS),
            get(|State(node): Node, Path(name): Path<String>| async move { answer(node.relay(&name)) })
                .delete(|State(node): Node, Path(name): Path<String>| async move { done(node.delete_relay(&name)) }),
        )
        .route(
            path::POLICIES,
            get(|State(node): Node| async move { Json(node.list_policies()) })
                .put(|State(node): Node, Body(body)| async move { answer(node.set_policy(&body)) }),
        )
        .route(
            &format!("{}/{{kind}}/{{name}}", path::POLICIES),
            get(|State(node): Node, Path(target): Path<(String, String)>| async move {
                answer(policy_target(target).and_then(|target| node.policy(&target)))
            })
            .delete(|State(node): Node, Path(target): Path<(String, String)>| async move {
                done(policy_target(target).and_then(|target| node.delete_policy(&target)))
            }),
        )
        .route(
            path::TCP_OUTLETS,
            get(|State(node): Node| async move { Json(node.outlets()) })
                .post(|State(node): Node, Body(body)| async move { answer(node.create_outlet(body).await) }),
        )
        .route(
            &member(path::TCP_OUTLETS),
            get(|State(node): Node, Path(name): Path<String>| async move { answer(node.outlet(&name)) })
                .delete(|State(node): Node, Path(name): Path<String>| async move { done(node.delete_outlet(&name)) }),
        )
        .route(
            path::TCP_INLETS,
            get(|State(node): Node| async move { Json(node.inlets()) })
                .post(|State(node): Node, Body(body)| async move { answer(node.create_inlet(body).await) }),
        )
        .route(
            &member(path::TCP_INLETS),
            get(|State(node): Node, Path(name): Path<String>| async move { answer(node.inlet(&name)) }).delete(
                |State(node): Node, Path(name): Path<String>| async move { done(node.delete_inlet(&name).await) },
            ),
        )
        .route(
            path::SECURE_CHANNELS,
            get(|State(node): Node| async move { Json(node.secure_channels()) }).post(
                |State(node): Node, Body(body)| async move { answer(node.create_secure_channel(body).await) },
            ),
        )
        .route(
            &member(path::SECURE_CHANNELS),
            get(|State(node): Node, Path(name): Path<String>| async move { answer(node.secure_channel(&name)) })
                .delete(|State(node): Node, Path(name): Path<String>| async move {
                    done(node.delete_secure_channel(&name).await)
                }),
        )
        .route(
            path::SECURE_CHANNEL_LISTENERS,
            get(|State(node): Node| async move { Json(node.secure_channel_listeners()) }).post(
                |State(node): Node, Body(body)| async move {
                    answer(node.create_secure_channel_listener(body).await)
                },
            ),
        )
        .route(
            &member(path::SECURE_CHANNEL_LISTENERS),
            get(|State(node): Node, Path(name): Path<String>| async move {
                answer(node.secure_channel_listener(&name))
            })
            .delete(|State(node): Node, Path(name): Path<String>| async move {
                done(node.delete_secure_channel_listener(&name))
            }),
        )
        .route(
            path::TCP_CONNECTIONS,
            get(|State(node): Node| async move { Json(node.tcp_connections()) }).post(
                |State(node): Node, Body(body)| async move { answer(node.create_tcp_connection(body).await) },
            ),
        )
        .route(
            &member(path::TCP_CONNECTIONS),
            get(|State(node): Node, Path(name): Path<String>| async move { answer(node.tcp_connection(&name)) })
                .delete(|State(node): Node, Path(name): Path<String>| async move {
                    done(node.delete_tcp_connection(&name))
                }),
        )
        .route(
            path::TCP_LISTENERS,
            get(|State(node): Node| async move { Json(node.tcp_listeners()) }).post(
                |State(node): Node, Body(body)| async move { answer(node.create_tcp_listener(body).await) },
            ),
        )
        .route(
            &member(path::TCP_LISTENERS),
            get(|State(node): Node, Path(name): Path<String>| async move { answer(node.tcp_listener(&name)) }).delete(
                |State(node): Node, Path(name): Path<String>| async move { done(node.delete_tcp_listener(&name)) },
            ),
        )
        .route(
            path::SERVICES,
            get(|State(node): Node| async move { Json(node.services()) }).post(
                |State(node): Node, Body(body)| async move { answer(node.start_service_on_request(body)) },
            ),
        )
        .route(
            path::WORKERS,
            get(|State(node): Node| async move { Json(node.workers()) })
                .post(|State(node): Node, Body(body)| async move { answer(node.start_worker(body).await) }),
        )
        .route(
            &member(path::WORKERS),
            get(|State(node): Node, Path(name): Path<String>| async move { answer(node.started_worker(&name)) })
                .delete(|State(node): Node, Path(name): Path<String>| async move { done(node.stop_worker(&name).await) }),
        )
        .route(
            path::PLUGINS,
            get(|State(node): Node| async move { Json(node.plugins()) })
                .post(|State(node): Node, Body(body)| async move { answer(node.add_plugin(body).await) }),
        )
        .route(
            &member(path::PLUGINS),
            get(|State(node): Node, Path(name): Path<String>| async move { answer(node.plugin(&name)) }).delete(
                |State(node): Node, Path(name): Path<String>| async move { done(node.remove_plugin(&name).await) },
            ),
        )
        .route(
            path::WORKER_TYPES,
            get(|State(node): Node| async move { Json(node.worker_types()) }),
        )
        .route(
            path::MESSAGES,
            post(|State(node): Node, Body(body)| async move { answer(node.send_message(body).await) }),
        )
        .route(
            path::CREDENTIALS,
            get(|State(node): Node| async move { answer(node.credentials()) })
                .post(|State(node): Node, Body(body)| async move { answer(node.store_credential(&body)) }),
        )
        .fallback(unknown_path)
        .layer(DefaultBodyLimit::max(api::MAX_BODY))
        .with_state(node)
}

async fn stop(State(node): Node) -> impl IntoResponse {
    tokio::spawn(async move {
        tokio::time::sleep(STOP_DELAY).await;
        tracing::info!("stopping: asked over the control socket");
        node.ask_to_stop();
    });
    // So that the server need not wait for this connection.
    ([(header::CONNECTION, "close")], Json(Done {}))
}

async fn unknown_path(method: Method, uri: Uri) -> Failure {
    Failure(Error::not_found(format!(
        "this node does not know the request {method} {}",
        uri.path()
    )))
}

fn policy_target((kind, name): (String, String)) -> Result<PolicyTarget> {
    match kind.as_str() {
        "type" => Ok(PolicyTarget::Type(name)),
        "resource" => Ok(PolicyTarget::Resource(name)),
        _ => Err(Error::invalid(format!(
            "`{kind}` is not a kind of policy: `type` and `resource` are"
        ))),
    }
}
