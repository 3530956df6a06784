//! The records that an async operator has not emitted, as a checkpoint holds them: after a restart they are started
//! again, in the same order if the parallelism is the same, shared out among the subtasks if not.

use millstream_model::{fault::Failure, id::OperatorId, time::EventTime};

use crate::{
    context::RuntimeContext,
    frame,
    record::{
        Record,
        archive::{self, Aligned, Trust},
        fingerprint_of,
    },
    state::{Section, SectionKind, Snapshot},
};

const NAME: &str = "in flight";
/// A section goes to one subtask. With this many, a rescaled job can share the records out, and a large capacity does
/// not make as many sections.
const SECTIONS_MAX: usize = 32;

fn fingerprint<T: Record>() -> u64 {
    fingerprint_of("in flight", &[T::fingerprint()])
}

/// Adds the records to a checkpoint.
pub(super) fn snapshot<'a, T: Record>(
    operator: OperatorId,
    records: impl Iterator<Item = (EventTime, &'a T)>,
    snapshot: &mut Snapshot,
) {
    let records: Vec<(EventTime, &T)> = records.collect();
    let records_per_section = records.len().div_ceil(SECTIONS_MAX).max(1);
    for records in records.chunks(records_per_section) {
        let mut bytes = Vec::new();
        for (time, record) in records {
            match frame::write_record_alone::<T>(record.handle(), *time, 0) {
                Ok(frame) => bytes.extend_from_slice(frame.as_slice()),
                Err(failure) => crate::flow::fail(failure),
            }
        }
        let (name, fingerprint) = (NAME.to_owned(), fingerprint::<T>());
        snapshot.sections.push(Section { operator, kind: SectionKind::Split, name, fingerprint, bytes });
    }
}

/// The records that this subtask gets from the checkpoint it starts from.
pub(super) fn restored<T: Record>(context: &mut RuntimeContext) -> Result<Vec<(EventTime, T)>, Failure> {
    let mut records = Vec::new();
    for section in context.take_sections(NAME) {
        if section.fingerprint != fingerprint::<T>() {
            return Err(Failure::fatal(format!(
                "the checkpoint holds records that an async function was working on, and they are of another type than \
                 {}; give the operator another uid, or restore with the program that wrote it",
                std::any::type_name::<T>()
            )));
        }
        // Section bytes may lie anywhere in a file; archives need alignment.
        let aligned = Aligned::copy_of(&section.bytes);
        let mut rest = aligned.as_slice();
        while !rest.is_empty() {
            let frame = frame::read_record(rest).map_err(|cause| damaged(&cause))?;
            let frame = frame.ok_or_else(|| damaged(&"an element that is no record"))?;
            let record = archive::read::<T>(frame.archive, Trust::VALIDATE).map_err(|cause| damaged(&cause))?;
            records.push((frame.time, T::own(record)));
            rest = rest.get(frame.end..).ok_or_else(|| damaged(&"an element that is too long"))?;
        }
    }
    Ok(records)
}

fn damaged(cause: &dyn std::fmt::Display) -> Failure {
    Failure::fatal(format!("records that an async function was working on cannot be read from the checkpoint: {cause}"))
}
