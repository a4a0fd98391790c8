//! `portolan project …` and `portolan enroll`.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portolan_identity::{Identity, KeyType};
use serde_json::{Value, json};

use super::context::Context;
use super::output::{Answer, attributes, card, count, span, table, until};
use super::{Confirmation, node, process, values};
use crate::control::api::CredentialStatus;
use crate::engine::remote::{self, Caller, Redeemed, TicketRequest};
use crate::engine::{self};
use crate::error::{Error, ErrorCode, Result};
use crate::host_port::HostPort;
use crate::multiaddr::{Component, MultiAddr};
use crate::state::{NodeRole, NodeSpec, OwnIdentity, Project, ProjectNodeSpec, check_project_name, now};

/// Limit for a whole enrollment (05 §1.4).
pub(super) const ENROLL_TIMEOUT: Duration = Duration::from_secs(240);
/// How long one `enroll` waits for another that is making the project at the same moment. It takes less than a second.
const ANOTHER_ENROLL: Duration = Duration::from_secs(10);
/// Limit for one conversation with the authority.
pub(super) const AUTHORITY_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest ticket that is read from a file. Real ones have a few kilobytes.
const MAX_TICKET: u64 = 64 * 1024;
/// Where a project node listens unless told otherwise.
const PROJECT_LISTENER: &str = "127.0.0.1:4000";
/// A ticket that lives this long and can be used this often is worth a warning (05 §1.4).
const LONG_LIFE: Duration = Duration::from_secs(5 * 86_400);
const MANY_USES: u64 = 10;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Make a project: an authority and a relay service in one node on this machine, with you as its administrator.
    Create(Create),
    /// Invite a machine: print a one-time ticket.
    ///
    /// The ticket alone goes to stdout, so that `t=$(portolan project ticket …)` works. It is a secret until it is used.
    Ticket(Ticket),
    /// Join a project with a ticket, or fetch a credential as a member that was added by `project-member add`.
    Enroll(Enroll),
    /// What is known about a project; the JSON can be given to `project import` elsewhere.
    Show {
        /// Default: the default project.
        name: Option<String>,
    },
    /// All projects that are known here.
    List,
    /// Take over a project from a file (JSON, as `project show --output json` prints it).
    Import {
        #[arg(long, value_name = "PATH")]
        project_file: PathBuf,
    },
    /// Forget a project; if its node runs in this home, stop and remove that too, with all members and tickets.
    Delete {
        name: String,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Place {
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
pub(super) struct Create {
    #[arg(default_value = "default")]
    name: String,
    #[command(flatten)]
    place: Place,
    /// Stay in this process; log to stderr.
    #[arg(short, long)]
    foreground: bool,
    /// The identity that becomes the administrator. Default: the default identity.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct EnrollHere {
    #[command(flatten)]
    place: Place,
    /// The identity that becomes the administrator. Default: the default identity.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Fetch a new credential even if there is a valid one.
    #[arg(long)]
    force: bool,
}

/// Who asks, at which project's authority.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Trust {
    /// The identity that asks. Default: the default identity.
    #[arg(long, value_name = "NAME")]
    pub(super) identity: Option<String>,
    /// The project. Default: the default project.
    #[arg(long, visible_alias = "project-name", short = 'p', value_name = "NAME")]
    pub(super) project: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Ticket {
    /// What the authority will attest of whoever uses the ticket; a bare key means `key=true`. Can be repeated.
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = values::attribute)]
    attribute: Vec<(String, String)>,
    /// How long the ticket can be used.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = values::duration)]
    expires_in: Duration,
    /// How many identities can use it.
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = values::at_least_one)]
    usage_count: u64,
    /// Give the right to this relay name, or to any with `*`.
    #[arg(long, value_name = "NAME")]
    relay: Option<String>,
    /// Give the right to invite others.
    #[arg(long)]
    enroller: bool,
    #[command(flatten)]
    trust: Trust,
}

#[derive(Debug, clap::Args)]
pub(super) struct Enroll {
    /// A file, the ticket itself, or `-` for stdin. Without one, a credential is fetched for a member that was added
    /// before.
    #[arg(value_name = "TICKET")]
    ticket: Option<String>,
    /// Limit for everything.
    #[arg(long, value_name = "DURATION", default_value = "240s", value_parser = values::duration)]
    timeout: Duration,
    #[command(flatten)]
    trust: Trust,
}

impl Command {
    /// Whether this process becomes a node.
    pub(super) fn runs_here(&self) -> bool {
        matches!(self, Command::Create(create) if create.foreground)
    }

    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Create(create) => create.run(context).await,
            Command::Ticket(ticket) => ticket.run(context).await,
            Command::Enroll(enroll) => enroll.run(context).await,
            Command::Show { name } => show(context, name.as_deref()),
            Command::List => list(context),
            Command::Import { project_file } => import(context, &project_file),
            Command::Delete { name, confirmation } => delete(context, &name, confirmation.yes).await,
        }
    }
}

// -------------------------------------------------------------------------------------------------------------- create

/// A project that was written down but whose node does not run yet.
struct Written {
    project: Project,
    administrator: OwnIdentity,
    folder: crate::state::NodeFolder,
    identities: [String; 2],
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
fn node_name(project: &str) -> String {
    format!("project-{}", slug(project))
}

fn write(context: &Context, name: &str, place: &Place, administrator: Option<&str>) -> Result<Written> {
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
        .map(drop)
        .and_then(|()| home.database()?.put_project(&written.project, true));
    match result {
        Ok(()) => Ok(written),
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
    async fn run(self, context: &Context) -> Result<()> {
        let written = write(context, &self.name, &self.place, self.identity.as_deref())?;
        if self.foreground {
            return run_in_foreground(context, written).await;
        }
        let credential = launch(context, &written).await?;
        context.terminal.done(created_text(&written));
        context
            .terminal
            .note("Invite a machine: portolan project ticket --attribute KEY=VALUE");
        context.terminal.answer(&created(&written, Some(&credential)))
    }
}

/// Start the project's node in the background and get the administrator's credential.
async fn launch(context: &Context, written: &Written) -> Result<CredentialStatus> {
    if let Err(error) = process::start_new(&written.folder).await {
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

async fn run_in_foreground(context: &Context, written: Written) -> Result<()> {
    let node = written.folder.open()?;
    let ran = Arc::new(AtomicBool::new(false));
    let written = Arc::new(written);
    let (runs, of, cx) = (ran.clone(), written.clone(), context.clone());
    let runtime = tokio::runtime::Handle::current();
    let result = process::run_here(node, false, move |_| {
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

fn created_text(written: &Written) -> String {
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

// ------------------------------------------------------------------------------------------------- enroll on this machine

impl EnrollHere {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        let home = context.home();
        let identity = home.acting_identity(self.identity.as_deref())?;
        if let Some(project) = home.default_project()? {
            return self.as_member(context, &identity, &project).await;
        }
        let written = match write(context, "default", &self.place, Some(&identity.record.name)) {
            // Another `enroll` is at it at this moment: its project is ours.
            Err(error) if error.code == ErrorCode::AlreadyExists => {
                return self.after_another(context, &identity, error).await;
            }
            result => result?,
        };
        let credential = launch(context, &written).await?;
        context.terminal.done(created_text(&written));
        context
            .terminal
            .note("Invite a machine: portolan project ticket --attribute KEY=VALUE");
        context
            .terminal
            .answer(&enrolled(&identity, &written.project, &credential, true))
    }

    async fn as_member(&self, context: &Context, identity: &OwnIdentity, project: &Project) -> Result<()> {
        let project = context.project(Some(&project.name))?;
        let held = context
            .home()
            .database()?
            .credential(&identity.record.identifier, &project.credential_scope())?;
        let credential = match held.filter(|held| !self.force && held.expires_at > now()) {
            Some(held) => super::credential::status(&held),
            None => {
                let caller =
                    context.caller(Some(&identity.record.name), project.clone(), AUTHORITY_TIMEOUT)?;
                remote::fetch_credential(&caller).await?
            }
        };
        context.terminal.note(format!(
            "`{}` is already a member of the project `{}`.",
            identity.record.name, project.name
        ));
        context
            .terminal
            .answer(&enrolled(identity, &project, &credential, true))
    }

    /// Wait until the project that another command is making can be used. If it fails, so does this one, as `error` says.
    async fn after_another(&self, context: &Context, identity: &OwnIdentity, error: Error) -> Result<()> {
        let deadline = Instant::now() + ANOTHER_ENROLL;
        loop {
            let failure = match context.home().default_project()? {
                Some(project) => match self.as_member(context, identity, &project).await {
                    Err(error) if error.code == ErrorCode::Unreachable => error,
                    result => return result,
                },
                None => error.clone(),
            };
            if Instant::now() > deadline {
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn enrolled(
    identity: &OwnIdentity,
    project: &Project,
    credential: &CredentialStatus,
    by_identifier: bool,
) -> Answer {
    let plain = card(&[
        (
            "Identity",
            format!("{} {}", identity.record.name, identity.record.identifier),
        ),
        ("Project", project.name.clone()),
        ("Attributes", attributes(&credential.attributes)),
        (
            "Credential",
            format!("ends {}", until(credential.expires_at, now())),
        ),
    ]);
    let json = json!({
        "identity": identity.record.identifier,
        "identity_name": identity.record.name,
        "project_name": project.name,
        "credential": {
            "credential": credential.credential,
            "subject": credential.subject,
            "issuer": credential.issuer,
            "created_at": credential.created_at,
            "expires_at": credential.expires_at,
            "attributes": credential.attributes,
        },
    });
    let answer = Answer::new(plain, json);
    if by_identifier {
        answer.machine(identity.record.identifier.clone())
    } else {
        answer.machine(project.name.clone())
    }
}

// -------------------------------------------------------------------------------------------------------------- ticket

impl Ticket {
    async fn run(self, context: &Context) -> Result<()> {
        let mut wanted = self.attribute;
        if let Some(relay) = &self.relay {
            if relay != "*" {
                values::alias(relay).map_err(Error::invalid)?;
            }
            wanted.push(("ockam-relay".into(), relay.clone()));
        }
        if self.enroller {
            wanted.push(("ockam-role".into(), "enroller".into()));
        }
        let attributes_of = values::attributes(&wanted)?;
        if self.expires_in.is_zero() {
            return Err(
                Error::invalid("a ticket that expires at once is of no use").hint("give --expires-in 10m")
            );
        }
        let project = context.project(self.trust.project.as_deref())?;
        let caller = context.caller(self.trust.identity.as_deref(), project, AUTHORITY_TIMEOUT)?;
        let request = TicketRequest {
            attributes: attributes_of,
            expires_in: Some(self.expires_in),
            usage_count: Some(self.usage_count),
        };
        let ticket = remote::create_ticket(&caller, &request).await?;
        let uses = if self.usage_count == 1 {
            "once".to_owned()
        } else {
            format!("{} times", self.usage_count)
        };
        let life = span(self.expires_in.as_secs().max(1));
        let terminal = &context.terminal;
        terminal.done(format!(
            "A ticket for the project `{}`: usable {uses}, for {life}.",
            caller.project.name
        ));
        if !request.attributes.is_empty() {
            terminal.note(format!(
                "Whoever uses it gets: {}",
                attributes(&request.attributes)
            ));
        }
        if self.expires_in >= LONG_LIFE && self.usage_count >= MANY_USES {
            terminal.warn(format!(
                "A ticket that can be used {uses} for {life} is a standing invitation: keep it as you would a password."
            ));
        }
        terminal.note("On the other machine: portolan project enroll TICKET");
        terminal.answer(&Answer::new(ticket.text.clone(), ticket.object.clone()).machine(ticket.text.clone()))
    }
}

// -------------------------------------------------------------------------------------------------------------- enroll

/// The text of a ticket from what was given: a file, stdin or the text itself.
fn ticket_text(given: &str) -> Result<String> {
    let given = given.trim();
    if given.is_empty() {
        return Err(Error::invalid("the ticket is empty"));
    }
    let limited = |reader: &mut dyn Read, what: &str| {
        let mut text = String::new();
        reader
            .take(MAX_TICKET + 1)
            .read_to_string(&mut text)
            .map_err(|error| Error::invalid(format!("the ticket cannot be read from {what}: {error}")))?;
        if text.len() as u64 > MAX_TICKET {
            return Err(Error::invalid(format!(
                "{what} is no ticket: it is longer than {MAX_TICKET} bytes"
            )));
        }
        if text.trim().is_empty() {
            return Err(Error::invalid(format!("the ticket is empty: {what} has no text")));
        }
        Ok(text)
    };
    if given == "-" {
        return limited(&mut std::io::stdin().lock(), "stdin");
    }
    if given.starts_with("http://") || given.starts_with("https://") {
        return Err(Error::invalid("tickets are not fetched from URLs")
            .hint("fetch it first: portolan project enroll \"$(curl -fsS URL)\""));
    }
    // A ticket is far longer than a path can be, and asking the system about it then fails, which is as good as "no".
    if std::path::Path::new(given).is_file() {
        let mut file = std::fs::File::open(given)
            .map_err(|error| Error::invalid(format!("the ticket file {given} cannot be read: {error}")))?;
        return limited(&mut file, given);
    }
    if given.starts_with(['/', '.', '~']) && given.len() < 4096 && !given.contains(',') {
        return Err(Error::not_found(format!("there is no ticket file {given}")));
    }
    Ok(given.to_owned())
}

/// What became of joining a project.
pub(super) struct Joined {
    identity: OwnIdentity,
    project: Project,
    credential: CredentialStatus,
}

/// Join the project of a ticket. Repeating it with the same identity is a success, even when the ticket is used up.
pub(super) async fn join(
    context: &Context,
    ticket: &str,
    identity: Option<&str>,
    timeout: Duration,
) -> Result<Joined> {
    let ticket = remote::read_ticket(&ticket_text(ticket)?)?;
    let identity = context.own_identity(identity)?;
    let home = context.home();
    let before = home.database()?.projects()?;
    let was_known = before.iter().find(|(project, _)| project.id == ticket.project.id);
    // Another name may have been given to it here.
    let project = match was_known {
        Some((known, _)) => Project {
            name: known.name.clone(),
            ..ticket.project.clone()
        },
        None => ticket.project.clone(),
    };
    home.database()?.put_project(&project, false)?;
    let caller = Caller {
        home: home.clone(),
        identity: identity.record.name.clone(),
        project: project.clone(),
        timeout,
    };
    let result = async {
        let redeemed = remote::redeem_ticket(&caller, &ticket).await?;
        Ok::<_, Error>((redeemed, remote::fetch_credential(&caller).await?))
    }
    .await;
    match result {
        Ok((redeemed, credential)) => {
            let is = match redeemed {
                Redeemed::Enrolled => "is now",
                Redeemed::AlreadyMember => "was already",
            };
            context.terminal.done(format!(
                "`{}` {is} a member of the project `{}`.",
                identity.record.name, project.name
            ));
            Ok(Joined {
                identity,
                project,
                credential,
            })
        }
        Err(error) => {
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

impl Enroll {
    async fn run(self, context: &Context) -> Result<()> {
        let joined = match &self.ticket {
            Some(ticket) => join(context, ticket, self.trust.identity.as_deref(), self.timeout).await?,
            None => {
                let project = context.project(self.trust.project.as_deref())?;
                let identity = context.own_identity(self.trust.identity.as_deref())?;
                let caller = context.caller(Some(&identity.record.name), project.clone(), self.timeout)?;
                let credential =
                    remote::fetch_credential(&caller)
                        .await
                        .map_err(|error| match error.code {
                            ErrorCode::Refused => error.hint(format!(
                                "use a ticket, or ask an administrator: portolan project-member add {}",
                                identity.record.identifier
                            )),
                            _ => error,
                        })?;
                context.terminal.done(format!(
                    "`{}` is a member of the project `{}`.",
                    identity.record.name, project.name
                ));
                Joined {
                    identity,
                    project,
                    credential,
                }
            }
        };
        context.terminal.answer(&enrolled(
            &joined.identity,
            &joined.project,
            &joined.credential,
            false,
        ))
    }
}

// ---------------------------------------------------------------------------------------------------- show, list, delete

/// The transport part of a route, `host:port`.
fn host_of(route: &str) -> Option<String> {
    let route: MultiAddr = route.parse().ok()?;
    match route.components() {
        [Component::Ip4(ip), Component::Tcp(port), ..] => Some(format!("{ip}:{port}")),
        [Component::Ip6(ip), Component::Tcp(port), ..] => Some(format!("[{ip}]:{port}")),
        [Component::DnsAddr(host), Component::Tcp(port), ..] => Some(format!("{host}:{port}")),
        _ => None,
    }
}

/// The authority's identifier: the hash of its history's first change.
fn authority_identifier(project: &Project) -> Option<String> {
    let history = project.authority_identity.as_deref()?;
    Some(Identity::from_hex(history, None).ok()?.identifier().to_string())
}

/// The JSON of a project (03 §5.1).
pub(super) fn record(project: &Project, is_default: bool) -> Value {
    let mut value = serde_json::to_value(project).unwrap_or_default();
    let access = host_of(&project.access_route);
    let authority = project.authority_access_route.as_deref().and_then(host_of);
    let mut hosts: Vec<String> = access.iter().chain(&authority).cloned().collect();
    hosts.dedup();
    if let Value::Object(fields) = &mut value {
        fields.insert("access_address".into(), json!(access));
        fields.insert("authority_access_address".into(), json!(authority));
        fields.insert(
            "authority_identifier".into(),
            json!(authority_identifier(project)),
        );
        fields.insert("egress_allow_list".into(), json!(hosts));
        fields.insert("is_default".into(), json!(is_default));
    }
    value
}

fn plain(project: &Project, is_default: bool) -> String {
    let mark = if is_default { " (default)" } else { "" };
    card(&[
        ("Project", format!("{}{mark}", project.name)),
        ("Id", project.id.clone()),
        ("Identity", project.identity.clone().unwrap_or_default()),
        ("Route", project.access_route.clone()),
        ("Authority", authority_identifier(project).unwrap_or_default()),
        (
            "Authority at",
            project.authority_access_route.clone().unwrap_or_default(),
        ),
    ])
}

fn show(context: &Context, name: Option<&str>) -> Result<()> {
    let home = context.home();
    let default = home.default_project()?;
    let project = match (name, &default) {
        (Some(name), _) => home.project(name)?,
        (None, Some(default)) => default.clone(),
        (None, None) => {
            return Err(context
                .project(None)
                .err()
                .unwrap_or_else(|| Error::not_found("no project")));
        }
    };
    let is_default = default.is_some_and(|default| default.id == project.id);
    context.terminal.answer(&Answer::new(
        plain(&project, is_default),
        record(&project, is_default),
    ))
}

fn list(context: &Context) -> Result<()> {
    let projects = context.home().database()?.projects()?;
    let rows: Vec<Vec<String>> = projects
        .iter()
        .map(|(project, is_default)| {
            let mark = if *is_default { "default" } else { "" };
            vec![
                project.name.clone(),
                project.access_route.clone(),
                mark.to_owned(),
            ]
        })
        .collect();
    let plain = if rows.is_empty() {
        "No project is known here. Join one: portolan project enroll TICKET. Make one: portolan enroll"
            .to_owned()
    } else {
        table(&["NAME", "ROUTE", ""], &rows)
    };
    let json: Vec<Value> = projects
        .iter()
        .map(|(project, is_default)| record(project, *is_default))
        .collect();
    context.terminal.answer(&Answer::new(plain, json!(json)))
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

fn import(context: &Context, path: &PathBuf) -> Result<()> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(1024 * 1024).read_to_string(&mut text))
        .map_err(|error| Error::invalid(format!("{} cannot be read: {error}", path.display())))?;
    let project: Project = serde_json::from_str(&text)
        .map_err(|error| Error::invalid(format!("{} is not a project file: {error}", path.display())))?;
    check(&project)?;
    let mut database = context.home().database()?;
    database.put_project(&project, false)?;
    let is_default = database
        .default_project()?
        .is_some_and(|default| default.id == project.id);
    context
        .terminal
        .done(format!("The project `{}` is known here now.", project.name));
    context.terminal.answer(
        &Answer::new(plain(&project, is_default), record(&project, is_default)).machine(project.name.clone()),
    )
}

async fn delete(context: &Context, name: &str, yes: bool) -> Result<()> {
    let home = context.home();
    let project = home.project(name)?;
    let folder = home.node_folder(&node_name(name))?;
    let spec = if folder.exists() {
        Some(folder.spec()?)
    } else {
        None
    };
    let own = spec.and_then(|spec| match spec.role {
        NodeRole::Project(role) if role.project_id == project.id => {
            Some((spec.identity, role.authority_identity))
        }
        _ => None,
    });
    let what = match own {
        Some(_) => format!("Deleting the project `{name}`, its node, and all its members and tickets"),
        None => format!("Forgetting the project `{name}`"),
    };
    context.terminal.confirm(yes, &what)?;
    if let Some((identity, authority)) = own {
        node::remove(context, folder.name()).await?;
        let mut database = home.database()?;
        for identity in [identity, authority] {
            match database.delete_identity(&identity) {
                Err(error) if error.code != ErrorCode::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    home.database()?.delete_project(name)?;
    context.terminal.done(format!(
        "The project `{name}` was deleted ({} left).",
        count(home.database()?.projects()?.len(), "project")
    ));
    context
        .terminal
        .answer(&Answer::new(format!("Deleted: {name}"), json!({ "name": name })).machine(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_text_or_a_file_and_white_space_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ticket");
        std::fs::write(&path, "abc\n").unwrap();
        assert_eq!(ticket_text(path.to_str().unwrap()).unwrap().trim(), "abc");
        assert_eq!(ticket_text(" abc\n").unwrap(), "abc");
        assert_eq!(ticket_text(&"a".repeat(10_000)).unwrap().len(), 10_000);
        assert_eq!(
            ticket_text("/etc/no/such/ticket").unwrap_err().code,
            ErrorCode::NotFound
        );
        assert!(ticket_text("https://a/b").unwrap_err().message.contains("URL"));
        std::fs::write(&path, "\n").unwrap();
        assert!(
            ticket_text(path.to_str().unwrap())
                .unwrap_err()
                .message
                .contains("empty")
        );
        std::fs::write(&path, vec![b'a'; 70_000]).unwrap();
        assert!(
            ticket_text(path.to_str().unwrap())
                .unwrap_err()
                .message
                .contains("longer")
        );
    }

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

    #[test]
    fn the_host_of_a_route_is_said() {
        assert_eq!(host_of("/ip6/::1/tcp/4000/service/api").unwrap(), "[::1]:4000");
        assert_eq!(host_of("/dnsaddr/a.b/tcp/1/service/x").unwrap(), "a.b:1");
        assert_eq!(host_of("/service/api"), None);
    }
}
