//! References to parts: values that a function has just put together from other handles.
//!
//! `ClickParts<'x>` holds handles that last for `'x`. To the compiler it is invariant in `'x`, because its fields are
//! projections (`<Kind as Record>::Ref<'x>`), so a handle over `&'a ClickParts<'a>` could not be made of parts that live
//! for one statement but hold the handles of a longer-lived record: `out.emit(&ClickParts { kind: c.kind(), .. })`.
//! [`Lent`] forgets `'x`, remembers that it is no shorter than `'a`, and lets what is read be shortened to `'a`.

use std::{marker::PhantomData, mem};

/// A family of types that differ in the lifetime of the handles in them. `#[derive(Record)]` implements it.
pub trait Parts: 'static {
    /// The type whose handles last for `'x`.
    type At<'x>: ?Sized;
}

/// The proof that `'x` is no shorter than `'a`.
pub type Outlives<'x, 'a> = PhantomData<&'a &'x ()>;

/// `&'a P::At<'x>` for some forgotten `'x` that is no shorter than `'a`. As large as that reference.
///
/// What is in it cannot be kept for longer than `'a`:
/// ```compile_fail,E0521
/// use millstream_api::record::parts::{Lent, Parts};
/// struct Name;
/// impl Parts for Name {
///     type At<'x> = &'x str;
/// }
/// fn keep<'a>(name: Lent<'a, Name>) -> &'static str {
///     name.read(|name, _| *name)
/// }
/// ```
pub struct Lent<'a, P: Parts> {
    /// Invariant: it was `&'a P::At<'x>` with `'x: 'a`; only `read` uses it, and treats `'x` as unknown.
    parts: &'a P::At<'static>,
}

impl<P: Parts> Clone for Lent<'_, P> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Parts> Copy for Lent<'_, P> {}

impl<'a, P: Parts> Lent<'a, P> {
    #[inline]
    pub fn new<'x: 'a>(parts: &'a P::At<'x>) -> Self {
        // SAFETY: types that differ only in a lifetime have the same layout. The wrong lifetime is never seen:
        // `parts` is private, and `read` shows it only to code that is correct for every `'x: 'a`.
        Lent { parts: unsafe { mem::transmute::<&'a P::At<'x>, &'a P::At<'static>>(parts) } }
    }

    /// Reads the parts. `read` must do for every `'x`, so nothing leaves it before `Record::shorten` has made it `'a`.
    #[inline]
    pub fn read<R>(self, read: impl for<'x> FnOnce(&'a P::At<'x>, Outlives<'x, 'a>) -> R) -> R {
        read(self.parts, PhantomData)
    }
}
