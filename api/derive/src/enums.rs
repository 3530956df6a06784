//! What is emitted for an enum: its archived form, a handle of the same shape, and the traits.
//!
//! The handle holds the handles of one variant's fields. There are no parts: whoever wants to emit a value writes the
//! handle.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Ident;

use crate::{
    fingerprint,
    input::{Input, Variant},
    layout, quiet,
};

pub fn emit(input: &Input<'_>, variants: &[Variant<'_>]) -> TokenStream {
    let names = Names::of(input, variants);
    let archived = layout::archived(input, variants);
    let handle = handle(input, variants, &names);
    let record = record(input, variants, &names);
    let key = input.key.then(|| key(input, variants, &names));
    quote!(#archived #handle #record #key)
}

/// The names of what is emitted for `Kind`.
struct Names {
    /// `ArchivedKind`
    archived: Ident,
    /// `KindRef`
    handle: Ident,
    /// Whether the handle has a lifetime.
    borrows: bool,
    /// `KindResolver`
    resolver: Ident,
}

impl Names {
    fn of(input: &Input<'_>, variants: &[Variant<'_>]) -> Names {
        Names {
            archived: input.named("Archived{}"),
            handle: input.named("{}Ref"),
            borrows: variants.iter().any(|variant| variant.fields.borrow()),
            resolver: input.named("{}Resolver"),
        }
    }

    /// The handle that lasts for `lifetime`.
    fn handle_for(&self, lifetime: TokenStream) -> TokenStream {
        let (handle, lifetime) = (&self.handle, self.borrows.then(|| quote!(<#lifetime>)));
        quote!(#handle #lifetime)
    }
}

fn handle(input: &Input<'_>, variants: &[Variant<'_>], names: &Names) -> TokenStream {
    let Input { vis, name, private, .. } = input;
    let (handle, lifetime) = (names.handle_for(quote!('a)), names.borrows.then(|| quote!(<'a>)));
    let bodies = variants.iter().map(|Variant { name, docs, fields }| {
        let body = fields.shaped(|field| field.view.tokens.clone());
        quote!(#(#docs)* #name #body)
    });
    let (quiet, doc) = (quiet(), format!("How functions see a [`{name}`]: match on it."));
    quote! {
        #[doc = #doc]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #quiet
        #vis enum #handle { #(#bodies,)* }

        #[automatically_derived]
        #quiet
        impl #lifetime #handle {
            /// An owned copy.
            #vis fn to_owned(self) -> #name {
                <#name as #private::Record>::own(self)
            }
        }

        #[automatically_derived]
        #quiet
        impl<'a> ::core::convert::From<&'a #name> for #handle {
            #[inline]
            fn from(record: &'a #name) -> Self {
                <#name as #private::Record>::handle(record)
            }
        }
    }
}

fn record(input: &Input<'_>, variants: &[Variant<'_>], names: &Names) -> TokenStream {
    let (Input { name, private, .. }, Names { archived, handle, resolver, .. }) = (input, names);
    let (elided, for_a, short, long) = (
        names.handle_for(quote!('_)),
        names.handle_for(quote!('a)),
        names.handle_for(quote!('short)),
        names.handle_for(quote!('long)),
    );
    let resolvers = variants.iter().map(|Variant { name, fields, .. }| {
        let records = fields.records();
        quote!(#name(#(#records::Resolver,)*))
    });
    let layouts = layout::of_variants(input, variants);
    let (to_handle, to_access) = (
        variants.iter().map(|variant| convert(variant, name, handle, &quote!(handle), Pattern::Members)),
        variants.iter().map(|variant| convert(variant, archived, handle, &quote!(access), Pattern::Names)),
    );
    let (to_shorter, to_owned) = (
        variants.iter().map(|variant| convert(variant, handle, handle, &quote!(shorten), Pattern::Members)),
        variants.iter().map(|variant| convert(variant, handle, name, &quote!(own), Pattern::Members)),
    );
    let serialize = variants.iter().map(|Variant { name, fields, .. }| {
        let (pattern, bindings) = fields.bound("field");
        let records = fields.records();
        quote! {
            #handle::#name #pattern =>
                #resolver::#name(#(#records::serialize(#bindings, out)?,)*)
        }
    });
    let has_heap = variants.iter().flat_map(|variant| variant.fields.records());
    let heap_bytes = variants.iter().map(|Variant { name, fields, .. }| {
        let (pattern, bindings) = fields.bound("field");
        let records = fields.records();
        quote!(Self::#name #pattern => 0 #(+ #records::heap_bytes(#bindings))*)
    });
    let resolve = variants.iter().enumerate().map(|(index, variant)| resolve(input, index, variant, names));
    let (fingerprint, quiet) = (fingerprint::of(input), quiet());
    quote! {
        const _: () = {
            #quiet
            pub enum #resolver { #(#resolvers,)* }

            #layouts

            #[automatically_derived]
            #quiet
            impl #private::Record for #name {
                const HAS_HEAP: ::core::primitive::bool = false #(|| #has_heap::HAS_HEAP)*;
                type Ref<'a> = #for_a;
                type Archived = #archived;
                type Resolver = #resolver;
                #[inline]
                fn handle(&self) -> #elided {
                    match self { #(#to_handle,)* }
                }
                #[inline]
                fn access(archived: &#archived) -> #elided {
                    match archived { #(#to_access,)* }
                }
                #[inline]
                fn shorten<'short, 'long: 'short>(record: #long) -> #short {
                    match record { #(#to_shorter,)* }
                }
                fn own(record: #elided) -> Self {
                    match record { #(#to_owned,)* }
                }
                #[inline]
                fn serialize(
                    record: #elided,
                    out: &mut #private::ArchiveWriter<'_>,
                ) -> ::core::result::Result<#resolver, #private::Full> {
                    ::core::result::Result::Ok(match record { #(#serialize,)* })
                }
                #[inline]
                fn resolve(record: #elided, resolver: #resolver, out: #private::rkyv::Place<#archived>) {
                    match (record, resolver) {
                        #(#resolve)*
                        _ => ::core::unreachable!("a resolver belongs to the record that it was made of"),
                    }
                }
                #[inline]
                fn heap_bytes(&self) -> ::core::primitive::usize {
                    match self { #(#heap_bytes,)* }
                }
                fn fingerprint() -> ::core::primitive::u64 {
                    #fingerprint
                }
            }
        };
    }
}

/// By what the fields of the enum that is matched on are called.
enum Pattern {
    Members,
    Names,
}

/// The arm that makes `From::Buy { .. }` into `To::Buy { .. }`, each field by the function `by` of its type.
fn convert(
    Variant { name, fields, .. }: &Variant<'_>,
    from: &Ident,
    to: &Ident,
    by: &TokenStream,
    pattern: Pattern,
) -> TokenStream {
    let (pattern, bindings) = match pattern {
        Pattern::Members => fields.bound("field"),
        Pattern::Names => fields.bound_by_name("field"),
    };
    let (members, records) = (fields.list.iter().map(|field| &field.member), fields.records());
    quote!(#from::#name #pattern => #to::#name { #(#members: #records::#by(#bindings),)* })
}

fn resolve(input: &Input<'_>, index: usize, variant: &Variant<'_>, names: &Names) -> TokenStream {
    let (Input { private, .. }, Names { handle, resolver, .. }) = (input, names);
    let Variant { name, fields, .. } = variant;
    let (layout, tag) = (layout::name(input, variant), layout::tag(index));
    let (pattern, values) = fields.bound("field");
    let (resolvers, places) = (fields.bindings("resolver"), fields.bindings("place"));
    let layout_fields = (0..fields.list.len()).map(layout::field);
    let records = fields.records();
    // SAFETY (of what is emitted): the place is one for the whole enum, which is a union of the layouts (RFC 2195), so
    // it has room for each of them; the emitted assertion checks that. The layout is written whole, with its own tag.
    quote! {
        (#handle::#name #pattern, #resolver::#name(#(#resolvers,)*)) => {
            let out = unsafe { out.cast_unchecked::<#layout>() };
            #private::rkyv::munge::munge!(let #layout { tag: tag, #(#layout_fields: #places,)* } = out);
            tag.write(#tag);
            #(#records::resolve(#values, #resolvers, #places);)*
        }
    }
}

fn key(input: &Input<'_>, variants: &[Variant<'_>], names: &Names) -> TokenStream {
    let (Input { name, private, .. }, Names { handle, .. }) = (input, names);
    let (elided, quiet) = (names.handle_for(quote!('_)), quiet());
    let hashes = variants.iter().enumerate().map(|(index, Variant { name, fields, .. })| {
        let (pattern, bindings) = fields.bound("field");
        let (index, keys) = (index as u64, fields.keys());
        quote! {
            #handle::#name #pattern => {
                let hash = #private::hash_number(#index);
                #(let hash = #private::mix(hash, #keys::hash(#bindings));)*
                hash
            }
        }
    });
    let equalities = variants.iter().map(|Variant { name, fields, .. }| {
        let ((left, a), (right, b)) = (fields.bound("a"), fields.bound("b"));
        let keys = fields.keys();
        quote! {
            (#handle::#name #left, #handle::#name #right) =>
                true #(&& #keys::same(#a, #b))*
        }
    });
    quote! {
        #[automatically_derived]
        #quiet
        impl #private::Key for #name {
            #[inline]
            fn hash(key: #elided) -> ::core::primitive::u32 {
                match key { #(#hashes,)* }
            }
            #[inline]
            fn same(a: #elided, b: #elided) -> ::core::primitive::bool {
                match (a, b) { #(#equalities,)* _ => false }
            }
        }
    }
}
