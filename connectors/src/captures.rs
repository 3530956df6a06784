//! Makes functions from their types: how a closure without captures gets from the program that planned a job to the
//! worker, where only the monomorphised code is.

/// Makes the value of a type that has only one: a function item, or a closure without captures.
#[inline]
pub fn conjure<F: Copy + 'static>() -> F {
    const { assert!(size_of::<F>() == 0, "only functions without captures can be made from nothing") };
    // SAFETY: a value of size 0 can be read from any aligned address, and has no bytes that could be wrong. `Copy` values
    // of the type can be made by copying one, and the program that planned the job has one: the argument whose type `F`
    // is. `Copy` also excludes types that must run a `Drop`.
    unsafe { std::ptr::NonNull::<F>::dangling().read() }
}

/// Refuses a function with captures while it is compiled, at the line that has it.
macro_rules! refuse_captures {
    ($function:ty) => {
        const {
            assert!(
                size_of::<$function>() == 0,
                "this closure captures variables; it is rebuilt on the workers from its code alone, so what it needs \
                 must come with the records or be a constant"
            );
        }
    };
}
pub(crate) use refuse_captures;
