//! Projects: made, joined, taken over, forgotten.
//!
//! A **project** is an authority, which says who is a member and with which attributes, and a relay service, both in one node. Whoever
//! [creates](create) one is its administrator. Others [`join`] it with a ticket. What a home knows of a project is a
//! [`Project`] record: where it is, and the change histories of its two identities, so that nobody can stand in for them.
//!
//! These functions work on a [`Home`]. For a node that is running, [`Node`](crate::Node) has the same as methods.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use portolan_identity::{Identity, KeyType};

use crate::control::api::CredentialStatus;
use crate::engine;
use crate::engine::remote::{self, Caller, ReadTicket, Redeemed};
use crate::error::{Error, ErrorCode, Result};
use crate::host_port::HostPort;
use crate::multiaddr::{Component, MultiAddr};
use crate::state::{
    Home, NodeFolder, NodeRole, NodeSpec, OpenNode, OwnIdentity, Project, ProjectNodeSpec,
    check_project_name, now,
};

/// Where a project node listens unless told otherwise.
pub const DEFAULT_LISTENER: &str = "127.0.0.1:4000";
/// How long credentials of members are valid unless told otherwise.
pub const DEFAULT_CREDENTIAL_LIFE: Duration = Duration::from_secs(3600);
/// The shortest life of a credential: it has to be renewed in time.
pub const SHORTEST_CREDENTIAL_LIFE: Duration = Duration::from_secs(5);

/// What a new project shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectOptions {
    /// Its local name. Default: `default`.
    pub name: String,
    /// Where its node listens, `host:port`; with port 0 a free one is chosen now and kept. Default: [`DEFAULT_LISTENER`].
    pub listen: String,
    /// The address under which others reach it, `host:port`: tickets carry it. Default: where it listens.
    pub address: Option<String>,
    /// How long credentials of members are valid. Default: [`DEFAULT_CREDENTIAL_LIFE`].
    pub credential_life: Duration,
    /// The local name of the identity that becomes the administrator. Default: the home's default identity.
    pub administrator: Option<String>,
}

impl Default for ProjectOptions {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            listen: DEFAULT_LISTENER.to_owned(),
            address: None,
            credential_life: DEFAULT_CREDENTIAL_LIFE,
            administrator: None,
        }
    }
}

impl ProjectOptions {
    /// A project whose node listens there, `host:port`.
    pub fn listen(address: impl Into<String>) -> Self {
        Self {
            listen: address.into(),
            ..Self::default()
        }
    }
}

/// A project that was written down but whose node does not run yet.
#[derive(Debug)]
pub struct NewProject {
    /// The record, as the home has it from now on.
    pub project: Project,
    /// Its administrator.
    pub administrator: OwnIdentity,
    /// The folder of its node.
    pub folder: NodeFolder,
    home: Home,
    identities: [String; 2],
}

impl NewProject {
    /// Take back what was written: its node could not start.
    pub fn undo(&self) {
        // What cannot be removed now was reported by the failure that led here.
        let _ = self.folder.remove();
        if let Ok(mut database) = self.home.database() {
            let _ = database.delete_project(&self.project.name);
            for identity in &self.identities {
                let _ = database.delete_identity(identity);
            }
        }
    }

    /// The administrator, who asks the authority.
    pub fn caller(&self, timeout: Duration) -> Caller {
        Caller {
            home: self.home.clone(),
            identity: self.administrator.record.name.clone(),
            project: self.project.clone(),
            timeout,
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
pub fn node_name(project: &str) -> String {
    format!("project-{}", slug(project))
}

/// Write a new project into `home`: its two identities, its record, and its node, which the caller starts.
///
/// # Errors
///
/// When the name is taken, an address makes no sense, or the state cannot be written. Nothing is left then.
pub fn create(home: &Home, options: &ProjectOptions) -> Result<(NewProject, OpenNode)> {
    let name = options.name.as_str();
    let place = |text: &str| {
        text.parse::<HostPort>()
            .map_err(|error| Error::invalid(format!("`{text}`: {error}")))
    };
    let listen = place(&options.listen)?;
    let public = options.address.as_deref().map(place).transpose()?;
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
    let listener = listener(&listen)?;
    let address = match public {
        Some(address) => address,
        None if listener.ip().is_some_and(|ip| ip.is_unspecified()) => {
            return Err(
                Error::invalid(format!("tickets cannot say how to reach {listener}"))
                    .hint("add --address HOST:PORT with the address that others use"),
            );
        }
        None => listener.clone(),
    };
    if options.credential_life < SHORTEST_CREDENTIAL_LIFE {
        return Err(Error::invalid(
            "credentials need at least 5 s of life: they have to be renewed in time",
        ));
    }
    let administrator = home.acting_identity(options.administrator.as_deref())?;
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
            credential_ttl: options.credential_life.as_secs(),
        }),
        created_at: now(),
    };
    let written = NewProject {
        project,
        administrator,
        folder,
        home: home.clone(),
        identities: [authority.record.name, identity.record.name],
    };
    let result = written
        .folder
        .create(&spec)
        .and_then(|node| home.database()?.put_project(&written.project, true).map(|_| node));
    match result {
        Ok(node) => Ok((written, node)),
        Err(error) => {
            written.undo();
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

/// What became of joining a project.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The identity that is a member.
    pub identity: OwnIdentity,
    /// The project, under its local name.
    pub project: Project,
    /// What the authority says of the member.
    pub credential: CredentialStatus,
    /// How it came to that.
    pub how: HowJoined,
}

/// How an identity came to be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HowJoined {
    /// By this ticket.
    Enrolled,
    /// It was one before, and keeps the attributes that it has; the ticket is untouched.
    AlreadyMember,
    /// It was one when the authority was asked last; now it cannot be asked, for this reason.
    AsFarAsKnown(Error),
}

/// Join the project of a ticket as the identity of this name (the default one, made if there is none). Repeating it with the same
/// identity is a success, even when the ticket is used up. Needs a tokio runtime around it.
///
/// # Errors
///
/// When the ticket is refused, the authority cannot be reached, or another project has the name. The home is as it was then.
pub async fn join(
    home: &Home,
    ticket: &ReadTicket,
    identity: Option<&str>,
    timeout: Duration,
) -> Result<Joined> {
    let identity = home.acting_identity(identity)?;
    let before = home.database()?.projects()?;
    let was_known = before.iter().find(|(project, _)| project.id == ticket.project.id);
    // Another name may have been given to it here.
    let project = match was_known {
        Some((known, _)) => Project {
            name: known.name.clone(),
            authority_identity: remote::newer_authority(known, &ticket.project),
            ..ticket.project.clone()
        },
        None => ticket.project.clone(),
    };
    if let Some((other, _)) = before
        .iter()
        .find(|(other, _)| other.name == project.name && other.id != project.id)
    {
        return Err(Error::exists(format!(
            "the ticket is for another project than the `{}` that is known here: that one is at {}, the ticket's at {}",
            other.name, other.access_route, project.access_route
        ))
        .hint(format!(
            "use a ticket of the project that is known, or forget that one: portolan project delete {}; or set \
             PORTOLAN_HOME to another folder",
            other.name
        )));
    }
    home.database()?.put_project(&project, false)?;
    let caller = Caller {
        home: home.clone(),
        identity: identity.record.name.clone(),
        project: project.clone(),
        timeout,
    };
    let result = async {
        let redeemed = remote::redeem_ticket(&caller, ticket).await?;
        Ok::<_, Error>((redeemed, remote::fetch_credential(&caller).await?))
    }
    .await;
    match result {
        Ok((redeemed, credential)) => Ok(Joined {
            identity,
            project,
            credential,
            how: match redeemed {
                Redeemed::Enrolled => HowJoined::Enrolled,
                Redeemed::AlreadyMember => HowJoined::AlreadyMember,
            },
        }),
        Err(error) => {
            let away = matches!(error.code, ErrorCode::Unreachable | ErrorCode::Timeout);
            if was_known.is_some()
                && away
                && let Some(credential) = remote::stored_credential(home, &identity, &project)?
            {
                // A machine that comes back while the authority is away is no less a member than before.
                return Ok(Joined {
                    identity,
                    project,
                    credential,
                    how: HowJoined::AsFarAsKnown(error),
                });
            }
            // A project that could not be joined is not kept; one that was known before is left as it was.
            let mut database = home.database()?;
            match was_known {
                Some((known, _)) => database.put_project(known, false)?,
                None => database.delete_project(&project.name)?,
            }
            Err(error)
        }
    }
}

/// Take over a project from its record, JSON as `portolan project show --output json` prints it.
///
/// # Errors
///
/// When it is none, its parts do not fit together, or another project has its name.
pub fn import(home: &Home, record: &str) -> Result<Project> {
    let project: Project = serde_json::from_str(record)
        .map_err(|error| Error::invalid(format!("it is not a project file: {error}")))?;
    check(&project)?;
    home.database()?.put_project(&project, false)?;
    Ok(project)
}

/// What an imported record must satisfy (03 §5.1).
fn check(project: &Project) -> Result<()> {
    check_project_name(&project.name)?;
    let wrong = |what: String| Error::invalid(format!("the project file is wrong: {what}"));
    if project.id.is_empty() || project.id.contains(['/', '#', ',']) {
        return Err(wrong(format!("`{}` is no project id", project.id.escape_debug())));
    }
    for (name, route) in [
        ("access_route", Some(&project.access_route)),
        ("authority_access_route", project.authority_access_route.as_ref()),
    ] {
        let Some(route) = route.filter(|route| !route.is_empty()) else {
            continue;
        };
        let parsed: MultiAddr = route.parse().map_err(|error| wrong(format!("{name}: {error}")))?;
        let begins_well = matches!(
            parsed.components(),
            [
                Component::Ip4(_) | Component::Ip6(_) | Component::DnsAddr(_),
                Component::Tcp(_) | Component::Udp(_),
                ..
            ]
        );
        if !begins_well {
            return Err(wrong(format!("{name} does not begin with a host and a port")));
        }
    }
    if let Some(history) = &project.authority_identity {
        Identity::from_hex(history, None).map_err(|error| wrong(format!("authority_identity: {error}")))?;
    }
    if let Some(history) = &project.project_change_history {
        let identity = Identity::from_hex(history, None)
            .map_err(|error| wrong(format!("project_change_history: {error}")))?;
        if let Some(expected) = &project.identity
            && *expected != identity.identifier().to_string()
        {
            return Err(wrong(
                "`identity` is not the one of `project_change_history`".into(),
            ));
        }
    }
    Ok(())
}

/// The node of this home that serves a project, and the names of its two identities, if the project is served from here.
pub(crate) fn own_node(home: &Home, project: &Project) -> Result<Option<(NodeFolder, [String; 2])>> {
    let folder = home.node_folder(&node_name(&project.name))?;
    if !folder.exists() {
        return Ok(None);
    }
    let spec = folder.spec()?;
    Ok(match spec.role {
        NodeRole::Project(role) if role.project_id == project.id => {
            Some((folder, [spec.identity, role.authority_identity]))
        }
        _ => None,
    })
}

/// Forget a project. If its node is in this home, that goes too, with all members and tickets; it must not run.
///
/// # Errors
///
/// When there is none of that name, its node runs, or the state cannot be written.
pub fn forget(home: &Home, name: &str) -> Result<()> {
    let project = home.project(name)?;
    if let Some((folder, identities)) = own_node(home, &project)? {
        folder.remove()?;
        let mut database = home.database()?;
        for identity in identities {
            match database.delete_identity(&identity) {
                Err(error) if error.code != ErrorCode::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    home.database()?.delete_project(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_file_is_checked_before_it_is_kept() {
        let project = |text: &str| serde_json::from_str::<Project>(text).unwrap();
        let good = r#"{"id":"p1","name":"default","space_name":"","space_id":"","users":[],"user_roles":[],
            "access_route":"/dnsaddr/proj.example/tcp/4000/service/api"}"#;
        check(&project(good)).unwrap();
        assert!(!project(good).is_ready());
        for (from, to) in [
            ("/dnsaddr/proj.example/tcp/4000/service/api", "/node/n1"),
            ("\"p1\"", "\"a/b\""),
            ("\"default\"", "\"a  b\""),
            ("\"user_roles\":[]", "\"authority_identity\":\"00\""),
        ] {
            assert!(check(&project(&good.replace(from, to))).is_err(), "{to}");
        }
    }
}
