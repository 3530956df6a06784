//! `#[millstream::main]`: makes an ordinary `main` the entry of an artifact, which runs, plans or works.

use proc_macro::TokenStream;
use quote::quote;
use syn::{Expr, ItemFn, MetaNameValue, Token, parse_macro_input, punctuated::Punctuated, spanned::Spanned};

/// Marks the entry of a job program. See the documentation of the `millstream` crate.
///
/// `#[millstream::main(init = f)]` calls `fn f()` once in every role, before anything else.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments with Punctuated::<MetaNameValue, Token![,]>::parse_terminated);
    let function = parse_macro_input!(item as ItemFn);
    expand(&arguments, function).unwrap_or_else(|refused| refused.to_compile_error()).into()
}

fn expand(
    arguments: &Punctuated<MetaNameValue, Token![,]>,
    mut function: ItemFn,
) -> syn::Result<proc_macro2::TokenStream> {
    let mut init: Option<&Expr> = None;
    for argument in arguments {
        if !argument.path.is_ident("init") {
            let message = "the only argument is `init = function`";
            return Err(syn::Error::new(argument.path.span(), message));
        }
        init = Some(&argument.value);
    }
    if function.sig.asyncness.is_some() {
        let message = "main() describes jobs and waits for them; it is not async";
        return Err(syn::Error::new(function.sig.asyncness.span(), message));
    }
    if !function.sig.inputs.is_empty() {
        let message = "main() has no parameters; the program's arguments are in millstream::args()";
        return Err(syn::Error::new(function.sig.inputs.span(), message));
    }
    if function.sig.ident != "main" {
        return Err(syn::Error::new(function.sig.ident.span(), "this attribute belongs on `fn main`"));
    }
    function.sig.ident = syn::Ident::new("__millstream_user_main", function.sig.ident.span());
    let init = match init {
        Some(init) => quote! { #init },
        None => quote! { || () },
    };
    Ok(quote! {
        #function

        fn main() -> ::std::process::ExitCode {
            ::millstream::__private::enter(#init, __millstream_user_main)
        }
    })
}
