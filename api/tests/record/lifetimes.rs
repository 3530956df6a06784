//! What functions may do with handles, as far as the compiler is concerned: that this compiles is most of the test.

use millstream_api::record::{List, Record};

use crate::{
    read,
    types::{Click, ClickParts, ClickRef, Kind, KindRef, TagParts, TagRef, click},
    written,
};

trait Push<T: Record> {
    fn push(&mut self, record: T::Ref<'_>);
}

struct Collect<T>(Vec<T>);
impl<T: Record> Push<T> for Collect<T> {
    fn push(&mut self, record: T::Ref<'_>) {
        self.0.push(T::own(record));
    }
}

struct Out<'o, T: Record>(&'o mut dyn Push<T>);
impl<T: Record> Out<'_, T> {
    fn emit<'a>(&mut self, record: impl Into<T::Ref<'a>>) {
        self.0.push(record.into());
    }
}

fn flat_map<T: Record, U: Record>(record: T::Ref<'_>, f: impl for<'a> Fn(T::Ref<'a>, &mut Out<'_, U>)) -> Vec<U> {
    let mut collect = Collect(Vec::new());
    f(record, &mut Out(&mut collect));
    collect.0
}

/// As the runtime does: it knows neither type, and lends the key selector its own copy of the handle.
fn key<T: Record, K: Record>(record: T::Ref<'_>, select: for<'a> fn(&'a T::Ref<'a>) -> K::Ref<'a>) -> K {
    let record = T::shorten(record);
    K::own(select(&record))
}

#[test]
fn parts_of_one_statement_may_hold_handles_of_a_longer_lived_record() {
    let archive = written::<Click>(click().handle());
    let emitted = flat_map::<Click, Click>(read::<Click>(&archive), |c, out| {
        let user = format!("{}-{}", c.user(), c.ms());
        for user in user.split('-') {
            out.emit(&ClickParts {
                user,
                ms: 7,
                referrer: c.referrer(),
                tags: List::of(&[c.tags().get(0).unwrap(), TagRef::from(&TagParts { name: user, weight: 0.0 })]),
                kind: c.kind(),
                place: c.place(),
                spans: c.spans(),
                last: c.last(),
            });
        }
        out.emit(c);
        out.emit(&c.to_owned());
    });
    let users: Vec<&str> = emitted.iter().map(|click| &*click.user).collect();
    assert_eq!(users, ["ann", "1099511627776", "ann", "ann"]);
    assert_eq!(emitted[1].tags[0], click().tags[0]);
    assert_eq!(emitted[1].tags[1].name, "1099511627776");
    assert_eq!(emitted[1].kind, click().kind);
    assert_eq!(emitted[2], click());
}

/// `KindRef<'x>` is invariant in `'x`, since one of its variants holds a record; so is a type that holds it.
#[test]
fn parts_and_lists_may_hold_handles_that_last_for_longer() {
    fn emit<'x>(click: ClickRef<'x>, kind: KindRef<'x>, out: &mut Out<'_, Click>) -> KindRef<'x> {
        let kinds = [kind, KindRef::View];
        assert_eq!(List::<Kind>::of(&kinds).len(), 2);
        out.emit(&ClickParts {
            user: click.user(),
            ms: 7,
            referrer: None,
            tags: List::of(&[]),
            kind,
            place: click.place(),
            spans: click.spans(),
            last: None,
        });
        // Among handles that last for less it is made to do so, too.
        let user = String::from("made here");
        out.emit(&ClickParts {
            user: &user,
            ms: 8,
            referrer: None,
            tags: List::of(&[]),
            kind: Kind::shorten(kind),
            place: click.place(),
            spans: List::of(&[]),
            last: None,
        });
        kind
    }
    let mut collect = Collect(Vec::new());
    let click = click();
    let kind = emit(click.handle(), click.handle().kind(), &mut Out(&mut collect));
    assert_eq!(collect.0[0].kind, kind.to_owned());
    assert_eq!(collect.0[1].user, "made here");
}

#[test]
fn a_key_is_borrowed_from_the_record() {
    assert_eq!(key::<Click, String>(click().handle(), |c| c.user()), "ann");
    assert_eq!(key::<Click, u64>(click().handle(), |c| c.ms() % 7), (1 << 40) % 7);
    assert_eq!(key::<Click, (String, i32)>(click().handle(), |c| (c.user(), c.place().x())), ("ann".into(), -3));
}

#[test]
fn a_field_outlives_the_handle_it_was_read_from() {
    fn user<'a>(click: &ClickRef<'a>) -> &'a str {
        click.user()
    }
    let click = click();
    assert_eq!(user(&click.handle()), "ann");
}

#[test]
fn handles_of_different_lifetimes_meet() {
    fn later<'a>(a: ClickRef<'a>, b: ClickRef<'a>) -> ClickRef<'a> {
        if a.ms() > b.ms() { a } else { b }
    }
    fn either<'a>(first: bool, a: KindRef<'a>, b: KindRef<'a>) -> KindRef<'a> {
        if first { a } else { b }
    }
    let longer = click();
    {
        let shorter = Click { ms: 1, ..click() };
        assert_eq!(later(longer.handle(), shorter.handle()).ms(), longer.ms);
        let kind = either(true, Kind::shorten(longer.handle().kind()), shorter.handle().kind());
        assert!(matches!(kind, KindRef::Buy { cents: 499, .. }));
    }
}
