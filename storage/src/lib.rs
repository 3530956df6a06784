//! Files that outlive a process: checkpoints today, blobs and spill files later. Local directories only, for now.
//!
//! ```text
//!  <execution.checkpointing.dir>/<job id>/chk-<n>/
//!        subtask files  ◄── CheckpointDirectory::write ◄── snapshot::SnapshotFile    (workers)
//!        _metadata      ◄── CheckpointDirectory::write_metadata                      (the JobMaster, last)
//! ```
//! A checkpoint exists when its `_metadata` does, and that is written only after everything it names is durable. Every
//! file carries its length and checksum, so that a damaged one is found before it is used.
//!
//! | Look here for | module |
//! |---|---|
//! | writing a file so that it survives a power loss | [`durable`] |
//! | the directories and files of a job's checkpoints | [`checkpoint_directory`] |
//! | the content of `_metadata` | [`metadata`] |
//! | the checkpoints that a user's path means | [`mod@resolve`] |
//! | one subtask's state, as sections by operator and key group | [`snapshot`] |
//! | paths and `file:` URIs in the configuration | [`location`] |

pub mod checkpoint_directory;
pub mod durable;
pub mod location;
pub mod metadata;
pub mod resolve;
pub mod snapshot;

pub use checkpoint_directory::{CheckpointDirectory, CheckpointFileError, read_file, verify};
pub use durable::FileError;
pub use location::{LocationError, local_path};
pub use metadata::{MetadataError, read_metadata};
pub use resolve::{ResolveError, Resolved, resolve};
pub use snapshot::{Section, SectionHeader, SectionKind, SnapshotError, SnapshotFile, SnapshotReader};
