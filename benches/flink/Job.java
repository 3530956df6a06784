import java.net.DatagramPacket;
import java.net.DatagramSocket;
import java.net.InetAddress;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.streaming.api.functions.source.legacy.RichParallelSourceFunction;
import org.apache.flink.util.Collector;

/** The jobs of the benchmark of operations, as `benches/src/bin/operations.rs` has them. Arguments: which, port, keys, rate. */
public class Job {
    public static void main(String[] arguments) throws Exception {
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
        if (arguments[0].equals("trivial")) {
            env.setParallelism(1);
            env.addSource(new Numbers(1.0)).sinkTo(new DiscardingSink<>());
            env.execute("trivial");
            return;
        }
        int port = Integer.parseInt(arguments[1]);
        long keys = Long.parseLong(arguments[2]);
        env.setParallelism(2);
        env.getConfig().enableObjectReuse();
        env.addSource(new Numbers(Double.parseDouble(arguments[3]) / 2))
                .uid("numbers")
                .map(number -> number % keys)
                .returns(Long.class)
                .keyBy(key -> key)
                .process(new Count(port))
                .uid("counts")
                .sinkTo(new DiscardingSink<>());
        env.execute("counting");
    }

    /** So many a second, of each subtask. */
    public static class Numbers extends RichParallelSourceFunction<Long> {
        private final double rate;
        private volatile boolean runs = true;

        public Numbers(double rate) {
            this.rate = rate;
        }

        @Override
        public void run(SourceContext<Long> context) throws Exception {
            long number = getRuntimeContext().getTaskInfo().getIndexOfThisSubtask();
            int step = getRuntimeContext().getTaskInfo().getNumberOfParallelSubtasks();
            long start = System.nanoTime();
            for (long made = 0; runs; made++) {
                long due = start + (long) (made * 1e9 / rate);
                while (runs && System.nanoTime() < due) {
                    long rest = (due - System.nanoTime()) / 1_000_000;
                    if (rest > 0) {
                        Thread.sleep(Math.min(rest, 100));
                    }
                }
                synchronized (context.getCheckpointLock()) {
                    context.collect(number);
                }
                number += step;
            }
        }

        @Override
        public void cancel() {
            runs = false;
        }
    }

    /** Counts by key, and tells by datagram that it goes on: with each 100th record, the start of the subtask. */
    public static class Count extends KeyedProcessFunction<Long, Long, Long> {
        private final int port;
        private transient ValueState<Long> count;
        private transient DatagramSocket socket;
        private transient byte[] message;
        private transient long records;

        public Count(int port) {
            this.port = port;
        }

        @Override
        public void open(OpenContext context) throws Exception {
            count = getRuntimeContext().getState(new ValueStateDescriptor<>("count", Long.class));
            socket = new DatagramSocket();
            message = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(System.nanoTime()).array();
        }

        @Override
        public void processElement(Long key, Context context, Collector<Long> out) throws Exception {
            Long before = count.value();
            long now = before == null ? 1 : before + 1;
            count.update(now);
            if (records++ % 100 == 0) {
                socket.send(new DatagramPacket(message, 8, InetAddress.getLoopbackAddress(), port));
            }
            out.collect(now);
        }
    }
}
