//! `process` on a stream without keys.

use std::rc::Rc;

use millstream_model::{fault::Failure, time::Watermark};

use crate::{
    factory::{Build, Product},
    flow::{self, Flow},
    function::{ProcessContext, ProcessFunction},
    operators::stateless::node,
    push::{Forward, Operator, Out},
    record::Record,
    signal::Signal,
};

struct Process<P> {
    function: P,
    flow: Rc<Flow>,
    watermark: Watermark,
}

impl<P: ProcessFunction> Operator<P::In, P::Out> for Process<P> {
    #[inline]
    fn process(&mut self, record: <P::In as Record>::Ref<'_>, out: &mut Out<'_, P::Out>) {
        let context = ProcessContext { flow: &self.flow, watermark: self.watermark };
        self.function.process(record, &context, out).unwrap_or_else(|failure| flow::fail(failure));
    }

    fn signal(&mut self, signal: &mut Signal<'_>, _: &mut Out<'_, P::Out>) -> Forward {
        match signal {
            Signal::Watermark(watermark) => self.watermark = *watermark,
            Signal::Close => self.function.close(),
            _ => {}
        }
        Forward::Now
    }
}

pub(crate) fn process<P: ProcessFunction>(mut build: Build<'_>) -> Result<Product, Failure> {
    let function = P::open(build.conf()?, &mut build.context)?;
    let flow = build.context.flow.clone();
    node::<P::In, P::Out>(Process { function, flow, watermark: Watermark::MIN }, build)
}
