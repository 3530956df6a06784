//! The files of jobs: each has one of limited size, and all together have a limit.
//!
//! A thread writes them, so that no worker waits for a disk for long: one that does not keep up has lines left out, which
//! are counted, and the count is in the log.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TrySendError, bounded};
use millstream::logging::{
    self,
    rolling::{Limits, Pieces, RollingFile},
};
use millstream_model::{
    config::{Configuration, LOG_JOB_MAX_SIZE, LOG_JOBS_MAX_SIZE, TEMPORARY_DIRECTORY},
    fault::Failure,
    id::JobId,
    log::{LogForm, LogLine},
};
use tempfile::TempDir;

use super::files::Files;

/// Batches of lines that wait for the disk. When there are so many, a worker that writes more waits for `PATIENCE` once,
/// and from then on lines are left out until the disk is faster again.
const WAITING_MAX: usize = 32;
const PATIENCE: Duration = Duration::from_millis(200);
/// Is written at once; a piece of a file is at least twice as large.
const CHUNK_BYTES: usize = 32 << 10;
/// After so much was written, what is over the limit of all is deleted.
const TIDY_EVERY_BYTES: u64 = 16 << 20;

/// What the workers of this process log and print. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct JobLogs(Arc<Store>);

#[derive(Debug)]
struct Store {
    place: Place,
    form: LogForm,
    limits: Limits,
    /// The files of jobs that have workers.
    open: Mutex<BTreeMap<JobId, Weak<Written>>>,
    batches: Sender<Batch>,
}

/// Where the files are.
#[derive(Debug)]
struct Place {
    files: Files,
    /// Of all files together.
    bytes_max: u64,
    /// Removes the directory, if nobody has named one.
    _temporary: Option<TempDir>,
}

#[derive(Debug)]
struct Batch {
    file: Arc<Written>,
    text: String,
    lines: u64,
}

/// A file that is written to.
#[derive(Debug)]
struct Written {
    file: Mutex<RollingFile>,
    pieces: Arc<Pieces>,
    /// Lines that could not be handed over.
    dropped: AtomicU64,
    /// Whether the disk did not keep up the last time.
    is_slow: AtomicBool,
}

/// A way into a job's file.
pub(crate) struct JobFile {
    form: LogForm,
    written: Arc<Written>,
    batches: Sender<Batch>,
}

impl JobLogs {
    /// Beside the log of this process; without one, in a directory that ends with it.
    ///
    /// # Errors
    /// If there is no room for a directory, or no thread.
    pub(crate) fn open(configuration: &Configuration) -> Result<JobLogs, Failure> {
        let (files, temporary) = match Files::own() {
            Some(files) => (files, None),
            None => {
                let parent = configuration.get(&TEMPORARY_DIRECTORY)?.map_or_else(std::env::temp_dir, PathBuf::from);
                let made =
                    tempfile::Builder::new().prefix(&format!("millstream-logs-{}-", process::id())).tempdir_in(&parent);
                let made = made.map_err(|cause| {
                    Failure::fatal(format!(
                        "cannot make a directory for logs in {} ({}): {cause}",
                        parent.display(),
                        TEMPORARY_DIRECTORY.name()
                    ))
                })?;
                (Files { directory: made.path().to_owned(), name: "taskmanager".to_owned() }, Some(made))
            }
        };
        let bytes_max = configuration.get(&LOG_JOBS_MAX_SIZE)?.bytes();
        let place = Place { files, bytes_max, _temporary: temporary };
        // Two pieces, so that at least half of it is there.
        let limits = Limits { bytes_max: configuration.get(&LOG_JOB_MAX_SIZE)?.bytes() / 2, old_pieces_max: 1 };
        JobLogs::start(place, limits, logging::form(configuration))
    }

    fn start(place: Place, limits: Limits, form: LogForm) -> Result<JobLogs, Failure> {
        let (batches, waiting) = bounded(WAITING_MAX);
        let store = Arc::new(Store { place, form, limits, open: Mutex::default(), batches });
        let own = Arc::downgrade(&store);
        thread::Builder::new()
            .name("job-logs".to_owned())
            .spawn(move || write_all(&waiting, &own))
            .map_err(|cause| Failure::fatal(format!("no thread for logs could be started: {cause}")))?;
        Ok(JobLogs(store))
    }

    /// For one more worker of a job.
    pub(crate) fn file(&self, job: JobId) -> JobFile {
        let store = &self.0;
        let mut open = store.open();
        open.retain(|_, file| file.strong_count() > 0);
        let written = open.get(&job).and_then(Weak::upgrade).unwrap_or_else(|| {
            let file = RollingFile::open(store.place.files.of_job(job), store.limits, store.form);
            let written = Written {
                pieces: file.pieces(),
                file: Mutex::new(file),
                dropped: AtomicU64::new(0),
                is_slow: AtomicBool::new(false),
            };
            let written = Arc::new(written);
            open.insert(job, Arc::downgrade(&written));
            written
        });
        JobFile { form: store.form, written, batches: store.batches.clone() }
    }

    /// The files, with those of the process itself if they are beside them.
    pub(crate) fn files(&self) -> &Files {
        &self.0.place.files
    }

    /// What can be read of a job, and whether more may come.
    pub(crate) fn pieces(&self, job: JobId) -> (Arc<Pieces>, bool) {
        match self.0.open().get(&job).and_then(Weak::upgrade) {
            Some(written) => (written.pieces.clone(), true),
            None => (Arc::new(Pieces::of(&self.0.place.files.of_job(job))), false),
        }
    }
}

impl Store {
    fn open(&self) -> MutexGuard<'_, BTreeMap<JobId, Weak<Written>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes files of jobs that have no workers here, the oldest first, until the limit of all is kept.
    fn tidy(&self) {
        let open: Vec<JobId> = {
            let mut open = self.open();
            open.retain(|_, file| file.strong_count() > 0);
            open.keys().copied().collect()
        };
        let mut files = self.place.files.all();
        files.retain(|file| self.place.files.job_of(&file.name).is_some());
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        files.sort_by_key(|file| file.modified);
        for file in
            files.iter().filter(|file| self.place.files.job_of(&file.name).is_some_and(|job| !open.contains(&job)))
        {
            if bytes <= self.place.bytes_max {
                return;
            }
            match fs::remove_file(&file.path) {
                Ok(()) => bytes -= file.bytes,
                Err(cause) => {
                    tracing::warn!(path = %file.path.display(), %cause, "an old log cannot be deleted");
                }
            }
        }
    }
}

impl JobFile {
    /// Writes lines, on another thread.
    pub(crate) fn write(&self, lines: &[LogLine]) {
        let text = lines.iter().map(|line| self.form.write(line)).collect();
        let count = lines.len() as u64;
        let batch = Batch { file: self.written.clone(), text, lines: count };
        let is_taken = if self.written.is_slow.load(Ordering::Relaxed) {
            !matches!(self.batches.try_send(batch), Err(TrySendError::Full(_)))
        } else {
            !matches!(self.batches.send_timeout(batch, PATIENCE), Err(SendTimeoutError::Timeout(_)))
        };
        if !is_taken {
            self.written.dropped.fetch_add(count, Ordering::Relaxed);
        }
        self.written.is_slow.store(!is_taken, Ordering::Relaxed);
    }
}

/// Writes until nobody can have anything to write any more.
fn write_all(batches: &Receiver<Batch>, store: &Weak<Store>) {
    let mut since_tidied = TIDY_EVERY_BYTES;
    while let Ok(Batch { file, text, lines }) = batches.recv() {
        {
            let mut target = file.file.lock().unwrap_or_else(PoisonError::into_inner);
            let dropped = file.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                target.dropped(dropped, "the disk did not keep up");
            }
            if text.len() <= CHUNK_BYTES {
                target.write(text.as_bytes(), lines);
            } else {
                chunks(&text).for_each(|chunk| target.write(chunk.as_bytes(), chunk.matches('\n').count() as u64));
            }
        }
        since_tidied += text.len() as u64;
        if since_tidied >= TIDY_EVERY_BYTES
            && let Some(store) = store.upgrade()
        {
            store.tidy();
            since_tidied = 0;
        }
    }
}

/// Parts of a text that end with lines.
fn chunks(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let end = text.floor_char_boundary(CHUNK_BYTES);
        let end = text[..end].rfind('\n').or_else(|| text.find('\n')).map_or(text.len(), |at| at + 1);
        let (chunk, rest) = text.split_at(end);
        text = rest;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        time::{Instant, SystemTime},
    };

    use millstream_model::log::{LogFilter, Origin};

    use super::{
        super::reader::{From, read},
        *,
    };

    fn logs(root: &Path, piece_bytes: u64, bytes_max: u64) -> JobLogs {
        let files = Files { directory: root.to_owned(), name: "tm".to_owned() };
        let place = Place { files, bytes_max, _temporary: None };
        JobLogs::start(place, Limits { bytes_max: piece_bytes, old_pieces_max: 1 }, LogForm::Text).unwrap()
    }

    fn lines(from: u32, to: u32) -> Vec<LogLine> {
        (from..to).map(|number| LogLine::printed(5, Origin::Stdout, &format!("line {number}"))).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "a limit for a thread that does not do its work")]
    fn wait_until(condition: impl Fn() -> bool) {
        let limit = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < limit, "it does not happen");
            thread::yield_now();
        }
    }

    #[test]
    fn each_job_has_its_own_lines_and_no_more_of_them_than_the_limit() {
        let root = tempfile::tempdir().unwrap();
        let logs = logs(root.path(), 64 << 10, u64::MAX);
        let (one, other) = (logs.file(JobId(1)), logs.file(JobId(2)));
        other.write(&lines(0, 3));
        for number in 0..100 {
            one.write(&lines(number * 100, number * 100 + 100));
        }
        drop((one, other));
        wait_until(|| !logs.pieces(JobId(1)).1 && !logs.pieces(JobId(2)).1);
        let bytes: u64 = logs
            .0
            .place
            .files
            .all()
            .iter()
            .filter(|file| file.name.contains(&JobId(1).to_string()))
            .map(|file| file.bytes)
            .sum();
        assert!((64 << 10..=128 << 10).contains(&bytes), "{bytes}");
        let last = read(&logs.pieces(JobId(1)).0, &LogFilter::default(), From::Last(2)).unwrap();
        assert_eq!(last.lines.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["line 9998", "line 9999"]);
        let all = read(&logs.pieces(JobId(2)).0, &LogFilter::default(), From::Position(0)).unwrap();
        assert_eq!(all.lines, lines(0, 3));
    }

    #[test]
    fn what_is_left_of_ended_jobs_goes_first_where_all_have_too_much() {
        let root = tempfile::tempdir().unwrap();
        let logs = logs(root.path(), 64 << 10, 20_000);
        let mut kept = Vec::new();
        for number in 1..=4 {
            let file = logs.file(JobId(number));
            file.write(&lines(0, 200));
            if number != 1 {
                drop(file);
                wait_until(|| !logs.pieces(JobId(number)).1);
            } else {
                kept.push(file);
                wait_until(|| logs.0.place.files.all().iter().any(|file| file.bytes > 0));
            }
            // Files of one moment are as old as each other.
            let path = logs.0.place.files.of_job(JobId(number));
            let age = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
            fs::File::options().append(true).open(path).unwrap().set_modified(age).unwrap();
        }
        let each = logs.0.place.files.all()[0].bytes;
        assert!(each * 3 > 20_000 && each * 2 <= 20_000, "{each}");
        logs.0.tidy();
        let files = &logs.0.place.files;
        let left: Vec<JobId> = files.all().iter().filter_map(|file| files.job_of(&file.name)).collect();
        assert_eq!(left, [JobId(1), JobId(4)], "the one that has a worker, and the newest");
    }
}
