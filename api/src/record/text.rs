//! `String`, seen as `&str`.

use rkyv::{
    Place,
    string::{ArchivedString, StringResolver},
};

use super::{
    Record,
    archive::{ArchiveWriter, Full},
    fingerprint_of,
};

impl Record for String {
    const HAS_HEAP: bool = true;
    type Ref<'a> = &'a str;
    type Archived = ArchivedString;
    type Resolver = StringResolver;
    #[inline]
    fn handle(&self) -> &str {
        self
    }
    #[inline]
    fn access(archived: &ArchivedString) -> &str {
        archived.as_str()
    }
    #[inline]
    fn shorten<'short, 'long: 'short>(record: &'long str) -> &'short str {
        record
    }
    #[inline]
    fn own(record: &str) -> String {
        record.to_owned()
    }
    #[inline]
    fn serialize(record: &str, out: &mut ArchiveWriter<'_>) -> Result<StringResolver, Full> {
        ArchivedString::serialize_from_str(record, out)
    }
    #[inline]
    fn resolve(record: &str, resolver: StringResolver, out: Place<ArchivedString>) {
        ArchivedString::resolve_from_str(record, resolver, out);
    }
    #[inline]
    fn heap_bytes(&self) -> usize {
        self.capacity()
    }
    fn fingerprint() -> u64 {
        const { fingerprint_of("String", &[]) }
    }
}
