//! How much each channel of a deployment may have under way at one worker, so that all together fit into the memory that
//! its slots have for buffers.

use std::collections::HashMap;

use millstream_model::{
    config::{GATE_SIZE_MAX, NETWORK_MEMORY_FRACTION, NETWORK_MEMORY_MAX, NETWORK_MEMORY_MIN},
    fault::Failure,
    id::{Subtask, WorkerId},
};
use millstream_shuffle::credit::Granter;

use crate::wiring::{Connection, Layout};

/// What a deployment may take of a worker's memory for buffers.
#[derive(Debug, Default)]
pub(crate) struct Share {
    /// What nobody has yet; `None` if nothing is limited.
    pub(crate) bytes_max: Option<u64>,
    /// The channels of deployments that are still to come, which get windows as large as this one's.
    pub(crate) beside: Vec<Vec<Connection>>,
}

/// The room of a deployment at a worker.
pub(crate) struct Room {
    /// As large as they fit; other workers may have others.
    pub(crate) layout: Layout,
    /// Of each connection.
    pub(crate) windows: Vec<u64>,
    /// Of each consumer that is here.
    pub(crate) granters: HashMap<Subtask, Granter>,
    /// What all of that is in bytes.
    pub(crate) bytes: u64,
}

impl Room {
    /// What the layout wants, or less if there is no such memory: windows are halved until it fits, together with those of
    /// the deployments that are still to come. So it does not matter which comes first.
    ///
    /// # Errors
    /// If there is too little for two segments per channel of this deployment. (If there is for this one, and not for the
    /// others, then they may not come at all.)
    pub(crate) fn fitting(
        layout: &Layout,
        connections: &[Connection],
        worker: WorkerId,
        share: &Share,
    ) -> Result<Room, Failure> {
        let wanted = Room::of(layout.clone(), connections, worker);
        let bytes_max = share.bytes_max.unwrap_or(u64::MAX);
        let wanted_bytes = wanted.bytes;
        let bytes_beside = |layout: &Layout| -> u64 {
            share.beside.iter().map(|connections| Room::of(layout.clone(), connections, worker).bytes).sum()
        };
        let mut room = wanted;
        while room.bytes.saturating_add(bytes_beside(&room.layout)) > bytes_max {
            match room.layout.with_half_the_windows() {
                Some(layout) => room = Room::of(layout, connections, worker),
                None if room.bytes <= bytes_max => break,
                None => return Err(too_little(room.bytes, bytes_max, connections.len())),
            }
        }
        if room.bytes < wanted_bytes {
            tracing::info!(
                wanted_bytes,
                bytes = room.bytes,
                bytes_max,
                "channels have smaller windows, since there is no more memory for buffers (taskmanager.memory.network.*)"
            );
        }
        Ok(room)
    }

    fn of(layout: Layout, connections: &[Connection], worker: WorkerId) -> Room {
        let windows = layout.windows(connections);
        let mut windows_into = HashMap::<Subtask, Vec<u64>>::new();
        let mut sending = 0;
        for (connection, window) in connections.iter().zip(&windows) {
            if connection.to == worker {
                windows_into.entry(connection.consumer).or_default().push(*window);
            } else {
                sending += layout.sending_window(connection.producer, *window);
            }
        }
        let granters: HashMap<Subtask, Granter> =
            windows_into.into_iter().map(|(consumer, windows)| (consumer, layout.granter(&windows))).collect();
        let bytes = granters.values().map(Granter::pool).sum::<u64>() + sending;
        Room { layout, windows, granters, bytes }
    }
}

/// Flink's words, and its keys.
fn too_little(needed: u64, there_is: u64, channels: usize) -> Failure {
    Failure::fatal(format!(
        "insufficient number of network buffers: {channels} channels need {needed} bytes at a worker whose slots have \
         {there_is}: raise {}, {} or {}, lower {}, or use a lower parallelism",
        NETWORK_MEMORY_FRACTION.name(),
        NETWORK_MEMORY_MIN.name(),
        NETWORK_MEMORY_MAX.name(),
        GATE_SIZE_MAX.name(),
    ))
}

#[cfg(test)]
mod tests {
    use millstream_model::id::JobVertexId;

    use super::*;

    const HERE: WorkerId = WorkerId(0);

    fn subtask(vertex: u128, index: u32) -> Subtask {
        Subtask { vertex: JobVertexId(vertex), index }
    }

    /// From each of so many producers to one consumer, half of them from another worker.
    fn connections(count: u32) -> Vec<Connection> {
        let connection = |index| {
            let from = WorkerId(index % 2);
            Connection { edge: 0, producer: subtask(1, index), consumer: subtask(2, 0), from, to: HERE }
        };
        (0..count).map(connection).collect()
    }

    fn fitting(bytes_max: Option<u64>) -> Result<Room, Failure> {
        beside(8, &[], bytes_max)
    }

    /// A deployment with so many channels, while others with so many are still to come.
    fn beside(count: u32, others: &[u32], bytes_max: Option<u64>) -> Result<Room, Failure> {
        let into = HashMap::from([(subtask(2, 0), count as usize)]);
        let out_of = (0..count).map(|index| (subtask(1, index), 1)).collect();
        let layout = Layout::fixed(64, 4096, 512, 2048, into, out_of);
        let share = Share { bytes_max, beside: others.iter().map(|count| connections(*count)).collect() };
        Room::fitting(&layout, &connections(count), HERE, &share)
    }

    #[test]
    fn windows_shrink_until_all_channels_fit_and_no_further_than_to_two_segments() {
        let whole = fitting(None).unwrap();
        assert_eq!((whole.bytes, whole.windows[0]), (4096, 512));
        assert_eq!(fitting(Some(4096)).unwrap().windows, whole.windows);
        for bytes_max in [4095, 2048, 1024] {
            let room = fitting(Some(bytes_max)).unwrap();
            assert!(room.bytes <= bytes_max && room.bytes * 2 > bytes_max, "{} of {bytes_max}", room.bytes);
            let granted: u64 = room.granters.values().map(Granter::pool).sum();
            assert_eq!(granted, room.bytes);
        }
        let failure = fitting(Some(1023)).err().unwrap();
        for part in ["8 channels need 1024 bytes", "have 1023", "taskmanager.memory.network.fraction"] {
            assert!(failure.message.contains(part), "{failure}");
        }
    }

    #[test]
    fn deployments_that_come_together_all_fit_where_they_would_as_one_and_the_order_does_not_matter() {
        let counts = [8, 2, 5, 1];
        let least: u64 = counts.iter().map(|count| u64::from(2 * count) * 64).sum();
        for bytes_max in (least..9_000).step_by(64) {
            for first in 0..counts.len() {
                let mut order = counts;
                order.rotate_left(first);
                let (mut left, mut before) = (bytes_max, 0);
                for (at, count) in order.iter().enumerate() {
                    let room = beside(*count, &order[at + 1..], Some(left));
                    let room = room.unwrap_or_else(|failure| panic!("{count} of {order:?} in {bytes_max}: {failure}"));
                    left -= room.bytes;
                    // Who comes last may have what the others could not share out, and nobody less than those before.
                    assert!(room.windows[0] >= before, "{count} of {order:?} in {bytes_max}");
                    before = room.windows[0];
                }
            }
        }
        // What fits as it is stays as it is.
        let room = beside(8, &[2, 5, 1], Some(100_000)).unwrap();
        assert_eq!(room.windows, fitting(None).unwrap().windows);
        assert!(beside(8, &[8], Some(1023)).is_err());
        assert!(beside(8, &[8], Some(1024)).is_ok(), "the others may not come");
    }
}
