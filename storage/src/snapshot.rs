//! The file that holds one subtask's state: sections by operator, state and key group, each found and checked by itself.
//!
//! ```text
//!  "MSST"   version u32   sections u32   index length u64   CRC-32 of all of the above and the index u32
//!  index:    per section  operator u128 · kind u8 · key group u16 · type fingerprint u64
//!                         · length u64 · CRC-32 u32 · name length u32 · name (UTF-8)
//!  sections: one after the other, in the order of the index, up to the end of the file
//! ```
//! Numbers are little-endian. A section's offset is the sum of the lengths before it, so that no two overlap. The index
//! is checked when the file is opened, a section when it is read: rescaling reads only the key groups it needs.

use millstream_model::{fault::Remedy, id::OperatorId, key_group::KeyGroup};

const MAGIC: [u8; 4] = *b"MSST";
const VERSION: u32 = 1;
/// Magic, version, number of sections, length of the index.
const PREFIX_BYTES: usize = 20;
const HEADER_BYTES: usize = PREFIX_BYTES + 4;
/// An index entry without its name.
const ENTRY_BYTES: usize = 43;

/// How the state in a section is spread when a job is rescaled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum SectionKind {
    /// Entries of one key group; they go where the group goes.
    Keyed,
    /// A part that goes to one subtask: the one that wrote it if the parallelism is unchanged, else any.
    Split,
    /// A part that goes to every subtask.
    Union,
}

/// A section to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Section {
    pub operator: OperatorId,
    pub kind: SectionKind,
    /// The name of the state within the operator.
    pub name: String,
    /// Of the types of the state; a reader that expects others must not interpret the bytes.
    pub type_fingerprint: u64,
    /// With [`SectionKind::Keyed`] and only then.
    pub key_group: Option<KeyGroup>,
    pub bytes: Vec<u8>,
}

/// What the index says of a section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SectionHeader {
    pub operator: OperatorId,
    pub kind: SectionKind,
    pub name: String,
    pub type_fingerprint: u64,
    pub key_group: Option<KeyGroup>,
    /// From the start of the file.
    pub offset: u64,
    pub bytes: u64,
    pub crc32: u32,
}

/// The writing end.
#[derive(Debug)]
pub struct SnapshotFile;

impl SnapshotFile {
    /// The bytes of a file with these sections.
    ///
    /// # Panics
    /// If a section has a key group and is not keyed, or the other way round.
    pub fn encode(sections: &[Section]) -> Vec<u8> {
        let index_bytes: usize = sections.iter().map(|section| ENTRY_BYTES + section.name.len()).sum();
        let section_bytes: usize = sections.iter().map(|section| section.bytes.len()).sum();
        let mut file = Vec::with_capacity(HEADER_BYTES + index_bytes + section_bytes);
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&u32::try_from(sections.len()).expect("fewer than 2³² sections").to_le_bytes());
        file.extend_from_slice(&(index_bytes as u64).to_le_bytes());
        file.extend_from_slice(&[0; 4]);
        for section in sections {
            let is_keyed = section.kind == SectionKind::Keyed;
            assert_eq!(is_keyed, section.key_group.is_some(), "keyed sections, and only they, have a key group");
            file.extend_from_slice(&section.operator.0.to_le_bytes());
            file.push(code_of(section.kind));
            file.extend_from_slice(&section.key_group.map_or(0, |group| group.0).to_le_bytes());
            file.extend_from_slice(&section.type_fingerprint.to_le_bytes());
            file.extend_from_slice(&(section.bytes.len() as u64).to_le_bytes());
            file.extend_from_slice(&crc32fast::hash(&section.bytes).to_le_bytes());
            file.extend_from_slice(&(section.name.len() as u32).to_le_bytes());
            file.extend_from_slice(section.name.as_bytes());
        }
        let crc32 = index_crc32(&file);
        file[PREFIX_BYTES..HEADER_BYTES].copy_from_slice(&crc32.to_le_bytes());
        sections.iter().for_each(|section| file.extend_from_slice(&section.bytes));
        file
    }
}

/// The reading end, over the bytes of a whole file.
#[derive(Debug)]
pub struct SnapshotReader<B> {
    file: B,
    index: Vec<SectionHeader>,
}

impl<B: AsRef<[u8]>> SnapshotReader<B> {
    /// Reads and checks the index. Any bytes may come in.
    pub fn open(file: B) -> Result<SnapshotReader<B>, SnapshotError> {
        let index = read_index(file.as_ref())?;
        Ok(SnapshotReader { file, index })
    }

    /// What is in the file, in the order in which it was written.
    pub fn index(&self) -> &[SectionHeader] {
        &self.index
    }

    /// The bytes of the section at this place in the index, after they have been checked.
    ///
    /// # Panics
    /// If the index has no such place.
    pub fn section(&self, place: usize) -> Result<&[u8], SnapshotError> {
        let header = &self.index[place];
        let range = header.offset as usize..(header.offset + header.bytes) as usize;
        // `open` has checked that the sections fill the file.
        let bytes = &self.file.as_ref()[range];
        let actual = crc32fast::hash(bytes);
        if actual != header.crc32 {
            let (operator, name, key_group) = (header.operator, header.name.clone(), header.key_group);
            return Err(SnapshotError::Section { operator, name, key_group, expected: header.crc32, actual });
        }
        Ok(bytes)
    }
}

fn read_index(file: &[u8]) -> Result<Vec<SectionHeader>, SnapshotError> {
    let mut header = Reader { bytes: file, at: 0 };
    let magic: [u8; 4] = header.take("the header")?;
    if magic != MAGIC {
        return Err(SnapshotError::NotASnapshot { magic });
    }
    let version = u32::from_le_bytes(header.take("the header")?);
    if version != VERSION {
        return Err(SnapshotError::Version { version });
    }
    let sections = u32::from_le_bytes(header.take("the header")?);
    let index_bytes = u64::from_le_bytes(header.take("the header")?);
    let expected = u32::from_le_bytes(header.take("the header")?);
    let index_end = usize::try_from(index_bytes)
        .ok()
        .and_then(|bytes| HEADER_BYTES.checked_add(bytes))
        .filter(|end| *end <= file.len())
        .ok_or(SnapshotError::Truncated { what: "the index", at: file.len() })?;
    let actual = index_crc32(&file[..index_end]);
    if expected != actual {
        return Err(SnapshotError::Index { what: format!("its checksum is {actual:08x}, {expected:08x} was written") });
    }
    // From here on the bytes are what some writer wrote; what follows guards against a writer with a bug.
    let mut entries = Reader { bytes: &file[..index_end], at: HEADER_BYTES };
    let mut offset = index_end as u64;
    let mut index = Vec::new();
    for _ in 0..sections {
        let section = read_entry(&mut entries, offset)?;
        offset = offset.checked_add(section.bytes).ok_or_else(|| length_error(file.len(), u64::MAX))?;
        index.push(section);
    }
    if entries.at != index_end {
        return Err(SnapshotError::Index { what: format!("{} bytes follow its last entry", index_end - entries.at) });
    }
    if offset != file.len() as u64 {
        return Err(length_error(file.len(), offset));
    }
    Ok(index)
}

fn read_entry(entries: &mut Reader<'_>, offset: u64) -> Result<SectionHeader, SnapshotError> {
    const WHAT: &str = "an entry of the index";
    let operator = OperatorId(u128::from_le_bytes(entries.take(WHAT)?));
    let [code] = entries.take(WHAT)?;
    let group = KeyGroup(u16::from_le_bytes(entries.take(WHAT)?));
    let type_fingerprint = u64::from_le_bytes(entries.take(WHAT)?);
    let bytes = u64::from_le_bytes(entries.take(WHAT)?);
    let crc32 = u32::from_le_bytes(entries.take(WHAT)?);
    let name_bytes = u32::from_le_bytes(entries.take(WHAT)?);
    let name = entries.slice(name_bytes as usize, WHAT)?;
    let name = std::str::from_utf8(name)
        .map_err(|_| SnapshotError::Index { what: format!("operator {operator} has a state whose name is no text") })?
        .to_owned();
    let kind = kind_of(code).ok_or_else(|| SnapshotError::Index {
        what: format!("state '{name}' of operator {operator} is of kind {code}"),
    })?;
    let key_group = (kind == SectionKind::Keyed).then_some(group);
    Ok(SectionHeader { operator, kind, name, type_fingerprint, key_group, offset, bytes, crc32 })
}

/// Over everything in front of the sections but itself.
fn index_crc32(header_and_index: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header_and_index[..PREFIX_BYTES]);
    hasher.update(&header_and_index[HEADER_BYTES..]);
    hasher.finalize()
}

fn code_of(kind: SectionKind) -> u8 {
    match kind {
        SectionKind::Keyed => 0,
        SectionKind::Split => 1,
        SectionKind::Union => 2,
    }
}

fn kind_of(code: u8) -> Option<SectionKind> {
    [SectionKind::Keyed, SectionKind::Split, SectionKind::Union].into_iter().find(|kind| code_of(*kind) == code)
}

fn length_error(actual: usize, expected: u64) -> SnapshotError {
    SnapshotError::Length { actual: actual as u64, expected }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], SnapshotError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(SnapshotError::Truncated { what, at: self.bytes.len() })?;
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }

    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], SnapshotError> {
        Ok(self.slice(N, what)?.try_into().expect("a slice of this length"))
    }
}

/// Why a state file is of no use. Whoever knows its path adds it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("this is not a state file: it begins with {magic:02x?}, not with {MAGIC:02x?}")]
    NotASnapshot { magic: [u8; 4] },
    #[error("the state file has format version {version}, this engine reads version {VERSION}")]
    Version { version: u32 },
    #[error("the state file is damaged: it ends at byte {at}, within {what}")]
    Truncated { what: &'static str, at: usize },
    #[error("the state file is damaged: it has {actual} bytes, its index tells of {expected}")]
    Length { actual: u64, expected: u64 },
    #[error("the index of the state file is damaged: {what}")]
    Index { what: String },
    #[error(
        "state '{name}' of operator {operator}{group} is damaged: its checksum is {actual:08x}, {expected:08x} was written",
        group = .key_group.map(|group| format!(", key group {},", group.0)).unwrap_or_default()
    )]
    Section { operator: OperatorId, name: String, key_group: Option<KeyGroup>, expected: u32, actual: u32 },
}

impl SnapshotError {
    /// No restart mends a file.
    pub fn remedy(&self) -> Remedy {
        Remedy::FailJob
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sections() -> impl Strategy<Value = Vec<Section>> {
        let section = (any::<u128>(), 0..3u8, "[a-zé]{0,8}", any::<u64>(), any::<u16>(), any::<Vec<u8>>()).prop_map(
            |(operator, code, name, type_fingerprint, group, bytes)| {
                let kind = kind_of(code).unwrap();
                let key_group = (kind == SectionKind::Keyed).then_some(KeyGroup(group));
                Section { operator: OperatorId(operator), kind, name, type_fingerprint, key_group, bytes }
            },
        );
        proptest::collection::vec(section, 0..6)
    }

    /// Opens a file and reads all of it.
    fn read(file: &[u8]) -> Result<Vec<Section>, SnapshotError> {
        let reader = SnapshotReader::open(file)?;
        let section = |(place, header): (usize, &SectionHeader)| {
            let SectionHeader { operator, kind, name, type_fingerprint, key_group, .. } = header.clone();
            let bytes = reader.section(place)?.to_vec();
            Ok(Section { operator, kind, name, type_fingerprint, key_group, bytes })
        };
        reader.index().iter().enumerate().map(section).collect()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(sections in sections()) {
            prop_assert_eq!(read(&SnapshotFile::encode(&sections)), Ok(sections));
        }

        #[test]
        fn no_flipped_bit_goes_unnoticed(sections in sections(), bit in any::<prop::sample::Index>()) {
            let mut file = SnapshotFile::encode(&sections);
            let bit = bit.index(file.len() * 8);
            file[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(read(&file).is_err());
        }

        #[test]
        fn no_missing_or_added_byte_goes_unnoticed(sections in sections(), length in any::<prop::sample::Index>()) {
            let mut file = SnapshotFile::encode(&sections);
            prop_assert!(read(&file[..length.index(file.len())]).is_err());
            file.push(0);
            prop_assert!(read(&file).is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(mut file in any::<Vec<u8>>(), index_bytes in any::<u64>(), sections in any::<u32>()) {
            let _ = read(&file);
            // The same behind a header that looks right, so that the index is reached.
            let mut whole = Vec::new();
            whole.extend_from_slice(&MAGIC);
            whole.extend_from_slice(&VERSION.to_le_bytes());
            whole.extend_from_slice(&sections.to_le_bytes());
            whole.extend_from_slice(&index_bytes.to_le_bytes());
            whole.extend_from_slice(&[0; 4]);
            whole.append(&mut file);
            let _ = read(&whole);
            let index_bytes = (whole.len() - HEADER_BYTES) as u64;
            whole[12..20].copy_from_slice(&index_bytes.to_le_bytes());
            let crc32 = index_crc32(&whole);
            whole[PREFIX_BYTES..HEADER_BYTES].copy_from_slice(&crc32.to_le_bytes());
            let _ = read(&whole);
        }
    }

    #[test]
    fn damage_in_one_section_leaves_the_others_readable_and_is_named() {
        let section = |group: u16| Section {
            operator: OperatorId(1),
            kind: SectionKind::Keyed,
            name: "count".to_owned(),
            type_fingerprint: 0,
            key_group: Some(KeyGroup(group)),
            bytes: vec![7; 4],
        };
        let mut file = SnapshotFile::encode(&[section(5), section(6)]);
        *file.last_mut().unwrap() ^= 1;
        let reader = SnapshotReader::open(&file).unwrap();
        assert_eq!(reader.section(0), Ok(&[7; 4][..]));
        let text = reader.section(1).unwrap_err().to_string();
        assert!(text.contains("'count'") && text.contains("key group 6"), "{text}");
    }

    #[test]
    fn a_later_version_is_named_and_not_called_damaged() {
        let mut file = SnapshotFile::encode(&[]);
        file[4] = 2;
        assert_eq!(read(&file), Err(SnapshotError::Version { version: 2 }));
    }
}
