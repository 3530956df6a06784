//! What a task holds because one record became more than there is room for: a `flat_map` cannot stop in the middle of a
//! record. It is bounded per task, over all that hold something, and beyond the bound the job fails.

use std::{fmt::Display, rc::Rc};

use millstream_model::{
    config::{Configuration, OVERFLOW_MAX},
    fault::Failure,
};

use crate::flow::Flow;

/// One holder's part of its task's overflow: an output, or an operator that keeps records.
pub struct Overflow {
    flow: Rc<Flow>,
    bytes: u64,
    bytes_max: u64,
}

impl Overflow {
    pub fn new(flow: Rc<Flow>, bytes_max: u64) -> Self {
        Overflow { flow, bytes: 0, bytes_max }
    }

    /// # Errors
    /// If the bound in the configuration is no size.
    pub(crate) fn configured(flow: Rc<Flow>, configuration: &Configuration) -> Result<Self, Failure> {
        Ok(Overflow::new(flow, configuration.get(&OVERFLOW_MAX)?.bytes()))
    }

    /// Says how much this holder has now.
    #[inline]
    pub fn set(&mut self, bytes: u64) {
        if self.bytes != bytes {
            self.flow.overflow_changed(self.bytes, bytes);
            self.bytes = bytes;
        }
    }

    /// Whether the task still has less than it may. `place` is where this holder's records wait.
    ///
    /// # Errors
    /// If it has more; whoever emitted the records is to blame.
    pub fn check(&self, place: impl Display) -> Result<(), Failure> {
        let bytes = self.flow.overflow_bytes();
        if bytes <= self.bytes_max {
            return Ok(());
        }
        Err(Failure::fatal(format!(
            "one record became so many that {bytes} bytes wait {place}, more than {} ({} bytes) allows; emit them with \
             flat_map_iter, which works in constant memory, or raise the limit",
            OVERFLOW_MAX.name(),
            self.bytes_max
        )))
    }
}
