//! Tuples of up to six records, seen as tuples of handles.

use rkyv::{Place, tuple};

use super::{
    Key, Record,
    archive::{ArchiveWriter, Full},
    fingerprint_of,
    key::mix,
};

macro_rules! tuple_record {
    ($archived:ident: $($type:ident $index:tt $place:ident),*) => {
        impl<$($type: Record),*> Record for ($($type,)*) {
            const HAS_HEAP: bool = $($type::HAS_HEAP)||*;
            type Ref<'a> = ($($type::Ref<'a>,)*);
            type Archived = tuple::$archived<$($type::Archived),*>;
            type Resolver = ($($type::Resolver,)*);
            #[inline]
            fn handle(&self) -> Self::Ref<'_> {
                ($(self.$index.handle(),)*)
            }
            #[inline]
            fn access(archived: &Self::Archived) -> Self::Ref<'_> {
                ($($type::access(&archived.$index),)*)
            }
            #[inline]
            fn shorten<'short, 'long: 'short>(record: Self::Ref<'long>) -> Self::Ref<'short> {
                ($($type::shorten(record.$index),)*)
            }
            #[inline]
            fn own(record: Self::Ref<'_>) -> Self {
                ($($type::own(record.$index),)*)
            }
            #[inline]
            fn serialize(record: Self::Ref<'_>, out: &mut ArchiveWriter<'_>) -> Result<Self::Resolver, Full> {
                Ok(($($type::serialize(record.$index, out)?,)*))
            }
            #[inline]
            fn resolve(record: Self::Ref<'_>, resolver: Self::Resolver, out: Place<Self::Archived>) {
                rkyv::munge::munge!(let tuple::$archived($($place),*) = out);
                $($type::resolve(record.$index, resolver.$index, $place);)*
            }
            #[inline]
            fn heap_bytes(&self) -> usize {
                0 $(+ self.$index.heap_bytes())*
            }
            fn fingerprint() -> u64 {
                fingerprint_of("tuple", &[$($type::fingerprint()),*])
            }
        }
        impl<$($type: Key),*> Key for ($($type,)*) {
            #[inline]
            fn hash(key: Self::Ref<'_>) -> u32 {
                let mut hash = 0;
                $(hash = mix(hash, $type::hash(key.$index));)*
                hash
            }
            #[inline]
            fn same(a: Self::Ref<'_>, b: Self::Ref<'_>) -> bool {
                $($type::same(a.$index, b.$index))&&*
            }
        }
    };
}
tuple_record!(ArchivedTuple1: A 0 a);
tuple_record!(ArchivedTuple2: A 0 a, B 1 b);
tuple_record!(ArchivedTuple3: A 0 a, B 1 b, C 2 c);
tuple_record!(ArchivedTuple4: A 0 a, B 1 b, C 2 c, D 3 d);
tuple_record!(ArchivedTuple5: A 0 a, B 1 b, C 2 c, D 3 d, E 4 e);
tuple_record!(ArchivedTuple6: A 0 a, B 1 b, C 2 c, D 3 d, E 4 e, F 5 f);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::archive::{Trust, read, write_alone};

    #[test]
    fn a_tuple_keeps_its_order() {
        let six = (1_u8, "two, out of line".to_owned(), Some(3_u64), vec!['4'], true, (6_i128,));
        type Six = (u8, String, Option<u64>, Vec<char>, bool, (i128,));
        let archive = write_alone::<Six>(six.handle());
        let seen = read::<Six>(archive.as_slice(), Trust::VALIDATE).expect("what was written can be read");
        assert_eq!(
            (seen.0, seen.1, seen.2, seen.3.get(0), seen.4, seen.5),
            (1, &*six.1, Some(3), Some('4'), true, (6,))
        );
        assert_eq!(Six::own(seen), six);
    }

    #[test]
    fn tuples_are_keys_by_all_their_elements() {
        type Pair = (String, u32);
        let archive = write_alone::<Pair>(("ann", 7));
        let archived = read::<Pair>(archive.as_slice(), Trust::VALIDATE).expect("what was written can be read");
        assert!(Pair::same(archived, ("ann", 7)));
        assert_eq!(Pair::hash(archived), Pair::hash(("ann", 7)));
        assert!(!Pair::same(archived, ("ann", 8)) && !Pair::same(archived, ("bob", 7)));
        assert_ne!(Pair::hash(("ann", 7)), Pair::hash(("ann", 8)));
    }
}
