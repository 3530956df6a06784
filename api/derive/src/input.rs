//! What the derive accepts, as the emitters see it: the three shapes of fields made one.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{
    Attribute, Data, DeriveInput, Error, Ident, Index, Member, Path, Result, Visibility, ext::IdentExt,
    spanned::Spanned,
};

use crate::view::{self, View};

/// A type to make a record.
pub struct Input<'d> {
    pub name: &'d Ident,
    pub vis: &'d Visibility,
    pub body: Body<'d>,
    /// Whether it is to be a key.
    pub key: bool,
    /// The module that emitted code refers to.
    pub private: TokenStream,
}

pub enum Body<'d> {
    Struct(Fields<'d>),
    Enum(Vec<Variant<'d>>),
}

pub struct Variant<'d> {
    pub name: &'d Ident,
    pub docs: Vec<&'d Attribute>,
    pub fields: Fields<'d>,
}

pub struct Fields<'d> {
    pub shape: Shape,
    pub list: Vec<Field<'d>>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Shape {
    Named,
    Tuple,
    Unit,
}

pub struct Field<'d> {
    /// What it is called in the user's type: `user`, or `0`.
    pub member: Member,
    /// What it is called in what is emitted: `user`, or `_0`.
    pub name: Ident,
    pub vis: &'d Visibility,
    pub docs: Vec<&'d Attribute>,
    /// Its type's implementation: `<String as Record>`.
    pub record: TokenStream,
    /// Likewise, if it is to be one: `<String as Key>`.
    pub key: TokenStream,
    /// How functions see it.
    pub view: View,
}

impl<'d> Input<'d> {
    pub fn parse(item: &'d DeriveInput) -> Result<Input<'d>> {
        let mut key = false;
        let mut facade = quote!(::millstream);
        for attribute in item.attrs.iter().filter(|attribute| attribute.path().is_ident("record")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("key") {
                    key = true;
                } else if meta.path.is_ident("crate") {
                    let path: Path = meta.value()?.parse()?;
                    facade = quote!(#path);
                } else {
                    return Err(meta.error("expected `key` or `crate = path`"));
                }
                Ok(())
            })?;
        }
        let private = quote!(#facade::__private);
        let body = match &item.data {
            Data::Struct(data) => Body::Struct(Fields::of(&data.fields, &private)),
            Data::Enum(data) => Body::Enum(
                data.variants
                    .iter()
                    .map(|variant| Variant {
                        name: &variant.ident,
                        docs: docs(&variant.attrs),
                        fields: Fields::of(&variant.fields, &private),
                    })
                    .collect(),
            ),
            Data::Union(data) => {
                return Err(Error::new(data.union_token.span(), "a record is a struct or an enum"));
            }
        };
        Ok(Input { name: &item.ident, vis: &item.vis, body, key, private })
    }

    /// `ClickRef` for `Click` and `"{}Ref"`.
    pub fn named(&self, pattern: &str) -> Ident {
        let name = pattern.replace("{}", &self.name.unraw().to_string());
        Ident::new(&name, self.name.span())
    }
}

impl<'d> Fields<'d> {
    fn of(fields: &'d syn::Fields, private: &TokenStream) -> Fields<'d> {
        let shape = match fields {
            syn::Fields::Named(_) => Shape::Named,
            syn::Fields::Unnamed(_) => Shape::Tuple,
            syn::Fields::Unit => Shape::Unit,
        };
        let list = fields.iter().enumerate().map(|(index, field)| Field::of(index, field, private)).collect();
        Fields { shape, list }
    }

    /// What `of` makes of each field, in the shape of the user's fields: ` { user: x, ms: y }`, `(x, y)`, or nothing.
    pub fn shaped(&self, of: impl Fn(&Field<'d>) -> TokenStream) -> TokenStream {
        let each = self.list.iter().map(|field| {
            let (docs, vis, name, tokens) = (&field.docs, field.vis, &field.name, of(field));
            match self.shape {
                Shape::Named => quote!(#(#docs)* #vis #name: #tokens),
                _ => quote!(#(#docs)* #vis #tokens),
            }
        });
        match self.shape {
            Shape::Named => quote!({ #(#each,)* }),
            Shape::Tuple => quote!((#(#each,)*)),
            Shape::Unit => quote!(),
        }
    }

    /// A pattern that binds each field of any shape, and what it binds them to: `{ user: user_0, 1: b_1 }`.
    pub fn bound(&self, prefix: &str) -> (TokenStream, Vec<Ident>) {
        let bindings = self.bindings(prefix);
        let members = self.list.iter().map(|field| &field.member);
        (quote!({ #(#members: #bindings,)* }), bindings)
    }

    /// The same for the emitted types whose fields are named in every shape.
    pub fn bound_by_name(&self, prefix: &str) -> (TokenStream, Vec<Ident>) {
        let bindings = self.bindings(prefix);
        let names = self.list.iter().map(|field| &field.name);
        (quote!({ #(#names: #bindings,)* }), bindings)
    }

    /// One name for each field.
    pub fn bindings(&self, prefix: &str) -> Vec<Ident> {
        (0..self.list.len()).map(|index| format_ident!("{prefix}_{index}", span = Span::mixed_site())).collect()
    }

    pub fn records(&self) -> impl Iterator<Item = &TokenStream> {
        self.list.iter().map(|field| &field.record)
    }

    pub fn keys(&self) -> impl Iterator<Item = &TokenStream> {
        self.list.iter().map(|field| &field.key)
    }

    /// Whether a type that holds the handles of all fields has a lifetime.
    pub fn borrow(&self) -> bool {
        self.list.iter().any(|field| field.view.borrows)
    }
}

impl<'d> Field<'d> {
    fn of(index: usize, field: &'d syn::Field, private: &TokenStream) -> Field<'d> {
        let ty = &field.ty;
        let (member, name) = match &field.ident {
            Some(name) => (Member::Named(name.clone()), name.clone()),
            None => {
                let span = ty.span();
                (Member::Unnamed(Index { index: index as u32, span }), Ident::new(&format!("_{index}"), span))
            }
        };
        Field {
            member,
            name,
            vis: &field.vis,
            docs: docs(&field.attrs),
            record: quote!(<#ty as #private::Record>),
            key: quote!(<#ty as #private::Key>),
            view: view::of(ty, private),
        }
    }

    /// The name in fingerprints: `user`, or `0`.
    pub fn label(&self) -> String {
        match &self.member {
            Member::Named(name) => name.unraw().to_string(),
            Member::Unnamed(index) => index.index.to_string(),
        }
    }
}

fn docs(attributes: &[Attribute]) -> Vec<&Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("doc")).collect()
}
