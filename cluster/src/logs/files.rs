//! The files of a process, as they lie in its directory: its own logs, what it has printed, and what its jobs have logged.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use millstream::logging;
use millstream_client::proto::v1::{self, read_log_file::Which};
use millstream_model::id::JobId;

/// Of a file, at once.
const PIECE_BYTES: u64 = 256 << 10;

/// Files of one directory whose names begin alike.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) directory: PathBuf,
    pub(crate) name: String,
}

/// A file that is there.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

impl Files {
    /// Those of this process, if it logs to a file.
    pub(crate) fn own() -> Option<Files> {
        let path = logging::file()?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.map_or_else(|| PathBuf::from("."), PathBuf::from);
        Some(Files { directory, name: path.file_stem()?.to_str()?.to_owned() })
    }

    /// Of a job.
    pub(crate) fn of_job(&self, job: JobId) -> PathBuf {
        self.directory.join(format!("{}-{job}.log", self.name))
    }

    /// The job that a file is of, by its name.
    pub(crate) fn job_of(&self, file_name: &str) -> Option<JobId> {
        let (id, rest) = file_name.strip_prefix(&self.name)?.strip_prefix('-')?.split_once('.')?;
        let is_log = rest == "log" || rest.strip_prefix("log.").is_some_and(|number| number.parse::<u32>().is_ok());
        id.parse().ok().filter(|_| is_log)
    }

    /// All of them, by their names.
    pub(crate) fn all(&self) -> Vec<Found> {
        let is_own = |name: &str| {
            name.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('.')) || self.job_of(name).is_some()
        };
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let found = entries.filter_map(|entry| {
            let name = entry.file_name().to_str().filter(|name| is_own(name))?.to_owned();
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some(Found { path: entry.path(), name, bytes: metadata.len(), modified: metadata.modified().ok()? })
        });
        let mut found: Vec<Found> = found.collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// As clients are told.
    pub(crate) fn describe(&self) -> v1::LogFiles {
        let files = self.all().into_iter().map(|Found { name, bytes, modified, .. }| {
            let modified_millis = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
            v1::LogFile { name, bytes, modified_millis }
        });
        v1::LogFiles { files: files.collect() }
    }

    /// A piece of one of them; `None` if there is no such file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn read(&self, request: &v1::ReadLogFile) -> io::Result<Option<v1::LogFilePiece>> {
        let name = match &request.which {
            Some(Which::Name(name)) => name.clone(),
            Some(Which::Stdout(_)) => format!("{}.out", self.name),
            Some(Which::Log(_)) | None => format!("{}.log", self.name),
        };
        // Only what is in the list, so that no path leads elsewhere.
        let Some(found) = self.all().into_iter().find(|found| found.path.file_name() == Some(OsStr::new(&name))) else {
            return Ok(None);
        };
        let mut file = File::open(found.path)?;
        let file_bytes = file.metadata()?.len();
        file.seek(SeekFrom::Start(request.offset))?;
        let mut bytes = Vec::new();
        file.take(PIECE_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(v1::LogFilePiece { bytes, file_bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_are_none_of_a_process() {
        let root = tempfile::tempdir().unwrap();
        let files = Files { directory: root.path().to_owned(), name: "tm-1".to_owned() };
        let id = JobId(7);
        let own = ["tm-1.log".to_owned(), "tm-1.log.1".to_owned(), "tm-1.out".to_owned(), format!("tm-1-{id}.log")];
        let others = ["tm-11.log".to_owned(), format!("tm-1-{id}.out"), format!("tm-11-{id}.log"), format!("{id}.log")];
        for name in own.iter().chain(&others) {
            fs::write(root.path().join(name), name).unwrap();
        }
        fs::create_dir(root.path().join("tm-1.d")).unwrap();
        let mut expected = own.to_vec();
        expected.sort();
        assert_eq!(files.all().into_iter().map(|found| found.name).collect::<Vec<_>>(), expected);
        assert_eq!(files.job_of(&format!("tm-1-{id}.log.1")), Some(id));
        assert_eq!(files.job_of("tm-1.log"), None);
        let read = |which, offset| files.read(&v1::ReadLogFile { which: Some(which), offset }).unwrap();
        assert_eq!(read(Which::Log(true), 3).unwrap().bytes, b"1.log");
        assert_eq!(
            read(Which::Stdout(true), 0).unwrap(),
            v1::LogFilePiece { bytes: b"tm-1.out".into(), file_bytes: 8 }
        );
        for name in ["../etc/passwd", "tm-11.log", "", "tm-1.d", "/etc/passwd"] {
            assert_eq!(read(Which::Name(name.to_owned()), 0), None, "{name}");
        }
    }
}
