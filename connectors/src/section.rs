//! How connectors write their state and their messages.

use millstream_model::fault::Failure;
use serde::{Serialize, de::DeserializeOwned};

/// Serializes a message or a piece of state.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("paths, numbers and flags can be serialized")
}

/// Reads what [`encode`] has written; `what` names it for people.
///
/// # Errors
/// If the bytes are of something else.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Failure> {
    postcard::from_bytes(bytes).map_err(|cause| {
        Failure::fatal(format!(
            "{what} cannot be read ({cause}): it was written by another version, or by an operator of another kind with \
             the same uid"
        ))
    })
}
