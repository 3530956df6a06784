//! What an artifact (the user's executable) says about itself: its hash, its target, and the jobs its `main` describes.
//!
//! ```text
//!  without running it   the note: an ELF note section, found by its name and type, with one JSON object
//!  MILLSTREAM_ROLE=plan main() runs up to its first execute(), which prints the job graph and ends the process
//! ```

use std::{
    io,
    io::Write as _,
    path::Path,
    process::{self, ExitCode, Termination},
    sync::Arc,
};

use millstream_api::job::{self, JobError, PipelineExecutor, RunningJob};
use millstream_model::{
    config::Configuration,
    fault::Failure,
    job_graph::{Artifact, JobGraph},
};

use crate::{hashed_file::HashedFile, settings};

/// The version of the engine that this program is linked with.
pub const ENGINE_VERSION: &str = env!("CARGO_PKG_VERSION");
/// Who wrote the note, as ELF notes say it.
pub const NOTE_OWNER: &str = "Millstream";
/// The note's type: what follows is one JSON object with `engine_version`, `target`, `libc` and `features`.
pub const NOTE_TYPE: u32 = 1;

/// Each of the words, if this program was compiled for it. The words are fixed, so that this needs no build script.
macro_rules! compiled_for {
    ($($key:ident: $($word:literal)*;)*) => {
        $(const fn $key() -> &'static str {
            $(if cfg!($key = $word) {
                return $word;
            })*
            "unknown"
        })*
    };
}
compiled_for! {
    target_arch: "x86_64" "aarch64" "riscv64" "s390x" "powerpc64" "loongarch64" "x86" "arm";
    target_vendor: "unknown" "pc" "apple";
    target_os: "linux" "android" "freebsd" "macos";
    target_env: "gnu" "musl" "uclibc";
}

/// CPU features: in what a program was compiled for, and in what the CPU at hand can do.
macro_rules! cpu_features {
    ($($arch:literal $detected:ident ($($feature:tt)*))*) => {
        const fn push_features(text: Text) -> Text {
            let none = text.length;
            let mut text = text;
            $($(if cfg!(all(target_arch = $arch, target_feature = $feature)) {
                text = text.push(if text.length == none { "\"" } else { ",\"" }).push($feature).push("\"");
            })*)*
            text
        }

        /// The CPU features that this program was compiled for and this CPU lacks: running it would end in an illegal
        /// instruction, sooner or later.
        pub fn missing_features() -> Vec<&'static str> {
            let mut missing = Vec::new();
            $($(if cfg!(all(target_arch = $arch, target_feature = $feature)) && cpu_has($feature) == Some(false) {
                missing.push($feature);
            })*)*
            missing
        }

        /// Whether this CPU has a feature, by the name that compilers use; `None` if the name is not known here.
        pub fn cpu_has(feature: &str) -> Option<bool> {
            $(#[cfg(target_arch = $arch)]
            {
                $(if feature == $feature {
                    return Some(std::arch::$detected!($feature));
                })*
            })*
            None
        }
    };
}
cpu_features! {
    "x86_64" is_x86_feature_detected (
        "sse" "sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "lzcnt" "movbe" "cmpxchg16b" "fxsr" "xsave" "xsavec" "xsaveopt" "xsaves" "sse4a" "aes"
        "pclmulqdq" "rdrand" "rdseed" "sha" "bmi1" "bmi2" "adx" "f16c" "fma" "avx" "avx2" "gfni" "vaes" "vpclmulqdq"
        "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512ifma" "avx512vbmi" "avx512vbmi2" "avx512vnni"
        "avx512bitalg" "avx512vpopcntdq" "avx512bf16" "avx512fp16"
    )
    "aarch64" is_aarch64_feature_detected (
        "neon" "lse" "crc" "aes" "sha2" "sha3" "fp16" "dotprod" "rdm" "rcpc" "sve" "sve2" "bf16" "i8mm" "flagm" "ssbs"
    )
}

/// Text that is put together while the program is compiled.
#[derive(Clone, Copy)]
struct Text {
    bytes: [u8; Text::ROOM],
    length: usize,
}

impl Text {
    const ROOM: usize = 2048;

    const fn push(mut self, part: &str) -> Text {
        let part = part.as_bytes();
        let mut at = 0;
        while at < part.len() {
            self.bytes[self.length] = part[at];
            (self.length, at) = (self.length + 1, at + 1);
        }
        self
    }

    /// The first `N` bytes; those after the text are spaces, which JSON ignores.
    const fn padded<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [b' '; N];
        let mut at = 0;
        while at < self.length {
            bytes[at] = self.bytes[at];
            at += 1;
        }
        bytes
    }
}

const TARGET: Text = Text { bytes: [b' '; Text::ROOM], length: 0 }
    .push(target_arch())
    .push("-")
    .push(target_vendor())
    .push("-")
    .push(target_os())
    .push("-")
    .push(target_env());

const DESCRIPTION: Text = {
    let target: [u8; TARGET.length] = TARGET.padded();
    let Ok(target) = std::str::from_utf8(&target) else { panic!("words of ASCII") };
    let text = Text { bytes: [b' '; Text::ROOM], length: 0 }
        .push("{\"engine_version\":\"")
        .push(ENGINE_VERSION)
        .push("\",\"target\":\"")
        .push(target)
        .push("\",\"libc\":\"")
        .push(target_env())
        .push("\",\"features\":[");
    push_features(text).push("]}")
};

/// An ELF note, as linkers and loaders know it.
#[repr(C, align(4))]
struct Note<const OWNER: usize, const DESCRIPTION: usize> {
    owner_bytes: u32,
    description_bytes: u32,
    kind: u32,
    owner: [u8; OWNER],
    description: [u8; DESCRIPTION],
}

const OWNER_BYTES: usize = NOTE_OWNER.len() + 1;
const DESCRIPTION_BYTES: usize = DESCRIPTION.length.next_multiple_of(4);

// Linkers keep note sections though nothing refers to them, `strip` keeps what is loaded, and `used` keeps the compiler
// from dropping it.
#[used]
// SAFETY: a section of its own, whose name makes it a note; the value has a note's layout: sizes, type, owner padded
// to 4 bytes, description.
#[unsafe(link_section = ".note.millstream")]
static NOTE: Note<{ OWNER_BYTES.next_multiple_of(4) }, DESCRIPTION_BYTES> = Note {
    owner_bytes: OWNER_BYTES as u32,
    description_bytes: DESCRIPTION_BYTES as u32,
    kind: NOTE_TYPE,
    owner: {
        let mut owner = [0; OWNER_BYTES.next_multiple_of(4)];
        let mut at = 0;
        while at < NOTE_OWNER.len() {
            owner[at] = NOTE_OWNER.as_bytes()[at];
            at += 1;
        }
        owner
    },
    description: DESCRIPTION.padded(),
};

/// What the note of the running executable says, as JSON.
pub fn own_note() -> &'static str {
    std::str::from_utf8(&NOTE.description).expect("written above as text").trim_end()
}

/// The target that the running executable was compiled for, as the compiler's `cfg` values spell it.
pub fn target() -> &'static str {
    std::str::from_utf8(&TARGET_BYTES).expect("written above as text")
}

static TARGET_BYTES: [u8; TARGET.length] = TARGET.padded();

/// The SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
/// If it cannot be read.
pub fn hash_of(path: &Path) -> io::Result<String> {
    HashedFile::read(path).map(|file| file.sha256().to_owned())
}

/// Where a process finds its own executable, whatever has become of its name.
pub(crate) const THIS_EXECUTABLE: &str = "/proc/self/exe";

/// What identifies the running executable.
///
/// # Errors
/// If its file cannot be read.
pub fn own() -> io::Result<Artifact> {
    own_file(None).map(|file| describe(&file))
}

/// The running executable's file. It is read only if it is not the one that is known.
pub(crate) fn own_file(known: Option<HashedFile>) -> io::Result<HashedFile> {
    let path = Path::new(THIS_EXECUTABLE);
    known.filter(|known| known.is(path)).map_or_else(|| HashedFile::read(path), Ok)
}

/// What identifies the running executable, of which this is the file.
pub(crate) fn describe(file: &HashedFile) -> Artifact {
    let (target, engine_version) = (target().to_owned(), ENGINE_VERSION.to_owned());
    Artifact { sha256: file.sha256().to_owned(), target, engine_version }
}

/// Prints the first job graph that a program submits, instead of running it, and ends the process.
struct Planner {
    configuration: Configuration,
}

impl PipelineExecutor for Planner {
    fn configuration(&self) -> Configuration {
        self.configuration.clone()
    }

    fn submit(&self, graph: JobGraph) -> Result<Arc<dyn RunningJob>, JobError> {
        // Not returned as an error: what `main` would make of it says nothing, and it may well be a panic.
        match print(graph) {
            Ok(()) => process::exit(0),
            Err(failure) => {
                eprintln!("{failure}");
                process::exit(1)
            }
        }
    }
}

/// Writes a job graph to standard output, as one line of JSON.
fn print(mut graph: JobGraph) -> Result<(), Failure> {
    let own = own().map_err(|cause| Failure::fatal(format!("this executable cannot be read: {cause}")))?;
    graph.artifact = Some(own);
    let line = serde_json::to_string(&graph)
        .map_err(|cause| Failure::fatal(format!("the job graph cannot be written: {cause}")))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|cause| Failure::fatal(format!("the job graph cannot be written to standard output: {cause}")))
}

/// Runs `main` up to its first `execute`, which writes the job graph to standard output, as one line of JSON, and ends
/// the process.
pub(crate) fn plan<R: Termination>(main: impl FnOnce() -> R) -> ExitCode {
    let configuration = match settings::load() {
        Ok(configuration) => configuration,
        Err(cause) => {
            eprintln!("{cause}");
            return ExitCode::from(2);
        }
    };
    job::set_default_executor(Arc::new(Planner { configuration }));
    let status = main().report();
    if status == ExitCode::SUCCESS {
        eprintln!("main() has executed no job");
        return ExitCode::FAILURE;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_is_json_about_this_program() {
        let note: serde_json::Value = serde_json::from_str(own_note()).expect("the note is JSON");
        assert_eq!(note["engine_version"], ENGINE_VERSION);
        assert_eq!(note["target"], target());
        assert!(target().starts_with(std::env::consts::ARCH), "{}", target());
        assert!(!target().contains("unknown-unknown") && !target().ends_with("unknown"), "{}", target());
        if cfg!(target_arch = "x86_64") {
            assert!(note["features"].as_array().is_some_and(|all| all.iter().any(|one| one == "sse2")), "{note}");
        }
    }

    #[test]
    fn a_program_that_runs_lacks_no_feature() {
        assert_eq!(missing_features(), [""; 0]);
    }
}
