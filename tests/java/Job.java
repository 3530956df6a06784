import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** A job of Flink's, as its users write them; it is sent to a cluster that cannot run it. */
public class Job {
    public static void main(String[] arguments) throws Exception {
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
        env.fromSequence(1, 100).map(number -> number * 2).returns(Long.class).print();
        env.execute("a job in Java");
    }
}
