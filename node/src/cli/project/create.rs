//! A project on this machine: identities, record, node.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portolan_identity::KeyType;
use serde_json::{Value, json};

use super::AUTHORITY_TIMEOUT;
use super::records::{plain, record};
use crate::cli::context::Context;
use crate::cli::output::Answer;
use crate::cli::process::{self, StopSignals};
use crate::cli::values;
use crate::control::api::CredentialStatus;
use crate::engine;
use crate::engine::remote::{self, Caller};
use crate::error::{Error, Result};
use crate::host_port::HostPort;
use crate::state::{
    NodeRole, NodeSpec, OpenNode, OwnIdentity, Project, ProjectNodeSpec, check_project_name, now,
};

/// Where a project node listens unless told otherwise.
const PROJECT_LISTENER: &str = "127.0.0.1:4000";

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Where the project node listens for others.
    #[arg(short, long, value_name = "HOST:PORT", default_value = PROJECT_LISTENER, value_parser = values::host_port)]
    tcp_listener_address: HostPort,
    /// The address under which others reach it; tickets carry it. Default: where it listens.
    #[arg(long, visible_alias = "public-address", value_name = "HOST:PORT", value_parser = values::host_port)]
    address: Option<HostPort>,
    /// How long credentials of members are valid; they are renewed in time.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = values::duration)]
    credential_ttl: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[arg(default_value = "default")]
    name: String,
    #[command(flatten)]
    place: Place,
    /// Stay in this process; log to stderr.
    #[arg(short, long)]
    pub(super) foreground: bool,
    /// The identity that becomes the administrator. Default: the default identity.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

/// A project that was written down but whose node does not run yet.
pub(super) struct Written {
    pub(super) project: Project,
    pub(super) administrator: OwnIdentity,
    pub(super) folder: crate::state::NodeFolder,
    pub(super) identities: [String; 2],
}

impl Written {
    /// Take back what was written: the node could not start.
    fn undo(&self, context: &Context) {
        // What cannot be removed now was reported by the failure that led here.
        let _ = self.folder.remove();
        if let Ok(mut database) = context.home().database() {
            let _ = database.delete_project(&self.project.name);
            for identity in &self.identities {
                let _ = database.delete_identity(identity);
            }
        }
    }
}

/// `default` for a project named so, and a form of other names that can name a node.
fn slug(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '-'
            }
        })
        .collect()
}

/// The name of the node that serves a project of this home.
pub(super) fn node_name(project: &str) -> String {
    format!("project-{}", slug(project))
}

pub(super) fn write(
    context: &Context,
    name: &str,
    place: &Place,
    administrator: Option<&str>,
) -> Result<(Written, OpenNode)> {
    let home = context.home();
    check_project_name(name)?;
    if home
        .database()?
        .projects()?
        .iter()
        .any(|(project, _)| project.name == name)
    {
        return Err(
            Error::exists(format!("there is already a project named `{name}`"))
                .hint("`portolan project show` prints it; choose another name for another project"),
        );
    }
    let folder = home.node_folder(&node_name(name))?;
    if folder.exists() {
        return Err(
            Error::exists(format!("there is already a node named `{}`", folder.name())).hint(format!(
                "delete it first: portolan node delete {} --yes",
                folder.name()
            )),
        );
    }
    let listener = listener(&place.tcp_listener_address)?;
    let address = match &place.address {
        Some(address) => address.clone(),
        None if listener.ip().is_some_and(|ip| ip.is_unspecified()) => {
            return Err(
                Error::invalid(format!("tickets cannot say how to reach {listener}"))
                    .hint("add --address HOST:PORT with the address that others use"),
            );
        }
        None => listener.clone(),
    };
    if place.credential_ttl.as_secs() < 5 {
        return Err(Error::invalid(
            "credentials need at least 5 s of life: they have to be renewed in time",
        ));
    }
    let administrator = home.acting_identity(administrator)?;
    let authority = home.create_identity(
        Some(&format!("authority-{}", slug(name))),
        None,
        KeyType::default(),
    )?;
    let identity = match home.create_identity(Some(&node_name(name)), None, KeyType::default()) {
        Ok(identity) => identity,
        Err(error) => {
            home.database()?.delete_identity(&authority.record.name)?;
            return Err(error);
        }
    };
    let mut id = [0u8; 16];
    getrandom::fill(&mut id)
        .map_err(|error| Error::failed(format!("the system gives no random numbers: {error}")))?;
    let id = hex::encode(id);
    let (access_route, authority_access_route) = engine::project_routes(&address.to_string(), &id)?;
    let project = Project {
        id: id.clone(),
        name: name.to_owned(),
        space_name: String::new(),
        access_route,
        users: Vec::new(),
        space_id: String::new(),
        identity: Some(identity.record.identifier.clone()),
        project_change_history: Some(hex::encode(&identity.record.history)),
        authority_access_route: Some(authority_access_route),
        authority_identity: Some(hex::encode(&authority.record.history)),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        running: None,
        operation_id: None,
        user_roles: Vec::new(),
    };
    let rights = BTreeMap::from([
        ("ockam-role".to_owned(), "enroller".to_owned()),
        ("ockam-relay".to_owned(), "*".to_owned()),
    ]);
    let spec = NodeSpec {
        name: folder.name().to_owned(),
        identity: identity.record.name.clone(),
        project: None,
        tcp_listener_address: listener.to_string(),
        role: NodeRole::Project(ProjectNodeSpec {
            project_id: id,
            project_name: name.to_owned(),
            authority_identity: authority.record.name.clone(),
            administrators: BTreeMap::from([(administrator.record.identifier.clone(), rights)]),
            credential_ttl: place.credential_ttl.as_secs(),
        }),
        created_at: now(),
    };
    let written = Written {
        project,
        administrator,
        folder,
        identities: [authority.record.name, identity.record.name],
    };
    let result = written
        .folder
        .create(&spec)
        .and_then(|node| home.database()?.put_project(&written.project, true).map(|_| node));
    match result {
        Ok(node) => Ok((written, node)),
        Err(error) => {
            written.undo(context);
            Err(error)
        }
    }
}

/// A port of 0 is settled now: tickets carry the port, so it must be the same after every start.
fn listener(wanted: &HostPort) -> Result<HostPort> {
    if wanted.port() != 0 {
        return Ok(wanted.clone());
    }
    let port = TcpListener::bind(wanted.to_string())
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Error::failed(format!("no port is free at {}: {error}", wanted.host())))?
        .port();
    HostPort::new(wanted.host(), port).map_err(|error| Error::invalid(error.to_string()))
}

impl Create {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        if self.foreground {
            // From here on a signal stops the node, and does not leave half of one.
            let signals = StopSignals::install()?;
            let written = write(context, &self.name, &self.place, self.identity.as_deref())?;
            return run_in_foreground(context, signals, written).await;
        }
        let (written, node) = write(context, &self.name, &self.place, self.identity.as_deref())?;
        let credential = launch(context, &written, node).await?;
        context.terminal.done(created_text(&written));
        context
            .terminal
            .note("Invite a machine: portolan project ticket --attribute KEY=VALUE");
        context.terminal.answer(&created(&written, Some(&credential)))
    }
}

/// Start the project's node in the background and get the administrator's credential.
pub(super) async fn launch(context: &Context, written: &Written, node: OpenNode) -> Result<CredentialStatus> {
    if let Err(error) = process::start_new(node).await {
        written.undo(context);
        return Err(error);
    }
    remote::fetch_credential(&caller_of(context, written)).await
}

fn caller_of(context: &Context, written: &Written) -> Caller {
    Caller {
        home: context.home().clone(),
        identity: written.administrator.record.name.clone(),
        project: written.project.clone(),
        timeout: AUTHORITY_TIMEOUT,
    }
}

async fn run_in_foreground(
    context: &Context,
    signals: StopSignals,
    (written, node): (Written, OpenNode),
) -> Result<()> {
    let ran = Arc::new(AtomicBool::new(false));
    let written = Arc::new(written);
    let (runs, of, cx) = (ran.clone(), written.clone(), context.clone());
    let runtime = tokio::runtime::Handle::current();
    let result = process::run_here(node, context.types().clone(), signals, false, move |_| {
        runs.store(true, Ordering::Relaxed);
        cx.terminal.done(created_text(&of));
        let _ = cx.terminal.answer(&created(&of, None));
        if !cx.terminal.stdout_is_terminal {
            let _ = cx.terminal.raw(b"\n");
        }
        let caller = caller_of(&cx, &of);
        runtime.spawn(async move {
            if let Err(error) = remote::fetch_credential(&caller).await {
                cx.terminal.warn(format!(
                    "the administrator's credential could not be fetched: {error}"
                ));
            }
        });
    })
    .await;
    if result.is_err() && !ran.load(Ordering::Relaxed) {
        written.undo(context);
    }
    result
}

pub(super) fn created_text(written: &Written) -> String {
    format!(
        "The project `{}` is running: {}\nYou are its administrator, as `{}`.",
        written.project.name, written.project.access_route, written.administrator.record.name
    )
}

fn created(written: &Written, credential: Option<&CredentialStatus>) -> Answer {
    let mut value = record(&written.project, true);
    if let Value::Object(fields) = &mut value {
        fields.insert("node_name".into(), json!(written.folder.name()));
        fields.insert(
            "administrator".into(),
            json!(written.administrator.record.identifier),
        );
        if let Some(credential) = credential {
            fields.insert("credential_expires_at".into(), json!(credential.expires_at));
        }
    }
    Answer::new(plain(&written.project, true), value).machine(written.project.name.clone())
}
