//! The protocol's messages and services. `proto/millstream/v1/*.proto` describes them; the code is made of that by
//! `UPDATE_PROTO=1 cargo test -p millstream-client --test generated`, and checked in, so that nobody needs `protoc`.

/// Version 1.
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, unused_qualifications, reason = "generated")]
pub mod v1 {
    include!("../generated/millstream.v1.rs");
}

/// All of it as a file descriptor set, for servers that describe themselves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("../generated/millstream.v1.bin");
