//! What a job starts from: the newest checkpoint that is whole, if the job fits it.
//!
//! Every file of a candidate is read and checked here, so that damage is found while an older checkpoint can still be
//! taken.

use std::{collections::HashSet, path::PathBuf};

use millstream_model::{deployment::CompletedCheckpoint, fault::Failure, id::OperatorId, job_graph::JobGraph};
use millstream_storage::{CheckpointDirectory, local_path, metadata, read_metadata, resolve, verify};

use crate::{cause::with_causes, store::JobRecord};

/// The checkpoint that the next generation of a job starts from; `None` if it starts empty.
///
/// # Errors
/// If there are checkpoints and none is whole: a job never starts empty in silence. Or if the job does not fit the one.
pub(super) fn latest(
    graph: &JobGraph,
    record: &JobRecord,
    directory: Option<&CheckpointDirectory>,
) -> Result<Option<CompletedCheckpoint>, Failure> {
    let own = record.retained.iter().rev().filter_map(|number| directory.map(|directory| directory.of(*number)));
    let initial = record.initial.iter().map(PathBuf::from);
    let read = |path: PathBuf| read_metadata(&path.join(metadata::FILE_NAME)).map_err(|error| with_causes(&error));
    newest_whole(graph, own.chain(initial).map(read))
}

/// The checkpoint that a new job starts from, as the user named it.
pub(super) fn named(graph: &JobGraph, location: &str) -> Result<CompletedCheckpoint, Failure> {
    let fatal = |error: &dyn std::error::Error| {
        Failure::fatal(format!("cannot start from execution.state-recovery.path '{location}': {}", with_causes(error)))
    };
    let path = local_path(location).map_err(|error| fatal(&error))?;
    let resolved = resolve(&path).map_err(|error| fatal(&error))?;
    for damaged in &resolved.damaged {
        tracing::warn!(problem = with_causes(damaged), "a checkpoint is damaged and is passed over");
    }
    let newest = newest_whole(graph, resolved.candidates.into_iter().map(Ok))?;
    Ok(newest.expect("a resolved path has a candidate"))
}

fn newest_whole(
    graph: &JobGraph,
    candidates: impl Iterator<Item = Result<CompletedCheckpoint, String>>,
) -> Result<Option<CompletedCheckpoint>, Failure> {
    let mut damage: Option<String> = None;
    for candidate in candidates {
        let whole = candidate.and_then(|checkpoint| match verify(&checkpoint) {
            Ok(()) => Ok(checkpoint),
            Err(error) => Err(with_causes(&error)),
        });
        match whole {
            Ok(checkpoint) => {
                fits(graph, &checkpoint)?;
                if damage.is_some() {
                    tracing::warn!(
                        checkpoint = checkpoint.directory,
                        "an older checkpoint is used: what was committed since may be written again"
                    );
                }
                return Ok(Some(checkpoint));
            }
            Err(problem) => {
                tracing::warn!(problem, "a checkpoint cannot be used");
                damage.get_or_insert(problem);
            }
        }
    }
    match damage {
        None => Ok(None),
        Some(problem) => Err(Failure::fatal(format!(
            "no checkpoint is whole, and the job does not start without its state: {problem}"
        ))),
    }
}

/// Whether every state of the checkpoint has a place in the job.
fn fits(graph: &JobGraph, checkpoint: &CompletedCheckpoint) -> Result<(), Failure> {
    let stateful: HashSet<_> =
        checkpoint.subtasks.iter().filter(|state| state.file.is_some()).map(|state| state.subtask.vertex).collect();
    let place_of = |id: &OperatorId| {
        let vertices = graph.vertices.iter();
        vertices
            .flat_map(|vertex| vertex.operators.iter().map(move |operator| (vertex, operator)))
            .find(|(_, o)| o.id == *id)
    };
    let lost = |what: String| {
        Failure::fatal(format!(
            "{} has {what}, which this job does not have; give operators a uid and keep it when the program changes",
            checkpoint.directory
        ))
    };
    for shape in &checkpoint.vertices {
        let places: Vec<_> = shape.operators.iter().filter_map(place_of).collect();
        if places.is_empty() && stateful.contains(&shape.vertex) {
            let operators: Vec<_> = shape.operators.iter().map(OperatorId::to_string).collect();
            return Err(lost(format!("state of operators {}", operators.join(", "))));
        }
        for (vertex, operator) in places {
            if vertex.max_parallelism != shape.max_parallelism {
                let message = format!(
                    "{} was taken with max parallelism {} and the job has {}: keyed state cannot be moved between them; \
                     set_max_parallelism({}) or pipeline.max-parallelism keeps it",
                    checkpoint.directory, shape.max_parallelism.0, vertex.max_parallelism.0, shape.max_parallelism.0
                );
                return Err(Failure::fatal(message).in_operator(&operator.name));
            }
        }
    }
    match checkpoint.coordinators.iter().find(|state| place_of(&state.operator).is_none()) {
        Some(state) => Err(lost(format!("state of the coordinator of operator {}", state.operator))),
        None => Ok(()),
    }
}
