//! Congestion control that lets a single datagram pass even when no more may be under way.
//!
//! QUIC repeats what is lost after twice as long each time. When a path breaks while as much is under way as is allowed,
//! keep-alives have to wait like everything else, so that a path which heals after 6 s is not tried again until 10 s, when
//! the peer is given up. Acknowledgements wait as well where there is anything else to send, so that of a path which broke in
//! one direction only, the side that is still heard would never answer. The connection therefore tries the path itself, with a
//! [`Gate`] that it opens for one datagram.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use quinn_proto::{
    Connection as Machine, RttEstimator,
    congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig},
};

/// Whether congestion control is passed by. Of one thread; it is atomic because controllers may be sent to others.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// The gate of a connection whose transport has [`GatedConfig`].
    pub fn of(machine: &Machine) -> Gate {
        let controller = machine.congestion_state().clone_box().into_any();
        controller.downcast::<Gated>().map(|gated| gated.gate).unwrap_or_default()
    }

    /// Does something while the gate is open.
    pub fn open_during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.store(true, Relaxed);
        let done = work();
        self.0.store(false, Relaxed);
        done
    }
}

/// Makes controllers, each with a gate of its own.
#[derive(Clone, Debug)]
pub struct GatedConfig(pub Arc<CubicConfig>);

impl ControllerFactory for GatedConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = self.0.clone().build(now, current_mtu);
        Box::new(Gated { inner, gate: Gate::default() })
    }
}

/// Copies share the gate.
struct Gated {
    inner: Box<dyn Controller>,
    gate: Gate,
}

impl Controller for Gated {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        // Pacing does not hold up windows of this size either.
        if self.gate.0.load(Relaxed) { u64::MAX } else { self.inner.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Gated { inner: self.inner.clone_box(), gate: self.gate.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
