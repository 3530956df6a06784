//! Why a connection cannot be had: tonic wraps it several times, and only the innermost error says something to people.

/// The cause that all others wrap.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The same of a call that has failed: what the other side has answered, or what has become of the connection.
pub fn cause_of(status: &tonic::Status) -> String {
    std::error::Error::source(status).map_or_else(|| status.message().to_owned(), root_cause)
}
