//! How often the bytes of records are copied between the producer's serializer and the consumer's operator. Counted with
//! the feature `count-copies` and in this crate's own tests; otherwise the calls are empty.
//!
//! What happens in crates of others cannot be counted, and is known from their code: the constants of [`Place`]. A copy of
//! the kernel's, from or to a socket's buffer, is none of ours and is not counted.

/// Where bytes of records are copied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// A small flush into the memory that frames are gathered in (`link/gather.rs`).
    Gather,
    /// Chunks too short for the transport, together (`transport/mod.rs`).
    Join,
    /// Chunks too short for a TLS record of their own, together (`transport/tcp/records.rs`).
    Record,
    /// A train of datagrams that is too short to keep its large buffer: one that was received (`io/trains.rs`), or is sent
    /// together with those of other connections (`transport/quic/endpoint.rs`).
    Train,
    /// What was not read at once, moved to the start of its buffer or aside (`transport/tcp/{run,pipe}.rs`).
    Aside,
    /// Out of what the transport has received into the segment that the consumer reads (`link/inlets.rs`).
    Inlet,
}

impl Place {
    pub const ALL: [Place; 6] = [Place::Gather, Place::Join, Place::Record, Place::Train, Place::Aside, Place::Inlet];

    /// quinn-proto writes a stream's chunks into the packet that it builds (`Connection::poll_transmit`), and encrypts it
    /// in place. On receipt it decrypts in place, and gives out slices of what arrived.
    pub const COPIES_IN_QUINN_PROTO: u64 = 1;
    /// rustls seals a record out of the caller's chunks into the caller's buffer (`WriteTraffic::encrypt`): a copy on the
    /// way into the record, encrypted there. On receipt it decrypts in place.
    pub const COPIES_IN_RUSTLS: u64 = 1;
}

#[cfg(any(test, feature = "count-copies"))]
mod counted {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Place;

    static BYTES: [AtomicU64; Place::ALL.len()] = [const { AtomicU64::new(0) }; Place::ALL.len()];

    /// So many bytes are copied there.
    pub(crate) fn copied(place: Place, bytes: usize) {
        BYTES[place as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many bytes were ever copied there, in this process.
    pub fn copied_bytes(place: Place) -> u64 {
        BYTES[place as usize].load(Ordering::Relaxed)
    }
}

#[cfg(any(test, feature = "count-copies"))]
pub(crate) use counted::copied;
#[cfg(any(test, feature = "count-copies"))]
pub use counted::copied_bytes;

/// So many bytes are copied there.
#[cfg(not(any(test, feature = "count-copies")))]
#[inline(always)]
pub(crate) fn copied(_: Place, _: usize) {}

#[cfg(test)]
mod tests;
