//! What every command needs: the home, the terminal, and the node, identity and project that were meant.

use std::time::Duration;

use crate::control::client::NodeClient;
use crate::engine::remote::Caller;
use crate::error::{Error, Result};
use crate::state::{Home, NodeFolder, NodeRole, NodeSpec, OpenNode, OwnIdentity, Project, now};
use crate::worker_types::WorkerTypes;

use super::output::Terminal;
use super::process;

/// Where a node listens for other nodes unless told otherwise: loopback, a port that the system chooses.
pub(crate) const DEFAULT_LISTENER: &str = "127.0.0.1:0";

/// What every command needs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) terminal: Terminal,
    home: Home,
    types: WorkerTypes,
}

impl Context {
    pub(crate) fn new(terminal: Terminal, home: Home, types: WorkerTypes) -> Self {
        Self {
            terminal,
            home,
            types,
        }
    }

    /// The worker types of this program.
    pub(crate) fn types(&self) -> &WorkerTypes {
        &self.types
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// The node that a command works on: the named one, or the default one. If there is no node at all, one is made.
    ///
    /// # Errors
    ///
    /// When it does not exist or does not run.
    pub(crate) async fn node(&self, name: Option<&str>) -> Result<NodeClient> {
        match self.existing_node(name)? {
            Some(client) => Ok(client),
            None => {
                let name = self.home.free_node_name()?;
                self.terminal
                    .note(format!("there was no node yet: making one named `{name}`"));
                self.create_plain_node(&name, None, None, DEFAULT_LISTENER).await
            }
        }
    }

    /// As [`node`](Self::node), but makes none: for commands that only look or delete.
    pub(crate) fn existing_node(&self, name: Option<&str>) -> Result<Option<NodeClient>> {
        let name = match name {
            Some(name) => name.to_owned(),
            None => match self.home.default_node()? {
                Some(name) => name,
                None => return Ok(None),
            },
        };
        let folder = self.home.node(&name)?;
        if !folder.is_running() {
            return Err(Error::unreachable(format!("the node `{name}` is not running"))
                .hint(format!("start it: portolan node start {name}")));
        }
        Ok(Some(NodeClient::new(folder)))
    }

    /// As [`existing_node`](Self::existing_node), where there must be one.
    pub(crate) fn some_node(&self, name: Option<&str>) -> Result<NodeClient> {
        self.existing_node(name)?
            .ok_or_else(|| Error::not_found("there is no node yet").hint("make one: portolan node create"))
    }

    /// What a new ordinary node should be. The identity is made if it does not exist.
    pub(crate) fn plain_spec(
        &self,
        name: &str,
        identity: Option<&str>,
        project: Option<&str>,
        listener: &str,
    ) -> Result<NodeSpec> {
        let identity = match identity {
            Some(name) => self.home.identity_or_new(name)?,
            None => self.home.acting_identity(None)?,
        };
        let project = match project {
            Some(name) => Some(self.home.project(name)?.name),
            None => None,
        };
        Ok(NodeSpec {
            name: name.to_owned(),
            identity: identity.record.name,
            project,
            tcp_listener_address: listener.to_owned(),
            role: NodeRole::Node,
            created_at: now(),
        })
    }

    /// Make an ordinary node and start it in the background.
    pub(crate) async fn create_plain_node(
        &self,
        name: &str,
        identity: Option<&str>,
        project: Option<&str>,
        listener: &str,
    ) -> Result<NodeClient> {
        let spec = self.plain_spec(name, identity, project, listener)?;
        let node = self.write_node(&spec)?;
        let folder = node.folder().clone();
        process::start_new(node).await?;
        self.adopt_as_default(&folder)?;
        Ok(NodeClient::new(folder))
    }

    /// Write what a node should be; a stopped node of that name is made anew.
    pub(crate) fn write_node(&self, spec: &NodeSpec) -> Result<OpenNode> {
        let folder = self.home.node_folder(&spec.name)?;
        if folder.exists() && !folder.is_running() {
            self.terminal.note(format!(
                "the node `{0}` existed and was stopped: it is made anew (`portolan node start {0}` would have \
                 restored its relays, policies and portals)",
                spec.name
            ));
        }
        folder.create(spec)
    }

    /// A new node becomes the default one if there is none, or if the present one does not run.
    pub(crate) fn adopt_as_default(&self, folder: &NodeFolder) -> Result<()> {
        let replace = match self.home.default_node()? {
            None => true,
            Some(name) if name == folder.name() => false,
            Some(name) => !self.home.node_folder(&name)?.is_running(),
        };
        if replace {
            self.home.set_default_node(folder.name())
        } else {
            Ok(())
        }
    }

    /// The project that a command works on: the named one, or the default one.
    ///
    /// # Errors
    ///
    /// When there is none, or it lacks what a member needs.
    pub(crate) fn project(&self, name: Option<&str>) -> Result<Project> {
        let project = match name {
            Some(name) => self.home.project(name)?,
            None => self.home.default_project()?.ok_or_else(|| {
                Error::not_found("no project is known here").hint(
                    "join one with `portolan project enroll TICKET`, or make one with `portolan enroll`",
                )
            })?,
        };
        if !project.is_ready() {
            return Err(Error::failed(format!(
                "the record of the project `{}` is incomplete: it lacks a route or a change history",
                project.name
            ))
            .hint("import it again: portolan project import --project-file FILE"));
        }
        Ok(project)
    }

    /// Who speaks to the authority of `project`.
    pub(crate) fn caller(
        &self,
        identity: Option<&str>,
        project: Project,
        timeout: Duration,
    ) -> Result<Caller> {
        let identity = self.own_identity(identity)?;
        Ok(Caller {
            home: self.home.clone(),
            identity: identity.record.name,
            project,
            timeout,
        })
    }

    /// The identity that a command acts as.
    pub(crate) fn own_identity(&self, name: Option<&str>) -> Result<OwnIdentity> {
        self.home.acting_identity(name)
    }
}
