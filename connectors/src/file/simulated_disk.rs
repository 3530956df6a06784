//! A disk for tests that loses what was not synced, and that can stop working after any number of operations.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use millstream_storage::durable::FileError;

use super::disk::Disk;

/// Names in a directory, and the file each stands for.
type Names = BTreeMap<PathBuf, usize>;

/// Such a disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: Vec<Bytes>,
    names: Names,
    /// What the directory was like when it was last synced, and after each change since.
    history: Vec<Names>,
    /// Operations until every further one fails; `None` if never.
    fuse: Option<u32>,
}

#[derive(Clone, Default)]
struct Bytes {
    bytes: Vec<u8>,
    synced: usize,
}

impl SimulatedDisk {
    /// After so many operations nothing works any more, until the next [`Self::crash`].
    pub fn stop_after(&self, operations: u32) {
        self.0.lock().unwrap().fuse = Some(operations);
    }

    /// Loses what was not synced, as far as `choose(n)`, which gives a number up to and with `n`, wants it.
    pub fn crash(&self, mut choose: impl FnMut(usize) -> usize) {
        let mut state = self.0.lock().unwrap();
        state.fuse = None;
        if !state.history.is_empty() {
            let survivor = choose(state.history.len() - 1);
            state.names = state.history[survivor].clone();
        }
        state.history = vec![state.names.clone()];
        for file in &mut state.files {
            let kept = file.synced + choose(file.bytes.len() - file.synced);
            file.bytes.truncate(kept);
            file.synced = kept;
        }
    }

    /// Everything in the files whose names do not start with a dot, in the order of their names.
    pub fn visible(&self) -> String {
        let state = self.0.lock().unwrap();
        let shown = state.names.iter().filter(|(path, _)| !is_hidden(path));
        shown.map(|(_, file)| String::from_utf8(state.files[*file].bytes.clone()).unwrap()).collect()
    }

    /// How many files there are whose names start with a dot.
    pub fn hidden_files(&self) -> usize {
        self.0.lock().unwrap().names.keys().filter(|path| is_hidden(path)).count()
    }

    fn with<R>(
        &self,
        attempt: &'static str,
        path: &Path,
        act: impl FnOnce(&mut State) -> Result<R, ErrorKind>,
    ) -> Result<R, FileError> {
        let mut state = self.0.lock().unwrap();
        if state.history.is_empty() {
            state.history.push(Names::new());
        }
        if let Some(fuse) = &mut state.fuse {
            match fuse.checked_sub(1) {
                Some(left) => *fuse = left,
                None => return Err(FileError::new(attempt, path, io::Error::other("the machine has stopped"))),
            }
        }
        act(&mut state).map_err(|kind| FileError::new(attempt, path, kind.into()))
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with('.')
}

impl State {
    fn rename_to(&mut self, change: impl FnOnce(&mut Names)) {
        change(&mut self.names);
        self.history.push(self.names.clone());
    }

    fn file(&self, path: &Path) -> Result<usize, ErrorKind> {
        self.names.get(path).copied().ok_or(ErrorKind::NotFound)
    }
}

impl Disk for SimulatedDisk {
    type File = usize;

    fn create_directory(&self, path: &Path) -> Result<(), FileError> {
        self.with("create the directory", path, |_| Ok(()))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, FileError> {
        self.with("list the directory", path, |state| {
            Ok(state.names.keys().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
        })
    }

    fn sync_directory(&self, path: &Path) -> Result<(), FileError> {
        self.with("sync the directory", path, |state| {
            state.history = vec![state.names.clone()];
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> Result<usize, FileError> {
        self.with("create", path, |state| {
            if state.names.contains_key(path) {
                return Err(ErrorKind::AlreadyExists);
            }
            state.files.push(Bytes::default());
            let file = state.files.len() - 1;
            state.rename_to(|names| {
                let _ = names.insert(path.to_owned(), file);
            });
            Ok(file)
        })
    }

    fn append(&self, file: &mut usize, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        self.with("write", path, |state| {
            state.files[*file].bytes.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn sync(&self, file: &mut usize, path: &Path) -> Result<(), FileError> {
        self.with("sync", path, |state| {
            state.files[*file].synced = state.files[*file].bytes.len();
            Ok(())
        })
    }

    fn length(&self, path: &Path) -> Result<Option<u64>, FileError> {
        self.with("look at", path, |state| Ok(state.names.get(path).map(|file| state.files[*file].bytes.len() as u64)))
    }

    fn copy_beginning(&self, from: &Path, bytes: u64, to: &Path) -> Result<(), FileError> {
        self.with("write", to, |state| {
            let bytes = state.files[state.file(from)?].bytes[..bytes as usize].to_vec();
            let synced = bytes.len();
            state.files.push(Bytes { bytes, synced });
            let file = state.files.len() - 1;
            state.rename_to(|names| {
                let _ = names.insert(to.to_owned(), file);
            });
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.with("rename", from, |state| {
            let file = state.file(from)?;
            state.rename_to(|names| {
                names.remove(from);
                names.insert(to.to_owned(), file);
            });
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> Result<(), FileError> {
        self.with("remove", path, |state| {
            state.rename_to(|names| {
                let _ = names.remove(path);
            });
            Ok(())
        })
    }
}
