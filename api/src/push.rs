//! The joints of a chain: one virtual call per record, from an operator to the one behind it.

use std::{any::Any, marker::PhantomData, rc::Rc};

use millstream_model::{fault::Failure, key_group::KeyHash};

use crate::{
    flow::{self, Blame, Flow},
    metrics::{MetricGroup, RECORDS_IN, RECORDS_OUT, Tally},
    record::Record,
    signal::Signal,
};

/// Something that takes records: an operator with all that is chained behind it, or the writer of an edge.
pub trait Push<T: Record> {
    fn push(&mut self, record: T::Ref<'_>);

    /// Whether [`Push::warm`] would do anything now.
    fn can_warm(&self) -> bool {
        false
    }

    /// Hints that records with keys of these hashes are about to be pushed: what they need may be brought into the
    /// processor's cache for all of them at once.
    fn warm(&mut self, _key_hashes: &[KeyHash]) {}

    /// Passes a signal through this operator to all that is behind it.
    fn signal(&mut self, signal: &mut Signal<'_>);

    /// Whether this operator, or one behind it, takes no record before something has reached it from outside.
    fn waits(&self) -> bool {
        false
    }
}

/// A `Box<dyn Push<T>>` whose `T` only its maker and its user know.
pub struct AnyPush {
    push: Box<dyn Any>,
    signal: fn(&mut dyn Any, &mut Signal<'_>),
    waits: fn(&dyn Any) -> bool,
}

impl AnyPush {
    pub fn new<T: Record>(push: impl Push<T> + 'static) -> AnyPush {
        let push = Box::new(Box::new(push) as Box<dyn Push<T>>);
        AnyPush { push, signal: signal_typed::<T>, waits: waits_typed::<T> }
    }

    /// # Errors
    /// If it takes records of another type: then the graph was not made by this program.
    pub fn typed<T: Record>(self) -> Result<Box<dyn Push<T>>, Failure> {
        self.push.downcast::<Box<dyn Push<T>>>().map(|push| *push).map_err(|_| {
            Failure::fatal(format!(
                "the job graph joins an operator that emits {} with one that takes something else; it was not \
                 planned by this executable",
                std::any::type_name::<T>()
            ))
        })
    }
}

fn signal_typed<T: Record>(push: &mut dyn Any, signal: &mut Signal<'_>) {
    push.downcast_mut::<Box<dyn Push<T>>>().expect("made together with this function").signal(signal);
}

fn waits_typed<T: Record>(push: &dyn Any) -> bool {
    push.downcast_ref::<Box<dyn Push<T>>>().expect("made together with this function").waits()
}

/// The consumers of what one operator emits.
pub struct Outputs<O: Record> {
    main: Main<O>,
    sides: Vec<Side>,
    /// Each record once, however many consumers it has.
    records_out: Tally,
}

enum Main<O: Record> {
    None,
    One(Box<dyn Push<O>>),
    Many(Vec<Box<dyn Push<O>>>),
}

/// A consumer of a side output.
struct Side {
    tag: String,
    push: AnyPush,
}

/// A consumer of an operator, and the side output it reads (`None`: the main one).
pub type TaggedPush = (Option<String>, AnyPush);

impl<O: Record> Outputs<O> {
    /// Those of an operator, which shows how much it emits among its metrics.
    ///
    /// # Errors
    /// If a consumer takes another type.
    pub fn new(outputs: Vec<TaggedPush>, metrics: &MetricGroup) -> Result<Outputs<O>, Failure> {
        let (mut main, mut sides) = (Vec::new(), Vec::new());
        for (tag, push) in outputs {
            match tag {
                None => main.push(push.typed::<O>()?),
                Some(tag) => sides.push(Side { tag, push }),
            }
        }
        let main = match main.len() {
            0 => Main::None,
            1 => Main::One(main.remove(0)),
            _ => Main::Many(main),
        };
        Ok(Outputs { main, sides, records_out: Tally::new(metrics.counter(RECORDS_OUT)) })
    }

    #[inline]
    pub fn push(&mut self, record: O::Ref<'_>) {
        self.records_out.count();
        match &mut self.main {
            Main::One(push) => push.push(record),
            Main::None => {}
            Main::Many(all) => all.iter_mut().for_each(|push| push.push(record)),
        }
    }

    /// Passes a signal to every consumer, those of side outputs too.
    pub fn signal(&mut self, signal: &mut Signal<'_>) {
        self.records_out.show();
        match &mut self.main {
            Main::One(push) => push.signal(signal),
            Main::None => {}
            Main::Many(all) => all.iter_mut().for_each(|push| push.signal(signal)),
        }
        for side in &mut self.sides {
            (side.push.signal)(&mut *side.push.push, signal);
        }
    }

    /// Whether an operator behind this one waits.
    fn waits(&self) -> bool {
        let main = match &self.main {
            Main::One(push) => push.waits(),
            Main::None => false,
            Main::Many(all) => all.iter().any(|push| push.waits()),
        };
        main || self.sides.iter().any(|side| (side.push.waits)(&*side.push.push))
    }

    fn push_side<S: Record>(&mut self, tag: &str, record: S::Ref<'_>) {
        self.records_out.count();
        for side in self.sides.iter_mut().filter(|side| side.tag == tag) {
            match side.push.push.downcast_mut::<Box<dyn Push<S>>>() {
                Some(push) => push.push(record),
                None => flow::fail(Failure::fatal(format!(
                    "side output '{tag}' is read as another type than {}",
                    std::any::type_name::<S>()
                ))),
            }
        }
    }
}

/// Where a function puts the records that it emits.
pub struct Out<'o, O: Record>(pub(crate) &'o mut Outputs<O>);

impl<O: Record> Out<'_, O> {
    /// Emits a record, given as a handle or as parts.
    #[inline]
    pub fn emit<'a>(&mut self, record: impl Into<O::Ref<'a>>) {
        self.0.push(record.into());
    }

    /// Emits a record to a side output. Without a consumer of that output it is dropped.
    pub fn emit_to<'a, S: Record>(&mut self, tag: &OutputTag<S>, record: impl Into<S::Ref<'a>>) {
        self.0.push_side::<S>(tag.name, record.into());
    }

    #[inline]
    pub(crate) fn signal(&mut self, signal: &mut Signal<'_>) {
        self.0.signal(signal);
    }

    /// Whether a record emitted now would have to lie about: an output has no room, or an operator behind this one
    /// waits. One that waits before this one does not count, or the two would wait for each other. Operators that can
    /// pause look at this between two records they emit.
    #[inline]
    pub(crate) fn is_blocked(&self, flow: &Flow) -> bool {
        flow.full() || (flow.waits() && self.0.waits())
    }
}

/// The name and type of a side output, as Flink's `OutputTag`. Make it a constant.
pub struct OutputTag<S> {
    name: &'static str,
    of: PhantomData<fn() -> S>,
}

impl<S: Record> OutputTag<S> {
    pub const fn new(name: &'static str) -> Self {
        OutputTag { name, of: PhantomData }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// Whether a signal goes on to what is behind an operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forward {
    Now,
    /// The operator passes it on itself, later or not at all.
    Hold,
}

/// What an operator does with records and signals; [`Node`] makes it a link of a chain.
pub trait Operator<I: Record, O: Record>: 'static {
    fn process(&mut self, record: I::Ref<'_>, out: &mut Out<'_, O>);

    fn signal(&mut self, _signal: &mut Signal<'_>, _out: &mut Out<'_, O>) -> Forward {
        Forward::Now
    }

    /// See [`Push::can_warm`].
    fn can_warm(&self) -> bool {
        false
    }

    /// See [`Push::warm`].
    fn warm(&mut self, _key_hashes: &[KeyHash]) {}

    /// Whether this operator takes no record before something has reached it from outside; as it has told
    /// [`Flow::operator_waits`].
    fn waits(&self) -> bool {
        false
    }
}

/// An operator in its place in a chain.
pub struct Node<P, I: Record, O: Record> {
    operator: P,
    outputs: Outputs<O>,
    name: Rc<str>,
    records_in: Tally,
    input: PhantomData<fn(I)>,
}

impl<P: Operator<I, O>, I: Record, O: Record> Node<P, I, O> {
    /// What it takes and emits shows among its metrics.
    ///
    /// # Errors
    /// If a consumer takes another type than it emits.
    pub fn new(operator: P, outputs: Vec<TaggedPush>, name: Rc<str>, metrics: &MetricGroup) -> Result<Self, Failure> {
        let outputs = Outputs::new(outputs, metrics)?;
        Ok(Node { operator, outputs, name, records_in: Tally::new(metrics.counter(RECORDS_IN)), input: PhantomData })
    }
}

impl<P: Operator<I, O>, I: Record, O: Record> Push<I> for Node<P, I, O> {
    #[inline]
    fn push(&mut self, record: I::Ref<'_>) {
        self.records_in.count();
        let blame = Blame::on(&self.name);
        self.operator.process(record, &mut Out(&mut self.outputs));
        blame.lift();
    }

    fn can_warm(&self) -> bool {
        self.operator.can_warm()
    }

    fn warm(&mut self, key_hashes: &[KeyHash]) {
        self.operator.warm(key_hashes);
    }

    fn signal(&mut self, signal: &mut Signal<'_>) {
        self.records_in.show();
        let blame = Blame::on(&self.name);
        signal_operator(&mut self.operator, &mut self.outputs, signal);
        blame.lift();
    }

    fn waits(&self) -> bool {
        self.operator.waits() || self.outputs.waits()
    }
}

/// Shows a signal to an operator and to what is behind it, in the order that the signal asks for.
pub(crate) fn signal_operator<P: Operator<I, O>, I: Record, O: Record>(
    operator: &mut P,
    outputs: &mut Outputs<O>,
    signal: &mut Signal<'_>,
) {
    if matches!(signal, Signal::Resume) {
        outputs.signal(signal);
        operator.signal(signal, &mut Out(outputs));
    } else if operator.signal(signal, &mut Out(outputs)) == Forward::Now {
        outputs.signal(signal);
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::{id::OperatorId, message::MetricValue};

    use super::*;
    use crate::metrics::MetricRegistry;

    const ODD: OutputTag<u64> = OutputTag::new("odd");

    /// Emits each number twice, and odd ones to the side, too.
    struct Twice;

    impl Operator<u64, u64> for Twice {
        fn process(&mut self, number: u64, out: &mut Out<'_, u64>) {
            out.emit(number);
            out.emit(number);
            if number % 2 == 1 {
                out.emit_to(&ODD, number);
            }
        }
    }

    #[test]
    fn each_operator_of_a_chain_counts_what_it_takes_and_what_it_emits() {
        let registry = MetricRegistry::default();
        let group = |operator: u128, name: &str| MetricGroup {
            operator: OperatorId(operator),
            operator_name: name.into(),
            registry: registry.clone(),
        };
        let second = Node::new(Twice, Vec::new(), "second".into(), &group(2, "second")).unwrap();
        let outputs = vec![(None, AnyPush::new::<u64>(second))];
        let mut first = Node::<_, u64, u64>::new(Twice, outputs, "first".into(), &group(1, "first")).unwrap();
        (0..5).for_each(|number| first.push(number));
        first.signal(&mut Signal::Flush);
        let shown = |operator: &str, name: &str| {
            let mut all = registry.report().into_iter();
            let found = all.find(|metric| metric.operator_name == operator && metric.name == name);
            found.map(|metric| metric.value)
        };
        for (operator, name, sum) in [
            ("first", RECORDS_IN, 5),
            ("first", RECORDS_OUT, 12),
            ("second", RECORDS_IN, 10),
            ("second", RECORDS_OUT, 24),
        ] {
            assert_eq!(shown(operator, name), Some(MetricValue::Counter(sum)), "{operator} {name}");
        }
    }
}
