//! The input of a task that reads channels: records in turns, and what lies between them.

use std::time::Instant;

use millstream_api::{
    frame::{self, Control, Fragment, Other},
    head::Head,
    record::archive::{Aligned, Trust},
    signal::{Barrier, Signal},
};
use millstream_model::{config::Validation, fault::Failure, time::Watermark};
use millstream_shuffle::{credit::debloater::Debloater, gate::InputGate};

use crate::{
    barrier::{Aligned as Alignment, BarrierAligner},
    watermark::{Change, WatermarkValve},
    wiring::{Origin, TaskGate},
};

/// Channels, and what is known of each.
pub(crate) struct GateInput {
    gate: InputGate,
    /// The input of the operator that each channel belongs to.
    inputs: Vec<u8>,
    trust: Vec<Trust>,
    /// What each channel is trusted with once it has brought a first good record.
    later: Vec<Trust>,
    aligner: BarrierAligner,
    valve: WatermarkValve,
    ended: Vec<bool>,
    /// Channels whose data has not ended.
    open: usize,
    /// The record larger than a segment that each channel is in the middle of.
    partial: Vec<Aligned>,
    /// A whole one that was not read yet for lack of room, and its channel.
    assembled: Option<(usize, Aligned)>,
    records: u64,
    bytes: u64,
    /// Records read from each channel, without those of the poll that is under way.
    read: Vec<u64>,
    last_channel: usize,
    /// Records that may still be read in this step, and how many it were when the poll began. Kept here, where it is
    /// found even if the poll unwinds: it tells at which record.
    budget: u32,
    budget_at_poll: u32,
    debloater: Option<Debloater>,
    /// The last look has found nothing.
    is_dry: bool,
}

/// What a look at the input came to.
pub(crate) enum Polled {
    /// There may be more at once.
    Progress,
    /// Nothing is there.
    Nothing,
    /// All barriers of a checkpoint are there.
    Barrier(Barrier, Instant),
    /// All channels have ended.
    EndOfData,
}

impl GateInput {
    pub(crate) fn new(gate: TaskGate, validation: Validation) -> Self {
        let TaskGate { gate, inputs, debloater } = gate;
        let channels = gate.channel_count();
        let (inputs, trust): (Vec<u8>, Vec<_>) =
            inputs.into_iter().map(|(input, origin)| (input, trust(origin, validation))).unzip();
        let (trust, later) = trust.into_iter().unzip();
        GateInput {
            gate,
            inputs,
            trust,
            later,
            aligner: BarrierAligner::new(channels),
            valve: WatermarkValve::new(channels),
            ended: vec![false; channels],
            open: channels,
            partial: vec![Aligned::default(); channels],
            assembled: None,
            records: 0,
            bytes: 0,
            read: vec![0; channels],
            last_channel: 0,
            budget: 0,
            budget_at_poll: 0,
            debloater,
            is_dry: true,
        }
    }

    /// A step of the task has ended: the amount of data under way may follow its throughput.
    pub(crate) fn end_step(&mut self, now: Instant) {
        let Some(debloater) = &mut self.debloater else { return };
        if self.is_dry {
            debloater.pause(now);
        }
        if let Some(bytes) = debloater.look(now) {
            tracing::debug!(bytes, "the amount of data under way to a task is changed");
            self.gate.set_target(bytes);
        }
    }

    /// The next channel with something to read. `now` is when the step has begun.
    fn next_ready(&mut self, now: Instant) -> Option<usize> {
        let channel = self.gate.next_ready();
        self.is_dry = channel.is_none();
        if !self.is_dry
            && let Some(debloater) = &mut self.debloater
        {
            debloater.resume(now);
        }
        channel
    }

    fn consume(&mut self, channel: usize, bytes: usize) {
        self.gate.consume(channel, bytes);
        if let Some(debloater) = &mut self.debloater {
            debloater.read(bytes as u64);
        }
    }

    /// Records and bytes read since the last call.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.records), std::mem::take(&mut self.bytes))
    }

    pub(crate) fn queued_bytes(&mut self) -> u64 {
        self.gate.queued_bytes()
    }

    /// Room that senders were promised and that is not free again, and how much of it there may be.
    pub(crate) fn promised(&self) -> (u64, u64) {
        self.gate.promised()
    }

    pub(crate) fn watermark(&self) -> Watermark {
        self.valve.current()
    }

    /// Where the last record came from, for messages.
    pub(crate) fn position(&self) -> String {
        let record = self.read[self.last_channel] + u64::from(self.budget_at_poll - self.budget) + 1;
        format!("record {record} of input channel {}", self.last_channel)
    }

    /// Sets how many records the following polls may read together.
    pub(crate) fn set_budget(&mut self, records: u32) {
        self.budget = records;
        self.budget_at_poll = records;
    }

    /// What is left of it.
    pub(crate) fn budget(&self) -> u32 {
        self.budget
    }

    /// Reads records within the budget, and stops after anything else that the task must see.
    pub(crate) fn poll(&mut self, head: &mut dyn Head, now: Instant) -> Result<Polled, Failure> {
        self.budget_at_poll = self.budget;
        if let Some((channel, frame)) = self.assembled.take() {
            return self.read_assembled(channel, frame, head);
        }
        let Some(channel) = self.next_ready(now) else { return Ok(Polled::Nothing) };
        self.last_channel = channel;
        let frames = self.gate.available(channel);
        let taken = head.records(self.inputs[channel], frames, self.trust[channel], &mut self.budget)?;
        let records = u64::from(self.budget_at_poll - self.budget);
        self.records += records;
        self.read[channel] += records;
        self.budget_at_poll = self.budget;
        self.bytes += taken as u64;
        if taken > 0 {
            self.trust[channel] = self.later[channel];
            self.consume(channel, taken);
            self.gate.rotate();
            return Ok(Polled::Progress);
        }
        self.read_other(channel, head, now)
    }

    /// Reads one thing that is no record, if that is what comes next in some channel: while records may not enter, a
    /// barrier may. Channels with a record in front stay as they are.
    pub(crate) fn poll_control(&mut self, head: &mut dyn Head, now: Instant) -> Result<Polled, Failure> {
        // There is a place for one large record only.
        let channels = if self.assembled.is_some() { 0 } else { self.gate.channel_count() };
        for _ in 0..channels {
            let Some(channel) = self.gate.next_ready() else { break };
            let next = frame::read_record(self.gate.available(channel));
            if next.map_err(|cause| Failure::new(cause.to_string()))?.is_none() {
                return self.read_other(channel, head, now);
            }
            self.gate.rotate();
        }
        Ok(Polled::Nothing)
    }

    fn read_other(&mut self, channel: usize, head: &mut dyn Head, now: Instant) -> Result<Polled, Failure> {
        let frames = self.gate.available(channel);
        let (other, end) = frame::read_other(frames).map_err(|cause| Failure::new(cause.to_string()))?;
        match other {
            Other::Fragment(Fragment { part, last }) => {
                self.partial[channel].extend(part);
                if last {
                    self.assembled = Some((channel, std::mem::take(&mut self.partial[channel])));
                }
                self.consume(channel, end);
                Ok(Polled::Progress)
            }
            Other::Control(control) => {
                self.consume(channel, end);
                Ok(self.on_control(channel, control, head, now))
            }
        }
    }

    fn read_assembled(&mut self, channel: usize, frame: Aligned, head: &mut dyn Head) -> Result<Polled, Failure> {
        self.last_channel = channel;
        let taken = head.records(self.inputs[channel], frame.as_slice(), self.trust[channel], &mut self.budget)?;
        self.budget_at_poll = self.budget;
        if taken == 0 {
            self.assembled = Some((channel, frame));
        } else {
            self.records += 1;
            self.read[channel] += 1;
            self.bytes += taken as u64;
        }
        Ok(Polled::Progress)
    }

    fn on_control(&mut self, channel: usize, control: Control, head: &mut dyn Head, now: Instant) -> Polled {
        match control {
            Control::Watermark(watermark) => {
                let change = self.valve.on_watermark(channel, watermark);
                pass_on(change, head);
                Polled::Progress
            }
            Control::Idle(idle) => {
                let change = self.valve.on_idle(channel, idle);
                pass_on(change, head);
                Polled::Progress
            }
            Control::Barrier(barrier) => match self.aligner.on_barrier(channel, barrier, now) {
                Alignment::Ignore => Polled::Progress,
                Alignment::Block => {
                    self.gate.block(channel);
                    Polled::Progress
                }
                Alignment::Restart => {
                    self.gate.unblock_all();
                    self.gate.block(channel);
                    Polled::Progress
                }
                Alignment::Complete { barrier, since } => {
                    self.gate.unblock_all();
                    Polled::Barrier(barrier, since)
                }
            },
            Control::EndOfData => {
                if !std::mem::replace(&mut self.ended[channel], true) {
                    self.open -= 1;
                }
                if self.open == 0 { Polled::EndOfData } else { Polled::Progress }
            }
        }
    }

    /// The checkpoint will never be complete.
    pub(crate) fn on_aborted(&mut self, checkpoint: u64) {
        if self.aligner.on_aborted(checkpoint) {
            self.gate.unblock_all();
        }
    }
}

/// How far the records of a channel are believed: at first, and after a first good one.
fn trust(origin: Origin, validation: Validation) -> (Trust, Trust) {
    // SAFETY: the executable that wrote the records is this one: for a channel within the process by itself, for one
    // from another worker because a worker runs only job graphs of its own executable (by SHA-256), and the peer has
    // shown a certificate of the same cluster and the token of the deployment over an encrypted connection.
    let same_program = unsafe { Trust::same_program() };
    match (validation, origin) {
        (Validation::Always, _) | (Validation::Auto, Origin::Unproved) => (Trust::VALIDATE, Trust::VALIDATE),
        (Validation::Auto, Origin::Network) => (Trust::VALIDATE, same_program),
        (Validation::Auto, Origin::Process) | (Validation::Never, _) => (same_program, same_program),
    }
}

fn pass_on(change: Change, head: &mut dyn Head) {
    if let Some(idle) = change.idle {
        head.signal(&mut Signal::Idle(idle));
    }
    if let Some(watermark) = change.watermark {
        head.signal(&mut Signal::Watermark(watermark));
    }
}
