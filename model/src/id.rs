//! Names of things: one type each, so that two of them cannot be confused in a signature.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A 128-bit id whose text form is 32 hexadecimal digits, as Flink's `AbstractID`.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }
        impl FromStr for $name {
            type Err = MalformedId;
            fn from_str(text: &str) -> Result<Self, MalformedId> {
                parse_hex(text).map($name).ok_or_else(|| MalformedId(text.to_owned()))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// One submitted job.
    JobId
);
hex_id!(
    /// One vertex of a job graph: a chain of operators. Derived from the `uid` of its head, or its place in the graph.
    JobVertexId
);
hex_id!(
    /// One operator. State and savepoints refer to it, so it is derived from the `uid` where the user gave one.
    OperatorId
);
hex_id!(
    /// A TaskManager's time with one JobManager; when it registers again it has another: Flink's `InstanceID`.
    TaskManagerId
);
hex_id!(
    /// A running TaskManager, however often it registers; one that is started again has another: Flink's `ResourceID`.
    ResourceId
);
hex_id!(
    /// Slots of one TaskManager that a job holds, or that it is to get: Flink's `AllocationID`. No id is used twice.
    AllocationId
);

/// A text that is not 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an id: 32 hexadecimal digits are expected")]
pub struct MalformedId(String);

fn parse_hex(text: &str) -> Option<u128> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// The number of a checkpoint: 1, 2, 3, … within a job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct CheckpointId(pub u64);

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fencing token of a leader, compared first by `incarnation`, then by `revision`.
///
/// `revision` orders leaders of one store; `incarnation` is raised when a store is migrated or restored, since its
/// revisions may then go backwards. Every message of a coordinator carries it, and workers refuse lower ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct LeaderEpoch {
    pub incarnation: u64,
    pub revision: u64,
}

/// Names one (re)deployment of one pipelined region. The regions of a job draw from one count, so that no two deployments have
/// the same and a later one has a higher. Tasks of two generations never exchange a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// One parallel instance of a vertex, 0-based.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Subtask {
    pub vertex: JobVertexId,
    pub index: u32,
}

impl fmt::Display for Subtask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.vertex, self.index)
    }
}

/// One try of a subtask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ExecutionAttemptId {
    pub subtask: Subtask,
    pub generation: Generation,
}

/// A worker process, as its coordinator numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

/// One slot of a worker, 0-based.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SlotIndex(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form() {
        let id = JobId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(id.to_string(), "0123456789abcdef0011223344556677");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in ["", "12", "0123456789abcdef00112233445566zz", "+123456789abcdef0011223344556677"] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_higher_incarnation_beats_any_revision() {
        let old = LeaderEpoch { incarnation: 1, revision: 900 };
        assert!(LeaderEpoch { incarnation: 2, revision: 3 } > old);
    }
}
