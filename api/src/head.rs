//! The consuming end of a task: reads the records of its channels in place and pushes them into the chain.

use std::rc::Rc;

use millstream_model::{fault::Failure, key_group::KeyHash};

use crate::{
    factory::{Build, Product},
    flow::Flow,
    frame::{self, RecordFrame},
    push::Push,
    record::{
        Record,
        archive::{self, Trust},
    },
    signal::Signal,
};

/// What heads a task that has input edges.
pub trait Head {
    /// Pushes the records at the start of `frames`, at most `budget` of them; stops early at an element that is no
    /// record, and when the task is halted. Lowers `budget` by the number of records and returns how many bytes they
    /// took.
    ///
    /// # Errors
    /// If the bytes are no elements, or a record fails validation.
    fn records(&mut self, input: u8, frames: &[u8], trust: Trust, budget: &mut u32) -> Result<usize, Failure>;

    fn signal(&mut self, signal: &mut Signal<'_>);
}

/// Calls `each` for the records at the start of `frames`, at most `at_most` of them: the loop behind every
/// [`Head::records`].
#[inline]
pub fn read_records<T: Record>(
    frames: &[u8],
    trust: Trust,
    budget: &mut u32,
    at_most: u32,
    flow: &Flow,
    mut each: impl FnMut(T::Ref<'_>),
) -> Result<usize, Failure> {
    let mut at = 0;
    // Counted down record by record, and not at the end: if one panics, the budget tells which.
    let end = budget.saturating_sub(at_most);
    while *budget > end && at < frames.len() && !flow.halted() {
        let frame = frame::read_record(&frames[at..]).map_err(|cause| Failure::new(cause.to_string()))?;
        let Some(RecordFrame { time, key_hash, archive, end }) = frame else { break };
        flow.set_timestamp(time);
        flow.set_key_hash(key_hash);
        let record = archive::read::<T>(archive, trust).map_err(|cause| Failure::new(cause.to_string()))?;
        each(record);
        *budget -= 1;
        at += end;
    }
    Ok(at)
}

/// Records whose state is brought near together.
const LOOK_AHEAD: usize = 16;

/// Reads records of one type for the operator behind it.
pub struct Reader<T: Record> {
    next: Box<dyn Push<T>>,
    flow: Rc<Flow>,
}

impl<T: Record> Head for Reader<T> {
    fn records(&mut self, _: u8, frames: &[u8], trust: Trust, budget: &mut u32) -> Result<usize, Failure> {
        let next = &mut *self.next;
        if !next.can_warm() {
            return read_records::<T>(frames, trust, budget, u32::MAX, &self.flow, |record| next.push(record));
        }
        let mut taken = 0;
        // Keyed state is larger than any cache, and each record's lookup would wait for memory by itself. Looking ahead
        // for a few records at a time lets those waits overlap.
        while *budget > 0 && taken < frames.len() && !self.flow.halted() {
            let mut hashes = [KeyHash::NONE; LOOK_AHEAD];
            let ahead = frame::key_hashes(&frames[taken..], &mut hashes);
            if ahead > 1 {
                next.warm(&hashes[..ahead]);
            }
            let bytes = read_records::<T>(&frames[taken..], trust, budget, LOOK_AHEAD as u32, &self.flow, |record| {
                next.push(record);
            })?;
            taken += bytes;
            if bytes == 0 {
                break;
            }
        }
        Ok(taken)
    }

    fn signal(&mut self, signal: &mut Signal<'_>) {
        self.next.signal(signal);
    }
}

/// The factory of a [`Reader`]; its only output is the operator that it feeds.
pub(crate) fn reader<T: Record>(build: Build<'_>) -> Result<Product, Failure> {
    let Build { mut outputs, context, .. } = build;
    let next = outputs.pop().ok_or_else(|| Failure::fatal("a reader feeds exactly one operator"))?;
    Ok(Product::Head(Box::new(Reader::<T> { next: next.1.typed()?, flow: context.flow.clone() })))
}
