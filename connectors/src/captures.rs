//! Which closures connectors take: their code travels to the workers, and nothing else of them
//! (`millstream_api::conjure`).

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
