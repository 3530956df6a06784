//! The hash of a type's structure: names, order and types of fields, names and order of variants; not its own name.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;

use crate::input::{Body, Fields, Input};

/// The body of `Record::fingerprint`.
pub fn of(input: &Input<'_>) -> TokenStream {
    let private = &input.private;
    match &input.body {
        Body::Struct(fields) => {
            let parts = of_fields(fields, private);
            quote!(#private::fingerprint_of("struct", &#parts))
        }
        Body::Enum(variants) => {
            let parts = variants.iter().map(|variant| {
                let (name, parts) = (variant.name.unraw().to_string(), of_fields(&variant.fields, private));
                quote!(#private::fingerprint_of(#name, &#parts))
            });
            quote!(#private::fingerprint_of("enum", &[#(#parts),*]))
        }
    }
}

fn of_fields(fields: &Fields<'_>, private: &TokenStream) -> TokenStream {
    let parts = fields.list.iter().map(|field| {
        let (label, record) = (field.label(), &field.record);
        quote!(#private::fingerprint_of(#label, &[#record::fingerprint()]))
    });
    quote!([#(#parts),*])
}
