//! `millstream new`: a crate for a job of one's own, which builds and runs as it is.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use crate::{Form, json as json_text, show};

#[derive(Args)]
pub struct Options {
    /// The crate's name, and that of the folder it gets
    name: String,
    /// A checkout of Millstream to depend on, or the crate `millstream` in it [default: the checkout that this
    /// program was built from if it is still there, else the published version]
    #[arg(long, value_name = "DIR")]
    path_dependency: Option<PathBuf>,
    /// How to answer
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Form::Text)]
    output: Form,
}

const FILES: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("scaffold/Cargo.toml.template")),
    ("src/main.rs", include_str!("scaffold/main.rs.template")),
    ("README.md", include_str!("scaffold/README.md.template")),
    (".gitignore", "/target\n"),
];

/// A name that no crate can have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("a crate needs a name")]
    Empty,
    #[error("'{0}' is a path; `millstream new` makes a folder in the working directory and wants its name alone")]
    Path(String),
    #[error("'{name}' cannot be a crate's name: {character:?} is in it; ASCII letters, digits, '-' and '_' can be")]
    Character { name: String, character: char },
    #[error("'{0}' cannot be a crate's name: it must begin with a letter")]
    Start(String),
    #[error("'{0}' cannot be a crate's name: it has more than 64 characters")]
    Long(String),
    #[error("'{0}' cannot be a crate's name: {1}")]
    Taken(String, &'static str),
}

/// Makes the crate in the working directory.
///
/// # Errors
/// If the name is bad, the folder is in use, or cannot be written.
pub fn run(options: &Options) -> Result<()> {
    check_name(&options.name)?;
    let dependency = match &options.path_dependency {
        Some(folder) => Dependency::Path(facade_of(folder)?),
        None => Dependency::of_this_build(),
    };
    let here = env::current_dir().context("the working directory is gone")?;
    let folder = here.join(&options.name);
    create(&folder, &options.name, &dependency)?;
    match options.output {
        Form::Json => show(&json_text::full(&json!({
            "name": options.name,
            "path": folder,
            "dependency": dependency.toml(),
        }))?),
        Form::Text => show(&format!(
            "Made the crate '{0}', which counts words and depends on {1}. Next:\n\n  cd {0}\n  cargo run\n",
            options.name,
            dependency.words(),
        )),
    }
}

/// # Errors
/// If cargo or the compiler would refuse it later, with a message that is less clear.
fn check_name(name: &str) -> Result<(), BadName> {
    let fits = |character: &char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    let own = || name.to_owned();
    if name.is_empty() {
        Err(BadName::Empty)
    } else if name.contains('/') || name == "." || name == ".." {
        Err(BadName::Path(own()))
    } else if let Some(character) = name.chars().find(|character| !fits(character)) {
        Err(BadName::Character { name: own(), character })
    } else if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        Err(BadName::Start(own()))
    } else if name.len() > 64 {
        Err(BadName::Long(own()))
    } else if let Some(reason) = taken(&name.replace('-', "_")) {
        Err(BadName::Taken(own(), reason))
    } else {
        Ok(())
    }
}

fn taken(name: &str) -> Option<&'static str> {
    // The words of edition 2024, those reserved for later among them.
    const KEYWORDS: &str = " Self abstract as async await become box break const continue crate do dyn else enum extern \
         false final fn for gen if impl in let loop macro match mod move mut override priv pub ref return self static \
         struct super trait true try type typeof unsafe unsized use virtual where while yield ";
    if KEYWORDS.contains(&format!(" {name} ")) {
        Some("it is a word of Rust")
    } else if matches!(name, "alloc" | "core" | "proc_macro" | "std" | "test") {
        Some("a crate that comes with Rust is called so")
    } else if matches!(name, "build" | "deps" | "examples" | "incremental") {
        Some("cargo keeps files under this name")
    } else if name == "millstream" {
        Some("the crate will depend on `millstream`, and cannot be it")
    } else {
        None
    }
}

/// How the new crate finds the engine.
#[derive(Debug, PartialEq, Eq)]
enum Dependency {
    /// The folder of the crate `millstream`.
    Path(PathBuf),
    Version(&'static str),
}

impl Dependency {
    /// The checkout that this program was built from, as long as it is there.
    fn of_this_build() -> Dependency {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let facade = checkout.and_then(|checkout| facade_of(checkout).ok());
        facade.map_or(Dependency::Version(env!("CARGO_PKG_VERSION")), Dependency::Path)
    }

    fn toml(&self) -> String {
        match self {
            Dependency::Path(folder) => format!("{{ path = {} }}", toml_text(&folder.to_string_lossy())),
            Dependency::Version(version) => toml_text(version),
        }
    }

    fn words(&self) -> String {
        match self {
            Dependency::Path(folder) => format!("millstream in {}", folder.display()),
            Dependency::Version(version) => format!("millstream {version}"),
        }
    }
}

/// A text as TOML's basic string.
fn toml_text(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04X}", control as u32)),
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

/// The folder of the crate `millstream`, given that folder or the checkout around it.
fn facade_of(folder: &Path) -> Result<PathBuf> {
    let is_facade = |folder: &Path| {
        fs::read_to_string(folder.join("Cargo.toml"))
            .is_ok_and(|manifest| package_name(&manifest) == Some("millstream"))
    };
    let found = [folder.to_owned(), folder.join("millstream")].into_iter().find(|candidate| is_facade(candidate));
    let Some(found) = found else {
        bail!(
            "neither {0} nor {0}/millstream is the crate `millstream`: there is no Cargo.toml with that name",
            folder.display()
        );
    };
    let absolute = found.canonicalize().with_context(|| format!("cannot follow {}", found.display()))?;
    if absolute.to_str().is_none() {
        bail!("{} is not UTF-8, and cannot stand in a Cargo.toml", absolute.display());
    }
    Ok(absolute)
}

/// The name of the package that a manifest describes.
fn package_name(manifest: &str) -> Option<&str> {
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[package]").skip(1);
    let mut package = lines.take_while(|line| !line.starts_with('['));
    let (_, value) = package.find(|line| line.starts_with("name"))?.split_once('=')?;
    Some(value.trim().trim_matches('"'))
}

fn create(folder: &Path, name: &str, dependency: &Dependency) -> Result<()> {
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                bail!("{} exists and is not empty; nothing was changed", folder.display());
            }
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotADirectory => {
            bail!("{} exists and is no folder; nothing was changed", folder.display());
        }
        Err(cause) => return Err(cause).with_context(|| format!("cannot look into {}", folder.display())),
    }
    for (path, template) in FILES {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("cannot make the folder {}", parent.display()))?;
        let mut text = template.replace("{{name}}", name).replace("{{dependency}}", &dependency.toml());
        if path.ends_with("Cargo.toml") && is_inside_workspace(folder) {
            text.push_str(
                "\n# Without this, cargo takes the crate for a member of the workspace around it.\n[workspace]\n",
            );
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn is_inside_workspace(folder: &Path) -> bool {
    let is_workspace = |folder: &Path| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml"));
        manifest.is_ok_and(|manifest| manifest.lines().any(|line| line.trim().starts_with("[workspace")))
    };
    folder.ancestors().skip(1).any(is_workspace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("there is room for a folder")
    }

    fn version() -> Dependency {
        Dependency::Version("0.1.0")
    }

    #[test]
    fn names_that_cargo_or_the_compiler_would_refuse_are_refused_first() {
        for name in ["wordcount", "word-count", "word_count2", "a", "W"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        let long = "x".repeat(65);
        for name in [
            "",
            "a/b",
            "..",
            "ünicode",
            "a b",
            "a.b",
            "1st",
            "-x",
            "_x",
            "fn",
            "self",
            "std",
            "test",
            "deps",
            "millstream",
            &long,
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let around = folder();
        let crate_folder = around.path().join("job");
        fs::create_dir(&crate_folder).expect("there is room for a folder");
        fs::write(crate_folder.join("notes.txt"), "mine").expect("there is room for a file");
        let refused = create(&crate_folder, "job", &version()).expect_err("the folder is not empty");
        assert!(refused.to_string().contains("not empty"), "{refused}");
        assert_eq!(fs::read_dir(&crate_folder).expect("it is there").count(), 1);
        let file = around.path().join("file");
        fs::write(&file, "mine").expect("there is room for a file");
        assert!(create(&file, "file", &version()).is_err());
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "mine");
    }

    #[test]
    fn an_empty_folder_will_do_and_no_placeholder_is_left() {
        let around = folder();
        let crate_folder = around.path().join("job");
        fs::create_dir(&crate_folder).expect("there is room for a folder");
        create(&crate_folder, "job", &version()).expect("the folder is empty");
        for (path, _) in FILES {
            let text = fs::read_to_string(crate_folder.join(path)).expect(path);
            assert!(!text.contains("{{"), "{path}: {text}");
        }
        let manifest = fs::read_to_string(crate_folder.join("Cargo.toml")).expect("it was written");
        assert!(manifest.contains("name = \"job\"") && manifest.contains("millstream = \"0.1.0\""), "{manifest}");
        assert!(!manifest.contains("[workspace]"), "{manifest}");
    }

    #[test]
    fn a_crate_inside_a_workspace_stands_on_its_own() {
        let around = folder();
        fs::write(around.path().join("Cargo.toml"), "[workspace]\nmembers = []\n").expect("there is room for a file");
        create(&around.path().join("job"), "job", &version()).expect("the folder is new");
        let manifest = fs::read_to_string(around.path().join("job/Cargo.toml")).expect("it was written");
        assert!(manifest.ends_with("[workspace]\n"), "{manifest}");
    }

    #[test]
    fn a_path_dependency_is_the_facade_or_the_checkout_around_it() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("cli lies in the checkout");
        let facade = checkout.join("millstream").canonicalize().expect("the facade is there");
        assert_eq!(facade_of(checkout).expect("the checkout is there"), facade);
        assert_eq!(facade_of(&facade).expect("the facade is there"), facade);
        assert!(facade_of(Path::new(env!("CARGO_MANIFEST_DIR"))).is_err());
        assert_eq!(Dependency::of_this_build(), Dependency::Path(facade));
    }

    #[test]
    fn a_path_cannot_break_out_of_its_quotes() {
        let path = Dependency::Path("/a\"b\\c\nd".into());
        assert_eq!(path.toml(), r#"{ path = "/a\"b\\c\u000Ad" }"#);
    }
}
