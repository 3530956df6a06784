//! How functions see a field: `&'a str` for `String`, in the words of the field's type where they are known.
//!
//! `<F as Record>::Ref<'a>` is always right. But to the compiler a type that holds such a projection is invariant in
//! `'a`, and in the documentation it says nothing, so the types that everybody knows are spelled out. Should a name like
//! `String` mean something else where it is used, the emitted code does not compile.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Expr, ExprLit, GenericArgument, Lit, PathArguments, PathSegment, Type, TypePath};

/// The type of a field's handle.
pub struct View {
    pub tokens: TokenStream,
    /// Whether it mentions `'a`.
    pub borrows: bool,
}

/// The handle of `ty` that lasts for `'a`.
pub fn of(ty: &Type, private: &TokenStream) -> View {
    known(ty, private).unwrap_or_else(|| View { tokens: quote!(<#ty as #private::Record>::Ref<'a>), borrows: true })
}

fn known(ty: &Type, private: &TokenStream) -> Option<View> {
    match ty {
        Type::Paren(inner) => known(&inner.elem, private),
        Type::Group(inner) => known(&inner.elem, private),
        Type::Tuple(tuple) => {
            let views: Vec<View> = tuple.elems.iter().map(|ty| of(ty, private)).collect();
            let borrows = views.iter().any(|view| view.borrows);
            let tokens = views.iter().map(|view| &view.tokens);
            Some(View { tokens: quote!((#(#tokens,)*)), borrows })
        }
        Type::Array(array) if is_literal(&array.len) => Some(View { tokens: quote!(&'a #array), borrows: true }),
        Type::Path(path) => known_path(path, private),
        _ => None,
    }
}

fn is_literal(length: &Expr) -> bool {
    matches!(length, Expr::Lit(ExprLit { lit: Lit::Int(_), .. }))
}

fn known_path(path: &TypePath, private: &TokenStream) -> Option<View> {
    if path.qself.is_some() || path.path.segments.len() != 1 {
        return None;
    }
    let segment = &path.path.segments[0];
    let name = segment.ident.to_string();
    match (name.as_str(), argument(segment)) {
        (
            "u8" | "u16" | "u32" | "u64" | "u128" | "i8" | "i16" | "i32" | "i64" | "i128" | "f32" | "f64" | "bool"
            | "char",
            None,
        ) => Some(View { tokens: path.to_token_stream(), borrows: false }),
        ("String", None) => Some(View { tokens: quote!(&'a ::core::primitive::str), borrows: true }),
        ("Option", Some(inner)) => {
            let View { tokens, borrows } = of(inner, private);
            Some(View { tokens: quote!(::core::option::Option<#tokens>), borrows })
        }
        ("Vec", Some(inner)) => Some(View { tokens: quote!(#private::List<'a, #inner>), borrows: true }),
        _ => None,
    }
}

/// `T` of `Vec<T>`.
fn argument(segment: &PathSegment) -> Option<&Type> {
    match &segment.arguments {
        PathArguments::AngleBracketed(arguments) if arguments.args.len() == 1 => match &arguments.args[0] {
            GenericArgument::Type(ty) => Some(ty),
            _ => None,
        },
        _ => None,
    }
}
