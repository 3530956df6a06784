//! Records of every shape that the derive knows.

use millstream_derive::Record;

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = millstream_api)]
pub struct Click {
    pub user: String,
    pub ms: u64,
    pub referrer: Option<String>,
    pub tags: Vec<Tag>,
    pub kind: Kind,
    pub place: Point,
    pub spans: Vec<(u32, String)>,
    pub last: Option<Tag>,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = millstream_api)]
pub struct Tag {
    pub name: String,
    pub weight: f64,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = millstream_api)]
pub enum Kind {
    View,
    Buy { cents: u64, coupon: String },
    Search(String, bool),
    Tagged(Tag),
}

/// Only numbers: its parts have no lifetime.
#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[record(crate = millstream_api)]
pub struct Point {
    pub x: i32,
    pub y: i32,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = millstream_api, key)]
pub struct Account(pub String, pub u16);

#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[record(crate = millstream_api)]
#[record(key)]
pub struct Nothing;

/// Nothing but variants: its handle has no lifetime.
#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[record(crate = millstream_api, key)]
pub enum Color {
    Red,
    Green = 7,
    Blue,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = millstream_api, key)]
pub enum Owner {
    Nobody,
    Account(Account),
    Machine { rack: u8, slot: Option<u64>, names: Vec<String>, color: Color },
}

/// All that can be in a record, under names that could clash with what is emitted.
#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = millstream_api)]
pub struct Everything {
    pub r#type: u8,
    pub record: u16,
    pub out: u32,
    pub resolver: u128,
    pub archived: i8,
    pub fmt: i16,
    pub clone: i32,
    pub f: i64,
    pub from: i128,
    pub own: f32,
    pub handle: f64,
    pub hash: bool,
    pub tag: char,
    pub bytes: [u8; 5],
    pub blob: Vec<u8>,
    pub nested: Vec<Option<Vec<(String, [u8; 3])>>>,
    pub unit: (),
    pub single: (String,),
    pub nothing: Nothing,
    pub color: Color,
    pub qualified: std::string::String,
}

/// A type of the name that `bytecheck`'s derive uses, in an enum; raw names; a single variant.
#[derive(Record, Clone, Debug, PartialEq)]
#[record(crate = millstream_api)]
pub enum Only {
    r#Match { r#type: Tag, tag: u8, out: String },
}

/// Private fields stay private; a private type may be in one.
pub mod private {
    use millstream_derive::Record;

    #[derive(Record)]
    #[record(crate = millstream_api)]
    pub struct Sealed {
        secret: Secret,
        pub shown: u8,
    }

    #[derive(Record)]
    #[record(crate = millstream_api)]
    struct Secret {
        word: String,
    }

    impl Sealed {
        pub fn new(word: &str) -> Self {
            Sealed { secret: Secret { word: word.into() }, shown: 1 }
        }
    }

    impl<'a> SealedRef<'a> {
        pub fn word(self) -> &'a str {
            self.secret().word()
        }
    }
}

macro_rules! wide {
    ($($number:ident $text:ident)*) => {
        #[derive(Record, Clone, Debug, PartialEq, Default)]
        #[record(crate = millstream_api)]
        pub struct Wide {
            $(pub $number: u64, pub $text: String,)*
        }
        impl Wide {
            pub fn counted() -> Wide {
                let mut next = 0..;
                Wide { $($number: next.next().unwrap(), $text: next.next().unwrap().to_string(),)* }
            }
        }
    };
}
wide! {
    n0 s0 n1 s1 n2 s2 n3 s3 n4 s4 n5 s5 n6 s6 n7 s7 n8 s8 n9 s9
    n10 s10 n11 s11 n12 s12 n13 s13 n14 s14 n15 s15 n16 s16 n17 s17 n18 s18 n19 s19
}

pub fn click() -> Click {
    Click {
        user: "ann".into(),
        ms: 1 << 40,
        referrer: Some("a page whose address is longer than what fits inline".into()),
        tags: vec![Tag { name: "new".into(), weight: 0.5 }, Tag { name: "".into(), weight: -1.0 }],
        kind: Kind::Buy { cents: 499, coupon: "SPRING IS IN THE AIR".into() },
        place: Point { x: -3, y: 4 },
        spans: vec![(1, "one".into()), (2, "two, and longer than a word".into())],
        last: Some(Tag { name: "the last of all the tags".into(), weight: 1e300 }),
    }
}

pub fn everything() -> Everything {
    Everything {
        r#type: 1,
        record: 2,
        out: 3,
        resolver: u128::MAX - 4,
        archived: -5,
        fmt: -6,
        clone: -7,
        f: -8,
        from: i128::MIN + 9,
        own: 10.5,
        handle: f64::INFINITY,
        hash: true,
        tag: 'ß',
        bytes: *b"hello",
        blob: vec![0, 255, 7],
        nested: vec![None, Some(vec![]), Some(vec![("in the innermost of the lists".into(), [1, 2, 3])])],
        unit: (),
        single: ("single".into(),),
        nothing: Nothing,
        color: Color::Blue,
        qualified: "qualified".into(),
    }
}
