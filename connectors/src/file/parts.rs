//! Which part file a line goes to, and when a part is committed: a decider. Lines and checkpoints go in, commands for
//! the I/O half come out.
//!
//! ```text
//!  current ──roll──► finished ──prepare(c)──► finished, prepared at c ──commit(c' ≥ c)──► visible
//!  `.part-3-7.inprogress` (hidden)                                                        `part-3-7`
//! ```
//! What a checkpoint names is durable before it is acknowledged; what becomes visible is named by a complete checkpoint.

use millstream_model::id::CheckpointId;
use serde::{Deserialize, Serialize};

/// Identifies a part file in the sink's directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PartId {
    pub subtask: u32,
    pub number: u64,
}

impl PartId {
    /// The name of the committed file.
    pub fn name(self) -> String {
        format!("part-{}-{}", self.subtask, self.number)
    }

    /// The name of the file until then. Readers of the directory skip it, as it starts with a dot.
    pub fn hidden_name(self) -> String {
        format!(".part-{}-{}.inprogress", self.subtask, self.number)
    }

    /// The name of a copy of the file's valid beginning.
    pub fn salvage_name(self) -> String {
        format!(".part-{}-{}.salvaged.inprogress", self.subtask, self.number)
    }

    /// Which part a file belongs to, and whether it is hidden; `None` if it is none of ours.
    pub fn parse(name: &str) -> Option<(PartId, bool)> {
        let (visible, hidden) = match name.strip_prefix('.').and_then(|name| name.strip_suffix(".inprogress")) {
            Some(inner) => (inner.strip_suffix(".salvaged").unwrap_or(inner), true),
            None => (name, false),
        };
        let (subtask, number) = visible.strip_prefix("part-")?.split_once('-')?;
        let id = PartId { subtask: subtask.parse().ok()?, number: number.parse().ok()? };
        // `+7` and `007` are numbers to the parser, but not our names.
        (id.name() == visible).then_some((id, hidden))
    }
}

/// A part file and how much of it is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    pub id: PartId,
    pub bytes: u64,
}

/// What a checkpoint says about one writer's files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WriterState {
    pub subtask: u32,
    /// The number of the next part.
    pub next: u64,
    /// To be committed when the checkpoint is complete.
    pub finished: Vec<Part>,
    /// Still being written: its valid beginning.
    pub current: Option<Part>,
}

/// When a part is finished and another begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rolling {
    pub bytes: u64,
    pub on_checkpoint: bool,
}

/// What is to be done with files, in this order.
#[derive(PartialEq, Eq, Debug)]
pub enum Command {
    /// Append to a part; the first time, create it.
    Append(PartId, Vec<u8>),
    /// Nothing more will be appended to the part.
    Finish(PartId),
    /// All that was appended must survive a power loss.
    Sync,
    /// Make parts visible.
    Commit(Vec<Part>),
}

/// How many bytes are gathered before they are appended to a file.
pub const BUFFER_BYTES: usize = 256 << 10;

/// The files of one writer.
#[derive(Debug)]
pub struct Parts {
    subtask: u32,
    next: u64,
    rolling: Rolling,
    /// Lines of the current part that are not in a command yet.
    buffer: Vec<u8>,
    current: Option<Part>,
    finished: Vec<Finished>,
    commands: Vec<Command>,
}

/// A part that nothing is added to any more.
#[derive(Debug)]
struct Finished {
    part: Part,
    /// The first checkpoint that names it.
    prepared: Option<CheckpointId>,
}

impl Parts {
    /// `next` must be a number that no file of this subtask has or ever had.
    pub fn new(subtask: u32, next: u64, rolling: Rolling) -> Parts {
        let (buffer, finished, commands) = (Vec::new(), Vec::new(), Vec::new());
        Parts { subtask, next, rolling, buffer, current: None, finished, commands }
    }

    /// Adds a line with its line end; returns whether there are commands now.
    #[inline]
    pub fn add(&mut self, line: &[u8]) -> bool {
        let current = match &mut self.current {
            Some(current) => current,
            None => self.begin(),
        };
        current.bytes += line.len() as u64;
        let is_full = current.bytes >= self.rolling.bytes;
        self.buffer.extend_from_slice(line);
        if is_full {
            self.roll();
        } else if self.buffer.len() >= BUFFER_BYTES {
            self.hand_over();
        }
        !self.commands.is_empty()
    }

    /// The commands that have come up.
    pub fn commands(&mut self) -> impl Iterator<Item = Command> {
        self.commands.drain(..)
    }

    /// Lends memory for lines, if it has none.
    pub fn supply(&mut self, buffer: impl FnOnce() -> Vec<u8>) {
        if self.buffer.capacity() == 0 {
            self.buffer = buffer();
        }
    }

    /// Prepares the commit of all that was added.
    pub fn prepare(&mut self, checkpoint: CheckpointId) -> WriterState {
        if self.rolling.on_checkpoint {
            self.roll();
        } else {
            self.hand_over();
        }
        self.commands.push(Command::Sync);
        for finished in &mut self.finished {
            finished.prepared.get_or_insert(checkpoint);
        }
        WriterState {
            subtask: self.subtask,
            next: self.next,
            finished: self.finished.iter().map(|finished| finished.part).collect(),
            current: self.current,
        }
    }

    /// `checkpoint` is complete.
    pub fn commit(&mut self, checkpoint: CheckpointId) {
        let due = |finished: &mut Finished| finished.prepared.is_some_and(|prepared| prepared <= checkpoint);
        let parts: Vec<Part> = self.finished.extract_if(.., due).map(|finished| finished.part).collect();
        if !parts.is_empty() {
            self.commands.push(Command::Commit(parts));
        }
    }

    /// The job is complete.
    pub fn finish(&mut self) {
        self.roll();
        // Durable before it is visible, as always.
        self.commands.push(Command::Sync);
        self.commands.push(Command::Commit(self.finished.drain(..).map(|finished| finished.part).collect()));
    }

    fn roll(&mut self) {
        self.hand_over();
        if let Some(part) = self.current.take() {
            self.finished.push(Finished { part, prepared: None });
            self.commands.push(Command::Finish(part.id));
        }
    }

    fn hand_over(&mut self) {
        if let (Some(part), false) = (self.current, self.buffer.is_empty()) {
            self.commands.push(Command::Append(part.id, std::mem::take(&mut self.buffer)));
        }
    }

    #[cold]
    fn begin(&mut self) -> &mut Part {
        let id = PartId { subtask: self.subtask, number: self.next };
        self.next += 1;
        self.current.insert(Part { id, bytes: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C1: CheckpointId = CheckpointId(1);
    const C2: CheckpointId = CheckpointId(2);

    fn parts(bytes: u64, on_checkpoint: bool) -> Parts {
        Parts::new(3, 7, Rolling { bytes, on_checkpoint })
    }

    fn part(number: u64, bytes: u64) -> Part {
        Part { id: id(number), bytes }
    }

    fn id(number: u64) -> PartId {
        PartId { subtask: 3, number }
    }

    fn append(number: u64, text: &str) -> Command {
        Command::Append(id(number), text.into())
    }

    fn commands(parts: &mut Parts) -> Vec<Command> {
        parts.commands().collect()
    }

    #[test]
    fn names_are_parsed_as_they_are_made_and_others_are_left_alone() {
        let id = PartId { subtask: 3, number: 14 };
        assert_eq!(PartId::parse(&id.name()), Some((id, false)));
        assert_eq!(PartId::parse(&id.hidden_name()), Some((id, true)));
        assert_eq!(PartId::parse(&id.salvage_name()), Some((id, true)));
        for other in ["part-3", "part-3-x", "part-03-1", ".part-3-1", "part-3-1.inprogress", "part-3--1", "apart-3-1"] {
            assert_eq!(PartId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_part_is_finished_when_it_is_large_enough() {
        let mut parts = parts(4, true);
        assert!(!parts.add(b"a\n"));
        assert!(parts.add(b"bc\n"));
        assert_eq!(commands(&mut parts), [append(7, "a\nbc\n"), Command::Finish(id(7))]);
        assert!(!parts.add(b"d\n"));
    }

    #[test]
    fn a_checkpoint_names_all_that_was_written_and_only_its_completion_commits_it() {
        let mut parts = parts(100, true);
        parts.add(b"a\n");
        let state = parts.prepare(C1);
        assert_eq!(state, WriterState { subtask: 3, next: 8, finished: vec![part(7, 2)], current: None });
        assert_eq!(commands(&mut parts), [append(7, "a\n"), Command::Finish(id(7)), Command::Sync]);
        parts.add(b"b\n");
        parts.commit(C1);
        assert_eq!(commands(&mut parts), [Command::Commit(vec![part(7, 2)])]);
        parts.commit(C1);
        assert_eq!(commands(&mut parts), [], "a repeated notice");
    }

    #[test]
    fn a_checkpoint_that_never_completes_leaves_its_parts_to_the_next() {
        let mut parts = parts(100, true);
        parts.add(b"a\n");
        parts.prepare(C1);
        parts.add(b"b\n");
        assert_eq!(parts.prepare(C2).finished, [part(7, 2), part(8, 2)]);
        commands(&mut parts);
        parts.commit(C2);
        assert_eq!(commands(&mut parts), [Command::Commit(vec![part(7, 2), part(8, 2)])]);
    }

    #[test]
    fn a_late_notice_commits_nothing_of_later_checkpoints() {
        let mut parts = parts(100, true);
        parts.add(b"a\n");
        parts.prepare(C1);
        parts.add(b"b\n");
        parts.prepare(C2);
        commands(&mut parts);
        parts.commit(C1);
        assert_eq!(commands(&mut parts), [Command::Commit(vec![part(7, 2)])]);
    }

    #[test]
    fn without_rolling_a_checkpoint_remembers_the_valid_length() {
        let mut parts = parts(100, false);
        parts.add(b"a\n");
        assert_eq!(parts.prepare(C1).current, Some(part(7, 2)));
        assert_eq!(commands(&mut parts), [append(7, "a\n"), Command::Sync]);
        parts.commit(C1);
        parts.add(b"b\n");
        let state = parts.prepare(C2);
        assert_eq!((state.current, state.finished), (Some(part(7, 4)), vec![]));
    }

    #[test]
    fn nothing_written_is_no_file() {
        let mut parts = parts(100, true);
        assert_eq!(parts.prepare(C1), WriterState { subtask: 3, next: 7, finished: vec![], current: None });
        parts.finish();
        assert_eq!(commands(&mut parts), [Command::Sync, Command::Sync, Command::Commit(vec![])]);
    }

    #[test]
    fn a_complete_job_commits_what_no_checkpoint_has() {
        let mut parts = parts(100, true);
        parts.add(b"a\n");
        parts.finish();
        let finish = [append(7, "a\n"), Command::Finish(id(7)), Command::Sync, Command::Commit(vec![part(7, 2)])];
        assert_eq!(commands(&mut parts), finish);
    }
}
