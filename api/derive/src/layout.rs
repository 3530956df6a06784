//! How an archived enum lies in memory, and how its bytes are checked.
//!
//! A `repr(u8)` enum is a union of `repr(C)` structs, one per variant, each with the tag in front (RFC 2195). These
//! structs are emitted beside the enum: a place for the enum is written, and its bytes are checked, as one of them.
//! `CheckBytes` is not derived, since that derive declares a type `Tag` in the scope of the fields' types.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Ident, LitInt, ext::IdentExt};

use crate::{
    input::{Input, Variant},
    quiet,
};

/// `ArchivedKind`.
pub fn archived(input: &Input<'_>, variants: &[Variant<'_>]) -> TokenStream {
    let (Input { vis, name, private, .. }, archived) = (input, input.named("Archived{}"));
    let bodies = variants.iter().map(|Variant { name, fields, .. }| {
        let (fields, records) = (fields.list.iter().map(|field| &field.name), fields.records());
        quote!(#name { #(#fields: #records::Archived,)* })
    });
    let (quiet, doc) = (quiet(), format!("How a [`{name}`] lies in a segment."));
    quote! {
        #[doc = #doc]
        #[derive(#private::rkyv::Portable)]
        #[rkyv(crate = #private::rkyv)]
        #[repr(u8)]
        #quiet
        #vis enum #archived { #(#bodies,)* }
    }
}

/// `KindBuyLayout` of `Kind::Buy`: the tag, then its fields as `field_0`, `field_1`, …
pub fn name(input: &Input<'_>, variant: &Variant<'_>) -> Ident {
    let name = format!("{}{}Layout", input.name.unraw(), variant.name.unraw());
    Ident::new(&name, variant.name.span())
}

pub fn tag(index: usize) -> LitInt {
    LitInt::new(&format!("{index}u8"), Span::call_site())
}

/// All layouts, and what relies on them but for writing.
pub fn of_variants(input: &Input<'_>, variants: &[Variant<'_>]) -> TokenStream {
    let (Input { private, .. }, archived, quiet) = (input, input.named("Archived{}"), quiet());
    let layouts = variants.iter().map(|variant| {
        let (layout, records) = (name(input, variant), variant.fields.records());
        let fields = variant.fields.list.iter().enumerate().map(|(index, _)| field(index));
        quote! {
            #[derive(#private::rkyv::Portable, #private::rkyv::bytecheck::CheckBytes)]
            #[rkyv(crate = #private::rkyv)]
            #[bytecheck(crate = #private::rkyv::bytecheck)]
            #[repr(C)]
            #quiet
            struct #layout { tag: ::core::primitive::u8, #(#fields: #records::Archived,)* }

            const _: () = ::core::assert!(
                ::core::mem::size_of::<#layout>() <= ::core::mem::size_of::<#archived>()
                    && ::core::mem::align_of::<#layout>() <= ::core::mem::align_of::<#archived>()
            );
        }
    });
    let check = check(input, variants);
    quote!(#(#layouts)* #check)
}

/// A field of a layout.
pub fn field(index: usize) -> Ident {
    Ident::new(&format!("field_{index}"), Span::call_site())
}

fn check(input: &Input<'_>, variants: &[Variant<'_>]) -> TokenStream {
    let (Input { private, .. }, archived, quiet) = (input, input.named("Archived{}"), quiet());
    let title = archived.to_string();
    let arms = variants.iter().enumerate().map(|(index, variant)| {
        let (tag, layout) = (tag(index), name(input, variant));
        quote!(#tag => <#layout as #private::rkyv::bytecheck::CheckBytes<C>>::check_bytes(value.cast(), context))
    });
    let records = variants.iter().flat_map(|variant| variant.fields.records());
    // SAFETY (of what is emitted): whoever calls `check_bytes` vouches that `value` is aligned and that all of its bytes
    // may be read. The first of them is the tag, and the variant that it names is checked whole, by its own derive.
    quote! {
        #[automatically_derived]
        #quiet
        unsafe impl<C> #private::rkyv::bytecheck::CheckBytes<C> for #archived
        where
            C: #private::rkyv::rancor::Fallible + ?::core::marker::Sized,
            C::Error: #private::rkyv::rancor::Source,
            #(#records::Archived: #private::rkyv::bytecheck::CheckBytes<C>,)*
        {
            unsafe fn check_bytes(
                value: *const Self,
                context: &mut C,
            ) -> ::core::result::Result<(), C::Error> {
                unsafe {
                    match *value.cast::<::core::primitive::u8>() {
                        #(#arms,)*
                        invalid_discriminant => ::core::result::Result::Err(#private::rkyv::rancor::Source::new(
                            #private::rkyv::bytecheck::InvalidEnumDiscriminantError {
                                enum_name: #title,
                                invalid_discriminant,
                            },
                        )),
                    }
                }
            }
        }
    }
}
