//! The currency: how functions see records, and how records lie in memory between tasks.
//!
//! ```text
//!  Click (owned) ──handle()──► ClickRef<'a> ◄──access()── archived bytes in a segment
//!                                  │
//!                                  ├─ functions read fields: c.user(), c.ms()
//!                                  ├─ serialize + resolve ──► archived bytes (rkyv's layout)
//!                                  └─ own() ──► Click
//! ```
//! A function never learns whether a record is owned, archived or just put together, so that chaining, parallelism
//! and exchanges do not change a program.
//!
//! | Look here for | module |
//! |---|---|
//! | writing an archive into a segment, reading it in place | [`archive`] |
//! | numbers, strings, lists, options, tuples as records | `scalar`, `text`, `list`, `option`, `tuple` |
//! | handles over values that a function has just put together | [`parts`] |
//! | keys: hash and equality on the logical value | [`key`] |

pub mod archive;
pub mod key;
mod list;
mod option;
pub mod parts;
mod scalar;
mod text;
mod tuple;

pub use key::Key;
pub use list::{List, ListIter};
pub use option::ArchivedOpt;
use rkyv::{Place, Portable, api::low::LowValidator, bytecheck::CheckBytes};
pub use scalar::ArchivedWide;

use self::archive::{ArchiveWriter, Full};

/// What [`Record::Archived`] must be able to do: lie in bytes of any origin, and be checked there.
pub trait Archived: Portable + for<'a> CheckBytes<LowValidator<'a, rkyv::rancor::Error>> + 'static {}
impl<A> Archived for A where A: Portable + for<'a> CheckBytes<LowValidator<'a, rkyv::rancor::Error>> + 'static {}

/// A type that streams carry. Derive it: `#[derive(Record)]`.
///
/// `Ref<'a>` is how functions see a record: a small copyable handle over an owned value, over archived bytes, or over
/// parts. A number is its own handle, a `String`'s is `&str`, an `Option`'s is an `Option` of the handle.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a record",
    label = "streams, state and fields of records carry records only",
    note = "records are numbers (but not `usize`), `bool`, `char`, `String`, `[u8; N]`, and `Option`, `Vec` and tuples of \
            records; your own types become records with `#[derive(Record)]`"
)]
pub trait Record: Sized + Send + 'static {
    /// Whether an owned record can hold memory elsewhere, on the heap: if not, [`Record::heap_bytes`] is 0.
    const HAS_HEAP: bool = false;

    /// How functions see a record.
    type Ref<'a>: Copy;
    /// How it lies in a segment: rkyv's layout, aligned to at most 8 bytes.
    type Archived: Archived;
    /// What writing the parts out of line has left to remember for writing the record itself.
    type Resolver;

    /// The handle of an owned record.
    fn handle(&self) -> Self::Ref<'_>;

    /// The handle of an archived record; reads nothing yet.
    fn access(archived: &Self::Archived) -> Self::Ref<'_>;

    /// The same handle for a shorter time. The compiler does this by itself for most known types (a `&'long str` will do
    /// for a `&'short str`), but not for `T::Ref<'long>` of an unknown `T`, nor for an enum's handle that holds a record.
    fn shorten<'short, 'long: 'short>(record: Self::Ref<'long>) -> Self::Ref<'short>;

    /// An owned copy of what the handle shows.
    fn own(record: Self::Ref<'_>) -> Self;

    /// Writes the parts that lie out of line: texts, lists.
    ///
    /// # Errors
    /// [`Full`] if the segment has no room for them; the caller starts over in another one.
    fn serialize(record: Self::Ref<'_>, out: &mut ArchiveWriter<'_>) -> Result<Self::Resolver, Full>;

    /// Writes the record itself, in the place that the caller has reserved.
    fn resolve(record: Self::Ref<'_>, resolver: Self::Resolver, out: Place<Self::Archived>);

    /// How many bytes of the heap an owned record holds: what keyed state is charged for besides its own size. Of a long
    /// list of records that hold some themselves, a few are looked at; what they hold is taken for that of all.
    #[inline]
    fn heap_bytes(&self) -> usize {
        0
    }

    /// A hash of the type's structure, kept beside stored state so that a changed type is noticed.
    fn fingerprint() -> u64;
}

/// Combines fingerprints of parts; for the derive macro and for types with parameters.
pub const fn fingerprint_of(name: &str, parts: &[u64]) -> u64 {
    // FNV-1a: the values are stored in checkpoints, so the function must never change.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x100_0000_01b3);
        at += 1;
    }
    at = 0;
    while at < parts.len() {
        let mut part = parts[at];
        let mut byte = 0;
        while byte < 8 {
            hash = (hash ^ (part & 0xff)).wrapping_mul(0x100_0000_01b3);
            part >>= 8;
            byte += 1;
        }
        at += 1;
    }
    hash
}
