//! `#[derive(Record)]`: makes a type one that streams carry.
//!
//! ```text
//!  tokens ──input──► Input ──┬─ structs ─► ArchivedClick, ClickParts, ClickRef, impl Record (impl Key)
//!            │               └─ enums ───► ArchivedKind, KindRef, impl Record (impl Key)
//!            └─ refusal (what a record cannot be, and what to do instead)
//! ```
//!
//! | Look here for | module |
//! |---|---|
//! | what is accepted, as the emitters see it | `input` |
//! | what is refused | `refusal` |
//! | how a field is seen: `String` as `&'a str` | `view` |
//! | what is emitted for a struct, for an enum | `structs`, `enums` |
//! | how an archived enum lies in memory | `layout` |
//! | the hash of a type's structure | `fingerprint` |

mod enums;
mod fingerprint;
mod input;
mod layout;
mod refusal;
mod structs;
mod view;

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

use crate::input::{Body, Input};

/// Makes a struct or an enum a record: a type that streams carry.
///
/// For `pub struct Click { pub user: String, pub ms: u64 }` it emits, beside the type and with its visibility:
///
/// - `ClickRef<'a>`, how functions see a click: a handle of two words over an owned click, an archived one, or parts.
///   It has one method per field, with the field's visibility, that reads this field only: `fn user(self) -> &'a str`,
///   `fn ms(self) -> u64`; `to_owned()` makes a `Click`. The fields of a tuple struct are `_0()`, `_1()`, …
/// - `ClickParts<'a> { pub user: &'a str, pub ms: u64 }`, to put a click together without allocating:
///   `out.emit(&ClickParts { user, ms: 7 })`.
/// - `ArchivedClick`, how a click lies in a segment.
/// - `impl Record for Click`.
///
/// For `enum Kind { View, Buy { cents: u64, coupon: String } }` the handle is an enum of the same shape, so that
/// functions match on it: `KindRef::Buy { cents, coupon }` with `coupon: &'a str`. There are no parts, since the handle
/// can be written as it is. The handle of an enum that holds nothing but numbers has no lifetime: `KindRef`.
///
/// A type of parts without texts, lists or records in it has no lifetime either.
///
/// # Attributes
/// - `#[record(key)]` makes it a key, too: streams can be partitioned by it. All its fields must be keys.
/// - `#[record(crate = path)]` names the crate that the emitted code refers to, `::millstream` otherwise.
///
/// # What invalidates state
/// The fingerprint covers names, order and types of fields, and names and order of variants. A type may be renamed.
#[proc_macro_derive(Record, attributes(record))]
pub fn derive_record(item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let item = syn::parse_macro_input!(item as DeriveInput);
    emit(&item).unwrap_or_else(|refusal| refusal.into_compile_error()).into()
}

fn emit(item: &DeriveInput) -> syn::Result<TokenStream> {
    refusal::check(item)?;
    let input = Input::parse(item)?;
    Ok(match &input.body {
        Body::Struct(fields) => structs::emit(&input, fields),
        Body::Enum(variants) => enums::emit(&input, variants),
    })
}

/// What every emitted item is exempt from: the user did not write it.
fn quiet() -> TokenStream {
    quote! {
        #[allow(
            dead_code, deprecated, missing_debug_implementations, missing_docs, private_interfaces,
            unreachable_patterns, unreachable_pub, unused_qualifications, unused_variables,
            clippy::all, clippy::missing_docs_in_private_items, clippy::nursery, clippy::pedantic
        )]
    }
}
