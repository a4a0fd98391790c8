//! What is known of projects: shown, imported, forgotten.

use std::io::Read;
use std::path::PathBuf;

use portolan_identity::Identity;
use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::cli::node;
use crate::cli::output::{Answer, card, count, table};
use crate::error::{Error, Result};
use crate::multiaddr::{Component, MultiAddr};
use crate::project;
use crate::state::Project;

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
pub(crate) fn record(project: &Project, is_default: bool) -> Value {
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

pub(super) fn plain(project: &Project, is_default: bool) -> String {
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

pub(super) fn show(context: &Context, name: Option<&str>) -> Result<()> {
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

pub(super) fn list(context: &Context) -> Result<()> {
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

pub(super) fn import(context: &Context, path: &PathBuf) -> Result<()> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(1024 * 1024).read_to_string(&mut text))
        .map_err(|error| Error::invalid(format!("{} cannot be read: {error}", path.display())))?;
    let project = project::import(context.home(), &text).map_err(|error| Error {
        message: format!("{}: {}", path.display(), error.message),
        ..error
    })?;
    let is_default = context
        .home()
        .default_project()?
        .is_some_and(|default| default.id == project.id);
    context
        .terminal
        .done(format!("The project `{}` is known here now.", project.name));
    context.terminal.answer(
        &Answer::new(plain(&project, is_default), record(&project, is_default)).machine(project.name.clone()),
    )
}

pub(super) async fn delete(context: &Context, name: &str, yes: bool) -> Result<()> {
    let home = context.home();
    let project = home.project(name)?;
    let own = project::own_node(home, &project)?;
    let what = match own {
        Some(_) => format!("Deleting the project `{name}`, its node, and all its members and tickets"),
        None => format!("Forgetting the project `{name}`"),
    };
    context.terminal.confirm(yes, &what)?;
    if let Some((folder, _)) = own {
        node::stop_to_remove(context, folder.name()).await?;
    }
    project::forget(home, name)?;
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
    fn the_host_of_a_route_is_said() {
        assert_eq!(host_of("/ip6/::1/tcp/4000/service/api").unwrap(), "[::1]:4000");
        assert_eq!(host_of("/dnsaddr/a.b/tcp/1/service/x").unwrap(), "a.b:1");
        assert_eq!(host_of("/service/api"), None);
    }
}
