//! Asking the processor for memory before it is needed.

/// Brings what `place` refers to into the caches, without waiting for it. A hint: on processors without such an
/// instruction it does nothing.
#[inline]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there is nothing to ask with"))]
pub(super) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction belongs to SSE, which every x86-64 processor has, and it reads nothing that a program
        // could see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *place).cast()) };
    }
}
