//! Inviting a machine.

use std::time::Duration;

use super::{AUTHORITY_TIMEOUT, Trust};
use crate::cli::context::Context;
use crate::cli::output::{Answer, attributes, span};
use crate::cli::values;
use crate::engine::remote::{self, TicketRequest};
use crate::error::{Error, Result};

/// A ticket that lives this long and can be used this often is worth a warning (05 §1.4).
const LONG_LIFE: Duration = Duration::from_secs(5 * 86_400);
const MANY_USES: u64 = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Ticket {
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

impl Ticket {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
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
