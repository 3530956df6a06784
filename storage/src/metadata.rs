//! The `_metadata` file: what makes a directory of files a checkpoint.
//!
//! ```text
//!  "MSCK"   version u32   body length u64   CRC-32 of the body u32   body: a CompletedCheckpoint as JSON
//! ```
//! Numbers are little-endian. JSON, so that a person can read a checkpoint with `tail -c +21`.

use std::path::{Path, PathBuf};

use millstream_model::{deployment::CompletedCheckpoint, fault::Remedy};

use crate::durable::{self, FileError};

/// The name of the file, which is Flink's.
pub const FILE_NAME: &str = "_metadata";

const MAGIC: [u8; 4] = *b"MSCK";
/// Of the frame around the JSON; the JSON has a version of its own.
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 20;

/// The bytes of a `_metadata` file.
pub fn encode(checkpoint: &CompletedCheckpoint) -> Vec<u8> {
    let body = serde_json::to_vec(checkpoint).expect("a checkpoint has a JSON form");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Reads a `_metadata` file. The checkpoint's `directory` is where it was found, which is not where it was written if
/// somebody moved it.
///
/// # Errors
/// If it cannot be read, is damaged, or is of another version. The files that it names are not looked at.
pub fn read_metadata(path: &Path) -> Result<CompletedCheckpoint, MetadataError> {
    let bytes = durable::read(path)?;
    let mut checkpoint = decode(&bytes, path)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    checkpoint.directory = absolute.to_string_lossy().into_owned();
    Ok(checkpoint)
}

/// Reads the bytes of a `_metadata` file. Any bytes may come in; `path` is for messages.
///
/// # Errors
/// If they are damaged or of another version.
pub fn decode(bytes: &[u8], path: &Path) -> Result<CompletedCheckpoint, MetadataError> {
    let damaged = |what: String| MetadataError::Damaged { path: path.to_owned(), what };
    if bytes.len() < HEADER_BYTES {
        return Err(damaged(format!("it has {} bytes, fewer than its header of {HEADER_BYTES}", bytes.len())));
    }
    let (header, body) = bytes.split_at(HEADER_BYTES);
    if header[..4] != MAGIC {
        return Err(damaged(format!("it begins with {:02x?}, not with {MAGIC:02x?}", &header[..4])));
    }
    let version = u32_at(header, 4);
    if version != VERSION {
        return Err(MetadataError::Version { path: path.to_owned(), version, known: VERSION });
    }
    let expected = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"));
    if body.len() as u64 != expected {
        return Err(damaged(format!("its body has {} bytes, {expected} were written", body.len())));
    }
    let (expected, actual) = (u32_at(header, 16), crc32fast::hash(body));
    if expected != actual {
        return Err(damaged(format!("its checksum is {actual:08x}, {expected:08x} was written")));
    }
    let checkpoint: CompletedCheckpoint =
        serde_json::from_slice(body).map_err(|error| damaged(format!("its body is not understood: {error}")))?;
    if checkpoint.format_version != CompletedCheckpoint::FORMAT_VERSION {
        let (version, known) = (checkpoint.format_version, CompletedCheckpoint::FORMAT_VERSION);
        return Err(MetadataError::Version { path: path.to_owned(), version, known });
    }
    Ok(checkpoint)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Why a `_metadata` file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} is damaged: {what}; use the checkpoint before it", path = .path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{path} has format version {version}, this engine reads version {known}", path = .path.display())]
    Version { path: PathBuf, version: u32, known: u32 },
}

impl MetadataError {
    /// No restart mends a file; another checkpoint may do.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::File(error) => error.remedy(),
            Self::Damaged { .. } | Self::Version { .. } => Remedy::FailJob,
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::{
        deployment::{CoordinatorState, FileHandle, SubtaskState, VertexShape},
        id::{CheckpointId, JobVertexId, OperatorId, Subtask},
        key_group::MaxParallelism,
    };

    use super::*;

    fn checkpoint() -> CompletedCheckpoint {
        let vertex = JobVertexId(7);
        CompletedCheckpoint {
            format_version: CompletedCheckpoint::FORMAT_VERSION,
            id: CheckpointId(3),
            directory: "/somewhere/chk-3".to_owned(),
            vertices: vec![VertexShape {
                vertex,
                parallelism: 1,
                max_parallelism: MaxParallelism(128),
                operators: vec![OperatorId(9)],
            }],
            subtasks: vec![SubtaskState {
                subtask: Subtask { vertex, index: 0 },
                file: Some(FileHandle { path: "state".to_owned(), bytes: 5, crc32: 6 }),
            }],
            coordinators: vec![CoordinatorState { operator: OperatorId(9), bytes: vec![0, 255, 1] }],
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        assert_eq!(decode(&encode(&checkpoint()), Path::new("m")).unwrap(), checkpoint());
    }

    #[test]
    fn no_flipped_bit_and_no_missing_byte_goes_unnoticed() {
        let whole = encode(&checkpoint());
        for length in 0..whole.len() {
            assert!(decode(&whole[..length], Path::new("m")).is_err(), "{length} bytes");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, Path::new("m")).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_is_named_and_not_called_damaged() {
        let later = CompletedCheckpoint { format_version: 9, ..checkpoint() };
        let error = decode(&encode(&later), Path::new("m")).unwrap_err();
        assert!(matches!(error, MetadataError::Version { version: 9, .. }), "{error}");
    }
}
