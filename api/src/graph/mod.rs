//! From the calls of a program to a job graph: nodes (one per operator) become vertices (chains of operators).
//!
//! | Look here for | module |
//! |---|---|
//! | what the methods of streams record | [`node`] |
//! | which operators are chained, ids, validation | [`plan`] |

pub(crate) mod node;
pub(crate) mod plan;

pub use plan::InvalidGraph;
