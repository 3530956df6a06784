//! A record is the same whether it is owned, archived or just put together.

use millstream_api::record::{List, Record, archive};

use crate::{
    read,
    types::{
        Account, AccountParts, AccountRef, Click, ClickParts, ClickRef, Color, ColorRef, Everything, Kind, KindRef,
        Nothing, NothingParts, Only, OnlyRef, PointParts, Tag, TagParts, TagRef, Wide, WideRef, click, everything,
        private::Sealed,
    },
    written,
};

/// Writes and reads it; then does the same with what was read.
fn survives<T: Record + PartialEq + std::fmt::Debug>(record: T) {
    let first = written::<T>(record.handle());
    assert_eq!(T::own(read::<T>(&first)), record);
    let second = written::<T>(read::<T>(&first));
    assert_eq!(T::own(read::<T>(&second)), record);
    assert_eq!(T::own(record.handle()), record);
}

#[test]
fn every_shape_survives_an_archive_and_an_archive_of_it() {
    survives(click());
    survives(Click { referrer: None, tags: vec![], kind: Kind::View, spans: vec![], last: None, ..click() });
    survives(Click { kind: Kind::Search("a text that lies out of line".into(), true), ..click() });
    survives(Click { kind: Kind::Tagged(Tag { name: "t".into(), weight: 0.0 }), ..click() });
    survives(everything());
    survives(Account("an account with a rather long name".into(), 9));
    survives(Nothing);
    survives(Color::Red);
    survives(Color::Green);
    survives(Color::Blue);
    survives(Only::Match { r#type: Tag { name: "n".into(), weight: 2.0 }, tag: 200, out: "o".into() });
    survives(Wide::counted());
    survives(vec![Nothing, Nothing]);
    survives(vec![Some(Color::Green), None]);
    survives((click(), Some(everything())));
}

fn is_click(seen: ClickRef<'_>, click: &Click) {
    assert_eq!(seen.user(), click.user);
    assert_eq!(seen.ms(), click.ms);
    assert_eq!(seen.referrer(), click.referrer.as_deref());
    assert_eq!(seen.tags().len(), click.tags.len());
    for (seen, tag) in seen.tags().iter().zip(&click.tags) {
        assert_eq!((seen.name(), seen.weight()), (&*tag.name, tag.weight));
    }
    match (seen.kind(), &click.kind) {
        (KindRef::View, Kind::View) => {}
        (KindRef::Buy { cents, coupon }, Kind::Buy { cents: c, coupon: o }) => {
            assert_eq!((cents, coupon), (*c, &**o))
        }
        (KindRef::Search(text, exact), Kind::Search(t, e)) => assert_eq!((text, exact), (&**t, *e)),
        (KindRef::Tagged(seen), Kind::Tagged(tag)) => assert_eq!(seen.to_owned(), *tag),
        (seen, kind) => panic!("{seen:?} is not {kind:?}"),
    }
    assert_eq!((seen.place().x(), seen.place().y()), (click.place.x, click.place.y));
    let spans: Vec<(u32, &str)> = seen.spans().iter().collect();
    assert_eq!(spans, click.spans.iter().map(|(at, text)| (*at, &**text)).collect::<Vec<_>>());
    assert_eq!(seen.last().map(TagRef::to_owned), click.last);
    assert_eq!(seen.to_owned(), *click);
}

#[test]
fn all_fields_read_the_same_in_three_forms_and_in_the_archive_of_each() {
    let click = click();
    let tags = [TagRef::from(&click.tags[0]), TagRef::Owned(&click.tags[1])];
    let spans: Vec<(u32, &str)> = click.spans.iter().map(|(at, text)| (*at, &**text)).collect();
    let place = PointParts { x: -3, y: 4 };
    let last = TagParts { name: "the last of all the tags", weight: 1e300 };
    let parts = ClickParts {
        user: "ann",
        ms: 1 << 40,
        referrer: click.referrer.as_deref(),
        tags: List::of(&tags),
        kind: KindRef::Buy { cents: 499, coupon: "SPRING IS IN THE AIR" },
        place: (&place).into(),
        spans: List::of(&spans),
        last: Some((&last).into()),
    };
    is_click(click.handle(), &click);
    is_click((&parts).into(), &click);
    let of_owned = written::<Click>(click.handle());
    let of_parts = written::<Click>((&parts).into());
    let of_archived = written::<Click>(read::<Click>(&of_owned));
    for archive in [of_owned, of_parts, of_archived] {
        is_click(read::<Click>(&archive), &click);
    }
}

#[test]
fn everything_is_read_by_its_name() {
    let everything = everything();
    let archive = written::<Everything>(everything.handle());
    for seen in [everything.handle(), read::<Everything>(&archive)] {
        assert_eq!((seen.r#type(), seen.record(), seen.out(), seen.resolver()), (1, 2, 3, u128::MAX - 4));
        assert_eq!((seen.archived(), seen.fmt(), seen.clone(), seen.f()), (-5, -6, -7, -8));
        assert_eq!((seen.from(), seen.own(), seen.handle(), seen.hash()), (i128::MIN + 9, 10.5, f64::INFINITY, true));
        assert_eq!((seen.tag(), seen.bytes(), seen.blob().as_bytes()), ('ß', b"hello", &[0, 255, 7][..]));
        assert_eq!(seen.nested().get(2).flatten().unwrap().get(0), Some(("in the innermost of the lists", &[1, 2, 3])));
        let ((), (single,)) = (seen.unit(), seen.single());
        assert_eq!((single, seen.nothing().to_owned(), seen.qualified()), ("single", Nothing, "qualified"));
        assert!(matches!(seen.color(), ColorRef::Blue));
    }
}

#[test]
fn tuple_structs_are_read_by_position() {
    let account = Account("ann".into(), 9);
    let parts = AccountParts("ann", 9);
    let archive = written::<Account>((&parts).into());
    for seen in [account.handle(), AccountRef::from(&parts), read::<Account>(&archive)] {
        assert_eq!((seen._0(), seen._1()), ("ann", 9));
    }
    assert_eq!(Nothing::own((&NothingParts).into()), Nothing);
}

#[test]
fn an_enum_is_matched_on() {
    let only = Only::Match { r#type: Tag { name: "n".into(), weight: 2.0 }, tag: 200, out: "o".into() };
    let OnlyRef::Match { r#type, tag, out } = (&only).into();
    assert_eq!((r#type.name(), tag, out), ("n", 200, "o"));
    // The handle of an enum is what it is put together as.
    let archive = written::<Kind>(KindRef::Search("query", false));
    assert_eq!(read::<Kind>(&archive).to_owned(), Kind::Search("query".into(), false));
}

#[test]
fn a_handle_shows_the_record_and_not_its_form() {
    let click = Click { referrer: None, spans: vec![], last: None, ..click() };
    let shown = "Click { user: \"ann\", ms: 1099511627776, referrer: None, tags: [Tag { name: \"new\", weight: 0.5 }, \
                 Tag { name: \"\", weight: -1.0 }], kind: Buy { cents: 499, coupon: \"SPRING IS IN THE AIR\" }, place: \
                 Point { x: -3, y: 4 }, spans: [], last: None }";
    assert_eq!(format!("{:?}", click.handle()), shown);
    assert_eq!(format!("{:?}", read::<Click>(&written::<Click>(click.handle()))), shown);
    assert_eq!(format!("{:?}", Account("ann".into(), 9).handle()), "Account(\"ann\", 9)");
    assert_eq!(format!("{:?}", Nothing.handle()), "Nothing");
}

#[test]
fn a_record_of_forty_fields_is_handed_on_in_two_words() {
    assert_eq!(size_of::<WideRef<'_>>(), size_of::<TagRef<'_>>());
    assert_eq!(size_of::<WideRef<'_>>(), 2 * size_of::<usize>());
    let wide = Wide::counted();
    let archive = written::<Wide>(wide.handle());
    let seen = read::<Wide>(&archive);
    assert_eq!((seen.n0(), seen.s0(), seen.n19(), seen.s19()), (0, "1", 38, "39"));
}

#[test]
fn a_private_field_is_read_by_its_own_module() {
    let archive = written::<Sealed>(Sealed::new("sesame").handle());
    assert_eq!((read::<Sealed>(&archive).word(), read::<Sealed>(&archive).shown()), ("sesame", 1));
}

#[test]
fn an_archive_may_follow_another() {
    // Archives in a segment start at multiples of 8, and what follows them is not theirs.
    let mut segment = archive::Aligned::copy_of(&[0xff; 4096]);
    let mut ends = vec![0];
    for seconds in 0..4 {
        let alone = written::<Click>(Click { ms: seconds, ..click() }.handle());
        let start = ends[ends.len() - 1];
        let mut bytes = segment.as_slice()[..start].to_vec();
        bytes.extend_from_slice(alone.as_slice());
        ends.push(bytes.len().next_multiple_of(archive::ALIGN));
        bytes.resize(4096, 0xff);
        segment = archive::Aligned::copy_of(&bytes);
        let record = &segment.as_slice()[start..start + alone.as_slice().len()];
        let seen = archive::read::<Click>(record, archive::Trust::VALIDATE).unwrap();
        assert_eq!(seen.to_owned(), Click { ms: seconds, ..click() });
    }
}
