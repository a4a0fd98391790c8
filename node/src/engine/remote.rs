//! Short conversations with a project's authority, and single messages, without a running node.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use portolan_authority::attributes::MemberAttributes as Attributes;
use portolan_authority::client::{AuthorityClient, ClientError, Enrollment};
use portolan_authority::code::OneTimeCode;
use portolan_authority::protocol::{AttributesEntry, CreateToken};
use portolan_authority::refusal::CodeRefusal;
use portolan_authority::ticket::Ticket;
use portolan_identity::{
    HistoryOrder, Identifier, Identity, MemoryAttributeRepository, MemoryIdentityRepository,
};
use portolan_runtime::{Address, Context, Node, bare};
use portolan_secure_channel::{CredentialSource, LocalIdentity, SecureChannels};
use portolan_tcp::{TcpOptions, TcpTransport};
use serde::{Deserialize, Serialize};

use super::connect::{Appearance, Connector, Path, blocking};
use super::core::identifiers;
use super::membership::{self, Membership, authority_of};
use crate::control::api::{CredentialStatus, MessageReply, SendMessage};
use crate::error::{Error, ErrorCode, Result};
use crate::multiaddr::MultiAddr;
use crate::state::{Home, OwnIdentity, Project, now};

/// How long a ticket lives unless it is said (03 §4.3): the authority's default, which its answer does not repeat.
const DEFAULT_TICKET_LIFE: Duration = Duration::from_secs(600);

/// How long the authority may take to answer a handshake. One that is there answers in far less; where another project, or
/// something else, listens at the address, nobody answers at all.
const CHANNEL_TIMEOUT: Duration = Duration::from_secs(15);

/// Who speaks, and to which project's authority.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The home that holds the identity's keys.
    pub home: Home,
    /// The local name of the identity.
    pub identity: String,
    /// The project; it is complete ([`Project::is_ready`]).
    pub project: Project,
    /// Limit for the whole conversation.
    pub timeout: Duration,
}

/// What a ticket shall give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TicketRequest {
    /// Attributes that the authority will attest.
    pub attributes: BTreeMap<String, String>,
    /// Life of the ticket; `None` is the authority's default.
    pub expires_in: Option<Duration>,
    /// How many identities can redeem it; `None` is the authority's default, 1.
    pub usage_count: Option<u64>,
}

/// A ticket that was just made. Both texts are secrets until redeemed: never log them.
#[derive(Clone)]
pub struct IssuedTicket {
    /// The text to hand over: hex of the line of seven fields (03 §3.1), digits and a–f only.
    pub text: String,
    /// The JSON object form (03 §3.1).
    pub object: serde_json::Value,
}

/// A ticket that was read. Nothing in it has been checked against the authority.
#[derive(Clone)]
pub struct ReadTicket {
    /// The project as the ticket describes it; both change histories are verified.
    pub project: Project,
    /// The one-time code, 64 hex digits. A secret: never log it.
    pub code: String,
}

/// What became of a redemption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeemed {
    /// The identity is a member now.
    Enrolled,
    /// It was one before; the ticket is untouched.
    AlreadyMember,
}

/// A member of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `I…`
    pub identifier: String,
    /// What the authority attests.
    pub attributes: MemberAttributes,
}

/// What an authority says about a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAttributes {
    /// Name and value.
    pub attributes: BTreeMap<String, String>,
    /// UTC seconds.
    pub added_at: u64,
    /// UTC seconds, where it ends.
    pub expires_at: Option<u64>,
    /// Who added the member, `I…`.
    pub attested_by: Option<String>,
}

/// A node without listeners, for one conversation.
struct Temporary {
    connector: Connector,
}

impl Temporary {
    fn start(home: &Home) -> Result<Self> {
        let node = Node::builder()
            .arbiters(1)
            .build()
            .map_err(|error| Error::failed(error.to_string()))?;
        let channels = SecureChannels::new(
            &node,
            Arc::new(MemoryIdentityRepository::default()),
            Arc::new(MemoryAttributeRepository::default()),
        );
        let tcp = TcpTransport::new(&node, TcpOptions::default());
        let home = home.clone();
        Ok(Self {
            connector: Connector {
                node,
                tcp,
                channels,
                home,
            },
        })
    }

    /// Runs a conversation within its limit, then takes the node down.
    async fn converse<T>(self, limit: Duration, conversation: impl Future<Output = Result<T>>) -> Result<T> {
        let result = tokio::time::timeout(limit, conversation)
            .await
            .unwrap_or_else(|_| {
                Err(Error::timeout(format!(
                    "no answer within {} s",
                    limit.as_secs_f32()
                )))
            });
        self.connector.node.stop().await;
        result
    }
}

fn local(home: &Home, own: &OwnIdentity) -> LocalIdentity {
    LocalIdentity::new(own.identity.clone(), own.vault.clone(), Arc::new(home.clone()))
}

/// An open channel to the authority of a project, and who asks.
struct Asking {
    // Closed when dropped.
    _path: Path,
    context: Context,
    channel: Address,
    timeout: Duration,
    authority: Identity,
    caller: Identifier,
}

impl Asking {
    async fn open(connector: &Connector, caller: &Caller) -> Result<Self> {
        let authority = authority_of(&caller.project)?;
        let route = caller.project.authority_access_route.as_deref().ok_or_else(|| {
            Error::invalid(format!(
                "the project `{}` has no route to its authority",
                caller.project.name
            ))
        })?;
        let (home, name) = (caller.home.clone(), caller.identity.clone());
        let own = blocking(move || home.own_identity(&name)).await?;
        let appearance = Appearance {
            identity: local(&caller.home, &own),
            authorities: Vec::new(),
            credentials: None,
            authorized: Vec::new(),
            // Before the whole conversation is given up, so that it can be said what did not answer.
            timeout: (caller.timeout * 9 / 10).min(CHANNEL_TIMEOUT),
            reachable: &[],
            waiting: None,
            borrow: false,
        };
        let path = connector
            .connect_described(route, *authority.identifier(), &appearance)
            .await
            .map_err(|error| {
                let message = format!(
                    "the authority of the project `{}` at {route} cannot be reached: {}",
                    caller.project.name, error.message
                );
                let hint = error.hint.clone().unwrap_or_else(|| match error.code {
                    // Something took the connection, or nothing said no.
                    ErrorCode::Timeout => {
                        "check that its address can be reached from here, and that this very project \
                                           runs there: another one does not answer to the name"
                            .to_owned()
                    }
                    _ => "check that the project node runs and that its address can be reached from here"
                        .to_owned(),
                });
                Error { message, ..error }.hint(hint)
            })?;
        let channel = path
            .channel()
            .map(|channel| channel.address().clone())
            .ok_or_else(|| Error::failed("the route to the authority has no secure channel"))?;
        let context = connector
            .node
            .context(Address::random())
            .map_err(|error| Error::failed(error.to_string()))?;
        // In the handshake it may have shown that it was rotated.
        let authority = membership::latest(connector, &authority);
        let caller_identifier = *own.identity.identifier();
        Ok(Self {
            _path: path,
            context,
            channel,
            timeout: caller.timeout,
            authority,
            caller: caller_identifier,
        })
    }

    fn client(&self) -> AuthorityClient<'_> {
        AuthorityClient::new(&self.context, &self.channel).with_timeout(self.timeout)
    }
}

/// What an authority's answer means for a user.
fn client_error(error: ClientError) -> Error {
    match error {
        ClientError::Unreachable(portolan_runtime::Error::Timeout { after, .. }) => Error::timeout(format!(
            "the authority did not answer within {} s",
            after.as_secs_f32()
        )),
        ClientError::Unreachable(error) => {
            Error::unreachable(format!("the authority does not answer: {error}"))
        }
        ClientError::Code {
            reason: CodeRefusal::Used,
            failure,
        } => Error::refused(format!("the ticket was refused: {failure}")).hint(
            "this identity is not the one that redeemed it. If this machine was a member before, the home with its identity is \
             gone: bring it back, or keep PORTOLAN_HOME on a volume that outlives the machine and ask an administrator of the \
             project for a new ticket: portolan project ticket",
        ),
        ClientError::Code { failure, .. } => Error::refused(format!("the ticket was refused: {failure}"))
            .hint("ask an administrator of the project for a new one: portolan project ticket"),
        ClientError::Refused(failure) => Error::refused(format!("the authority refused: {failure}")),
        ClientError::Malformed(_) => Error::failed(error.to_string()),
        ClientError::Credential(_) => Error::new(ErrorCode::NotVerified, error.to_string()),
    }
}

/// One conversation with the authority.
async fn ask<T, F>(caller: &Caller, conversation: F) -> Result<T>
where
    F: AsyncFnOnce(&Asking) -> Result<T>,
{
    let temporary = Temporary::start(&caller.home)?;
    let connector = temporary.connector.clone();
    temporary
        .converse(caller.timeout, async {
            let asking = Asking::open(&connector, caller).await?;
            conversation(&asking).await
        })
        .await
}

fn attributes(pairs: &BTreeMap<String, String>) -> Result<Attributes> {
    Attributes::new(pairs).map_err(|error| Error::invalid(error.to_string()))
}

fn identifier(text: &str) -> Result<Identifier> {
    identifiers([&text.to_owned()])?
        .pop()
        .ok_or_else(|| Error::invalid("an identifier is missing"))
}

/// The project as the authority's crate knows it, with both histories verified.
fn verified(project: &Project) -> Result<portolan_authority::project::Project> {
    let record = portolan_authority::project::ProjectRecord {
        id: project.id.clone(),
        name: project.name.clone(),
        space_name: project.space_name.clone(),
        access_route: project.access_route.clone(),
        users: project.users.clone(),
        space_id: project.space_id.clone(),
        identity: project.identity.clone(),
        authority_access_route: project.authority_access_route.clone(),
        authority_identity: project.authority_identity.clone(),
        user_roles: project.user_roles.clone(),
        project_change_history: project.project_change_history.clone(),
    };
    record.verify().map_err(|error| {
        Error::new(
            ErrorCode::NotVerified,
            format!(
                "the record of the project `{}` cannot be used: {error}",
                project.name
            ),
        )
    })
}

/// Ask the authority for a one-time code and wrap it with everything a new machine needs.
///
/// # Errors
///
/// When the authority cannot be reached, or the caller may not issue tickets.
pub async fn create_ticket(caller: &Caller, request: &TicketRequest) -> Result<IssuedTicket> {
    let project = verified(&caller.project)?;
    let token = CreateToken {
        attributes: attributes(&request.attributes)?,
        ttl: request.expires_in.map(|life| life.as_secs()),
        uses: request.usage_count,
    };
    let code = ask(caller, async |asking| {
        asking.client().create_token(&token).await.map_err(client_error)
    })
    .await?;
    let life = request.expires_in.unwrap_or(DEFAULT_TICKET_LIFE).as_secs();
    let ticket = Ticket::new(project, code, Some(now().saturating_add(life)));
    let object = serde_json::from_str(&ticket.to_json())
        .map_err(|error| Error::failed(format!("the ticket cannot be written as JSON: {error}")))?;
    Ok(IssuedTicket {
        text: ticket.to_text().to_string(),
        object,
    })
}

/// Read a ticket in any of its forms (03 §3.2), white space around it ignored. Says which forms were tried and why each
/// failed; never repeats the text.
///
/// # Errors
///
/// When it is none, is cut short, or its histories do not verify.
pub fn read_ticket(text: &str) -> Result<ReadTicket> {
    let ticket: Ticket = text
        .parse()
        .map_err(|error: portolan_authority::ticket::TicketError| {
            Error::invalid(error.to_string()).hint("a ticket comes from: portolan project ticket")
        })?;
    let record = ticket.project().to_record();
    let project = Project {
        id: record.id,
        name: record.name,
        space_name: record.space_name,
        access_route: record.access_route,
        users: record.users,
        space_id: record.space_id,
        identity: record.identity,
        project_change_history: record.project_change_history,
        authority_access_route: record.authority_access_route,
        authority_identity: record.authority_identity,
        version: None,
        running: None,
        operation_id: None,
        user_roles: record.user_roles,
    };
    Ok(ReadTicket {
        project,
        code: ticket.code().to_hex().to_string(),
    })
}

/// Present the one-time code at the authority.
///
/// # Errors
///
/// [`Refused`](crate::ErrorCode::Refused) with distinct messages for expired, used up, unknown; also when the authority
/// is not the one that the ticket names.
pub async fn redeem_ticket(caller: &Caller, ticket: &ReadTicket) -> Result<Redeemed> {
    let code = OneTimeCode::from_hex(&ticket.code).map_err(|error| Error::invalid(error.to_string()))?;
    let enrollment = ask(caller, async |asking| {
        asking.client().redeem(&code).await.map_err(client_error)
    })
    .await?;
    Ok(match enrollment {
        Enrollment::Enrolled => Redeemed::Enrolled,
        Enrollment::AlreadyMember => Redeemed::AlreadyMember,
    })
}

/// The credential of an identity in a project that the home has, valid or not: it was a member when it was fetched last.
///
/// # Errors
///
/// When the home cannot be read.
pub(crate) fn stored_credential(
    home: &Home,
    own: &OwnIdentity,
    project: &Project,
) -> Result<Option<CredentialStatus>> {
    let record = home
        .database()?
        .credential(&own.record.identifier, &project.credential_scope())?;
    Ok(record.map(membership::credential_status))
}

/// The change history of a project's authority, from what is known here and what a ticket says: the authority may have been
/// rotated since the ticket was made, and this home may know.
pub(crate) fn newer_authority(known: &Project, ticket: &Project) -> Option<String> {
    let newer = match (authority_of(known), authority_of(ticket)) {
        (Ok(known), Ok(ticket)) => known.compare(&ticket) == HistoryOrder::Newer,
        _ => false,
    };
    let project = if newer { known } else { ticket };
    project.authority_identity.clone()
}

/// Get a credential for the caller from the authority and keep it in the home database.
///
/// # Errors
///
/// When the authority cannot be reached, or the caller is not a member.
pub async fn fetch_credential(caller: &Caller) -> Result<CredentialStatus> {
    let record = ask(caller, async |asking| {
        let credential = asking
            .client()
            .credential(&asking.caller, &asking.authority, now())
            .await
            .map_err(client_error)?;
        let authorities = std::slice::from_ref(&asking.authority);
        let verified = credential
            .verify(Some(&asking.caller), authorities, now())
            .map_err(|error| Error::new(ErrorCode::NotVerified, error.to_string()))?;
        Ok(membership::record(
            &credential,
            &verified,
            &caller.project.credential_scope(),
        ))
    })
    .await?;
    let (home, kept) = (caller.home.clone(), record.clone());
    blocking(move || home.database()?.put_credential(&kept)).await?;
    Ok(membership::credential_status(record))
}

fn member(identifier: &Identifier, entry: AttributesEntry) -> Member {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Member {
        identifier: identifier.to_string(),
        attributes: MemberAttributes {
            attributes: entry
                .attributes
                .into_iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            added_at: entry.added_at,
            expires_at: entry.expires_at,
            attested_by: entry.attested_by.map(|by| by.to_string()),
        },
    }
}

/// Those of the names that no member of the project and no open ticket has as an attribute. Any member may ask.
///
/// # Errors
///
/// When the authority cannot be reached, is a stock one, or the caller is not a member.
pub async fn unknown_attributes(caller: &Caller, names: &[&str]) -> Result<Vec<String>> {
    ask(caller, async |asking| {
        asking
            .client()
            .unknown_attributes(names)
            .await
            .map_err(client_error)
    })
    .await
}

/// All members.
///
/// # Errors
///
/// When the authority cannot be reached, or the caller is no enroller. So for all that follow.
pub async fn list_members(caller: &Caller) -> Result<Vec<Member>> {
    let members = ask(caller, async |asking| {
        asking.client().members().await.map_err(client_error)
    })
    .await?;
    Ok(members
        .into_iter()
        .map(|(identifier, entry)| member(&identifier, entry))
        .collect())
}

/// The identifiers of all members.
///
/// # Errors
///
/// As [`list_members`].
pub async fn list_member_ids(caller: &Caller) -> Result<Vec<String>> {
    let ids = ask(caller, async |asking| {
        asking.client().member_ids().await.map_err(client_error)
    })
    .await?;
    Ok(ids.iter().map(ToString::to_string).collect())
}

/// One member.
///
/// # Errors
///
/// As [`list_members`].
pub async fn show_member(caller: &Caller, identifier: &str) -> Result<Member> {
    let wanted = self::identifier(identifier)?;
    let entry = ask(caller, async |asking| {
        asking.client().member(&wanted).await.map_err(client_error)
    })
    .await?;
    Ok(member(&wanted, entry))
}

/// Add a member, or replace what the authority attests of one. What it attested before, if it was one.
///
/// # Errors
///
/// As [`list_members`].
pub async fn add_member(
    caller: &Caller,
    identifier: &str,
    attributes: &BTreeMap<String, String>,
) -> Result<Option<Member>> {
    let (wanted, attributes) = (self::identifier(identifier)?, self::attributes(attributes)?);
    ask(caller, async |asking| {
        let client = asking.client();
        // Whoever may not look, or asks about nobody, finds nothing here, and adding has its own errors.
        let before = client.member(&wanted).await.ok();
        client
            .add_member(&wanted, attributes)
            .await
            .map_err(client_error)?;
        Ok(before.map(|entry| member(&wanted, entry)))
    })
    .await
}

/// Remove a member.
///
/// # Errors
///
/// As [`list_members`].
pub async fn delete_member(caller: &Caller, identifier: &str) -> Result<()> {
    let wanted = self::identifier(identifier)?;
    ask(caller, async |asking| {
        asking.client().delete_member(&wanted).await.map_err(client_error)
    })
    .await
}

/// Send one message from a temporary node in this process. The caller's project credential is presented where the route
/// goes through `/project/…`; without a project (`project` is `None`) no credential is presented.
///
/// # Errors
///
/// When the route makes no sense, leads nowhere, or nothing answers.
pub async fn send_message(
    home: &Home,
    identity: &str,
    project: Option<&Project>,
    message: &SendMessage,
) -> Result<MessageReply> {
    let route: MultiAddr = message
        .route
        .parse()
        .map_err(|error| Error::invalid(format!("`{}` is not a route: {error}", message.route)))?;
    let payload = hex::decode(&message.payload)
        .map_err(|error| Error::invalid(format!("the message is not hexadecimal: {error}")))?;
    let timeout = Duration::from_millis(message.timeout_ms);
    let temporary = Temporary::start(home)?;
    let connector = temporary.connector.clone();
    let name = message.identity.clone().unwrap_or_else(|| identity.to_owned());
    temporary
        .converse(timeout, async {
            let keys = home.clone();
            let own = blocking(move || keys.own_identity(&name)).await?;
            let membership = match project {
                Some(project) => {
                    let membership =
                        Membership::start(connector.clone(), project.clone(), local(home, &own), None)?;
                    let ready = membership.ready().await;
                    if route.project().is_some() {
                        ready?;
                    }
                    Some(membership)
                }
                None => None,
            };
            let appearance = Appearance {
                identity: local(home, &own),
                authorities: membership
                    .iter()
                    .map(|membership| membership.authority())
                    .collect(),
                credentials: membership.map(|membership| membership as Arc<dyn CredentialSource>),
                authorized: Vec::new(),
                timeout,
                reachable: &[],
                waiting: None,
                borrow: false,
            };
            let path = connector.connect(&route, &appearance).await?;
            exchange(&connector.node, &path, &payload, timeout).await
        })
        .await
}

/// Sends bytes with their length in front, as services expect them, and takes the answer's length off.
pub(crate) async fn exchange(
    node: &Node,
    path: &Path,
    payload: &[u8],
    timeout: Duration,
) -> Result<MessageReply> {
    let mut body = Vec::with_capacity(payload.len() + 10);
    bare::put_data(&mut body, payload);
    let answer = node
        .send_and_receive_within::<Vec<u8>, Vec<u8>>(timeout, path.route(), body)
        .await
        .map_err(|error| match error {
            portolan_runtime::Error::Timeout { after, .. } => {
                Error::timeout(format!("no answer within {} s", after.as_secs_f32())).hint(
                    "the service may not exist there, or may not be reachable from where the route ends",
                )
            }
            error => Error::unreachable(format!("the message cannot be sent: {error}")),
        })?;
    let content = bare::Reader::new(answer.payload())
        .data()
        .unwrap_or(answer.payload());
    Ok(MessageReply {
        payload: hex::encode(content),
    })
}
