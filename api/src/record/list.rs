//! `Vec<T>`, seen as a [`List`].

use std::{fmt, marker::PhantomData};

use rkyv::{
    Place,
    vec::{ArchivedVec, VecResolver},
};

use super::{
    Record,
    archive::{ArchiveWriter, Full},
    fingerprint_of,
    parts::{Lent, Parts},
};

/// A list inside a record: over owned elements, archived ones, or handles that a function has put together.
pub enum List<'a, T: Record> {
    Owned(&'a [T]),
    Archived(&'a [T::Archived]),
    /// See [`List::of`].
    Parts(Lent<'a, Handles<T>>),
}

/// Slices of handles of `T`.
pub struct Handles<T>(PhantomData<fn() -> T>);

impl<T: Record> Parts for Handles<T> {
    type At<'x> = [T::Ref<'x>];
}

impl<T: Record> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Record> Copy for List<'_, T> {}

impl<'a, T: Record> List<'a, T> {
    /// A list of handles that a function has put together.
    #[inline]
    pub fn of<'x: 'a>(handles: &'a [T::Ref<'x>]) -> Self {
        List::Parts(Lent::new(handles))
    }

    #[inline]
    pub fn len(self) -> usize {
        match self {
            List::Owned(list) => list.len(),
            List::Archived(list) => list.len(),
            List::Parts(list) => list.read(|list, _| list.len()),
        }
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The element at `index`, if there are so many.
    #[inline]
    pub fn get(self, index: usize) -> Option<T::Ref<'a>> {
        match self {
            List::Owned(list) => list.get(index).map(T::handle),
            List::Archived(list) => list.get(index).map(T::access),
            List::Parts(list) => list.read(|list, _| list.get(index).map(|element| T::shorten(*element))),
        }
    }

    #[inline]
    pub fn iter(self) -> ListIter<'a, T> {
        ListIter { list: self, next: 0 }
    }

    pub fn to_vec(self) -> Vec<T> {
        self.iter().map(T::own).collect()
    }
}

impl<'a> List<'a, u8> {
    /// The bytes in one piece.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            List::Owned(bytes) | List::Archived(bytes) => bytes,
            List::Parts(bytes) => bytes.read(|bytes, _| bytes),
        }
    }
}

impl<'a, T: Record> IntoIterator for List<'a, T> {
    type Item = T::Ref<'a>;
    type IntoIter = ListIter<'a, T>;
    fn into_iter(self) -> ListIter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Record> fmt::Debug for List<'a, T>
where
    T::Ref<'a>: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The elements of a [`List`], in order.
pub struct ListIter<'a, T: Record> {
    list: List<'a, T>,
    next: usize,
}

impl<'a, T: Record> Iterator for ListIter<'a, T> {
    type Item = T::Ref<'a>;
    #[inline]
    fn next(&mut self) -> Option<T::Ref<'a>> {
        let element = self.list.get(self.next)?;
        self.next += 1;
        Some(element)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.list.len() - self.next;
        (left, Some(left))
    }
}
impl<T: Record> ExactSizeIterator for ListIter<'_, T> {}

/// So many elements of a list are looked at for what they hold.
const SAMPLE: usize = 16;

impl<T: Record> Record for Vec<T> {
    const HAS_HEAP: bool = true;
    type Ref<'a> = List<'a, T>;
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;
    #[inline]
    fn handle(&self) -> List<'_, T> {
        List::Owned(self)
    }
    #[inline]
    fn access(archived: &Self::Archived) -> List<'_, T> {
        List::Archived(archived.as_slice())
    }
    #[inline]
    fn shorten<'short, 'long: 'short>(record: List<'long, T>) -> List<'short, T> {
        record
    }
    fn own(record: List<'_, T>) -> Self {
        record.to_vec()
    }
    fn serialize(record: List<'_, T>, out: &mut ArchiveWriter<'_>) -> Result<VecResolver, Full> {
        // Elements without parts out of line have resolvers of no size, and a Vec of those allocates nothing.
        let resolvers = record.iter().map(|element| T::serialize(element, out)).collect::<Result<Vec<_>, Full>>()?;
        let start = out.reserve::<T::Archived>(record.len())?;
        for (index, (element, resolver)) in record.iter().zip(resolvers).enumerate() {
            T::resolve(element, resolver, out.place(start, index));
        }
        Ok(VecResolver::from_pos(start))
    }
    #[inline]
    fn resolve(record: List<'_, T>, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(record.len(), resolver, out);
    }
    fn heap_bytes(&self) -> usize {
        let own = self.capacity() * size_of::<T>();
        if !T::HAS_HEAP || self.is_empty() {
            return own;
        }
        let step = self.len().div_ceil(SAMPLE);
        let looked_at = self.iter().step_by(step);
        let count = looked_at.len();
        own + looked_at.map(T::heap_bytes).sum::<usize>() * self.len() / count
    }
    fn fingerprint() -> u64 {
        fingerprint_of("Vec", &[T::fingerprint()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::archive::{Trust, read, write_alone};

    #[test]
    fn a_list_is_the_same_in_three_forms() {
        let owned = vec!["one".to_owned(), String::new(), "three, out of line".to_owned()];
        let texts: Vec<&str> = owned.iter().map(String::as_str).collect();
        let archives = [List::Owned(&owned), List::of(&texts)].map(write_alone::<Vec<String>>);
        let archived = archives.each_ref().map(|archive| {
            read::<Vec<String>>(archive.as_slice(), Trust::VALIDATE).expect("what was written can be read")
        });
        for list in [List::Owned(&owned), List::of(&texts), archived[0], archived[1]] {
            assert_eq!((list.len(), list.get(1), list.get(3)), (3, Some(""), None));
            assert_eq!(list.iter().len(), 3);
            assert_eq!(list.iter().collect::<Vec<_>>(), texts);
            assert_eq!(list.to_vec(), owned);
        }
        assert!(List::<String>::of(&[]).is_empty());
    }

    #[test]
    fn a_list_holds_its_elements_and_what_they_hold_about() {
        assert_eq!((Vec::<String>::new().heap_bytes(), Vec::<u64>::with_capacity(10).heap_bytes()), (0, 80));
        let short = vec![String::with_capacity(7), String::new(), String::with_capacity(20)];
        assert_eq!(short.heap_bytes(), 3 * size_of::<String>() + 27);
        // Every seventh is ten times as long: what is looked at is an estimate.
        let count = if cfg!(miri) { 500 } else { 10_000 };
        let long: Vec<String> = (0..count).map(|i| "x".repeat(if i % 7 == 0 { 1000 } else { 100 })).collect();
        let exact = long.iter().map(String::capacity).sum::<usize>() + long.capacity() * size_of::<String>();
        let about = long.heap_bytes();
        assert!(about > exact / 2 && about < exact * 2, "{about} for {exact}");
    }

    #[test]
    fn bytes_are_seen_in_one_piece() {
        let bytes = vec![1_u8, 2, 255];
        let archive = write_alone::<Vec<u8>>(bytes.handle());
        let archived = read::<Vec<u8>>(archive.as_slice(), Trust::VALIDATE).expect("what was written can be read");
        for list in [bytes.handle(), List::of(&bytes), archived] {
            assert_eq!(list.as_bytes(), [1, 2, 255]);
        }
    }

    #[test]
    fn handles_may_outlive_the_list_that_is_made_of_them() {
        let longer = "longer".to_owned();
        let first = {
            let handles = [longer.as_str(), "literal"];
            fn shortest<'a>(a: List<'a, String>, _: &'a String) -> usize {
                a.len()
            }
            let shorter = String::new();
            assert_eq!(shortest(List::of(&handles), &shorter), 2);
            handles[0]
        };
        assert_eq!(first, "longer");
    }
}
