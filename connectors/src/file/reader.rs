//! The half of the text file source on the slot's thread: takes blocks, emits lines.

use std::{borrow::Cow, collections::VecDeque, fmt, rc::Rc, str::Utf8Error};

use millstream_api::{
    context::{RuntimeContext, Services, TaskWaker},
    metrics::Counter,
    source::{SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};
use millstream_model::{fault::Failure, id::OperatorId};

use super::{
    blocks::{Block, Blocks},
    lines::{Lines, Place},
    path::FilePath,
    split::{FileSplit, ToEnumerator, ToReader},
    text_block::TextBlock,
};
use crate::{
    invalid_utf8::{InvalidUtf8, SKIPPED},
    section,
};

/// Name of a split in checkpoints.
const SPLIT: &str = "split";

/// Reads one split after another.
pub struct TextFileReader {
    invalid_utf8: InvalidUtf8,
    skipped: Counter,
    operator: OperatorId,
    services: Rc<dyn Services>,
    waker: TaskWaker,
    /// Splits that wait: after a restart at lower parallelism one reader may get those of several.
    waiting: VecDeque<FileSplit>,
    reading: Option<Reading>,
    spare: Vec<Block>,
    requested: bool,
    no_more: bool,
    position: Position,
}

/// Where the last line came from.
#[derive(Default)]
struct Position {
    path: Option<FilePath>,
    line_start: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path}, byte offset {} (line starting there)", self.line_start),
            None => f.write_str("before the first line"),
        }
    }
}

struct Reading {
    split: FileSplit,
    blocks: Blocks,
    block: Option<TextBlock>,
    lines: Lines,
    /// How far the blocks go that have arrived.
    arrived: u64,
}

/// What stands for the block at the end of a file, where none is at hand.
const NO_BLOCK: TextBlock = TextBlock::Mixed(Vec::new());

/// Why a split gives no further line for now.
enum Stop {
    Pause,
    NeedBlock,
    Done,
}

impl TextFileReader {
    pub(super) fn new(invalid_utf8: InvalidUtf8, context: &mut RuntimeContext) -> Result<Self, Failure> {
        let restored = context.take_restored(SPLIT);
        let waiting = restored.iter().map(|bytes| section::decode(bytes, "a split in the checkpoint"));
        Ok(TextFileReader {
            invalid_utf8,
            skipped: context.accumulator(SKIPPED),
            operator: context.operator_id(),
            services: context.services(),
            waker: context.waker(),
            waiting: waiting.collect::<Result<_, _>>()?,
            reading: None,
            spare: Vec::new(),
            requested: false,
            no_more: false,
            position: Position::default(),
        })
    }

    fn open(&mut self, split: FileSplit) {
        let (blocks, filler) = Blocks::new(split.clone(), std::mem::take(&mut self.spare), self.waker.clone());
        self.services.spawn(Box::pin(filler.run()));
        let lines = Lines::new(split.next, split.at_line_start, split.end);
        self.position = Position { path: Some(split.path.clone()), line_start: split.next };
        self.reading = Some(Reading { arrived: split.next, split, blocks, block: None, lines });
    }

    fn request(&mut self) {
        if !self.requested {
            self.requested = true;
            self.services.send_to_coordinator(self.operator, section::encode(&ToEnumerator::RequestSplit));
        }
    }
}

impl SourceReader for TextFileReader {
    type Out = String;

    fn poll(&mut self, out: &mut SourceOut<'_, String>) -> Result<SourceStatus, Failure> {
        loop {
            let Some(reading) = &mut self.reading else {
                match self.waiting.pop_front() {
                    Some(split) => self.open(split),
                    None if self.no_more => return Ok(SourceStatus::End),
                    None => {
                        self.request();
                        return Ok(SourceStatus::Idle);
                    }
                }
                continue;
            };
            let mut emit =
                Emit { policy: self.invalid_utf8, skipped: &self.skipped, position: &mut self.position, out };
            match reading.lines(&mut emit)? {
                Stop::Pause => return Ok(SourceStatus::More),
                Stop::NeedBlock => match reading.next_block()? {
                    // Between blocks others get a turn, so that lines which are skipped cannot keep them out.
                    true => return Ok(SourceStatus::More),
                    false => return Ok(SourceStatus::Idle),
                },
                Stop::Done => {
                    if let Some(Reading { blocks, block, .. }) = self.reading.take() {
                        self.spare = blocks.into_spare();
                        self.spare.extend(block.map(TextBlock::into_block));
                    }
                }
            }
        }
    }

    fn snapshot(&mut self, snapshot: &mut SourceSnapshot<'_>) {
        if let Some(Reading { split, lines, .. }) = &self.reading {
            let (next, at_line_start) = lines.position();
            snapshot.split(SPLIT, section::encode(&FileSplit { next, at_line_start, ..split.clone() }));
        }
        for split in &self.waiting {
            snapshot.split(SPLIT, section::encode(split));
        }
    }

    fn on_event(&mut self, event: &[u8]) -> Result<(), Failure> {
        match section::decode(event, "the enumerator's message")? {
            ToReader::Assign(split) => {
                self.requested = false;
                self.waiting.push_back(split);
            }
            ToReader::NoMoreSplits => self.no_more = true,
        }
        Ok(())
    }

    fn position(&self) -> String {
        self.position.to_string()
    }
}

impl Reading {
    /// Emits lines while there are any in the block at hand.
    fn lines(&mut self, emit: &mut Emit<'_, '_>) -> Result<Stop, Failure> {
        loop {
            if self.lines.is_done() {
                return Ok(Stop::Done);
            }
            if emit.out.should_pause() {
                return Ok(Stop::Pause);
            }
            if let Some(block) = &self.block {
                match self.lines.next_in(block.bytes()) {
                    Some(line) => emit.line(line.start, line.place, block)?,
                    None => {
                        self.blocks.recycle(self.block.take().expect("it was there a moment ago").into_block());
                    }
                }
            } else if self.arrived == self.split.file_bytes {
                if let Some(line) = self.lines.last() {
                    emit.line(line.start, line.place, &NO_BLOCK)?;
                }
                return Ok(Stop::Done);
            } else {
                return Ok(Stop::NeedBlock);
            }
        }
    }

    /// Takes the next block, if it is at hand.
    fn next_block(&mut self) -> Result<bool, Failure> {
        let Some(block) = self.blocks.next()? else { return Ok(false) };
        self.arrived += block.len() as u64;
        self.block = Some(TextBlock::new(block));
        Ok(true)
    }
}

/// Where lines go.
struct Emit<'e, 'o> {
    policy: InvalidUtf8,
    skipped: &'e Counter,
    position: &'e mut Position,
    out: &'e mut SourceOut<'o, String>,
}

impl Emit<'_, '_> {
    #[inline]
    fn line(&mut self, start: u64, place: Place<'_>, block: &TextBlock) -> Result<(), Failure> {
        self.position.line_start = start;
        match place {
            Place::InBlock(range) => match block.line(range.clone()) {
                Ok(text) => self.out.emit(text),
                Err(error) => self.invalid(&block.bytes()[range], error)?,
            },
            Place::PutTogether(bytes) => match str::from_utf8(bytes) {
                Ok(text) => self.out.emit(text),
                Err(error) => self.invalid(bytes, error)?,
            },
        }
        Ok(())
    }

    #[cold]
    fn invalid(&mut self, bytes: &[u8], error: Utf8Error) -> Result<(), Failure> {
        match self.policy {
            InvalidUtf8::Fail => return Err(invalid_utf8(self.position, error)),
            InvalidUtf8::Skip => self.skipped.add(1),
            InvalidUtf8::Replace => {
                let text: Cow<'_, str> = String::from_utf8_lossy(bytes);
                self.out.emit(&*text);
            }
        }
        Ok(())
    }
}

fn invalid_utf8(position: &Position, error: Utf8Error) -> Failure {
    let at = position.line_start + error.valid_up_to() as u64;
    let path = position.path.as_ref().map_or_else(String::new, ToString::to_string);
    Failure::fatal(format!(
        "{path} is not UTF-8 text at byte offset {at}; convert it, or let the source skip such lines or replace what is \
         invalid: TextFileSource::invalid_utf8(InvalidUtf8::Skip) or (InvalidUtf8::Replace)"
    ))
    .at(position.to_string())
}
