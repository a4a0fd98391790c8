//! What a member must know of a project, and the project record that command lines exchange (specification 03
//! §5.1).

use portolan_identity::{ChangeHistory, Identifier, Identity};
use serde::{Deserialize, Serialize};

/// Bytes of a project's name or id.
pub const MAX_PROJECT_NAME_LEN: usize = 255;

/// Bytes of a route as MultiAddr text.
pub const MAX_ROUTE_LEN: usize = 1024;

/// A complete project: enough to become a member of it and to use it, with both identities verified.
#[derive(Clone, Debug)]
pub struct Project {
    id: String,
    name: String,
    route: String,
    identity: Identity,
    authority: Identity,
    authority_route: String,
}

/// Which part of a project or ticket an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The id of the project.
    ProjectId,
    /// The name of the project.
    ProjectName,
    /// The route to the project's secure-channel listener.
    ProjectRoute,
    /// The identifier of the project's identity.
    ProjectIdentifier,
    /// The change history of the project's identity.
    ProjectHistory,
    /// The change history of the authority's identity.
    AuthorityHistory,
    /// The route to the authority's secure-channel listener.
    AuthorityRoute,
    /// The one-time code.
    Code,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ProjectId => "the project id",
            Self::ProjectName => "the project name",
            Self::ProjectRoute => "the project route",
            Self::ProjectIdentifier => "the project identifier",
            Self::ProjectHistory => "the project's change history",
            Self::AuthorityHistory => "the authority's change history",
            Self::AuthorityRoute => "the authority route",
            Self::Code => "the one-time code",
        })
    }
}

/// A part of a project that cannot be used. The reason never repeats the part's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} {reason}")]
pub struct InvalidPart {
    /// The part.
    pub part: Part,
    /// What is wrong with it.
    pub reason: String,
}

impl InvalidPart {
    pub(crate) fn new(part: Part, reason: impl Into<String>) -> Self {
        Self {
            part,
            reason: reason.into(),
        }
    }
}

impl Project {
    /// Checks names and routes.
    ///
    /// # Errors
    /// [`InvalidPart`] for an empty, overlong or unprintable text, a name with a comma, or a route that does
    /// not lead to a service over an address and a port.
    pub fn new(
        id: impl Into<String>,
        name: impl Into<String>,
        route: impl Into<String>,
        identity: Identity,
        authority: Identity,
        authority_route: impl Into<String>,
    ) -> Result<Self, InvalidPart> {
        let project = Self {
            id: id.into(),
            name: name.into(),
            route: route.into(),
            identity,
            authority,
            authority_route: authority_route.into(),
        };
        check_name(Part::ProjectId, &project.id)?;
        check_name(Part::ProjectName, &project.name)?;
        check_route(Part::ProjectRoute, &project.route)?;
        check_route(Part::AuthorityRoute, &project.authority_route)?;
        Ok(project)
    }

    /// The id: goes into every credential as `trust_context_id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name under which members know it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// MultiAddr of the project node's secure-channel listener.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// The identity that answers there.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The identity of the authority.
    pub fn authority(&self) -> &Identity {
        &self.authority
    }

    /// MultiAddr of the authority's secure-channel listener.
    pub fn authority_route(&self) -> &str {
        &self.authority_route
    }

    /// The project as a record.
    pub fn to_record(&self) -> ProjectRecord {
        ProjectRecord {
            id: self.id.clone(),
            name: self.name.clone(),
            space_name: String::new(),
            access_route: self.route.clone(),
            users: Vec::new(),
            space_id: String::new(),
            identity: Some(self.identity.identifier().to_string()),
            authority_access_route: Some(self.authority_route.clone()),
            authority_identity: Some(self.authority.history().to_hex()),
            user_roles: Vec::new(),
            project_change_history: Some(self.identity.history().to_hex()),
        }
    }
}

/// The project record as JSON, as `project import` reads it and tickets of the older form carry it. Members
/// that only the hosted service fills are not kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProjectRecord {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Empty without the hosted service.
    pub space_name: String,
    /// MultiAddr of the project node's listener; empty if the project is not ready.
    pub access_route: String,
    /// E-mail addresses.
    pub users: Vec<String>,
    /// Empty without the hosted service.
    pub space_id: String,
    /// `I…` of the project node.
    #[serde(default)]
    pub identity: Option<String>,
    /// MultiAddr of the authority's listener.
    #[serde(default)]
    pub authority_access_route: Option<String>,
    /// Change history of the authority in hex.
    #[serde(default)]
    pub authority_identity: Option<String>,
    /// Roles of users in the hosted service, unread.
    pub user_roles: Vec<serde_json::Value>,
    /// Change history of the project node in hex.
    #[serde(default)]
    pub project_change_history: Option<String>,
}

impl ProjectRecord {
    /// Verifies the record as an import does.
    ///
    /// # Errors
    /// [`InvalidPart`] if a part is missing or cannot be verified, or if the identifier is not that of the
    /// history.
    pub fn verify(&self) -> Result<Project, InvalidPart> {
        let present =
            |part, text: &Option<String>| text.clone().ok_or_else(|| InvalidPart::new(part, "is missing"));
        let identity = verify_history(
            Part::ProjectHistory,
            &present(Part::ProjectHistory, &self.project_change_history)?,
        )?;
        if let Some(identifier) = &self.identity {
            check_identifier(identifier, &identity)?;
        }
        let authority = verify_history(
            Part::AuthorityHistory,
            &present(Part::AuthorityHistory, &self.authority_identity)?,
        )?;
        let authority_route = present(Part::AuthorityRoute, &self.authority_access_route)?;
        Project::new(
            &self.id,
            &self.name,
            &self.access_route,
            identity,
            authority,
            authority_route,
        )
    }
}

/// The id that a stock command line gives to a project which it knows by a ticket: the value of the first
/// `service` component of its route.
pub fn project_id_of_route(route: &str) -> Option<&str> {
    let mut parts = route.strip_prefix('/')?.split('/');
    while let (Some(protocol), Some(value)) = (parts.next(), parts.next()) {
        if protocol == "service" {
            return (!value.is_empty()).then_some(value);
        }
    }
    None
}

pub(crate) fn verify_history(part: Part, hex: &str) -> Result<Identity, InvalidPart> {
    let history =
        ChangeHistory::from_hex(hex).map_err(|e| InvalidPart::new(part, format!("cannot be read: {e}")))?;
    Identity::verify(history, None).map_err(|e| InvalidPart::new(part, format!("cannot be verified: {e}")))
}

pub(crate) fn check_identifier(text: &str, identity: &Identity) -> Result<(), InvalidPart> {
    let stated: Identifier = text
        .parse()
        .map_err(|_| InvalidPart::new(Part::ProjectIdentifier, "is not `I` and 64 hexadecimal digits"))?;
    if stated == *identity.identifier() {
        Ok(())
    } else {
        Err(InvalidPart::new(
            Part::ProjectIdentifier,
            "is not that of the project's change history",
        ))
    }
}

fn check_name(part: Part, name: &str) -> Result<(), InvalidPart> {
    if name.is_empty() || name.len() > MAX_PROJECT_NAME_LEN {
        return Err(InvalidPart::new(
            part,
            format!("must have 1 to {MAX_PROJECT_NAME_LEN} bytes"),
        ));
    }
    // Tickets are comma-separated without quoting, and a name is a component of `/project/<name>`.
    if name.chars().any(|c| c == ',' || c == '/' || c.is_control()) {
        return Err(InvalidPart::new(
            part,
            "must not contain a comma, a slash or control characters",
        ));
    }
    Ok(())
}

fn check_route(part: Part, route: &str) -> Result<(), InvalidPart> {
    let invalid = |reason: &str| Err(InvalidPart::new(part, reason));
    if route.is_empty() || route.len() > MAX_ROUTE_LEN {
        return invalid("is empty or too long");
    }
    // A stock client borrows routes out of JSON, so they must read the same escaped and unescaped.
    if !route
        .bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b'"' | b'\\'))
    {
        return invalid("has a character that no address has");
    }
    let parts: Vec<&str> = route.split('/').collect();
    let [before, host_protocol, host, port_protocol, port, services @ ..] = &parts[..] else {
        return invalid("does not say address, port and service");
    };
    if !before.is_empty()
        || !matches!(*host_protocol, "ip4" | "ip6" | "dnsaddr" | "dns4" | "dns6")
        || host.is_empty()
    {
        return invalid("does not start with an address");
    }
    if !matches!(*port_protocol, "tcp" | "udp") || port.parse::<u16>().is_err() {
        return invalid("has no port after the address");
    }
    let (pairs, rest) = services.as_chunks::<2>();
    let service = |pair: &[&str; 2]| matches!(pair[0], "service" | "secure") && !pair[1].is_empty();
    if pairs.is_empty() || !rest.is_empty() || !pairs.iter().all(service) {
        return invalid("does not end in a service");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_id_is_the_first_service_of_the_route() {
        assert_eq!(
            project_id_of_route("/dnsaddr/h/tcp/4000/service/p1/service/api"),
            Some("p1")
        );
        assert_eq!(
            project_id_of_route("/ip4/1.2.3.4/tcp/4000/service/api"),
            Some("api")
        );
        assert_eq!(project_id_of_route("/ip4/1.2.3.4/tcp/4000/secure/api"), None);
        assert_eq!(project_id_of_route("/dnsaddr/service/tcp/1/secure/api"), None);
        assert_eq!(project_id_of_route(""), None);
    }

    #[test]
    fn routes_need_address_port_and_service() {
        let good = [
            "/ip4/127.0.0.1/tcp/4000/service/api",
            "/ip6/::1/tcp/4000/service/api",
            "/dnsaddr/p.example/tcp/443/service/p1/service/authority/service/api",
            "/dnsaddr/p.example/tcp/443/secure/api",
        ];
        for route in good {
            assert_eq!(check_route(Part::ProjectRoute, route), Ok(()), "{route}");
        }
        let bad = [
            "",
            "/",
            "/node/n1",
            "127.0.0.1:4000",
            "/ip4/127.0.0.1/service/api",
            "/ip4/127.0.0.1/tcp/99999/service/api",
            "/ip4/127.0.0.1/tcp/4000",
            "/ip4/127.0.0.1/tcp/4000/service",
            "/ip4/127.0.0.1/tcp/4000/service/",
            "/ip4/127.0.0.1/tcp/4000/service/api\n",
            "/ip4/127.0.0.1/tcp/4000/service/a,b",
            "/ip4/127.0.0.1/tcp/4000/service/a\"",
        ];
        for route in bad {
            assert!(check_route(Part::ProjectRoute, route).is_err(), "{route}");
        }
    }
}
