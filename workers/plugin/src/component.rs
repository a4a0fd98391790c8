//! From the bytes of a file to a component, and which interface it was built for.

use std::borrow::Cow;

use wasmparser::{Parser, Payload};
use wasmtime::component::Component;
use wit_component::StringEncoding;
use wit_parser::Resolve;

use crate::PluginError;
use crate::error::one_line;
use crate::shape::{self, broken};

/// The version of the interface that this node offers.
pub const VERSION: &str = "0.1.0";

/// The versions that it takes.
pub(crate) const SUPPORTED: &str = "0.1.x";

/// The largest file that is taken: 64 MiB. A component that has a JavaScript engine in it has some 10 MiB.
pub const MAX_FILE: usize = 64 * 1024 * 1024;

const PACKAGE: &str = "portolan:worker/";

/// What a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An actor with an address.
    Worker,
    /// Stands in a portal connection.
    Interceptor,
}

impl Kind {
    pub(crate) fn interface(self) -> &'static str {
        match self {
            Self::Worker => "handler",
            Self::Interceptor => "interceptor-handler",
        }
    }

    fn world(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Interceptor => "interceptor",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Worker => "a worker",
            Self::Interceptor => "an interceptor",
        })
    }
}

/// A component as it is; a core module that exports what one of the worlds does, as `cargo build --target wasm32-unknown-unknown` with
/// `wit-bindgen` writes it, made into one.
///
/// # Errors
/// [`PluginError::NotAComponent`] for everything else.
pub fn componentize(bytes: &[u8]) -> Result<Cow<'_, [u8]>, PluginError> {
    let refuse = |text: String| Err(PluginError::NotAComponent(text));
    if bytes.len() > MAX_FILE {
        return refuse(format!(
            "the file has {} bytes, and {MAX_FILE} is the most that is taken",
            bytes.len()
        ));
    }
    match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(Cow::Borrowed(bytes)),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => from_module(bytes).map(Cow::Owned),
        [0, b'a', b's', b'm', ..] => refuse(
            "it is WebAssembly in an encoding that is not known here; build it with a newer or an older tool".into(),
        ),
        [] => refuse("the file is empty".into()),
        _ if bytes.trim_ascii_start().starts_with(b"(component")
            || bytes.trim_ascii_start().starts_with(b"(module") =>
        {
            refuse("it is the text form of WebAssembly; translate it first (`wasm-tools parse FILE -o FILE.wasm`)".into())
        }
        _ => refuse("the file does not begin as WebAssembly does".into()),
    }
}

fn from_module(module: &[u8]) -> Result<Vec<u8>, PluginError> {
    let refuse = |why: String| {
        PluginError::NotAComponent(format!(
            "it is a core module from which no component can be made ({why}); build it with wit-bindgen and worker.wit, as the project \
             that `portolan plugin new` writes does"
        ))
    };
    // Its functions are read several times.
    shape::look(module)?;
    let (kind, version) =
        exported(module)?.ok_or_else(|| refuse("it does not say which interface it is for".into()))?;
    // What a module says of its type is not looked at: what reads that was made for files of friends, and goes round in circles for
    // others. Its exports say for which world it was made, and of that we have the type ourselves.
    let mut module = without_notes(module)?;
    let mut attempt = || {
        let mut resolve = Resolve::default();
        let wit = crate::WIT.replace(&format!("@{VERSION};"), &format!("@{version};"));
        let package = resolve.push_str("worker.wit", &wit)?;
        let world = resolve.select_world(&[package], Some(kind.world()))?;
        wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
        wit_component::ComponentEncoder::default()
            .validate(true)
            .module(&module)?
            .encode()
    };
    attempt().map_err(|error| refuse(one_line(&format!("{error:#}"), 1024)))
}

/// For which world a core module was made, and in which version, by the names of its exports.
fn exported(module: &[u8]) -> Result<Option<(Kind, String)>, PluginError> {
    let mut found: Option<(Kind, String)> = None;
    for payload in Parser::new(0).parse_all(module) {
        let Payload::ExportSection(exports) = payload.map_err(broken)? else {
            continue;
        };
        for export in exports {
            let name = export.map_err(broken)?.name;
            let Some((interface, version)) = name
                .strip_prefix(PACKAGE)
                .and_then(|rest| rest.split_once('#')?.0.split_once('@'))
            else {
                continue;
            };
            for kind in [Kind::Worker, Kind::Interceptor] {
                if interface != kind.interface() {
                    continue;
                }
                check_version(version)?;
                match &found {
                    Some((known, _)) if *known != kind => return Err(both()),
                    Some(_) => {}
                    None => found = Some((kind, version.to_owned())),
                }
            }
        }
    }
    Ok(found)
}

/// A core module without its custom sections, other than the names of its functions, which are shown when it traps.
fn without_notes(module: &[u8]) -> Result<Vec<u8>, PluginError> {
    let mut kept = Vec::with_capacity(module.len());
    kept.extend_from_slice(&module[..8.min(module.len())]);
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(broken)?;
        if let Payload::CustomSection(section) = &payload
            && section.name() != "name"
        {
            continue;
        }
        let Some((id, range)) = payload.as_section() else {
            continue;
        };
        kept.push(id);
        let mut size = range.len();
        while size >= 0x80 {
            kept.push(size as u8 | 0x80);
            size >>= 7;
        }
        kept.push(size as u8);
        kept.extend_from_slice(module.get(range).unwrap_or_default());
    }
    Ok(kept)
}

fn both() -> PluginError {
    PluginError::Interface(
        "it exports both `handler` and `interceptor-handler`; make two plugins of it".into(),
    )
}

/// Looks at what a component imports and exports.
///
/// # Errors
/// If it is for another version of the interface, asks for something else, or is no plugin at all.
pub(crate) fn classify(component: &Component) -> Result<(Kind, String), PluginError> {
    let engine = component.engine();
    let ty = component.component_type();
    let ours = |name: &str| -> Option<(String, String)> {
        let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
        Some((interface.to_owned(), version.to_owned()))
    };
    let mut kinds = Vec::new();
    for (name, _) in ty.exports(engine) {
        let Some((interface, version)) = ours(name) else {
            continue;
        };
        for kind in [Kind::Worker, Kind::Interceptor] {
            if interface == kind.interface() {
                check_version(&version)?;
                kinds.push((kind, version.clone()));
            }
        }
    }
    for (name, _) in ty.imports(engine) {
        match ours(name) {
            Some((_, version)) => check_version(&version)?,
            None => {
                return Err(PluginError::Import {
                    import: one_line(name, 256),
                });
            }
        }
    }
    match kinds.len() {
        1 => Ok(kinds.remove(0)),
        0 => Err(PluginError::Interface(
            "it exports neither `handler` (world `worker`) nor `interceptor-handler` (world `interceptor`)"
                .into(),
        )),
        _ => Err(both()),
    }
}

fn check_version(version: &str) -> Result<(), PluginError> {
    // Before 1.0, the second number is the one that says what fits.
    if version
        .strip_prefix("0.1.")
        .is_some_and(|rest| rest.parse::<u32>().is_ok())
    {
        Ok(())
    } else {
        Err(PluginError::Version {
            found: one_line(version, 64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        componentize(bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_component_is_refused_with_what_it_is() {
        assert!(refusal(b"").contains("empty"));
        assert!(refusal(b"#!/bin/sh").contains("does not begin as WebAssembly"));
        assert!(refusal(b"\n (component)").contains("text form"));
        assert!(refusal(b"\0asm\x07\0\0\0").contains("encoding"));
        let module = wat::parse_str("(module (func (export \"handle\")))").unwrap();
        assert!(
            refusal(&module).contains("portolan plugin new"),
            "{}",
            refusal(&module)
        );
    }

    #[test]
    fn versions_before_and_after_are_refused() {
        assert!(check_version("0.1.0").is_ok());
        assert!(check_version("0.1.7").is_ok());
        for other in ["0.0.9", "0.2.0", "1.0.0", "0.1", "0.1.x", ""] {
            let error = check_version(other).unwrap_err().to_string();
            assert!(error.contains("0.1.x"), "{error}");
        }
    }
}
