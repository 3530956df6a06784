//! Records that nobody thought of.

use millstream_api::record::{Key, List, Record};
use proptest::{collection::vec, option, prelude::*};

use crate::{
    read,
    types::{Account, Click, ClickParts, Color, Kind, KindRef, Owner, Point, Tag, TagRef},
    written,
};

fn tag() -> impl Strategy<Value = Tag> + Clone {
    (".{0,20}", -1e9..1e9).prop_map(|(name, weight)| Tag { name, weight })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::View),
        (any::<u64>(), ".{0,20}").prop_map(|(cents, coupon)| Kind::Buy { cents, coupon }),
        (".{0,20}", any::<bool>()).prop_map(|(text, exact)| Kind::Search(text, exact)),
        tag().prop_map(Kind::Tagged),
    ]
}

fn click() -> impl Strategy<Value = Click> {
    let point = (any::<i32>(), any::<i32>()).prop_map(|(x, y)| Point { x, y });
    let spans = vec((any::<u32>(), ".{0,20}"), 0..4);
    (".{0,20}", any::<u64>(), option::of(".{0,20}"), vec(tag(), 0..4), kind(), point, spans, option::of(tag()))
        .prop_map(|(user, ms, referrer, tags, kind, place, spans, last)| Click {
            user,
            ms,
            referrer,
            tags,
            kind,
            place,
            spans,
            last,
        })
}

fn owner() -> impl Strategy<Value = Owner> {
    let color = prop_oneof![Just(Color::Red), Just(Color::Green), Just(Color::Blue)];
    prop_oneof![
        Just(Owner::Nobody),
        (".{0,3}", 0..3_u16).prop_map(|(name, number)| Owner::Account(Account(name, number))),
        (any::<u8>(), option::of(0..3_u64), vec(".{0,3}", 0..3), color)
            .prop_map(|(rack, slot, names, color)| Owner::Machine { rack, slot, names, color }),
    ]
}

/// Miri takes a second for a case, and lets nobody look for the file of failures.
fn effort() -> ProptestConfig {
    if cfg!(miri) {
        ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() }
    } else {
        ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(effort())]

    #[test]
    fn a_record_read_is_the_record_written(click in click()) {
        let from_owned = written::<Click>(click.handle());
        let seen = read::<Click>(&from_owned);
        prop_assert_eq!(&seen.to_owned(), &click);

        // Parts that mix all forms.
        let tags: Vec<TagRef<'_>> = seen.tags().iter().collect();
        let parts = ClickParts {
            user: seen.user(),
            ms: click.ms,
            referrer: click.referrer.as_deref(),
            tags: List::of(&tags),
            kind: KindRef::from(&click.kind),
            place: seen.place(),
            spans: List::Owned(&click.spans),
            last: seen.last(),
        };
        let from_parts = written::<Click>((&parts).into());
        prop_assert_eq!(&read::<Click>(&from_parts).to_owned(), &click);
        prop_assert_eq!(from_parts.as_slice().len(), from_owned.as_slice().len());
    }

    #[test]
    fn keys_are_the_same_exactly_if_they_are_equal(a in owner(), b in owner()) {
        let archive = written::<Owner>(b.handle());
        prop_assert_eq!(Owner::same(a.handle(), read::<Owner>(&archive)), a == b);
        if a == b {
            prop_assert_eq!(Owner::hash(a.handle()), Owner::hash(read::<Owner>(&archive)));
        }
    }
}
