//! What can be read from an executable file without running it.

use std::{
    env,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use millstream::artifact::{NOTE_OWNER, NOTE_TYPE};
use object::{
    Endianness,
    elf::{self, FileHeader64},
    read::{
        ReadCache, ReadRef,
        elf::{ElfFile64, FileHeader, ProgramHeader},
    },
};
use serde::{Deserialize, Serialize};

/// What the engine has written into the executable; see `millstream::artifact`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Note {
    pub engine_version: String,
    /// The target triple that the program was compiled for.
    pub target: String,
    /// `gnu`, `musl`, …
    pub libc: String,
    /// CPU features that the compiler took for granted.
    pub features: Vec<String>,
}

/// An executable that is an artifact for this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executable {
    pub note: Note,
    /// Where the system enters the program: an offset in a position-independent one, else an address.
    pub entry: u64,
    pub position_independent: bool,
    /// The oldest glibc it runs with; `None` if it needs none.
    pub glibc_min: Option<String>,
}

/// A file that is not an artifact for this machine.
#[derive(Debug, thiserror::Error)]
pub enum NoArtifact {
    #[error("cannot read {path}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} is a folder; name the executable in it, for example target/release/NAME")]
    Folder { path: PathBuf },
    #[error("{path} is no ELF executable{}", hint(*.kind))]
    NoExecutable { path: PathBuf, kind: Kind },
    #[error("{path} is a damaged ELF file: {cause}")]
    Damaged { path: PathBuf, cause: object::read::Error },
    #[error("{path} is built for {built_for}, this machine is {here}: its main() cannot run here to describe its job")]
    OtherMachine { path: PathBuf, built_for: String, here: &'static str },
    #[error(
        "{path} is an executable, but no Millstream artifact: the engine's note is not in it. A program gets it by \
         depending on the crate `millstream`, with #[millstream::main] on its main()"
    )]
    NoNote { path: PathBuf },
    #[error(
        "the note of {path} cannot be understood, this is millstream {}: {cause}",
        millstream::artifact::ENGINE_VERSION
    )]
    StrangeNote { path: PathBuf, cause: serde_json::Error },
    #[error("{path} was compiled for CPU features that this machine lacks: {}", .features.join(", "))]
    MissingFeatures { path: PathBuf, features: Vec<String> },
}

/// How much of a file says what kind of file it is, in bytes.
const BEGINNING: u64 = 64;

/// What a file that is no executable seems to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Empty,
    Script,
    Source,
    JavaArchive,
    ObjectFile,
    Other,
}

fn hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Empty => ": it is empty",
        Kind::Script => ", but a script",
        Kind::Source => ", but source text; build it with `cargo build --release` and name the result",
        Kind::JavaArchive => ", but an archive, perhaps of Java; Millstream runs programs written in Rust",
        Kind::ObjectFile => ", but an object file, a library or a memory dump",
        Kind::Other => "",
    }
}

fn kind_of(path: &Path, bytes: &[u8]) -> Kind {
    match bytes {
        [] => Kind::Empty,
        [b'#', b'!', b'/' | b' ', ..] => Kind::Script,
        [b'P', b'K', 3, 4, ..] => Kind::JavaArchive,
        _ if path.extension().is_some_and(|extension| extension == "rs") => Kind::Source,
        _ if bytes.starts_with(b"!<arch>\n") => Kind::ObjectFile,
        _ => Kind::Other,
    }
}

impl Executable {
    /// Looks into a file and makes sure that it can be run here. Reads no more of it than that takes.
    ///
    /// # Errors
    /// If it is not an artifact for this machine.
    pub fn read(path: &Path) -> Result<Executable, NoArtifact> {
        Executable::read_as(path, path.to_owned())
    }

    /// The same; `name` is what errors call the file.
    ///
    /// # Errors
    /// If it is not an artifact for this machine.
    pub fn read_as(path: &Path, name: PathBuf) -> Result<Executable, NoArtifact> {
        if path.is_dir() {
            return Err(NoArtifact::Folder { path: name });
        }
        match File::open(path) {
            Ok(file) => Executable::parse(name, &ReadCache::new(file)),
            Err(source) => Err(NoArtifact::Unreadable { path: name, source }),
        }
    }

    fn parse<'data>(path: PathBuf, data: impl ReadRef<'data>) -> Result<Executable, NoArtifact> {
        let beginning = data.len().unwrap_or_default().min(BEGINNING);
        let bytes = data.read_bytes_at(0, beginning).unwrap_or_default();
        if !bytes.starts_with(&elf::ELFMAG) {
            return Err(NoArtifact::NoExecutable { kind: kind_of(&path, bytes), path });
        }
        if bytes.get(4) != Some(&elf::ELFCLASS64) {
            return Err(NoArtifact::OtherMachine { path, built_for: "32 bits".to_owned(), here: env::consts::ARCH });
        }
        let damaged = |cause| NoArtifact::Damaged { path: path.clone(), cause };
        let header = FileHeader64::<Endianness>::parse(data).map_err(damaged)?;
        let endian = header.endian().map_err(damaged)?;
        if !matches!(header.e_type(endian), elf::ET_EXEC | elf::ET_DYN) {
            return Err(NoArtifact::NoExecutable { path, kind: Kind::ObjectFile });
        }
        let built_for = machine(header.e_machine(endian));
        if built_for != env::consts::ARCH {
            return Err(NoArtifact::OtherMachine { path, built_for, here: env::consts::ARCH });
        }
        let file = ElfFile64::<Endianness, _>::parse(data).map_err(damaged)?;
        let Some(description) = find_note(&file, data).map_err(damaged)? else {
            return Err(NoArtifact::NoNote { path });
        };
        let note: Note = match serde_json::from_slice(description) {
            Ok(note) => note,
            Err(cause) => return Err(NoArtifact::StrangeNote { path, cause }),
        };
        let lacks = |feature: &&String| millstream::artifact::cpu_has(feature) == Some(false);
        let features: Vec<String> = note.features.iter().filter(lacks).cloned().collect();
        if !features.is_empty() {
            return Err(NoArtifact::MissingFeatures { path, features });
        }
        Ok(Executable {
            note,
            entry: header.e_entry(endian),
            position_independent: header.e_type(endian) == elf::ET_DYN,
            glibc_min: glibc_min(&file, data).map_err(damaged)?,
        })
    }
}

/// The name that Rust has for a kind of CPU.
fn machine(number: u16) -> String {
    let name = match number {
        elf::EM_X86_64 => "x86_64",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_RISCV => "riscv64",
        elf::EM_S390 => "s390x",
        elf::EM_PPC64 => "powerpc64",
        elf::EM_LOONGARCH => "loongarch64",
        other => return format!("a machine of ELF's number {other}"),
    };
    name.to_owned()
}

/// The engine's note, from what is loaded: also there when the section headers are stripped.
fn find_note<'data, R: ReadRef<'data>>(
    file: &ElfFile64<'data, Endianness, R>,
    data: R,
) -> Result<Option<&'data [u8]>, object::read::Error> {
    let endian = file.endian();
    for segment in file.elf_program_headers() {
        let Some(mut notes) = segment.notes(endian, data)? else { continue };
        while let Some(note) = notes.next()? {
            if note.name() == NOTE_OWNER.as_bytes() && note.n_type(endian) == NOTE_TYPE {
                return Ok(Some(note.desc()));
            }
        }
    }
    Ok(None)
}

/// The highest version of glibc's symbols that the executable refers to.
fn glibc_min<'data, R: ReadRef<'data>>(
    file: &ElfFile64<'data, Endianness, R>,
    data: R,
) -> Result<Option<String>, object::read::Error> {
    let endian = file.endian();
    let sections = file.elf_section_table();
    let Some((mut needed, link)) = sections.gnu_verneed(endian, data)? else { return Ok(None) };
    let strings = sections.strings(endian, data, link)?;
    let mut newest = None;
    while let Some((_, mut versions)) = needed.next()? {
        while let Some(version) = versions.next()? {
            newest = newest.max(glibc_version(version.name(endian, strings)?));
        }
    }
    Ok(newest.map(|parts: Vec<u32>| parts.iter().map(u32::to_string).collect::<Vec<_>>().join(".")))
}

/// `GLIBC_2.34` as numbers, which compare as versions do.
fn glibc_version(symbol_version: &[u8]) -> Option<Vec<u32>> {
    let text = std::str::from_utf8(symbol_version).ok()?.strip_prefix("GLIBC_")?;
    text.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn own_bytes() -> Vec<u8> {
        fs::read("/proc/self/exe").expect("a process can read its own executable")
    }

    fn parse(bytes: &[u8]) -> Result<Executable, NoArtifact> {
        Executable::parse("job".into(), bytes)
    }

    #[test]
    fn what_the_engine_writes_into_a_program_is_read_from_its_file() {
        // This test is linked with the engine, so that it is an artifact itself.
        let read = parse(&own_bytes()).expect("this test has the engine's note");
        let written: Note = serde_json::from_str(millstream::artifact::own_note()).expect("the note is JSON");
        assert_eq!(read.note, written);
        assert_eq!(Executable::read("/proc/self/exe".as_ref()).expect("it is the same"), read);
        assert_eq!(read.note.target, millstream::artifact::target());
    }

    #[test]
    fn a_program_without_the_engine_is_refused() {
        let path = Path::new("/bin/true");
        assert!(matches!(Executable::read(path), Err(NoArtifact::NoNote { .. })), "{:?}", Executable::read(path));
    }

    #[test]
    fn an_executable_of_another_machine_is_refused() {
        let mut bytes = own_bytes();
        let other = if cfg!(target_arch = "aarch64") { elf::EM_X86_64 } else { elf::EM_AARCH64 };
        bytes[18..20].copy_from_slice(&other.to_ne_bytes());
        assert!(matches!(parse(&bytes), Err(NoArtifact::OtherMachine { .. })));
        bytes[4] = elf::ELFCLASS32;
        assert!(matches!(parse(&bytes), Err(NoArtifact::OtherMachine { .. })));
    }

    #[test]
    fn a_cut_off_executable_is_an_error() {
        let bytes = own_bytes();
        for length in (4..64).chain([bytes.len() / 2]) {
            assert!(parse(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn files_that_are_no_executables_are_told_apart() {
        let kind = |name: &str, bytes: &[u8]| match Executable::parse(name.into(), bytes) {
            Err(NoArtifact::NoExecutable { kind, .. }) => kind,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(kind("job", b""), Kind::Empty);
        assert_eq!(kind("job.sh", b"#!/bin/sh\n"), Kind::Script);
        assert_eq!(kind("main.rs", b"fn main() {}"), Kind::Source);
        assert_eq!(kind("job.jar", b"PK\x03\x04rest"), Kind::JavaArchive);
        assert_eq!(kind("job.txt", b"to be or not to be"), Kind::Other);
    }

    #[test]
    fn a_feature_that_this_machine_lacks_is_named() {
        let mut bytes = own_bytes();
        // The feature's name in the note gives way to one of the same length, which is not that of this machine.
        let lacking = ["avx512fp16", "avx512bf16", "sve2"]
            .into_iter()
            .find(|name| millstream::artifact::cpu_has(name) == Some(false));
        let (Some(lacking), Ok(note)) = (lacking, parse(&bytes)) else { return };
        let note = serde_json::to_string(&note.note.features).expect("texts can be written");
        let at = bytes.windows(note.len()).position(|window| window == note.as_bytes()).expect("the note is there");
        let changed = format!("{:1$}", format!("[\"{lacking}\"]"), note.len());
        if changed.len() == note.len() {
            bytes[at..at + note.len()].copy_from_slice(changed.as_bytes());
            assert!(
                matches!(parse(&bytes), Err(NoArtifact::MissingFeatures { features, .. }) if features == [lacking])
            );
        }
    }

    #[test]
    fn versions_of_glibc_compare_as_numbers() {
        assert!(glibc_version(b"GLIBC_2.4") < glibc_version(b"GLIBC_2.34"));
        assert!(glibc_version(b"GLIBC_2.2.5") < glibc_version(b"GLIBC_2.3"));
        assert_eq!(glibc_version(b"GLIBC_PRIVATE"), None);
        assert_eq!(glibc_version(b"GCC_3.0"), None);
    }
}
