//! A file of lines that never outgrows its limit: when it is full it gets another name, and the next one is begun.
//!
//! `x.log` is written to, `x.log.1` is the one before, and so on; the oldest is deleted. What cannot be written, since the
//! disk is full, is counted, and the count is written as soon as something can be.
//!
//! Whoever reads goes by positions: bytes from the beginning of the oldest piece that was there when the file was opened.
//! They stay true when pieces are renamed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millstream_model::{
    config::LogLevel,
    log::{LogForm, LogLine, Origin},
};

use super::{thread_name, wall_millis};

/// A file that is written to.
#[derive(Debug)]
pub struct RollingFile {
    path: PathBuf,
    limits: Limits,
    form: LogForm,
    /// `None` while it cannot be opened.
    file: Option<File>,
    bytes: u64,
    pieces: Arc<Pieces>,
    dropped_lines: u64,
    /// Why.
    trouble: String,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one piece.
    pub bytes_max: u64,
    /// Besides the one that is written to.
    pub old_pieces_max: u32,
}

/// The pieces of a file, for those who read it while it is written to.
#[derive(Debug)]
pub struct Pieces {
    path: PathBuf,
    /// The position at which the piece begins that is written to. Locked while pieces are renamed.
    newest: Mutex<u64>,
}

/// A piece that can be read.
#[derive(Debug)]
pub struct Piece {
    /// The position of its first byte.
    pub begin: u64,
    pub bytes: u64,
    pub file: File,
}

impl RollingFile {
    /// Goes on with a file that may be there. That it cannot be written to shows later.
    pub fn open(path: PathBuf, limits: Limits, form: LogForm) -> RollingFile {
        let pieces = Arc::new(Pieces::of(&path));
        let bytes = fs::metadata(&path).map_or(0, |found| found.len());
        RollingFile { path, limits, form, file: None, bytes, pieces, dropped_lines: 0, trouble: String::new() }
    }

    /// The pieces of the file, as they will be.
    pub fn pieces(&self) -> Arc<Pieces> {
        self.pieces.clone()
    }

    /// Begins the next piece, if there is anything in this one.
    pub fn roll(&mut self) -> io::Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        self.file = None;
        let mut newest = self.pieces.lock();
        for number in (1..self.limits.old_pieces_max).rev() {
            rename_if_there(&old(&self.path, number), &old(&self.path, number + 1))?;
        }
        match self.limits.old_pieces_max {
            0 => fs::remove_file(&self.path)?,
            _ => rename_if_there(&self.path, &old(&self.path, 1))?,
        }
        *newest += self.bytes;
        self.bytes = 0;
        Ok(())
    }

    /// Writes whole lines, so many as are said. Never fails: what cannot be written is counted.
    pub fn write(&mut self, text: &[u8], lines: u64) {
        if self.dropped_lines > 0 {
            let note = self.note();
            if self.try_write(note.as_bytes()).is_ok() {
                self.dropped_lines = 0;
            }
        }
        if let Err(cause) = self.try_write(text) {
            self.dropped_lines += lines;
            self.trouble = cause.to_string();
        }
    }

    /// Counts lines that others could not hand over.
    pub fn dropped(&mut self, lines: u64, why: &str) {
        self.dropped_lines += lines;
        self.trouble = why.to_owned();
    }

    fn try_write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.bytes + text.len() as u64 > self.limits.bytes_max {
            self.roll()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().create(true).append(true).open(&self.path)?),
        };
        if let Err(cause) = file.write_all(text) {
            // Half a line is none. What has no length, a device, stays as it is.
            let _ = file.set_len(self.bytes);
            self.file = None;
            return Err(cause);
        }
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn note(&self) -> String {
        let line = LogLine {
            level: LogLevel::Warn,
            origin: Origin::Log,
            thread: thread_name(),
            target: module_path!().to_owned(),
            fields: vec![
                ("lines".to_owned(), self.dropped_lines.into()),
                ("cause".to_owned(), self.trouble.clone().into()),
            ],
            ..LogLine::printed(wall_millis(), Origin::Log, "lines of this log are missing here")
        };
        self.form.write(&line)
    }
}

impl Pieces {
    /// Of a file that nobody writes to.
    pub fn of(path: &Path) -> Pieces {
        let old_bytes =
            old_pieces(path).iter().filter_map(|path| fs::metadata(path).ok()).map(|found| found.len()).sum();
        Pieces { path: path.to_owned(), newest: Mutex::new(old_bytes) }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the newest pieces, so many at most, the oldest of them first.
    ///
    /// # Errors
    /// If one that is there cannot be opened.
    pub fn open(&self, count_max: usize) -> io::Result<Vec<Piece>> {
        let newest = self.lock();
        let mut begin = *newest;
        let mut pieces = Vec::new();
        let old = old_pieces(&self.path);
        for (at, path) in std::iter::once(&self.path).chain(old.iter().rev()).take(count_max).enumerate() {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(cause) if cause.kind() == ErrorKind::NotFound => continue,
                Err(cause) => return Err(cause),
            };
            let bytes = file.metadata()?.len();
            if at > 0 {
                // Another process may have written to it since.
                begin = begin.saturating_sub(bytes);
            }
            pieces.push(Piece { begin, bytes, file });
        }
        pieces.reverse();
        Ok(pieces)
    }
}

/// The older pieces that are there, the oldest first.
fn old_pieces(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = (1..).map(|number| old(path, number)).take_while(|path| path.exists()).collect();
    found.reverse();
    found
}

fn old(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const LIMITS: Limits = Limits { bytes_max: 10, old_pieces_max: 2 };

    fn contents(pieces: &Pieces) -> Vec<(u64, String)> {
        let read = pieces.open(usize::MAX).unwrap().into_iter().map(|mut piece| {
            let mut text = String::new();
            piece.file.read_to_string(&mut text).unwrap();
            assert_eq!(text.len() as u64, piece.bytes);
            (piece.begin, text)
        });
        read.collect()
    }

    #[test]
    fn the_newest_lines_are_kept_and_positions_stay_true() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.log");
        let mut file = RollingFile::open(path.clone(), LIMITS, LogForm::Text);
        let pieces = file.pieces();
        for number in 10..18 {
            file.write(format!("ab{number}\n").as_bytes(), 1);
        }
        let expected = [(10, "ab12\nab13\n"), (20, "ab14\nab15\n"), (30, "ab16\nab17\n")];
        assert_eq!(contents(&pieces), expected.map(|(begin, text)| (begin, text.to_owned())));
        assert_eq!(pieces.open(1).unwrap()[0].begin, 30);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
        // Another process goes on with it, and counts from what is there.
        let mut file = RollingFile::open(path, LIMITS, LogForm::Text);
        file.write(b"ab18\n", 1);
        let expected = [(10, "ab14\nab15\n"), (20, "ab16\nab17\n"), (30, "ab18\n")];
        assert_eq!(contents(&file.pieces()), expected.map(|(begin, text)| (begin, text.to_owned())));
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut file = RollingFile::open(path.clone(), Limits { bytes_max: 1000, ..LIMITS }, LogForm::Text);
        file.write(b"a\nb\n", 2);
        file.write(b"c\n", 1);
        fs::remove_file(&path).unwrap();
        file.write(b"d\n", 1);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("are missing here  lines=3 cause=\"No space left") && text.ends_with("\nd\n"), "{text}");
        file.write(b"e\n", 1);
        assert!(fs::read_to_string(&path).unwrap().ends_with("\nd\ne\n"));
    }
}
