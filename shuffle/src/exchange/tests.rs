//! Exchanges against each other, over each transport, on loopback.
