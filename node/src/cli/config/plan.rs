//! What a configuration would do; doing it; undoing it.
//!
//! A [`Plan`] is made before anything is changed: names are resolved, the ticket is decoded, every relay, outlet and inlet
//! is checked. Doing it makes the node first and everything else on it. What fails takes back what was made here, and
//! nothing else: a stopped node of the same name, which was set aside, comes back; a running one was never touched.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::resources::{Item, Resource};
use super::yaml::Place;
use super::{Configuration, Origin};
use crate::cli::context::{Context, DEFAULT_LISTENER};
use crate::cli::node::shown;
use crate::cli::output::Answer;
use crate::cli::process::{self, StopSignals};
use crate::cli::{fetch, policy, project};
use crate::control::api::{Done, NodeStatus, path};
use crate::control::client::NodeClient;
use crate::error::{Error, ErrorCode, Result};
use crate::host_port::HostPort;
use crate::state::{Home, NodeFolder, NodeRole, OpenNode, StateError};

/// How long a node in this process may take to end after it stopped to answer.
const STOPPING: Duration = Duration::from_secs(2);

/// What the command line says; it counts more than the configuration.
#[derive(Debug, Default)]
pub(in crate::cli) struct CommandLine<'a> {
    pub(in crate::cli) name: Option<&'a str>,
    pub(in crate::cli) ticket: Option<&'a str>,
    pub(in crate::cli) identity: Option<&'a str>,
    pub(in crate::cli) project: Option<&'a str>,
    pub(in crate::cli) tcp_listener_address: Option<&'a HostPort>,
    pub(in crate::cli) foreground: bool,
    pub(in crate::cli) exit_on_eof: bool,
}

/// What would be done. Making one changes nothing.
#[derive(Debug)]
pub(in crate::cli) struct Plan {
    origin: Origin,
    notes: Vec<String>,
    name: String,
    /// The name was made up.
    unnamed: bool,
    /// A stopped node of that name exists and would be made anew.
    replaces: bool,
    /// The text of the ticket. A secret.
    ticket: Option<String>,
    identity: Option<String>,
    /// The identity has a name that none has yet.
    new_identity: bool,
    /// The project by local name; `None` follows the default one.
    project: Option<String>,
    tcp_listener_address: String,
    foreground: bool,
    exit_on_eof: bool,
    items: Vec<Item>,
}

impl Plan {
    /// Check a configuration against the home.
    ///
    /// # Errors
    ///
    /// When something in it cannot be done, as far as that can be known without doing it.
    pub(in crate::cli) fn new(
        context: &Context,
        configuration: Configuration,
        line: &CommandLine<'_>,
    ) -> Result<Self> {
        let home = context.home();
        let owned = |text: Option<&str>, other: Option<String>| text.map(str::to_owned).or(other);
        let named = owned(line.name, configuration.name);
        let unnamed = named.is_none();
        let name = match named {
            Some(name) => name,
            None => home.free_node_name()?,
        };
        let folder = home.node_folder(&name)?;
        if folder.is_running() {
            return Err(
                Error::exists(format!("the node `{name}` is already running")).hint(format!(
                    "stop it first: portolan node stop {name}, or choose another name"
                )),
            );
        }
        let replaces = folder.exists();
        if replaces && folder.spec().is_ok_and(|spec| spec.role != NodeRole::Node) {
            return Err(
                Error::exists(format!("the node `{name}` is the node of a project"))
                    .hint("choose another name"),
            );
        }
        let identity = owned(line.identity, configuration.identity);
        let new_identity = match identity.as_deref().map(|name| home.identity(name)) {
            Some(Err(error)) if error.code == ErrorCode::NotFound => true,
            Some(Err(error)) => return Err(error),
            _ => false,
        };
        let (ticket, joins) = match owned(line.ticket, configuration.ticket) {
            Some(given) => {
                fetch::warn_if_open(context, &given, "the ticket");
                let (text, read) = project::ticket(&given)?;
                (Some(text), Some(read.project))
            }
            None => (None, None),
        };
        let joins = match joins {
            Some(joins) => {
                let known = home.database()?.projects()?;
                // Another name may have been given to it here.
                let here = known.into_iter().find(|(project, _)| project.id == joins.id);
                Some(here.map_or(joins.name, |(project, _)| project.name))
            }
            None => None,
        };
        let project = match owned(line.project, configuration.project) {
            Some(name) if joins.as_ref() == Some(&name) => Some(name),
            Some(name) => Some(home.project(&name)?.name),
            None => joins,
        };
        let plan = Self {
            origin: configuration.origin,
            notes: configuration.notes,
            name,
            unnamed,
            replaces,
            ticket,
            identity,
            new_identity,
            project,
            tcp_listener_address: line
                .tcp_listener_address
                .or(configuration.tcp_listener_address.as_ref())
                .map_or_else(|| DEFAULT_LISTENER.to_owned(), ToString::to_string),
            foreground: line.foreground || configuration.foreground,
            exit_on_eof: line.exit_on_eof || configuration.exit_on_eof,
            items: configuration.items,
        };
        plan.check_items(context)
    }

    fn check_items(mut self, context: &Context) -> Result<Self> {
        if self.exit_on_eof && !self.foreground {
            return Err(Error::invalid("exit-on-eof goes only with foreground"));
        }
        let mut items = std::mem::take(&mut self.items);
        let mut listeners: Vec<(String, u16)> = Vec::new();
        let mut plugins: Vec<String> = Vec::new();
        for item in &mut items {
            let at = |error: Error| placed(&self.origin, item.place, error);
            let node = item.resource.node();
            match node {
                // A failure must be able to take back all that was done: so nothing is done elsewhere.
                Some(other) if *other != self.name => {
                    let error = Error::invalid(format!(
                        "this is for the node `{other}`, and the configuration makes {}",
                        if self.unnamed {
                            "another".to_owned()
                        } else {
                            format!("`{}`", self.name)
                        }
                    ));
                    return Err(
                        at(error).hint("leave the node out: everything here is for the node being made")
                    );
                }
                _ => *node = Some(self.name.clone()),
            }
            match &item.resource {
                Resource::Policy(_) => {}
                Resource::Relay(create) => {
                    create.check(context, || self.project(context)).map_err(at)?;
                }
                Resource::Outlet(create) => create.check().map_err(at)?,
                Resource::Worker(start) => {
                    start.check(context.types()).map_err(at)?;
                    if let Some(name) = start.plugin()
                        && !plugins.iter().any(|known| known == name)
                    {
                        return Err(at(Error::not_found(format!(
                            "the configuration has no plugin `{name}`"
                        )))
                        .hint("say where it is in the section `plugins`"));
                    }
                }
                Resource::Plugin(add) => {
                    add.check().map_err(at)?;
                    plugins.push(add.name().to_owned());
                }
                Resource::Inlet(create) => {
                    create.check(|| self.project(context)).map_err(at)?;
                    if let Some(name) = create.identity()
                        && self.identity.as_deref() != Some(name)
                    {
                        context.home().identity(name).map_err(at)?;
                    }
                    let listener = (create.listener().host().to_owned(), create.listener().port());
                    if listener.1 != 0 && listeners.contains(&listener) {
                        return Err(at(Error::invalid(format!(
                            "two inlets cannot both listen at {}",
                            create.listener()
                        ))));
                    }
                    is_free(create.listener()).map_err(at)?;
                    listeners.push(listener);
                }
            }
        }
        self.items = items;
        Ok(self)
    }

    fn project(&self, context: &Context) -> Result<String> {
        match &self.project {
            Some(name) => Ok(name.clone()),
            None => Ok(context.project(None)?.name),
        }
    }

    fn say_notes(&self, context: &Context) {
        for note in &self.notes {
            context.terminal.note(note);
        }
    }

    /// Say what would be done.
    pub(in crate::cli) fn show(&self, context: &Context) -> Result<()> {
        self.say_notes(context);
        let identity = match (&self.identity, self.new_identity) {
            (Some(name), true) => format!("the identity `{name}`, which would be made"),
            (Some(name), false) => format!("the identity `{name}`"),
            (None, _) => "the default identity".to_owned(),
        };
        let mut steps = Vec::new();
        if self.ticket.is_some() {
            steps.push(format!(
                "join the project `{}` with the ticket, as {identity}",
                self.project.as_deref().unwrap_or_default()
            ));
        }
        steps.push(format!(
            "make the node {}with {identity}, listening at {}{}{}",
            if self.unnamed {
                "under a random name ".to_owned()
            } else {
                format!("`{}` ", self.name)
            },
            self.tcp_listener_address,
            if self.foreground { ", in this process" } else { "" },
            if self.replaces {
                ", in place of the stopped node of that name"
            } else {
                ""
            },
        ));
        let mut resources = Vec::new();
        for item in &self.items {
            let (step, json) = self.described(context, &item.resource)?;
            steps.push(step);
            resources.push(json);
        }
        let plain = format!("Nothing is wrong with it. It would\n{}", bullets(&steps));
        let json = json!({
            "valid": true,
            "name": (!self.unnamed).then_some(&self.name),
            "replaces_stopped_node": self.replaces,
            "ticket": self.ticket.is_some(),
            "identity": self.identity,
            "new_identity": self.new_identity,
            "project": self.project,
            "tcp_listener_address": self.tcp_listener_address,
            "foreground": self.foreground,
            "resources": resources,
            "steps": steps,
        });
        context.terminal.answer(&Answer::new(plain, json))
    }

    fn described(&self, context: &Context, resource: &Resource) -> Result<(String, Value)> {
        let (kind, name) = resource.identity();
        let called = name.map(|name| format!(" `{name}`")).unwrap_or_default();
        let allow = |policy: Option<&str>| match policy {
            Some(policy) => format!(", allowed if {policy}"),
            None => String::new(),
        };
        let mut json = json!({ "kind": kind.name(), "name": name });
        let rule = match resource {
            Resource::Policy(create) => Some(create.rule()),
            Resource::Outlet(create) => create.policy(),
            Resource::Inlet(create) => create.policy(),
            Resource::Worker(start) => start.policy(),
            Resource::Relay(_) | Resource::Plugin(_) => None,
        };
        if let Some(rule) = rule {
            policy::findings(context, rule);
        }
        let step = match resource {
            Resource::Policy(create) => {
                json["allow"] = json!(create.rule());
                format!("let through `{}` if {}", create.subject(), create.rule())
            }
            Resource::Relay(create) => {
                let at = create.check(context, || self.project(context))?.to_string();
                json["at"] = json!(at);
                format!("register the relay{called} at {at}")
            }
            Resource::Outlet(create) => {
                json["to"] = json!(create.target().to_string());
                json["allow"] = json!(create.policy());
                format!(
                    "open the outlet{called} to {}{}",
                    create.target(),
                    allow(create.policy())
                )
            }
            Resource::Plugin(_) => format!("add the plugin{called}"),
            Resource::Worker(start) => {
                json["type"] = json!(start.kind());
                json["allow"] = json!(start.policy());
                format!(
                    "start the worker{called}, a {}{}",
                    start.kind(),
                    allow(start.policy())
                )
            }
            Resource::Inlet(create) => {
                let route = create.check(|| self.project(context))?.to_string();
                json["from"] = json!(create.listener().to_string());
                json["to"] = json!(route);
                json["allow"] = json!(create.policy());
                format!(
                    "open the inlet{called} at {}, to {route}{}",
                    create.listener(),
                    allow(create.policy())
                )
            }
        };
        Ok((step, json))
    }

    /// Do it.
    pub(in crate::cli) async fn run(mut self, context: &Context) -> Result<()> {
        self.say_notes(context);
        let home = context.home();
        let _lock = Making::lock(home, &self.name)?;
        if let Some(name) = &self.identity {
            home.identity_or_new(name)?;
        }
        let mut joined = None;
        let result = async {
            if let Some(ticket) = self.ticket.take() {
                let done = project::join(
                    context,
                    &ticket,
                    self.identity.as_deref(),
                    project::ENROLL_TIMEOUT,
                )
                .await?;
                joined = Some(done.project.name);
            }
            let spec = context.plain_spec(
                &self.name,
                self.identity.as_deref(),
                self.project.as_deref(),
                &self.tcp_listener_address,
            )?;
            let folder = home.node_folder(&self.name)?;
            // From here on there is something to undo.
            let interruption = if self.foreground {
                None
            } else {
                Some(Interruption::install()?)
            };
            let before = SetAside::take(home, &folder)?;
            match (folder.create(&spec), interruption) {
                (Ok(node), None) => self.run_here(context, node, before).await,
                (Ok(node), Some(interruption)) => {
                    self.run_in_background(context, node, before, interruption).await
                }
                (Err(error), _) => {
                    before.restore(&folder);
                    Err(error)
                }
            }
        }
        .await;
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                // A member's identity stays: with it, the used-up ticket is good for the next attempt.
                match (&self.identity, &joined) {
                    (_, Some(project)) => context.terminal.note(format!(
                        "The membership in the project `{project}` stays: the ticket need not be renewed for another attempt."
                    )),
                    (Some(name), None) if self.new_identity => {
                        let _ = home.database().and_then(|mut database| database.delete_identity(name));
                    }
                    _ => {}
                }
                Err(error)
            }
        }
    }

    async fn run_in_background(
        &mut self,
        context: &Context,
        node: OpenNode,
        before: SetAside,
        interruption: Interruption,
    ) -> Result<()> {
        let folder = &node.folder().clone();
        // `start_new` removes the node if it cannot start.
        let status = match process::start_new(node).await {
            Ok(status) => status,
            Err(error) => {
                before.restore(folder);
                return Err(error);
            }
        };
        let made = tokio::select! {
            made = self.make_items(context) => made,
            error = interruption.happened() => Err(error),
        };
        if let Err(error) = made {
            self.take_back(context, folder, before).await;
            return Err(error);
        }
        before.forget();
        context.adopt_as_default(folder)?;
        context.terminal.done(format!(
            "The node `{}` is running and listens at {}.",
            self.name, status.tcp_listener_address
        ));
        let status: NodeStatus = NodeClient::new(folder.clone()).get(path::NODE).await?;
        context.terminal.answer(&shown(context, folder, &status)?)
    }

    async fn run_here(&mut self, context: &Context, node: OpenNode, before: SetAside) -> Result<()> {
        let signals = match StopSignals::install() {
            Ok(signals) => signals,
            Err(error) => {
                let folder = node.folder().clone();
                drop(node);
                let _ = folder.remove();
                before.restore(&folder);
                return Err(error);
            }
        };
        let folder = node.folder().clone();
        let (is_ready, ready) = tokio::sync::oneshot::channel();
        let run = process::run_here(
            node,
            context.types().clone(),
            signals,
            self.exit_on_eof,
            move |_| {
                let _ = is_ready.send(());
            },
        );
        tokio::pin!(run);
        let make = async {
            match ready.await {
                Ok(()) => self.make_items(context).await,
                // It ended before it was ready, and says why.
                Err(_) => std::future::pending().await,
            }
        };
        // Ended: how the node did. Made: how the rest went, with the node still running.
        let made = tokio::select! {
            biased;
            made = make => made,
            ended = &mut run => {
                let _ = folder.remove();
                before.restore(&folder);
                return ended;
            }
        };
        if let Err(error) = made {
            // A node that is being stopped answers no more: then it is not the configuration that failed.
            if error.code == ErrorCode::Unreachable
                && let Ok(ended) = tokio::time::timeout(STOPPING, &mut run).await
            {
                let _ = folder.remove();
                before.restore(&folder);
                return ended;
            }
            let client = NodeClient::new(folder.clone());
            let stop = async {
                let _ = client.post::<_, Done>(path::NODE_STOP, &Done {}).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = &mut run => {}
                () = stop => {}
            }
            let _ = folder.remove();
            before.restore(&folder);
            context
                .terminal
                .note(format!("The node `{}` was taken back.", self.name));
            return Err(error);
        }
        before.forget();
        context.adopt_as_default(&folder)?;
        context.terminal.done(format!(
            "The node `{}` is running. Stop it with Ctrl-C.",
            self.name
        ));
        let answer = async {
            let status: NodeStatus = NodeClient::new(folder.clone()).get(path::NODE).await?;
            context.terminal.answer(&shown(context, &folder, &status)?)?;
            if context.terminal.stdout_is_terminal {
                Ok(())
            } else {
                context.terminal.raw(b"\n")
            }
        };
        tokio::select! {
            ended = &mut run => return ended,
            // The node is complete and runs on, whoever reads this or not.
            answered = answer => if let Err(error) = answered {
                tracing::warn!(%error, "the result could not be printed");
            },
        }
        run.await
    }

    /// Make everything that the node is to hold, in order; the first failure ends it.
    async fn make_items(&mut self, context: &Context) -> Result<()> {
        for item in std::mem::take(&mut self.items) {
            let made = match item.resource {
                Resource::Policy(create) => create.make(context).await.map(|_| ()),
                Resource::Relay(create) => create.make(context, || self.project(context)).await.map(|_| ()),
                Resource::Outlet(create) => create.make(context).await.map(|_| ()),
                Resource::Worker(start) => start.make(context).await.map(|_| ()),
                Resource::Plugin(add) => add.make(context).await.map(|_| ()),
                Resource::Inlet(create) => create.make(context, || self.project(context)).await.map(|_| ()),
            };
            made.map_err(|error| placed(&self.origin, item.place, error))?;
        }
        Ok(())
    }

    /// Stop and remove the node, which was made here, and bring back what was there before.
    async fn take_back(&self, context: &Context, folder: &NodeFolder, before: SetAside) {
        let gone = match process::stop(folder).await {
            Ok(_) => folder.remove(),
            Err(error) => Err(error),
        };
        match gone {
            Ok(()) => {
                before.restore(folder);
                context
                    .terminal
                    .note(format!("The node `{}` was taken back.", self.name));
            }
            Err(error) => context.terminal.warn(format!(
                "The node `{}` could not be taken back: {}.",
                self.name, error.message
            )),
        }
    }
}

/// The same error, with the place of what it is about.
fn placed(origin: &Origin, place: Place, error: Error) -> Error {
    Error {
        message: format!("{}: {}", origin.at(place), error.message),
        ..error
    }
}

fn bullets(steps: &[String]) -> String {
    steps.iter().map(|step| format!("  - {step}\n")).collect()
}

/// Whether nobody listens there now. The node's own bind is what decides; this tells it before a ticket is spent.
fn is_free(listener: &HostPort) -> Result<()> {
    if listener.port() == 0 {
        return Ok(());
    }
    match std::net::TcpListener::bind((listener.host(), listener.port())) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(Error::exists(format!(
            "the address {listener} of this inlet is in use"
        ))
        .hint("choose another port, or stop what listens there")),
        Err(error) => Err(Error::invalid(format!(
            "this inlet cannot listen at {listener}: {error}"
        ))),
        Ok(_) => Ok(()),
    }
}

/// SIGINT and SIGTERM while a background node is being made: kept from the moment of installation, so that none is lost.
struct Interruption {
    interrupt: Signal,
    terminate: Signal,
}

impl Interruption {
    fn install() -> Result<Self> {
        let fail = |error: std::io::Error| Error::failed(format!("signals cannot be received: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(fail)?,
            terminate: signal(SignalKind::terminate()).map_err(fail)?,
        })
    }

    async fn happened(mut self) -> Error {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        Error::new(ErrorCode::Interrupted, "interrupted before the node was complete")
    }
}

/// Held while a node is made from a configuration, so that two commands do not set aside each other's.
struct Making {
    path: PathBuf,
    _file: File,
}

impl Making {
    fn lock(home: &Home, name: &str) -> Result<Self> {
        let folder = home.path().join("nodes");
        let path = folder.join(format!(".{name}.making"));
        let fail = |source| Error::from(StateError::io(&path, source));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| StateError::io(&folder, source))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::exists(format!(
                "another command is making the node `{name}` from a configuration"
            ))),
            Err(TryLockError::Error(source)) => Err(fail(source)),
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A stopped node's folder under another name, until the new one is complete.
#[derive(Debug)]
struct SetAside {
    path: Option<PathBuf>,
}

impl SetAside {
    fn take(home: &Home, folder: &NodeFolder) -> Result<Self> {
        let aside = home
            .path()
            .join("nodes")
            .join(format!(".{}.before", folder.name()));
        let fail = |source| Error::from(StateError::io(&aside, source));
        if aside.exists() {
            // A command was killed half-way: what it had begun is worth nothing, what it had set aside is.
            if folder.exists() {
                folder.remove()?;
            }
            return Ok(Self { path: Some(aside) });
        }
        if !folder.exists() {
            return Ok(Self { path: None });
        }
        // With the lock, so that nobody starts it meanwhile.
        let node = folder.open()?;
        std::fs::rename(folder.path(), &aside).map_err(fail)?;
        drop(node);
        Ok(Self { path: Some(aside) })
    }

    /// The new node is complete.
    fn forget(self) {
        if let Some(path) = self.path {
            let _ = std::fs::remove_dir_all(path);
        }
    }

    /// The new node is gone; the old one comes back.
    fn restore(self, folder: &NodeFolder) {
        if let Some(path) = self.path {
            // Empty at most: what was in it was removed.
            let _ = std::fs::remove_dir(folder.path());
            let _ = std::fs::rename(path, folder.path());
        }
    }
}
