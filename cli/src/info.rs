//! `millstream info`: what an artifact says about itself, and the job that its `main` describes.

use std::{ffi::OsString, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;
use millstream::{artifact, model::job_graph::JobGraph};
use millstream_cluster::executable::{Executable, Note};
use serde::Serialize;

use crate::{Form, graphviz, json, plan, show};

#[derive(Args)]
#[command(override_usage = "millstream info [OPTIONS] ARTIFACT [ARGS]... [--graphviz | --json] [-- ARGS...]")]
pub struct Options {
    /// Text for Graphviz instead: pipe it into `dot -Tsvg`
    #[arg(long)]
    graphviz: bool,
    /// One JSON object instead, the same as --output json
    #[arg(long, conflicts_with = "graphviz")]
    json: bool,
    /// How to answer
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Form::Text, conflicts_with = "graphviz")]
    output: Form,
    /// How long main() may take until its first execute()
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,
    /// The executable, and arguments for its main(), -Dkey=value among them. `--graphviz` and `--json` may also stand
    /// right after ARTIFACT or at the end; behind `--` everything is the program's
    #[arg(value_name = "ARTIFACT [ARGS]", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    artifact: Vec<OsString>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|cause| cause.to_string())?;
    if duration.is_zero() { Err("nothing ends in no time".to_owned()) } else { Ok(duration) }
}

/// How the answer is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Text,
    Json,
    Graphviz,
}

/// Reads the artifact, asks it for its job, and shows both.
///
/// # Errors
/// If it is not an artifact for this machine, or describes no job.
pub fn run(options: &Options) -> Result<()> {
    let asked = match (options.graphviz, options.json || options.output == Form::Json) {
        (true, _) => Shape::Graphviz,
        (false, true) => Shape::Json,
        (false, false) => Shape::Text,
    };
    let (path, rest) = options.artifact.split_first().context("ARTIFACT is missing")?;
    let (shape, arguments) = split(asked, rest)?;
    let path = Path::new(path);
    let executable = Executable::read(path)?;
    let sha256 = artifact::hash_of(path).with_context(|| format!("cannot read {}", path.display()))?;
    let graph = plan::job_graph(path, &arguments, &executable.note.engine_version, options.timeout)
        .with_context(|| format!("{} describes no job", path.display()))?;
    if graph.artifact.as_ref().is_some_and(|planned_by| planned_by.sha256 != sha256) {
        bail!("{} has changed while it was looked at; try again", path.display());
    }
    let about = About::new(path, sha256, executable);
    show(&match shape {
        Shape::Graphviz => graphviz::dot(&graph),
        Shape::Json => json::full(&Everything { artifact: &about, job_graph: &graph })?,
        Shape::Text => format!("{}\n{}", about.lines(&graph), json::brief(&graph)?),
    })
}

/// Takes our flags out of what follows ARTIFACT; the rest is for the program.
fn split(mut shape: Shape, rest: &[OsString]) -> Result<(Shape, Vec<OsString>)> {
    let (mut ours, theirs) = match rest.iter().position(|argument| argument == "--") {
        Some(at) => (rest[..at].to_vec(), &rest[at + 1..]),
        None => (rest.to_vec(), &[][..]),
    };
    let shape_of = |argument: Option<&OsString>| match argument?.to_str()? {
        "--graphviz" => Some(Shape::Graphviz),
        "--json" => Some(Shape::Json),
        _ => None,
    };
    let mut given = (shape != Shape::Text).then_some(shape);
    let mut note = |found: Shape| match given.replace(found) {
        Some(before) if before != found => bail!("--graphviz and --json exclude each other"),
        _ => {
            shape = found;
            Ok(())
        }
    };
    if let Some(found) = shape_of(ours.first()) {
        note(found)?;
        ours.remove(0);
    }
    if let Some(found) = shape_of(ours.last()) {
        note(found)?;
        ours.pop();
    }
    ours.extend_from_slice(theirs);
    Ok((shape, ours))
}

/// Everything there is to know, as JSON.
#[derive(Serialize)]
struct Everything<'a> {
    artifact: &'a About,
    job_graph: &'a JobGraph,
}

#[derive(Serialize)]
struct About {
    path: String,
    sha256: String,
    entry: Entry,
    #[serde(flatten)]
    note: Note,
    glibc_min: Option<String>,
}

#[derive(Serialize)]
struct Entry {
    function: &'static str,
    address: String,
    position_independent: bool,
}

impl About {
    fn new(path: &Path, sha256: String, executable: Executable) -> About {
        let entry = Entry {
            function: "main",
            address: format!("{:#x}", executable.entry),
            position_independent: executable.position_independent,
        };
        let (note, glibc_min) = (executable.note, executable.glibc_min);
        About { path: path.display().to_string(), sha256, entry, note, glibc_min }
    }

    fn lines(&self, graph: &JobGraph) -> String {
        let Note { engine_version, target, libc, features } = &self.note;
        let libc = match &self.glibc_min {
            Some(version) => format!("{libc} {version} or later"),
            None => format!("{libc}, linked into it"),
        };
        let placed = if self.entry.position_independent { "position independent" } else { "at fixed addresses" };
        let lines = [
            ("Artifact", self.path.clone()),
            ("SHA-256", self.sha256.clone()),
            ("Entry", format!("main() with #[millstream::main], started at {}, {placed}", self.entry.address)),
            ("Target", target.clone()),
            ("C library", libc),
            ("CPU features", if features.is_empty() { "none".to_owned() } else { features.join(" ") }),
            ("Engine", format!("millstream {engine_version}")),
            ("Job", format!("'{}', {}", graph.name, size(graph))),
        ];
        lines.iter().map(|(name, value)| format!("{name:13} {value}\n")).collect()
    }
}

fn size(graph: &JobGraph) -> String {
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let subtasks: u32 = graph.vertices.iter().map(|vertex| vertex.parallelism).sum();
    format!(
        "{}, {} in {}",
        count(graph.vertices.iter().map(|vertex| vertex.operators.len()).sum(), "operator"),
        count(subtasks as usize, "subtask"),
        count(graph.required_slots() as usize, "slot"),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// The shape, and what the program gets, of a whole command line.
    fn parsed(line: &str) -> Result<(Shape, String)> {
        let options = Line::try_parse_from(["info"].into_iter().chain(line.split(' ')))?.options;
        let asked = if options.graphviz { Shape::Graphviz } else { Shape::Text };
        let asked = if options.json || options.output == Form::Json { Shape::Json } else { asked };
        let (shape, arguments) = split(asked, &options.artifact[1..])?;
        Ok((shape, arguments.join("+".as_ref()).into_string().expect("it was a text")))
    }

    #[test]
    fn what_follows_the_artifact_is_the_programs() {
        let is = |line: &str, shape: Shape, arguments: &str| {
            assert_eq!(parsed(line).expect(line), (shape, arguments.to_owned()), "{line}");
        };
        is("job", Shape::Text, "");
        is("job --input a --output b -Dx=y", Shape::Text, "--input+a+--output+b+-Dx=y");
        is("--graphviz job --input a", Shape::Graphviz, "--input+a");
        is("job --graphviz", Shape::Graphviz, "");
        is("job --json --input a", Shape::Json, "--input+a");
        is("job --input a --json", Shape::Json, "--input+a");
        is("job --input --json a", Shape::Text, "--input+--json+a");
        is("job --graphviz -- --json", Shape::Graphviz, "--json");
        is("job -- --json", Shape::Text, "--json");
        is("--output json job -- --output x", Shape::Json, "--output+x");
    }

    #[test]
    fn flags_that_exclude_each_other_are_refused() {
        for line in [
            "--graphviz --json job",
            "--graphviz job --json",
            "job --json x --graphviz",
            "--graphviz --output json job",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert!(parsed("--json job --json").is_ok());
        assert!(parsed("--timeout 0 job").is_err() && parsed("--timeout soon job").is_err());
        assert!(parsed("--timeout -1 job").is_err());
    }
}
