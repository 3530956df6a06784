//! What is emitted for a struct: three forms of it, a handle over them, and the traits.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Ident, ext::IdentExt};

use crate::{
    fingerprint,
    input::{Field, Fields, Input, Shape},
    quiet,
};

pub fn emit(input: &Input<'_>, fields: &Fields<'_>) -> TokenStream {
    let names = Names::of(input, fields);
    let archived = archived(input, fields, &names);
    let parts = parts(input, fields, &names);
    let handle = handle(input, fields, &names);
    let record = record(input, fields, &names);
    let key = input.key.then(|| key(input, fields));
    quote!(#archived #parts #handle #record #key)
}

/// The names of what is emitted for `Click`.
struct Names {
    /// `ArchivedClick`
    archived: Ident,
    /// `ClickParts`
    parts: Ident,
    /// Whether the parts have a lifetime.
    borrows: bool,
    /// `ClickRef`
    handle: Ident,
    /// `ClickResolver`
    resolver: Ident,
}

impl Names {
    fn of(input: &Input<'_>, fields: &Fields<'_>) -> Names {
        Names {
            archived: input.named("Archived{}"),
            parts: input.named("{}Parts"),
            borrows: fields.borrow(),
            handle: input.named("{}Ref"),
            resolver: input.named("{}Resolver"),
        }
    }

    /// The parts whose handles last for `lifetime`.
    fn parts_for(&self, lifetime: TokenStream) -> TokenStream {
        let (parts, lifetime) = (&self.parts, self.borrows.then(|| quote!(<#lifetime>)));
        quote!(#parts #lifetime)
    }
}

fn archived(input: &Input<'_>, fields: &Fields<'_>, names: &Names) -> TokenStream {
    let (Input { vis, name, private, .. }, Names { archived, .. }) = (input, names);
    let (fields, records) = (fields.list.iter().map(|field| &field.name), fields.records());
    let (quiet, doc) = (quiet(), format!("How a [`{name}`] lies in a segment."));
    quote! {
        #[doc = #doc]
        #[derive(#private::rkyv::Portable, #private::rkyv::bytecheck::CheckBytes)]
        #[rkyv(crate = #private::rkyv)]
        #[bytecheck(crate = #private::rkyv::bytecheck)]
        #[repr(C)]
        #quiet
        #vis struct #archived { #(#fields: #records::Archived,)* }
    }
}

fn parts(input: &Input<'_>, fields: &Fields<'_>, names: &Names) -> TokenStream {
    let Input { vis, name, private, .. } = input;
    let (parts, family, at) =
        (names.parts_for(quote!('a)), names.parts_for(quote!('static)), names.parts_for(quote!('x)));
    let body = fields.shaped(|field| field.view.tokens.clone());
    let end = (fields.shape != Shape::Named).then(|| quote!(;));
    let (quiet, doc) = (quiet(), format!("A [`{name}`] that a function has just put together."));
    quote! {
        #[doc = #doc]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #quiet
        #vis struct #parts #body #end

        #[automatically_derived]
        #quiet
        impl #private::Parts for #family {
            type At<'x> = #at;
        }
    }
}

fn handle(input: &Input<'_>, fields: &Fields<'_>, names: &Names) -> TokenStream {
    let Input { vis, name, private, .. } = input;
    let Names { archived, handle, .. } = names;
    // Made of parts whose handles last for 'x: for longer than the parts are lent.
    let (family, lent) = (names.parts_for(quote!('static)), names.parts_for(quote!('x)));
    let longer = names.borrows.then(|| quote!('x: 'a));
    let accessors = fields.list.iter().map(|field| {
        let Field { member, name, vis, docs, record, view, .. } = field;
        let view = &view.tokens;
        quote! {
            #(#docs)*
            #[inline]
            #vis fn #name(self) -> #view {
                match self {
                    Self::Owned(record) => #record::handle(&record.#member),
                    Self::Archived(record) => #record::access(&record.#name),
                    Self::Parts(record) => {
                        record.read(|record, _| #record::shorten(record.#member))
                    }
                }
            }
        }
    });
    let debug = debug(input, fields);
    let (quiet, doc) = (quiet(), format!("How functions see a [`{name}`]: a small copyable handle."));
    quote! {
        #[doc = #doc]
        #[derive(::core::clone::Clone, ::core::marker::Copy)]
        #quiet
        #vis enum #handle<'a> {
            /// Over an owned record.
            Owned(&'a #name),
            /// Over archived bytes.
            Archived(&'a #archived),
            /// Over parts that a function has just put together.
            Parts(#private::Lent<'a, #family>),
        }

        #[automatically_derived]
        #quiet
        impl<'a> #handle<'a> {
            #(#accessors)*

            /// An owned copy.
            #vis fn to_owned(self) -> #name {
                <#name as #private::Record>::own(self)
            }
        }

        #[automatically_derived]
        #quiet
        impl<'a> ::core::convert::From<&'a #name> for #handle<'a> {
            #[inline]
            fn from(record: &'a #name) -> Self {
                Self::Owned(record)
            }
        }

        #[automatically_derived]
        #quiet
        impl<'a, #longer> ::core::convert::From<&'a #lent> for #handle<'a> {
            #[inline]
            fn from(record: &'a #lent) -> Self {
                Self::Parts(#private::Lent::new(record))
            }
        }

        #debug
    }
}

fn debug(input: &Input<'_>, fields: &Fields<'_>) -> TokenStream {
    let (handle, title, quiet) = (input.named("{}Ref"), input.name.unraw().to_string(), quiet());
    let start = if fields.shape == Shape::Named { quote!(debug_struct) } else { quote!(debug_tuple) };
    let each = fields.list.iter().map(|field| {
        let (name, label) = (&field.name, field.label());
        let label = (fields.shape == Shape::Named).then(|| quote!(#label,));
        quote!(.field(#label &Self::#name(*self)))
    });
    quote! {
        #[automatically_derived]
        #quiet
        impl ::core::fmt::Debug for #handle<'_> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.#start(#title) #(#each)* .finish()
            }
        }
    }
}

fn record(input: &Input<'_>, fields: &Fields<'_>, names: &Names) -> TokenStream {
    let (Input { name, private, .. }, Names { archived, handle, resolver, .. }) = (input, names);
    let (records, field_names): (Vec<_>, Vec<_>) = fields.list.iter().map(|field| (&field.record, &field.name)).unzip();
    let members = fields.list.iter().map(|field| &field.member);
    let held = members.clone();
    let (places, bindings) = fields.bound_by_name("place");
    // `munge!` has no pattern for a struct without fields.
    let places = (!fields.list.is_empty()).then(|| quote!(#private::rkyv::munge::munge!(let #archived #places = out);));
    let (fingerprint, quiet) = (fingerprint::of(input), quiet());
    // A record that passes unchanged could be copied as it lies, if its parts out of line lay beside it; that would be
    // done here, for `Archived`.
    quote! {
        const _: () = {
            #quiet
            pub struct #resolver { #(#field_names: #records::Resolver,)* }

            #[automatically_derived]
            #quiet
            impl #private::Record for #name {
                const HAS_HEAP: ::core::primitive::bool = false #(|| #records::HAS_HEAP)*;
                type Ref<'a> = #handle<'a>;
                type Archived = #archived;
                type Resolver = #resolver;
                #[inline]
                fn handle(&self) -> #handle<'_> {
                    #handle::Owned(self)
                }
                #[inline]
                fn access(archived: &#archived) -> #handle<'_> {
                    #handle::Archived(archived)
                }
                #[inline]
                fn shorten<'short, 'long: 'short>(record: #handle<'long>) -> #handle<'short> {
                    record
                }
                fn own(record: #handle<'_>) -> Self {
                    #name { #(#members: #records::own(#handle::#field_names(record)),)* }
                }
                #[inline]
                fn serialize(
                    record: #handle<'_>,
                    out: &mut #private::ArchiveWriter<'_>,
                ) -> ::core::result::Result<#resolver, #private::Full> {
                    ::core::result::Result::Ok(#resolver {
                        #(#field_names: #records::serialize(
                            #handle::#field_names(record), out,
                        )?,)*
                    })
                }
                #[inline]
                fn resolve(record: #handle<'_>, resolver: #resolver, out: #private::rkyv::Place<#archived>) {
                    #places
                    #(#records::resolve(
                        #handle::#field_names(record), resolver.#field_names, #bindings,
                    );)*
                }
                #[inline]
                fn heap_bytes(&self) -> ::core::primitive::usize {
                    0 #(+ #records::heap_bytes(&self.#held))*
                }
                fn fingerprint() -> ::core::primitive::u64 {
                    #fingerprint
                }
            }
        };
    }
}

fn key(input: &Input<'_>, fields: &Fields<'_>) -> TokenStream {
    let (Input { name, private, .. }, handle, quiet) = (input, input.named("{}Ref"), quiet());
    let (keys, names): (Vec<_>, Vec<_>) = fields.list.iter().map(|field| (&field.key, &field.name)).unzip();
    quote! {
        #[automatically_derived]
        #quiet
        impl #private::Key for #name {
            #[inline]
            fn hash(key: #handle<'_>) -> ::core::primitive::u32 {
                let hash = 0;
                #(let hash = #private::mix(hash, #keys::hash(#handle::#names(key)));)*
                hash
            }
            #[inline]
            fn same(a: #handle<'_>, b: #handle<'_>) -> ::core::primitive::bool {
                true #(&& #keys::same(#handle::#names(a), #handle::#names(b)))*
            }
        }
    }
}
