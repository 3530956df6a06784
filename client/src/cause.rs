//! Why a connection cannot be had: tonic wraps it several times, and only the innermost error says something to people.

/// The cause that all others wrap.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
