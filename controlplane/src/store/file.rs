//! Records in files of one machine.
//!
//! ```text
//!  <directory>/leader.lock        the latch, and the token of the newest leader (leadership::file)
//!             /store.lock         held by flock during every transaction, and while a token is raised
//!             /jobs/<job id>      CRC-32 in hexadecimal digits, a line feed, JSON of the version and the record
//! ```
//! The transaction's lock makes "compare the token, compare the version, replace the file" one step among all processes
//! of the machine. The file is written under another name, synced and renamed, so that it is always whole.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

use millstream_model::id::{JobId, LeaderEpoch};
use millstream_storage::{FileError, durable};
use serde::{Deserialize, Serialize};

use super::{JobRecord, Store, StoreError, Version};
use crate::leadership::file::{HeldLock, read_epoch};

/// A store in a local directory.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    version: Version,
    record: JobRecord,
}

impl FileStore {
    /// Opens the store of this directory, which [`FileElection`](crate::leadership::FileElection) has to be of, too:
    /// it checks that the file system is a local one.
    pub fn open(directory: &Path) -> Result<FileStore, StoreError> {
        durable::create_directory(&directory.join("jobs"))?;
        Ok(FileStore { directory: directory.to_owned() })
    }

    fn path(&self, job: JobId) -> PathBuf {
        self.directory.join("jobs").join(job.to_string())
    }

    /// Begins a transaction of this leader. It ends when this is dropped.
    fn begin(&self, epoch: LeaderEpoch) -> Result<HeldLock, StoreError> {
        let lock = lock_store(&self.directory)?;
        match read_epoch(&self.directory)? {
            current if current == epoch => Ok(lock),
            current => Err(StoreError::Fenced { ours: epoch, current }),
        }
    }

    fn read(&self, job: JobId) -> Result<Option<Versioned>, StoreError> {
        let bytes = match durable::read(&self.path(job)) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        decode(&bytes).map(Some).map_err(|what| StoreError::Damaged { job, what })
    }

    fn read_expected(&self, job: JobId, expected: Option<Version>) -> Result<(), StoreError> {
        let actual = self.read(job)?.map(|read| read.version);
        if actual == expected { Ok(()) } else { Err(StoreError::Conflict { job, expected, actual }) }
    }
}

impl Store for FileStore {
    fn load(&self, epoch: LeaderEpoch, job: JobId) -> Result<Option<(JobRecord, Version)>, StoreError> {
        let _transaction = self.begin(epoch)?;
        Ok(self.read(job)?.map(|read| (read.record, read.version)))
    }

    fn write(
        &self,
        epoch: LeaderEpoch,
        job: JobId,
        expected: Option<Version>,
        record: &JobRecord,
    ) -> Result<Version, StoreError> {
        let _transaction = self.begin(epoch)?;
        self.read_expected(job, expected)?;
        let version = Version(expected.map_or(1, |version| version.0 + 1));
        durable::write(&self.path(job), &encode(&Versioned { version, record: record.clone() }))?;
        Ok(version)
    }

    fn remove(&self, epoch: LeaderEpoch, job: JobId, expected: Version) -> Result<(), StoreError> {
        let _transaction = self.begin(epoch)?;
        self.read_expected(job, Some(expected))?;
        let path = self.path(job);
        fs::remove_file(&path).map_err(|source| FileError::new("delete", &path, source))?;
        durable::sync_directory(&self.directory.join("jobs"))?;
        Ok(())
    }

    fn jobs(&self, epoch: LeaderEpoch) -> Result<Vec<JobId>, StoreError> {
        let _transaction = self.begin(epoch)?;
        let directory = self.directory.join("jobs");
        let failed = |source| FileError::new("list", &directory, source);
        let mut jobs = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            // Temporary files have names that are no ids.
            jobs.extend(entry.map_err(failed)?.file_name().to_str().and_then(|name| name.parse::<JobId>().ok()));
        }
        jobs.sort_unstable();
        Ok(jobs)
    }
}

/// Waits until no transaction is under way in this directory, and keeps others out until this is dropped.
pub(crate) fn lock_store(directory: &Path) -> Result<HeldLock, StoreError> {
    let path = directory.join("store.lock");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(|source| FileError::new("open", &path, source))?;
    file.lock().map_err(|source| StoreError::Lock { directory: directory.display().to_string(), source })?;
    Ok(HeldLock(file))
}

fn encode(record: &Versioned) -> Vec<u8> {
    let json = serde_json::to_string_pretty(record).expect("a record has a JSON form");
    format!("{:08x}\n{json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

fn decode(bytes: &[u8]) -> Result<Versioned, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
    let (checksum, json) = text.split_once('\n').ok_or("it has no checksum")?;
    let json = json.strip_suffix('\n').ok_or("its end is missing")?;
    let actual = format!("{:08x}", crc32fast::hash(json.as_bytes()));
    if actual != checksum {
        return Err(format!("its checksum is {actual}, '{checksum}' was written"));
    }
    let read: Versioned = serde_json::from_str(json).map_err(|error| format!("it is not understood: {error}"))?;
    match read.record.format_version {
        known if known <= JobRecord::FORMAT_VERSION => Ok(read),
        newer => {
            Err(format!("it has format {newer}, of a newer engine; this one reads up to {}", JobRecord::FORMAT_VERSION))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leadership::{Election, FileElection, Latch};

    fn elect(directory: &Path) -> Latch {
        FileElection::new(directory).unwrap().try_acquire().unwrap().expect("nobody else leads")
    }

    #[test]
    fn it_keeps_the_contract_of_a_store() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path()).unwrap();
        // A latch is released at once, so that the next one can be acquired.
        super::super::contract::check(&store, || elect(directory.path()).epoch());
    }

    #[test]
    fn records_survive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let latch = elect(directory.path());
        let record = JobRecord { initial: Some("somewhere".to_owned()), ..JobRecord::default() };
        FileStore::open(directory.path()).unwrap().write(latch.epoch(), JobId(1), None, &record).unwrap();
        let again = FileStore::open(directory.path()).unwrap();
        assert_eq!(again.load(latch.epoch(), JobId(1)).unwrap().unwrap().0, record);
    }

    /// As it was written before regions had generations of their own.
    const BEFORE_REGIONS: &str = r#"{
  "version": 4,
  "record": {
    "generation": 3,
    "restored_from": "/checkpoints/chk-7",
    "initial": null,
    "pointer": 7,
    "retained": [7],
    "tombstones": [],
    "result": null
  }
}"#;

    fn file_of(json: &str) -> Vec<u8> {
        format!("{:08x}\n{json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
    }

    #[test]
    fn the_form_before_regions_is_read_and_one_of_a_newer_engine_is_refused() {
        let read = decode(&file_of(BEFORE_REGIONS)).unwrap();
        let record = read.record;
        assert_eq!((record.format_version, record.generation.0, record.pointer.unwrap().0), (0, 3, 7));
        assert!(record.regions.is_empty());
        let newer = BEFORE_REGIONS.replace("\"generation\": 3", "\"format_version\": 2, \"generation\": 3");
        let Err(refused) = decode(&file_of(&newer)) else { panic!("it was read") };
        assert!(refused.contains("format 2"), "{refused}");
    }

    #[test]
    fn no_flipped_bit_and_no_missing_byte_of_a_record_goes_unnoticed() {
        let whole = encode(&Versioned { version: Version(3), record: JobRecord::default() });
        decode(&whole).unwrap_or_else(|what| panic!("{what}"));
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_damaged_record_is_an_error_that_names_the_job() {
        let directory = tempfile::tempdir().unwrap();
        let latch = elect(directory.path());
        let store = FileStore::open(directory.path()).unwrap();
        fs::write(store.path(JobId(1)), b"nonsense").unwrap();
        let error = store.load(latch.epoch(), JobId(1)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { job: JobId(1), .. }), "{error}");
    }
}
