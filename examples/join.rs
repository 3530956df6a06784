//! Joins two streams: orders with their payments, whichever comes first, and tells which orders are not paid in time.
//!
//! ```text
//! cargo run -p millstream-examples --bin join
//! ```
//!
//! ```text
//!  orders   ─► time stamps ══by order══╗              ┌─► paid
//!                                      ╠═► Settle ────┤
//!  payments ─► time stamps ══by order══╝              └─► UNPAID (side output)
//! ```
//! Both streams are partitioned by the order's number, so that an order and its payment meet in the same subtask, where
//! they share the state of their key.

use millstream::prelude::*;

#[derive(Record, Clone)]
struct Order {
    number: u64,
    customer: String,
    cents: u64,
    at_millis: i64,
}

#[derive(Record, Clone)]
struct Payment {
    order: u64,
    method: String,
    at_millis: i64,
}

/// Number, customer, cents, method.
type PaidOrder = (u64, String, u64, String);

/// Orders that nobody has paid for.
const UNPAID: OutputTag<Order> = OutputTag::new("unpaid");
const PATIENCE_MILLIS: i64 = 60_000;

/// Keeps whichever of the two comes first until the other one is there, or its time is over.
struct Settle {
    order: ValueState<u64, Order>,
    payment: ValueState<u64, Payment>,
}

impl KeyedCoProcessFunction for Settle {
    type Key = u64;
    type In1 = Order;
    type In2 = Payment;
    type Out = PaidOrder;
    type Conf = ();

    fn open((): (), context: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(Settle { order: context.value_state("order")?, payment: context.value_state("payment")? })
    }

    /// An order. Its handle reads fields where the record lies; only what is kept is copied.
    fn process1(
        &mut self,
        order: OrderRef<'_>,
        context: &KeyedContext<'_, u64>,
        out: &mut Out<'_, PaidOrder>,
    ) -> Result<(), Failure> {
        self.order.set(context, order.to_owned());
        context.register_event_time_timer(EventTime(order.at_millis() + PATIENCE_MILLIS));
        self.settle(context, out);
        Ok(())
    }

    /// A payment.
    fn process2(
        &mut self,
        payment: PaymentRef<'_>,
        context: &KeyedContext<'_, u64>,
        out: &mut Out<'_, PaidOrder>,
    ) -> Result<(), Failure> {
        self.payment.set(context, payment.to_owned());
        context.register_event_time_timer(EventTime(payment.at_millis() + PATIENCE_MILLIS));
        self.settle(context, out);
        Ok(())
    }

    /// Event time has passed the end of somebody's patience, on both streams.
    fn on_timer(
        &mut self,
        timer: Timer,
        context: &KeyedContext<'_, u64>,
        out: &mut Out<'_, PaidOrder>,
    ) -> Result<(), Failure> {
        let Timer::EventTime(EventTime(now)) = timer else { return Ok(()) };
        let is_over = |at_millis: i64| at_millis + PATIENCE_MILLIS <= now;
        if self.payment.get(context).is_some_and(|payment| is_over(payment.at_millis)) {
            self.payment.clear(context);
        }
        if let Some(order) = self.order.get(context).filter(|order| is_over(order.at_millis)) {
            self.order.clear(context);
            out.emit_to(&UNPAID, &order);
        }
        Ok(())
    }
}

impl Settle {
    /// Emits an order with its payment, once both are there. That depends on their times and not on which of the streams
    /// happens to be ahead: so the results are the same in each run.
    fn settle(&self, context: &KeyedContext<'_, u64>, out: &mut Out<'_, PaidOrder>) {
        let (Some(order), Some(payment)) = (self.order.get(context), self.payment.get(context)) else { return };
        if payment.at_millis.abs_diff(order.at_millis) < PATIENCE_MILLIS.unsigned_abs() {
            out.emit((order.number, order.customer.as_str(), order.cents, payment.method.as_str()));
            self.order.clear(context);
            self.payment.clear(context);
        }
    }
}

#[millstream::main]
fn main() -> Result<(), JobError> {
    let mut env = StreamExecutionEnvironment::get();
    env.set_parallelism(2);

    let orders = env
        .from_collection(orders())
        .assign_timestamps_and_watermarks(WatermarkStrategy::for_monotonous_timestamps(), |order| order.at_millis())
        .key_by::<u64, _>(|order| order.number());
    let payments = env
        .from_collection(payments())
        .assign_timestamps_and_watermarks(WatermarkStrategy::for_monotonous_timestamps(), |payment| payment.at_millis())
        .key_by::<u64, _>(|payment| payment.order());

    let settled = orders.connect(&payments).process::<Settle>(()).name("settle").uid("settle");
    let unpaid = settled.side_output(&UNPAID).collect();
    let paid = settled.collect();

    let result = env.execute("join orders and payments")?;
    let mut paid = result.collected(&paid);
    paid.sort();
    for (number, customer, cents, method) in paid {
        println!("order {number} of {customer}: {}.{:02} by {method}", cents / 100, cents % 100);
    }
    for order in result.collected(&unpaid) {
        println!("order {} of {} was not paid within {} s", order.number, order.customer, PATIENCE_MILLIS / 1000);
    }
    Ok(())
}

fn orders() -> Vec<Order> {
    let orders = [(1, "ann", 1250, 0), (2, "bob", 799, 10), (3, "cid", 20_000, 20), (4, "ann", 4900, 200)];
    let order = |(number, customer, cents, at): (u64, &str, u64, i64)| Order {
        number,
        customer: customer.into(),
        cents,
        at_millis: at * 1000,
    };
    orders.map(order).into()
}

/// That of order 2 comes an hour too late.
fn payments() -> Vec<Payment> {
    let payments = [(3, "card", 21), (1, "transfer", 40), (4, "card", 230), (2, "transfer", 3600)];
    let payment =
        |(order, method, at): (u64, &str, i64)| Payment { order, method: method.into(), at_millis: at * 1000 };
    payments.map(payment).into()
}
