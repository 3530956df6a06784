//! The records that an async operator has not emitted, as a checkpoint holds them: after a restart they are started
//! again, in the same order if the parallelism is the same, shared out among the subtasks if not.

use millstream_model::{fault::Failure, id::OperatorId, key_group::KeyHash, time::EventTime};

use crate::{
    context::RuntimeContext,
    frame,
    record::{
        Record,
        archive::{self, Aligned, Trust},
        fingerprint_of,
    },
    state::{Section, SectionKind},
};

const NAME: &str = "in flight";
/// A section goes to one subtask. With this many, a rescaled job can share the records out, and a large capacity does
/// not make as many sections.
const SECTIONS_MAX: usize = 32;

fn fingerprint<T: Record>() -> u64 {
    fingerprint_of("in flight", &[T::fingerprint()])
}

/// The records as sections of a checkpoint.
pub(super) fn sections<'a, T: Record>(
    operator: OperatorId,
    records: impl Iterator<Item = (EventTime, &'a T)>,
) -> Result<Vec<Section>, Failure> {
    let records: Vec<(EventTime, &T)> = records.collect();
    let records_per_section = records.len().div_ceil(SECTIONS_MAX).max(1);
    let section = |records: &[(EventTime, &T)]| {
        let mut bytes = Vec::new();
        for (time, record) in records {
            bytes.extend_from_slice(frame::write_record_alone::<T>(record.handle(), *time, KeyHash::NONE)?.as_slice());
        }
        let (name, fingerprint) = (NAME.to_owned(), fingerprint::<T>());
        Ok(Section { operator, kind: SectionKind::Split, name, fingerprint, bytes })
    };
    records.chunks(records_per_section).map(section).collect()
}

/// The records that this subtask gets from the checkpoint it starts from.
pub(super) fn restored<T: Record>(context: &mut RuntimeContext) -> Result<Vec<(EventTime, T)>, Failure> {
    let sections = context.take_sections(NAME);
    sections.iter().try_fold(Vec::new(), |mut records, section| {
        read(section, &mut records)?;
        Ok(records)
    })
}

fn read<T: Record>(section: &Section, records: &mut Vec<(EventTime, T)>) -> Result<(), Failure> {
    if section.fingerprint != fingerprint::<T>() {
        return Err(Failure::fatal(format!(
            "the checkpoint holds records that an async function was working on, and they are of another type than {}; \
             give the operator another uid, or restore with the program that wrote it",
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
    Ok(())
}

fn damaged(cause: &dyn std::fmt::Display) -> Failure {
    Failure::fatal(format!("records that an async function was working on cannot be read from the checkpoint: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(count: i64) -> Vec<(EventTime, String)> {
        // Lengths that are no multiples of anything; every third record has no time stamp.
        let time = |number| if number % 3 == 0 { EventTime::MIN } else { EventTime(number) };
        (0..count).map(|number| (time(number), "x".repeat(number as usize % 13))).collect()
    }

    fn written(records: &[(EventTime, String)]) -> Vec<Section> {
        sections(OperatorId(1), records.iter().map(|(time, record)| (*time, record))).unwrap()
    }

    #[test]
    fn records_come_back_from_a_checkpoint_in_order_and_with_their_time_stamps() {
        for count in [0, 1, 31, 33, 1_000] {
            let records = records(count);
            let mut seen = Vec::new();
            written(&records).iter().for_each(|section| read(section, &mut seen).unwrap());
            assert_eq!(seen, records);
        }
    }

    #[test]
    fn few_records_get_a_section_each_and_many_share_them() {
        for (count, sections) in [(0, 0), (1, 1), (32, 32), (33, 17), (10_000, 32)] {
            assert_eq!(written(&records(count)).len(), sections, "{count} records");
        }
    }

    #[test]
    fn records_of_another_type_or_damaged_ones_are_refused() {
        let mut section = written(&records(5)).remove(4);
        let failure = read::<u64>(&section, &mut Vec::new()).unwrap_err();
        assert!(failure.message.contains("another type than u64"), "{failure}");
        let whole = section.bytes.clone();
        for cut in 1..whole.len() {
            section.bytes = whole[..cut].to_vec();
            assert!(read::<String>(&section, &mut Vec::new()).is_err(), "cut at {cut} of {}", whole.len());
        }
    }
}
