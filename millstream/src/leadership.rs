//! The store of a cluster's jobs, and the right to write it, by configuration.

use std::{path::PathBuf, sync::Arc};

use millstream_controlplane::{
    Store,
    leadership::{Election, FileElection, Latch},
    store::{FileStore, MemoryStore},
};
use millstream_model::{
    config::{CHECKPOINTING_DIR, Configuration, HIGH_AVAILABILITY, HIGH_AVAILABILITY_STORAGE_DIR, HighAvailability},
    fault::Failure,
    id::LeaderEpoch,
};
use millstream_storage::local_path;

/// Where the pointers of jobs are kept, and the right to write them.
#[derive(Clone, Debug)]
pub struct Leadership {
    pub store: Arc<dyn Store>,
    pub epoch: LeaderEpoch,
    /// `None` for a store that nobody else can reach.
    _latch: Option<Arc<Latch>>,
}

impl Leadership {
    /// Becomes the leader of the store that is configured.
    ///
    /// # Errors
    /// If another process leads it, or it cannot be used.
    pub fn of(configuration: &Configuration) -> Result<Leadership, Failure> {
        let fatal = |cause: &dyn std::error::Error| Failure::fatal(cause.to_string());
        match configuration.get(&HIGH_AVAILABILITY)? {
            HighAvailability::None | HighAvailability::Memory => {
                let store = Arc::new(MemoryStore::new());
                let epoch = store.elect();
                Ok(Leadership { store, epoch, _latch: None })
            }
            HighAvailability::File => {
                let directory = configuration.get(&HIGH_AVAILABILITY_STORAGE_DIR)?;
                let directory = directory.ok_or_else(|| {
                    Failure::fatal(format!(
                        "set {}: the file store needs a directory",
                        HIGH_AVAILABILITY_STORAGE_DIR.name()
                    ))
                })?;
                let directory = local_path(&directory).map_err(|cause| fatal(&cause))?;
                let election = FileElection::new(&directory).map_err(|cause| fatal(&cause))?;
                let latch = election.try_acquire().map_err(|cause| fatal(&cause))?;
                let latch = latch.ok_or_else(|| {
                    Failure::fatal(format!("another process leads the jobs in {}", directory.display()))
                })?;
                let store = FileStore::open(&directory).map_err(|cause| fatal(&cause))?;
                let epoch = latch.epoch();
                Ok(Leadership { store: Arc::new(store), epoch, _latch: Some(Arc::new(latch)) })
            }
            HighAvailability::Etcd => Err(Failure::fatal(
                "this program has no etcd client; set high-availability.type to NONE, memory or file",
            )),
        }
    }
}

/// `execution.checkpointing.dir` as a path.
///
/// # Errors
/// If it is no path of this machine.
pub fn checkpoint_dir(configuration: &Configuration) -> Result<Option<PathBuf>, Failure> {
    let directory = configuration.get(&CHECKPOINTING_DIR)?;
    let path = directory.as_deref().map(local_path).transpose();
    path.map_err(|cause| Failure::fatal(cause.to_string()))
}
