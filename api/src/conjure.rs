//! Makes functions from their types: how a closure without captures gets from the program that planned a job to the
//! worker, where only the monomorphised code is. For this crate and for connectors.

/// Makes the value of a type that has only one: a function item, or a closure without captures.
#[inline]
pub fn conjure<F: Copy + 'static>() -> F {
    // Public methods refuse captures when the program is built, with a message for its author; this is for ourselves.
    assert!(size_of::<F>() == 0, "only functions without captures can be made from nothing");
    // SAFETY: a value of size 0 can be read from any aligned address, and has no bytes that could be wrong. `Copy` values
    // of the type can be made by copying one, and the program that planned the job has one: the argument whose type `F`
    // is. `Copy` also excludes types that must run a `Drop`.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}
