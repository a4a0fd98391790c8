//! A project on this machine: made, and its node started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::AUTHORITY_TIMEOUT;
use super::records::{plain, record};
use crate::cli::context::Context;
use crate::cli::output::Answer;
use crate::cli::process::{self, StopSignals};
use crate::cli::values;
use crate::control::api::CredentialStatus;
use crate::engine::remote;
use crate::error::Result;
use crate::host_port::HostPort;
use crate::project::{DEFAULT_LISTENER, NewProject, ProjectOptions};
use crate::state::OpenNode;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Where the project node listens for others.
    #[arg(short, long, value_name = "HOST:PORT", default_value = DEFAULT_LISTENER, value_parser = values::host_port)]
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

impl Place {
    /// What a project at this place shall be.
    pub(super) fn options(&self, name: &str, administrator: Option<&str>) -> ProjectOptions {
        ProjectOptions {
            name: name.to_owned(),
            listen: self.tcp_listener_address.to_string(),
            address: self.address.as_ref().map(HostPort::to_string),
            credential_life: self.credential_ttl,
            administrator: administrator.map(str::to_owned),
        }
    }
}

impl Create {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        if self.foreground {
            // From here on a signal stops the node, and does not leave half of one.
            let signals = StopSignals::install()?;
            let options = self.place.options(&self.name, self.identity.as_deref());
            let written = crate::project::create(context.home(), &options)?;
            return run_in_foreground(context, signals, written).await;
        }
        let options = self.place.options(&self.name, self.identity.as_deref());
        let (written, node) = crate::project::create(context.home(), &options)?;
        let credential = launch(&written, node).await?;
        context.terminal.done(created_text(&written));
        context
            .terminal
            .note("Invite a machine: portolan project ticket --attribute KEY=VALUE");
        context.terminal.answer(&created(&written, Some(&credential)))
    }
}

/// Start the project's node in the background and get the administrator's credential.
pub(super) async fn launch(written: &NewProject, node: OpenNode) -> Result<CredentialStatus> {
    if let Err(error) = process::start_new(node).await {
        written.undo();
        return Err(error);
    }
    remote::fetch_credential(&written.caller(AUTHORITY_TIMEOUT)).await
}

async fn run_in_foreground(
    context: &Context,
    signals: StopSignals,
    (written, node): (NewProject, OpenNode),
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
        let caller = of.caller(AUTHORITY_TIMEOUT);
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
        written.undo();
    }
    result
}

pub(super) fn created_text(written: &NewProject) -> String {
    format!(
        "The project `{}` is running: {}\nYou are its administrator, as `{}`.",
        written.project.name, written.project.access_route, written.administrator.record.name
    )
}

fn created(written: &NewProject, credential: Option<&CredentialStatus>) -> Answer {
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
