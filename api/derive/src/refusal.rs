//! What a record cannot be, said where it is written and with what to do instead.

use quote::ToTokens;
use syn::{
    Data, DeriveInput, Error, Field, GenericArgument, GenericParam, Ident, PathArguments, Result, Type, TypePath,
};

/// # Errors
/// All that is wrong with the item at once.
pub fn check(item: &DeriveInput) -> Result<()> {
    let mut refusals = Refusals(None);
    parameters(item, &mut refusals);
    variants(item, &mut refusals);
    for field in fields(&item.data) {
        attributes(field, &mut refusals);
        name(field, &mut refusals);
        field_type(&field.ty, &item.ident, &mut refusals);
    }
    refusals.0.map_or(Ok(()), Err)
}

struct Refusals(Option<Error>);

impl Refusals {
    fn add(&mut self, at: impl ToTokens, why: impl std::fmt::Display) {
        let error = Error::new_spanned(at, why);
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }
}

fn fields(data: &Data) -> Vec<&Field> {
    match data {
        Data::Struct(data) => data.fields.iter().collect(),
        Data::Enum(data) => data.variants.iter().flat_map(|variant| &variant.fields).collect(),
        Data::Union(_) => Vec::new(),
    }
}

fn parameters(item: &DeriveInput, refusals: &mut Refusals) {
    for parameter in &item.generics.params {
        match parameter {
            GenericParam::Lifetime(parameter) => refusals.add(
                parameter,
                "a record owns what is in it and has no lifetimes: use `String` for `&str` and `Vec<T>` for `&[T]`; \
                 functions see them borrowed all the same",
            ),
            GenericParam::Type(parameter) => refusals.add(
                parameter,
                format_args!(
                    "a record has no type parameters: replace `{}` by the type that the stream carries, or write one \
                     record for each",
                    parameter.ident
                ),
            ),
            GenericParam::Const(parameter) => refusals.add(
                parameter,
                format_args!(
                    "a record has no parameters: replace `{}` by its value, or write one record for each",
                    parameter.ident
                ),
            ),
        }
    }
}

fn variants(item: &DeriveInput, refusals: &mut Refusals) {
    match &item.data {
        Data::Struct(_) => {}
        Data::Enum(data) => {
            if data.variants.is_empty() {
                refusals.add(&item.ident, "an enum without variants has no values, so no stream can carry it");
            }
            if let Some(variant) = data.variants.iter().nth(256) {
                refusals.add(variant, "a record has 256 variants at most: use a number, or an enum inside an enum");
            }
            for attribute in data.variants.iter().flat_map(|variant| &variant.attrs) {
                if attribute.path().is_ident("record") {
                    refusals.add(attribute, "`#[record(..)]` goes above the type; variants have no options");
                }
            }
        }
        Data::Union(data) => {
            refusals.add(data.union_token, "a record is a struct or an enum: use an enum for a choice")
        }
    }
}

fn attributes(field: &Field, refusals: &mut Refusals) {
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("record")) {
        refusals.add(attribute, "`#[record(..)]` goes above the type; fields have no options");
    }
}

fn name(field: &Field, refusals: &mut Refusals) {
    if let Some(name) = field.ident.as_ref().filter(|name| *name == "to_owned") {
        refusals.add(name, "the handle has a method `to_owned` of its own: give the field another name");
    }
}

/// Looks into the type of a field for what is no record and easily taken for one.
fn field_type(ty: &Type, record: &Ident, refusals: &mut Refusals) {
    match ty {
        Type::Reference(reference) => refusals.add(
            reference,
            "a record owns what is in it: use `String` for `&str` and `Vec<T>` for `&[T]`; functions see them borrowed \
             all the same",
        ),
        Type::Path(path) => {
            if let Some(why) = refused_name(path, record) {
                refusals.add(path, why);
            }
            for segment in &path.path.segments {
                if let PathArguments::AngleBracketed(arguments) = &segment.arguments {
                    for argument in &arguments.args {
                        if let GenericArgument::Type(ty) = argument {
                            field_type(ty, record, refusals);
                        }
                    }
                }
            }
        }
        Type::Tuple(tuple) if tuple.elems.len() > 6 => {
            refusals.add(tuple, "tuples are records up to six elements: use a struct with `#[derive(Record)]`");
        }
        Type::Tuple(tuple) => tuple.elems.iter().for_each(|ty| field_type(ty, record, refusals)),
        Type::Paren(inner) => field_type(&inner.elem, record, refusals),
        Type::Group(inner) => field_type(&inner.elem, record, refusals),
        _ => {}
    }
}

fn refused_name(path: &TypePath, record: &Ident) -> Option<String> {
    let name = path.path.segments.last().filter(|_| path.qself.is_none())?;
    let alone = path.path.segments.len() == 1;
    match name.ident.to_string().as_str() {
        "usize" if alone => Some("`usize` is not the same on every machine: use `u64` or `u32`".into()),
        "isize" if alone => Some("`isize` is not the same on every machine: use `i64` or `i32`".into()),
        "HashMap" | "BTreeMap" => Some("a record holds no maps: use `Vec<(K, V)>`, or keyed map state".into()),
        "HashSet" | "BTreeSet" => Some("a record holds no sets: use `Vec<T>`".into()),
        "Box" | "Rc" | "Arc" => Some("a record holds values, not pointers to them: use what it points to".into()),
        _ if alone && (name.ident == "Self" || name.ident == *record) => Some(format!(
            "a record cannot contain itself, since hostile bytes could nest it without end: give `{record}` an id, and \
             keep the ids of others in it"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    /// The messages of the refusal, none if the item is accepted.
    fn refused(item: &DeriveInput) -> Vec<String> {
        match crate::emit(item) {
            Ok(_) => Vec::new(),
            Err(error) => error.into_iter().map(|error| error.to_string()).collect(),
        }
    }

    fn is_refused(item: &DeriveInput, remedy: &str) {
        let messages = refused(item);
        assert!(matches!(&*messages, [message] if message.contains(remedy)), "{messages:?}");
    }

    #[test]
    fn parameters_are_refused_with_what_to_use_instead() {
        is_refused(
            &parse_quote!(
                struct Click<'a> {
                    user: u8,
                }
            ),
            "use `String` for `&str`",
        );
        is_refused(
            &parse_quote!(
                struct Click<T> {
                    user: u8,
                }
            ),
            "replace `T` by the type",
        );
        is_refused(
            &parse_quote!(
                struct Click<const N: usize> {
                    user: [u8; N],
                }
            ),
            "replace `N` by its value",
        );
        assert_eq!(
            refused(&parse_quote!(
                enum Click<'a, T> {
                    A(T),
                }
            ))
            .len(),
            2
        );
    }

    #[test]
    fn what_no_stream_can_carry_is_refused() {
        is_refused(&parse_quote!(union U { a: u8 }), "use an enum");
        is_refused(
            &parse_quote!(
                enum Never {}
            ),
            "has no values",
        );
        let variants = (0..257).map(|number| Ident::new(&format!("V{number}"), proc_macro2::Span::call_site()));
        is_refused(&parse_quote!(enum Many { #(#variants),* }), "256 variants at most");
        let variants = (0..256).map(|number| Ident::new(&format!("V{number}"), proc_macro2::Span::call_site()));
        assert!(refused(&parse_quote!(enum Many { #(#variants),* })).is_empty());
    }

    #[test]
    fn fields_that_are_no_records_are_refused_wherever_they_are() {
        is_refused(
            &parse_quote!(
                struct S {
                    f: &'static str,
                }
            ),
            "use `String`",
        );
        is_refused(
            &parse_quote!(
                struct S(usize);
            ),
            "use `u64`",
        );
        is_refused(
            &parse_quote!(
                struct S {
                    f: Vec<Option<(isize,)>>,
                }
            ),
            "use `i64`",
        );
        is_refused(
            &parse_quote!(
                enum S {
                    A,
                    B { f: std::collections::HashMap<u8, u8> },
                }
            ),
            "use `Vec<(K, V)>`",
        );
        is_refused(
            &parse_quote!(
                struct S {
                    f: HashSet<u8>,
                }
            ),
            "use `Vec<T>`",
        );
        is_refused(
            &parse_quote!(
                struct S {
                    f: Box<u8>,
                }
            ),
            "what it points to",
        );
        is_refused(
            &parse_quote!(
                struct S {
                    f: (u8, u8, u8, u8, u8, u8, u8),
                }
            ),
            "use a struct",
        );
    }

    #[test]
    fn a_record_in_itself_is_refused() {
        is_refused(
            &parse_quote!(
                struct Comment {
                    replies: Vec<Comment>,
                }
            ),
            "give `Comment` an id",
        );
        is_refused(
            &parse_quote!(
                enum Tree {
                    Leaf,
                    Node(Option<Self>),
                }
            ),
            "give `Tree` an id",
        );
        assert!(
            refused(&parse_quote!(
                struct Comment {
                    other: other::Comment,
                }
            ))
            .is_empty()
        );
    }

    #[test]
    fn names_and_attributes_that_mean_nothing_are_refused() {
        is_refused(
            &parse_quote!(
                struct S {
                    to_owned: u8,
                }
            ),
            "another name",
        );
        is_refused(
            &parse_quote!(
                struct S {
                    #[record(key)]
                    f: u8,
                }
            ),
            "above the type",
        );
        is_refused(
            &parse_quote!(
                enum S {
                    #[record(key)]
                    A,
                }
            ),
            "above the type",
        );
        is_refused(
            &parse_quote!(
                #[record(keys)]
                struct S {
                    f: u8,
                }
            ),
            "expected `key` or `crate = path`",
        );
        is_refused(
            &parse_quote!(
                #[record(crate)]
                struct S {
                    f: u8,
                }
            ),
            "expected `=`",
        );
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let item = parse_quote!(
            struct S<'a, T> {
                a: usize,
                to_owned: Box<T>,
                c: &'a str,
            }
        );
        assert_eq!(refused(&item).len(), 6);
    }
}
