//! The fingerprint knows the structure of a type, and nothing else.

use millstream_api::record::Record;

use crate::types::{Account, Click, Color, Owner};

macro_rules! fingerprint {
    ($kind:ident $name:ident $($body:tt)*) => {{
        #[derive(millstream_derive::Record)]
        #[record(crate = millstream_api)]
        $kind $name $($body)*
        <$name as Record>::fingerprint()
    }};
}

#[test]
fn a_renamed_type_keeps_its_state() {
    let was = fingerprint!(
        struct Old {
            user: String,
            ms: u64,
        }
    );
    assert_eq!(
        fingerprint!(
            struct New {
                user: String,
                ms: u64,
            }
        ),
        was
    );
    let was = fingerprint!(
        enum Old {
            View,
            Buy { cents: u64 },
        }
    );
    assert_eq!(
        fingerprint!(
            enum New {
                View,
                Buy { cents: u64 },
            }
        ),
        was
    );
}

#[test]
fn a_changed_type_is_noticed() {
    let structs = [
        fingerprint!(
            struct S {
                user: String,
                ms: u64,
            }
        ),
        fingerprint!(
            struct S {
                name: String,
                ms: u64,
            }
        ),
        fingerprint!(
            struct S {
                ms: u64,
                user: String,
            }
        ),
        fingerprint!(
            struct S {
                user: String,
                ms: i64,
            }
        ),
        fingerprint!(
            struct S {
                user: String,
            }
        ),
        fingerprint!(
            struct S {
                user: Option<String>,
                ms: u64,
            }
        ),
        fingerprint!(
            struct S(String, u64);
        ),
    ];
    let enums = [
        fingerprint!(
            enum E {
                View,
                Buy { cents: u64 },
            }
        ),
        fingerprint!(
            enum E {
                Buy { cents: u64 },
                View,
            }
        ),
        fingerprint!(
            enum E {
                View,
                Sell { cents: u64 },
            }
        ),
        fingerprint!(
            enum E {
                View,
                Buy { euros: u64 },
            }
        ),
        fingerprint!(
            enum E {
                View,
                Buy(u64),
            }
        ),
        fingerprint!(
            enum E {
                View,
                Buy { cents: u32 },
            }
        ),
        fingerprint!(
            enum E {
                View,
                Buy { cents: u64 },
                Return,
            }
        ),
    ];
    let mut all: Vec<u64> = structs.into_iter().chain(enums).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

/// They are stored in checkpoints: a change of them makes all of those unreadable.
#[test]
fn fingerprints_never_change() {
    let all = [Click::fingerprint(), Account::fingerprint(), Color::fingerprint(), Owner::fingerprint()];
    assert_eq!(all, FINGERPRINTS);
}
const FINGERPRINTS: [u64; 4] = [4927491222395093694, 10279962043065717604, 1836964202195768900, 9329085140817796987];
