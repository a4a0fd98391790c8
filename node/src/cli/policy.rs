//! `portolan policy …`.

use std::time::Duration;

use portolan_authority::protocol::MAX_ASKED_NAMES;
use portolan_policy::{HANDLE_MESSAGE, Policy, Severity, SubjectEnvironment};
use serde_json::{Value, json};

use super::context::Context;
use super::output::{Answer, card, table};
use super::{Confirmation, names_to_delete, values};
use crate::control::api::{
    InletStatus, OutletStatus, PolicyStatus, PolicyTarget, RESOURCE_TYPES, SetPolicy, item, path, policy_item,
};
use crate::control::client::NodeClient;
use crate::engine::remote;
use crate::error::{Error, ErrorCode, Result};
use crate::state::Project;

/// How long the authority may take to say which attributes nobody has. Whoever makes a policy waits that long at most.
const ASKING_LIMIT: Duration = Duration::from_secs(2);
/// Names after `subject.` that the node itself binds.
const NOT_ATTRIBUTES: [&str; 2] = ["identifier", "has_credential"];

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Say who may use the resources of a type, or one resource. Replaces an older policy; takes effect at once, on open
    /// portals too.
    Create(Create),
    /// One policy.
    Show {
        /// A resource type (tcp-inlet, tcp-outlet, echoer, relay, worker) or the name of a resource.
        resource: String,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// All policies of a node.
    List {
        /// Only those of this resource type or name.
        resource: Option<String>,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
    },
    /// Say whether a peer would pass, and why or why not.
    Explain(Explain),
    /// Remove a policy. What it protected falls back to the policy of its type; without one, nobody may pass.
    Delete {
        /// A resource type or the name of a resource.
        resource: Option<String>,
        /// The node. Default: the default node.
        #[arg(long, value_name = "NODE", value_parser = values::node)]
        at: Option<String>,
        /// Every policy of the node.
        #[arg(long, conflicts_with = "resource")]
        all: bool,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("target").required(true))]
pub(super) struct Create {
    /// All resources of this type: tcp-inlet, tcp-outlet, echoer, relay, worker.
    #[arg(long, value_name = "TYPE", group = "target", value_parser = resource_type)]
    resource_type: Option<String>,
    /// One resource, by the name of the inlet or the address of the outlet or worker.
    #[arg(long, value_name = "NAME", group = "target")]
    resource: Option<String>,
    /// Who may pass: `postgres-inlet`, `role=client and not suspended`, or `(= subject.role "client")`.
    #[arg(long, visible_alias = "expression", value_name = "POLICY", value_parser = expression)]
    allow: String,
    /// The node. Default: the default node, made if there is none.
    #[arg(long, value_name = "NODE", value_parser = values::node)]
    at: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// The resource type or the name of the resource whose policy is asked.
    #[arg(required_unless_present = "allow")]
    resource: Option<String>,
    /// Ask this policy instead of one of a node.
    #[arg(long, visible_alias = "expression", value_name = "POLICY", conflicts_with_all = ["resource", "at"])]
    allow: Option<String>,
    /// An attribute in the peer's credential. Can be repeated.
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = values::attribute)]
    attribute: Vec<(String, String)>,
    /// The peer's identifier.
    #[arg(long, value_name = "IDENTIFIER", value_parser = values::identifier)]
    identifier: Option<String>,
    /// The peer has no valid credential.
    #[arg(long, conflicts_with = "attribute")]
    no_credential: bool,
    /// The node. Default: the default node.
    #[arg(long, value_name = "NODE", value_parser = values::node)]
    at: Option<String>,
}

/// The policy that counts for a type or a resource: a resource without one of its own has that of its type.
async fn in_force(client: &NodeClient, resource: &str) -> Result<String> {
    let none = match client.get::<PolicyStatus>(&policy_item(&target(resource))).await {
        Ok(policy) => return Ok(policy.expression),
        Err(error) if error.code == ErrorCode::NotFound => error,
        Err(error) => return Err(error),
    };
    if let Ok(outlet) = client
        .get::<OutletStatus>(&item(path::TCP_OUTLETS, resource))
        .await
    {
        return outlet.policy.ok_or(none);
    }
    if let Ok(inlet) = client.get::<InletStatus>(&item(path::TCP_INLETS, resource)).await {
        return inlet.policy.ok_or(none);
    }
    Err(none)
}

impl Explain {
    async fn run(self, context: &Context) -> Result<()> {
        let (policy, resource) = match (&self.allow, &self.resource) {
            (Some(text), _) => (
                Policy::parse(text).map_err(|error| Error::invalid(error.to_string()))?,
                "resource",
            ),
            (None, resource) => {
                let resource = resource.as_deref().unwrap_or_default();
                let client = context.some_node(self.at.as_deref())?;
                let stored = in_force(&client, resource).await?;
                let policy = Policy::parse_stored(&stored).map_err(|error| {
                    Error::failed(format!("the policy of `{resource}` cannot be read: {error}"))
                })?;
                (policy, resource)
            }
        };
        let attributes = values::attributes(&self.attribute)?;
        let nobody = format!("I{}", "0".repeat(64));
        let peer = SubjectEnvironment::new(self.identifier.as_deref().unwrap_or(&nobody))
            .with_credential(!self.no_credential)
            .with_attributes(&attributes)
            .with_resource(resource)
            .with_action(HANDLE_MESSAGE);
        let explanation = policy.explain(&peer);
        let allowed = explanation.decision().is_allowed();
        let names: Vec<Value> = explanation
            .bindings()
            .iter()
            .map(|binding| json!({ "name": binding.name, "value": binding.value }))
            .collect();
        let json = json!({
            "allowed": allowed,
            "decision": explanation.decision().to_string(),
            "expression": policy.to_string(),
            "names": names,
        });
        context
            .terminal
            .answer(&Answer::new(explanation.to_string(), json).machine(if allowed {
                "allow"
            } else {
                "deny"
            }))
    }
}

fn resource_type(text: &str) -> Result<String, String> {
    if RESOURCE_TYPES.contains(&text) {
        return Ok(text.to_owned());
    }
    let known = RESOURCE_TYPES.join(", ");
    Err(match crate::state::closest(text, RESOURCE_TYPES) {
        Some(meant) => {
            format!("there is no resource type `{text}`; did you mean `{meant}`? (known: {known})")
        }
        None => format!("there is no resource type `{text}` (known: {known})"),
    })
}

/// A policy as typed: refused here, with the place of the error, if it cannot be read or can never work.
pub(super) fn expression(text: &str) -> Result<String, String> {
    let policy = Policy::parse(text).map_err(|error| error.to_string())?;
    let errors: Vec<String> = policy
        .check()
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    if errors.is_empty() {
        Ok(text.to_owned())
    } else {
        Err(errors.join("\n"))
    }
}

/// What the check finds questionable, on stderr.
pub(super) fn findings(context: &Context, text: &str) {
    let Ok(policy) = Policy::parse(text) else { return };
    for finding in policy.check() {
        context
            .terminal
            .warn(finding.to_string().trim_start_matches("warning: "));
    }
}

/// As [`findings`], and attributes that nobody in the project has.
pub(super) async fn warn(context: &Context, text: &str) {
    findings(context, text);
    let Ok(policy) = Policy::parse(text) else { return };
    for (project, name) in nobody_has(context, &policy).await.unwrap_or_default() {
        context.terminal.warn(format!(
            "nobody in the project `{project}` has the attribute `{name}`, and no open ticket gives it: `subject.{name}` is not known of \
             anybody. Spelt right? If so, give it with `portolan project ticket --attribute {name}=VALUE`"
        ));
    }
}

/// The attributes that a policy asks for and nobody in the default project has, as its authority says. Nothing where there is no
/// project, or where the authority does not answer soon: this is a courtesy.
async fn nobody_has(context: &Context, policy: &Policy) -> Result<Vec<(String, String)>> {
    let explanation = policy.explain(&SubjectEnvironment::new(""));
    let names: Vec<&str> = explanation
        .bindings()
        .iter()
        .filter_map(|binding| binding.name.strip_prefix("subject."))
        .filter(|name| !NOT_ATTRIBUTES.contains(name))
        .take(MAX_ASKED_NAMES)
        .collect();
    let database = context.home().database()?;
    let Some(project) = database.default_project()?.filter(Project::is_ready) else {
        return Ok(Vec::new());
    };
    let scope = project.credential_scope();
    let credentials = database.credentials()?;
    // Only a member is answered.
    let member = database.identities()?.into_iter().find(|identity| {
        credentials
            .iter()
            .any(|credential| credential.scope == scope && credential.subject == identity.identifier)
    });
    drop(database);
    let Some(member) = member.filter(|_| !names.is_empty()) else {
        return Ok(Vec::new());
    };
    let name = project.name.clone();
    let caller = context.caller(Some(&member.name), project, ASKING_LIMIT)?;
    let unknown = remote::unknown_attributes(&caller, &names).await?;
    Ok(unknown
        .into_iter()
        // A warning shows only what was asked.
        .filter(|unknown| names.contains(&unknown.as_str()))
        .map(|unknown| (name.clone(), unknown))
        .collect())
}

/// A positional that is a type or a name (05 §1.9).
fn target(resource: &str) -> PolicyTarget {
    if RESOURCE_TYPES.contains(&resource) {
        PolicyTarget::Type(resource.to_owned())
    } else {
        PolicyTarget::Resource(resource.to_owned())
    }
}

fn named(target: &PolicyTarget) -> (&'static str, &str) {
    match target {
        PolicyTarget::Type(name) => ("type", name),
        PolicyTarget::Resource(name) => ("resource", name),
    }
}

fn record(policy: &PolicyStatus) -> Value {
    let (kind, name) = named(&policy.target);
    let (resource_type, resource) = if kind == "type" {
        (Some(name), None)
    } else {
        (None, Some(name))
    };
    json!({
        "resource_type": resource_type,
        "resource_name": resource,
        "action": "handle_message",
        "expression": policy.expression,
    })
}

fn shown(policy: &PolicyStatus) -> Answer {
    let (kind, name) = named(&policy.target);
    let heading = if kind == "type" { "All of type" } else { "Resource" };
    let plain = card(&[
        (heading, name.to_owned()),
        ("Allowed if", policy.expression.clone()),
    ]);
    Answer::new(plain, record(policy)).machine(policy.expression.clone())
}

impl Command {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Command::Create(create) => create.run(context).await,
            Command::Explain(explain) => explain.run(context).await,
            Command::Show { resource, at } => {
                let client = context.some_node(at.as_deref())?;
                let policy: PolicyStatus = client.get(&policy_item(&target(&resource))).await?;
                context.terminal.answer(&shown(&policy))
            }
            Command::List { resource, at } => {
                let mut policies: Vec<PolicyStatus> = match context.existing_node(at.as_deref())? {
                    Some(client) => client.get(path::POLICIES).await?,
                    None => Vec::new(),
                };
                if let Some(resource) = resource {
                    let target = target(&resource);
                    policies.retain(|policy| policy.target == target);
                }
                let rows: Vec<Vec<String>> = policies
                    .iter()
                    .map(|policy| {
                        let (kind, name) = named(&policy.target);
                        vec![kind.to_owned(), name.to_owned(), policy.expression.clone()]
                    })
                    .collect();
                let plain = if rows.is_empty() {
                    "There is no policy.".to_owned()
                } else {
                    table(&["OF", "NAME", "ALLOWED IF"], &rows)
                };
                let json: Vec<Value> = policies.iter().map(record).collect();
                context.terminal.answer(&Answer::new(plain, json!(json)))
            }
            Command::Delete {
                resource,
                at,
                all,
                confirmation,
            } => {
                let client = context.some_node(at.as_deref())?;
                let policies: Vec<PolicyStatus> = client.get(path::POLICIES).await?;
                let known: Vec<String> = policies
                    .iter()
                    .map(|policy| named(&policy.target).1.to_owned())
                    .collect();
                let targets: Vec<PolicyTarget> = if all {
                    policies.into_iter().map(|policy| policy.target).collect()
                } else {
                    names_to_delete("policy", resource, false, &known)?
                        .iter()
                        .map(|name| target(name))
                        .collect()
                };
                let names: Vec<&str> = targets.iter().map(|target| named(target).1).collect();
                if !names.is_empty() {
                    context.terminal.confirm(
                        confirmation.yes,
                        &format!("Deleting the policy of {}", names.join(", ")),
                    )?;
                }
                for target in &targets {
                    client.delete(&policy_item(target)).await?;
                    context
                        .terminal
                        .done(format!("The policy of `{}` was deleted.", named(target).1));
                }
                context.terminal.answer(&Answer::new(
                    format!("Deleted: {}", names.join(", ")),
                    json!(names),
                ))
            }
        }
    }
}

impl Create {
    /// The type or resource that it is for.
    pub(super) fn subject(&self) -> &str {
        self.resource_type
            .as_deref()
            .or(self.resource.as_deref())
            .unwrap_or_default()
    }

    /// What it says.
    pub(super) fn rule(&self) -> &str {
        &self.allow
    }

    /// The node that it is given to; `None` is the default one.
    pub(super) fn node(&mut self) -> &mut Option<String> {
        &mut self.at
    }

    /// Make it.
    pub(super) async fn make(self, context: &Context) -> Result<PolicyStatus> {
        let target = match (self.resource_type, self.resource) {
            (Some(kind), _) => PolicyTarget::Type(kind),
            // The older spelling named a type by --resource, too.
            (None, Some(resource)) => target(&resource),
            (None, None) => {
                return Err(
                    Error::invalid("what the policy is for was not said").hint("add --resource-type TYPE")
                );
            }
        };
        warn(context, &self.allow).await;
        let client = context.node(self.at.as_deref()).await?;
        let policy: PolicyStatus = client
            .put(
                path::POLICIES,
                &SetPolicy {
                    target,
                    expression: self.allow,
                },
            )
            .await?;
        let (kind, name) = named(&policy.target);
        let what = if kind == "type" {
            format!("every {name}")
        } else {
            format!("the resource `{name}`")
        };
        context.terminal.done(format!(
            "The node `{}` has a policy for {what} now.",
            client.name()
        ));
        Ok(policy)
    }

    async fn run(self, context: &Context) -> Result<()> {
        let policy = self.make(context).await?;
        context.terminal.answer(&shown(&policy))
    }
}
