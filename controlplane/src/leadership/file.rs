//! Election among the processes of one machine: whoever holds the lock on a file leads.
//!
//! ```text
//!  leader.lock:  two slots of 64 bytes, each  "MSLE" · incarnation u64 · revision u64 · CRC-32 u32 · zeros
//! ```
//! The token is written to the slots in turn and synced, so that a power loss in the middle leaves the one before. The
//! kernel releases the lock with the process, however it ends, and children do not inherit it (close-on-exec). Over a
//! network file system neither is certain, so those are refused.
//!
//! A child that is being started has all files of its parent for a moment, so a lock is never released by closing alone.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use millstream_model::id::LeaderEpoch;
use millstream_storage::durable;
use nix::sys::statfs::statfs;

use super::{Election, ElectionError, Latch};
use crate::store::{StoreError, file::lock_store};

const MAGIC: [u8; 4] = *b"MSLE";
const SLOT_BYTES: usize = 64;
/// Magic, incarnation, revision.
const TOKEN_BYTES: usize = 20;

/// Candidates compete for a directory, which [`FileStore`](crate::store::FileStore) is opened on.
#[derive(Debug)]
pub struct FileElection {
    directory: PathBuf,
}

impl FileElection {
    /// # Errors
    /// If the directory cannot be made, or is not on a local file system.
    pub fn new(directory: &Path) -> Result<FileElection, ElectionError> {
        durable::create_directory(directory).map_err(StoreError::from)?;
        if let Some(file_system) = network_file_system(directory)? {
            return Err(ElectionError::NotLocal { directory: directory.to_owned(), file_system });
        }
        Ok(FileElection { directory: directory.to_owned() })
    }
}

impl Election for FileElection {
    fn try_acquire(&self) -> Result<Option<Latch>, ElectionError> {
        let path = self.directory.join("leader.lock");
        let failed =
            |attempt| move |source| ElectionError::Io { attempt, path: self.directory.join("leader.lock"), source };
        // The standard library opens every file close-on-exec.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed("open"))?;
        let lock = match file.try_lock() {
            Ok(()) => HeldLock(file),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        };
        let file = &lock.0;
        // Not in the middle of a transaction that has compared the token already.
        let _transaction = lock_store(&self.directory)?;
        let old = read_slots(file).map_err(failed("read"))?.ok_or(ElectionError::Damaged { path: path.clone() })?;
        let epoch = LeaderEpoch { revision: old.revision + 1, ..old };
        let slot = (epoch.revision % 2) * SLOT_BYTES as u64;
        file.write_all_at(&encode(epoch), slot).map_err(failed("write"))?;
        file.sync_all().map_err(failed("sync"))?;
        durable::sync_directory(&self.directory).map_err(StoreError::from)?;
        Ok(Some(Latch::new(epoch, lock)))
    }
}

/// A file that is locked, and is unlocked when this is dropped, also for children that have it open.
#[derive(Debug)]
pub(crate) struct HeldLock(pub(crate) File);

impl Drop for HeldLock {
    fn drop(&mut self) {
        // If this fails, closing the file does it.
        let _ = self.0.unlock();
    }
}

/// The token of the newest leader of a directory; the lowest of all if there was none. To be called while
/// [`lock_store`] is held.
pub(crate) fn read_epoch(directory: &Path) -> Result<LeaderEpoch, StoreError> {
    let path = directory.join("leader.lock");
    let read = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(LeaderEpoch::default()),
        opened => opened.and_then(|file| read_slots(&file)),
    };
    let epoch = read.map_err(|source| durable::FileError::new("read", &path, source))?;
    // A damaged token fences everybody off: no leader has the highest of all.
    Ok(epoch.unwrap_or(LeaderEpoch { incarnation: u64::MAX, revision: u64::MAX }))
}

/// The higher of the tokens in the two slots; `None` if there is something in the file, but no token.
fn read_slots(file: &File) -> std::io::Result<Option<LeaderEpoch>> {
    let mut bytes = [0; 2 * SLOT_BYTES];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    let newest = bytes.chunks(SLOT_BYTES).filter_map(decode).max();
    let is_new = bytes.iter().all(|byte| *byte == 0);
    Ok(newest.or_else(|| is_new.then(LeaderEpoch::default)))
}

fn encode(epoch: LeaderEpoch) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..4].copy_from_slice(&MAGIC);
    slot[4..12].copy_from_slice(&epoch.incarnation.to_le_bytes());
    slot[12..20].copy_from_slice(&epoch.revision.to_le_bytes());
    let crc32 = crc32fast::hash(&slot[..TOKEN_BYTES]);
    slot[TOKEN_BYTES..TOKEN_BYTES + 4].copy_from_slice(&crc32.to_le_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<LeaderEpoch> {
    let number = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    let crc32 = crc32fast::hash(&slot[..TOKEN_BYTES]).to_le_bytes();
    let is_whole = slot[..4] == MAGIC && slot[TOKEN_BYTES..TOKEN_BYTES + 4] == crc32;
    if is_whole { Some(LeaderEpoch { incarnation: number(4)?, revision: number(12)? }) } else { None }
}

/// The kind of file system a directory is on, if it is one that other machines write to.
fn network_file_system(directory: &Path) -> Result<Option<&'static str>, ElectionError> {
    let status = statfs(directory).map_err(|error| ElectionError::Io {
        attempt: "find the file system of",
        path: directory.to_owned(),
        source: error.into(),
    })?;
    Ok(network_name(status.filesystem_type().0 as u32))
}

/// The numbers are those of the kernel's `magic.h` and `statfs(2)`.
fn network_name(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517B | 0xFE53_4D42 => "SMB",
        0xFF53_4D42 => "CIFS",
        // Some are local, but most that anybody would put this on are not (sshfs, s3fs, gcsfuse, GlusterFS).
        0x6573_5546 => "a FUSE file system",
        0x0102_1997 => "9P",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x00C3_6400 => "CephFS",
        0x0BD0_0BD0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x7375_7245 => "Coda",
        0x564C => "NCP",
        // Clustered: several machines mount the same disk.
        0x7461_636F => "OCFS2",
        0x0116_1970 => "GFS2",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        process::{Command, Stdio},
    };

    use super::*;

    fn acquire(directory: &Path) -> Option<Latch> {
        FileElection::new(directory).unwrap().try_acquire().unwrap()
    }

    #[test]
    fn there_is_one_leader_at_a_time_and_each_has_a_higher_token() {
        let directory = tempfile::tempdir().unwrap();
        let mut last = LeaderEpoch::default();
        for _ in 0..5 {
            let leader = acquire(directory.path()).unwrap();
            assert!(acquire(directory.path()).is_none());
            assert!(leader.epoch() > last);
            assert_eq!(read_epoch(directory.path()).unwrap(), leader.epoch());
            last = leader.epoch();
        }
    }

    #[test]
    fn a_child_process_does_not_inherit_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let _leader = acquire(directory.path()).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        // Its answer shows that it is `cat` by now, and no copy of this process any more.
        input.write_all(b"?").unwrap();
        output.read_exact(&mut [0]).unwrap();
        let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
        let open: Vec<_> = open.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap()).collect();
        drop(input);
        child.wait().unwrap();
        assert!(!open.is_empty());
        assert!(open.iter().all(|path| !path.starts_with(directory.path())), "{open:?}");
    }

    #[test]
    fn a_lock_is_released_at_once_although_somebody_has_the_same_open_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lock = File::open(file.path()).unwrap();
        lock.lock().unwrap();
        // What a child has until it is a program of its own.
        let _inherited = lock.try_clone().unwrap();
        drop(HeldLock(lock));
        File::open(file.path()).unwrap().try_lock().unwrap();
    }

    #[test]
    fn a_token_torn_by_a_power_loss_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let first = acquire(directory.path()).unwrap().epoch();
        let second = acquire(directory.path()).unwrap().epoch();
        let file = OpenOptions::new().read(true).write(true).open(directory.path().join("leader.lock")).unwrap();
        file.write_all_at(&[0xFF], (second.revision % 2) * SLOT_BYTES as u64 + 12).unwrap();
        assert_eq!(read_epoch(directory.path()).unwrap(), first);
    }

    #[test]
    fn a_damaged_token_lets_nobody_lead() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("leader.lock"), [7; 128]).unwrap();
        let error = FileElection::new(directory.path()).unwrap().try_acquire().unwrap_err();
        assert!(matches!(error, ElectionError::Damaged { .. }), "{error}");
    }

    #[test]
    fn file_systems_that_other_machines_write_to_are_refused_and_local_ones_are_not() {
        for magic in [0x6969, 0xFF53_4D42, 0xFE53_4D42, 0x6573_5546] {
            assert!(network_name(magic).is_some(), "{magic:x}");
        }
        // ext4, XFS, Btrfs, tmpfs, overlayfs, ZFS.
        for magic in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1] {
            assert!(network_name(magic).is_none(), "{magic:x}");
        }
    }
}
