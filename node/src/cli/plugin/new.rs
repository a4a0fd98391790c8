//! `portolan plugin new`: a project that builds as its README says.
//!
//! The files are in `node/templates/`, with `{{name}}` where the name of the plugin stands, and `{{crate}}` for what Rust makes of it. The projects `echo-*` in
//! `examples/plugins/` are what this writes, and are built and run by the tests.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::context::Context;
use super::super::output::Answer;
use crate::error::{Error, Result};

/// The interface that every plugin is written against.
const WIT: &str = include_str!("../../../../workers/plugin/wit/worker.wit");
/// Package registries, shells and the node all take names of this length.
const MAX_NAME: usize = 50;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct New {
    /// Small letters, digits and `-`: `rate-limiter`.
    name: String,
    /// What it is written in.
    #[arg(short, long, value_enum, value_name = "LANGUAGE", default_value = "rust")]
    language: Language,
    /// The folder that is made. Default: the name, here.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    /// Rust, with wit-bindgen.
    Rust,
    /// JavaScript, with componentize-js.
    #[value(name = "js", alias = "javascript")]
    JavaScript,
    /// Python, with componentize-py.
    Python,
}

impl Language {
    /// What stands in the project: where, and what.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        macro_rules! template {
            ($file:literal) => {
                include_str!(concat!("../../../templates/", $file))
            };
        }
        match self {
            Language::Rust => &[
                ("README.md", template!("rust/README.md")),
                ("Cargo.toml", template!("rust/Cargo.toml")),
                ("src/lib.rs", template!("rust/src/lib.rs")),
                ("wit/worker.wit", WIT),
                (".gitignore", template!("rust/gitignore")),
            ],
            Language::JavaScript => &[
                ("README.md", template!("js/README.md")),
                ("package.json", template!("js/package.json")),
                ("plugin.js", template!("js/plugin.js")),
                ("wit/worker.wit", WIT),
                (".gitignore", template!("js/gitignore")),
            ],
            Language::Python => &[
                ("README.md", template!("python/README.md")),
                ("requirements.txt", template!("python/requirements.txt")),
                ("plugin.py", template!("python/plugin.py")),
                ("wit/worker.wit", WIT),
                (".gitignore", template!("python/gitignore")),
            ],
        }
    }
}

impl New {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        let folder = self.folder.unwrap_or_else(|| PathBuf::from(&self.name));
        write(&self.name, self.language, &folder)?;
        let shown = folder.display().to_string();
        context
            .terminal
            .done(format!("The project of the plugin `{}` was written.", self.name));
        context.terminal.answer(
            &Answer::new(
                format!("Read on in {}", folder.join("README.md").display()),
                json!({ "plugin": { "name": self.name, "folder": shown } }),
            )
            .machine(shown),
        )
    }
}

/// A name is a part of package names, file names and command lines.
fn check_name(name: &str) -> Result<()> {
    let wrong = |why: &str| {
        Err(Error::invalid(format!(
            "`{}` is not a name for a plugin: {why}",
            name.escape_debug()
        ))
        .hint("use small letters, digits and `-`, such as rate-limiter"))
    };
    if name.is_empty() || name.len() > MAX_NAME {
        return wrong(&format!("it has to have 1 to {MAX_NAME} letters"));
    }
    if let Some(bad) = name
        .chars()
        .find(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit() && *c != '-')
    {
        return wrong(&format!("it contains `{}`", bad.escape_debug()));
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return wrong("it has to begin with a letter");
    }
    if name.ends_with('-') || name.contains("--") {
        return wrong("each `-` stands between two words");
    }
    if name == "wit-bindgen" {
        return wrong("the project would depend on a package of the same name");
    }
    if ["alloc", "core", "std", "test"].contains(&name) {
        return wrong("a part of Rust itself is called so");
    }
    Ok(())
}

/// Writes the project into a new folder; removes what it wrote if that does not end well.
fn write(name: &str, language: Language, folder: &Path) -> Result<()> {
    check_name(name)?;
    fs::create_dir(folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::exists(format!("{} is there already", folder.display()))
            .hint("name another one with --folder, or remove it if nobody needs it"),
        _ => Error::failed(format!("the folder {} cannot be made: {error}", folder.display())),
    })?;
    let written = language.files().iter().try_for_each(|(file, text)| {
        let path = folder.join(file);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let text = text.replace("{{name}}", name);
        fs::write(&path, text.replace("{{crate}}", &name.replace('-', "_")))
    });
    written.map_err(|error| {
        // Ours alone: it was made a moment ago.
        let _ = fs::remove_dir_all(folder);
        Error::failed(format!("{} cannot be written: {error}", folder.display()))
    })
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn the_samples_are_what_is_written_for_a_new_plugin() {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/plugins");
        let place = tempfile::tempdir().unwrap();
        for (language, name) in Language::value_variants()
            .iter()
            .zip(["echo-rust", "echo-js", "echo-python"])
        {
            let folder = place.path().join(name);
            write(name, *language, &folder).unwrap();
            for (file, _) in language.files() {
                let (written, sample) = (
                    fs::read_to_string(folder.join(file)).unwrap(),
                    fs::read_to_string(samples.join(name).join(file)).unwrap_or_default(),
                );
                assert!(
                    written == sample,
                    "examples/plugins/{name}/{file} is not what `plugin new` writes; make it anew with \
                     `portolan plugin new {name} --language … --folder …` and copy it"
                );
            }
        }
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("a");
        fs::write(&file, "precious").unwrap();
        let folder = place.path().join("b");
        fs::create_dir(&folder).unwrap();
        for path in [&file, &folder] {
            let refusal = write("a", Language::Rust, path).unwrap_err();
            assert!(refusal.to_string().contains("there already"), "{refusal}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_name_that_would_break_the_project_is_refused_before_anything_is_written() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("new");
        for name in [
            "",
            "A",
            "1a",
            "-a",
            "a-",
            "a--b",
            "a_b",
            "a b",
            "../a",
            "a\"",
            "{{name}}",
            "é",
            "wit-bindgen",
            "core",
            &"a".repeat(51),
        ] {
            let refusal = write(name, Language::Rust, &folder).unwrap_err();
            assert!(refusal.to_string().contains("not a name"), "{name}: {refusal}");
            assert!(!folder.exists());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let place = tempfile::tempdir().unwrap();
        let refusal = write("a", Language::Python, &place.path().join("not/there")).unwrap_err();
        assert!(refusal.to_string().contains("not/there"), "{refusal}");
    }
}
