//! Numbers that functions report of themselves while they run, for Prometheus and whatever else watches a job.
//!
//! ```text
//!  function, on its slot's thread ──add, set──► Counter, Gauge ◄──report, from another thread── worker
//! ```
//! Each is written by one thread with plain stores, so that it may be used for every record.

use std::{
    marker::PhantomData,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use millstream_model::{
    id::OperatorId,
    message::{MetricValue, OperatorMetric},
};

/// What each operator counts: records that it has taken, and those that it has emitted, to side outputs too. Flink's names.
pub(crate) const RECORDS_IN: &str = "numRecordsIn";
pub(crate) const RECORDS_OUT: &str = "numRecordsOut";

/// A sum that one thread adds to.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    sum: Arc<AtomicI64>,
    of_one_thread: PhantomData<Rc<()>>,
}

impl Counter {
    #[inline]
    pub fn add(&self, amount: i64) {
        // Nobody else writes.
        self.sum.store(self.sum.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.sum.load(Relaxed)
    }
}

/// A count that costs one addition for each record: others see it when a signal has passed through the chain, as they do what an edge
/// has counted.
pub(crate) struct Tally {
    unseen: i64,
    seen: Counter,
}

impl Tally {
    pub(crate) fn new(seen: Counter) -> Tally {
        Tally { unseen: 0, seen }
    }

    #[inline]
    pub(crate) fn count(&mut self) {
        self.unseen += 1;
    }

    /// A signal passes.
    pub(crate) fn show(&mut self) {
        self.seen.add(std::mem::take(&mut self.unseen));
    }
}

/// A number that one thread sets.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    bits: Arc<AtomicU64>,
    of_one_thread: PhantomData<Rc<()>>,
}

impl Gauge {
    /// What is no finite number is not shown: there is none for now.
    #[inline]
    pub fn set(&self, value: f64) {
        self.bits.store(value.to_bits(), Relaxed);
    }

    /// 0 before it was set.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.bits.load(Relaxed))
    }
}

/// All metrics of the operators of one task. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MetricRegistry(Arc<Mutex<Vec<Registered>>>);

#[derive(Debug)]
struct Registered {
    operator: OperatorId,
    operator_name: String,
    name: String,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Counter(Arc<AtomicI64>),
    Gauge(Arc<AtomicU64>),
}

impl MetricRegistry {
    /// As they are now; from any thread.
    pub fn report(&self) -> Vec<OperatorMetric> {
        let of = |registered: &Registered| {
            let value = match &registered.value {
                Value::Counter(sum) => MetricValue::Counter(sum.load(Relaxed)),
                Value::Gauge(bits) => {
                    // Reports are JSON, which has no form for others.
                    let value = Some(f64::from_bits(bits.load(Relaxed))).filter(|value| value.is_finite());
                    MetricValue::Gauge(value?)
                }
            };
            Some(OperatorMetric {
                operator: registered.operator,
                operator_name: registered.operator_name.clone(),
                name: registered.name.clone(),
                value,
            })
        };
        self.lock().iter().filter_map(of).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Registered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The metrics of one operator of one subtask; Flink's `MetricGroup`.
#[derive(Clone, Debug)]
pub struct MetricGroup {
    pub(crate) operator: OperatorId,
    pub(crate) operator_name: Rc<str>,
    pub(crate) registry: MetricRegistry,
}

impl MetricGroup {
    /// A sum. The same name gives the same one.
    ///
    /// In Prometheus it is `flink_taskmanager_job_task_operator_` and the name, in which whatever is no letter or digit
    /// becomes `_`. A name that is a gauge already is logged, and what is returned shows nowhere: what a function reports of
    /// itself is no reason to fail a job.
    pub fn counter(&self, name: &str) -> Counter {
        let mut all = self.registry.lock();
        match self.find(&all, name) {
            Some(Value::Counter(sum)) => return Counter { sum: sum.clone(), of_one_thread: PhantomData },
            Some(Value::Gauge(_)) => {
                self.warn(name);
                return Counter::default();
            }
            None => {}
        }
        let counter = Counter::default();
        self.register(&mut all, name, Value::Counter(counter.sum.clone()));
        counter
    }

    /// A number that goes up and down. Otherwise as [`Self::counter`].
    pub fn gauge(&self, name: &str) -> Gauge {
        let mut all = self.registry.lock();
        match self.find(&all, name) {
            Some(Value::Gauge(bits)) => return Gauge { bits: bits.clone(), of_one_thread: PhantomData },
            Some(Value::Counter(_)) => {
                self.warn(name);
                return Gauge::default();
            }
            None => {}
        }
        let gauge = Gauge::default();
        self.register(&mut all, name, Value::Gauge(gauge.bits.clone()));
        gauge
    }

    fn find<'a>(&self, all: &'a [Registered], name: &str) -> Option<&'a Value> {
        let own = |registered: &&Registered| registered.operator == self.operator && registered.name == name;
        all.iter().find(own).map(|registered| &registered.value)
    }

    fn register(&self, all: &mut Vec<Registered>, name: &str, value: Value) {
        let (operator, operator_name) = (self.operator, self.operator_name.to_string());
        all.push(Registered { operator, operator_name, name: name.to_owned(), value });
    }

    fn warn(&self, name: &str) {
        tracing::warn!(operator = %self.operator_name, metric = name, "two metrics of different kinds have one name");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(registry: &MetricRegistry, operator: u128) -> MetricGroup {
        MetricGroup { operator: OperatorId(operator), operator_name: "map".into(), registry: registry.clone() }
    }

    #[test]
    fn metrics_are_told_apart_by_operator_and_name() {
        let registry = MetricRegistry::default();
        let (first, second) = (group(&registry, 1), group(&registry, 2));
        first.counter("late").add(2);
        first.counter("late").add(3);
        second.counter("late").add(7);
        second.gauge("load").set(0.5);
        let report = registry.report();
        let values: Vec<_> = report.iter().map(|metric| (metric.operator.0, &*metric.name, metric.value)).collect();
        assert_eq!(
            values,
            [
                (1, "late", MetricValue::Counter(5)),
                (2, "late", MetricValue::Counter(7)),
                (2, "load", MetricValue::Gauge(0.5)),
            ]
        );
    }

    #[test]
    fn what_is_no_number_is_not_reported() {
        let registry = MetricRegistry::default();
        let gauge = group(&registry, 1).gauge("ratio");
        gauge.set(f64::NAN);
        assert_eq!(registry.report(), []);
        gauge.set(f64::INFINITY);
        assert_eq!(registry.report(), []);
        gauge.set(0.5);
        assert_eq!(registry.report().len(), 1);
    }

    #[test]
    fn one_name_for_two_kinds_spoils_neither() {
        let registry = MetricRegistry::default();
        let group = group(&registry, 1);
        group.counter("n").add(1);
        group.gauge("n").set(9.0);
        assert_eq!(group.counter("n").get(), 1);
        assert_eq!(registry.report().len(), 1);
    }
}
