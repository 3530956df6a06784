//! Operators with two inputs. They head their chain and read both streams themselves.

use std::rc::Rc;

use millstream_model::{fault::Failure, time::Watermark};

use super::keyed::KeyedCore;
use crate::{
    factory::{Build, KeyRef, Product},
    flow::{self, Blame, Flow},
    function::{CoProcessFunction, KeyedCoProcessFunction, ProcessContext},
    head::{Head, read_records},
    metrics::{Counter, RECORDS_IN},
    push::{Forward, Out, Outputs},
    record::{archive::Trust, key::KeyOf},
    signal::Signal,
};

struct CoProcess<P: CoProcessFunction> {
    function: P,
    outputs: Outputs<P::Out>,
    flow: Rc<Flow>,
    name: Rc<str>,
    watermark: Watermark,
    records_in: Counter,
}

impl<P: CoProcessFunction> Head for CoProcess<P> {
    fn records(&mut self, input: u8, frames: &[u8], trust: Trust, budget: &mut u32) -> Result<usize, Failure> {
        let CoProcess { function, outputs, flow, name, watermark, records_in } = self;
        let before = *budget;
        let blame = Blame::on(name);
        let context = ProcessContext { flow, watermark: *watermark };
        let taken = match input {
            0 => read_records::<P::In1>(frames, trust, budget, u32::MAX, flow, |record| {
                function.process1(record, &context, &mut Out(outputs)).unwrap_or_else(|failure| flow::fail(failure));
            }),
            _ => read_records::<P::In2>(frames, trust, budget, u32::MAX, flow, |record| {
                function.process2(record, &context, &mut Out(outputs)).unwrap_or_else(|failure| flow::fail(failure));
            }),
        };
        blame.lift();
        records_in.add((before - *budget).into());
        taken
    }

    fn signal(&mut self, signal: &mut Signal<'_>) {
        let blame = Blame::on(&self.name);
        match signal {
            Signal::Watermark(watermark) => self.watermark = *watermark,
            Signal::Close => self.function.close(),
            _ => {}
        }
        blame.lift();
        self.outputs.signal(signal);
    }
}

pub(crate) fn co_process<P: CoProcessFunction>(mut build: Build<'_>) -> Result<Product, Failure> {
    let function = P::open(build.conf()?, &mut build.context)?;
    Ok(Product::Head(Box::new(CoProcess {
        function,
        outputs: Outputs::new(build.outputs, &build.context.metrics())?,
        records_in: build.context.metrics().counter(RECORDS_IN),
        flow: build.context.flow.clone(),
        name: build.context.name.clone(),
        watermark: Watermark::MIN,
    })))
}

/// What travels for a keyed operator with two inputs.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct KeyedCoConf<C> {
    pub(crate) keys: (KeyRef, KeyRef),
    pub(crate) conf: C,
}

/// The key selectors of both inputs.
type Keys<P> = (
    KeyOf<<P as KeyedCoProcessFunction>::Key, <P as KeyedCoProcessFunction>::In1>,
    KeyOf<<P as KeyedCoProcessFunction>::Key, <P as KeyedCoProcessFunction>::In2>,
);

struct KeyedCoProcess<P: KeyedCoProcessFunction> {
    function: P,
    keys: Keys<P>,
    core: KeyedCore<P::Key>,
    outputs: Outputs<P::Out>,
    flow: Rc<Flow>,
    name: Rc<str>,
    records_in: Counter,
}

impl<P: KeyedCoProcessFunction> Head for KeyedCoProcess<P> {
    fn records(&mut self, input: u8, frames: &[u8], trust: Trust, budget: &mut u32) -> Result<usize, Failure> {
        let KeyedCoProcess { function, keys, core, outputs, flow, name, records_in } = self;
        let before = *budget;
        let blame = Blame::on(name);
        let taken = match input {
            0 => read_records::<P::In1>(frames, trust, budget, u32::MAX, flow, |record| {
                core.with_context(keys.0, record, |context| function.process1(record, context, &mut Out(outputs)))
                    .unwrap_or_else(|failure| flow::fail(failure));
            }),
            _ => read_records::<P::In2>(frames, trust, budget, u32::MAX, flow, |record| {
                core.with_context(keys.1, record, |context| function.process2(record, context, &mut Out(outputs)))
                    .unwrap_or_else(|failure| flow::fail(failure));
            }),
        };
        blame.lift();
        records_in.add((before - *budget).into());
        taken
    }

    fn signal(&mut self, signal: &mut Signal<'_>) {
        let KeyedCoProcess { function, core, outputs, name, .. } = self;
        let blame = Blame::on(name);
        if matches!(signal, Signal::Resume) {
            outputs.signal(signal);
        }
        if matches!(signal, Signal::Close) {
            function.close();
        }
        let forward = core.signal(signal, &mut Out(outputs), |timer, context, out| {
            function.on_timer(timer, context, out).unwrap_or_else(|failure| flow::fail(failure));
        });
        if forward == Forward::Now && !matches!(signal, Signal::Resume) {
            outputs.signal(signal);
        }
        blame.lift();
    }
}

pub(crate) fn keyed_co_process<P: KeyedCoProcessFunction>(mut build: Build<'_>) -> Result<Product, Failure> {
    let KeyedCoConf { keys, conf } = build.conf()?;
    // SAFETY: the graph's hash is this executable's (see `factory::resolve`), and `ConnectedStreams` made the
    // references for these keys and records.
    let keys = unsafe { (keys.0.resolve::<P::Key, P::In1>()?, keys.1.resolve::<P::Key, P::In2>()?) };
    let function = P::open(conf, &mut build.context)?;
    let Build { context, outputs, .. } = build;
    let (flow, name, metrics) = (context.flow.clone(), context.name.clone(), context.metrics());
    let outputs = Outputs::new(outputs, &metrics)?;
    let core = KeyedCore::new(context)?;
    let records_in = metrics.counter(RECORDS_IN);
    Ok(Product::Head(Box::new(KeyedCoProcess { function, keys, core, outputs, flow, name, records_in })))
}
