//! One program, many ways to run it: the results must be equal.

use std::time::Duration;

use millstream::{
    connectors::{GeneratorSource, SocketTextSource, TextFileSource},
    model::config::{RUNTIME_MODE, RuntimeMode},
    prelude::*,
};
use millstream_tests::local;

/// Words, their lengths, a union, a side output and two aggregates; everything that may be chained or exchanged.
fn run(settings: &[&str]) -> Vec<Vec<(String, u64)>> {
    const LONG: OutputTag<String> = OutputTag::new("long words");

    struct Route;
    impl ProcessFunction for Route {
        type In = String;
        type Out = String;
        type Conf = u64;
        fn open(_: u64, _: &mut RuntimeContext) -> Result<Self, Failure> {
            Ok(Route)
        }
        fn process(&mut self, word: &str, _: &ProcessContext<'_>, out: &mut Out<'_, String>) -> Result<(), Failure> {
            if word.len() > 4 {
                out.emit_to(&LONG, word);
            } else {
                out.emit(word);
            }
            Ok(())
        }
    }

    let env = local(settings);
    let lines =
        |from: u64| env.from_collection((from..from + 300).map(|i| format!("alpha b{} c{} beta", i % 7, i % 3)));
    let (first, second) = (lines(0), lines(100));
    let words = first
        .union(&[&second])
        .rebalance()
        .flat_map::<String, _>(|line, out| line.split(' ').for_each(|word| out.emit(word)))
        .filter(|word| word != "b3");
    let short = words.process::<Route>(0);
    let long = short.side_output(&LONG);
    let counts = short.key_by::<String, _>(|word| *word).count();
    let lengths = long.map(|word| (word.to_owned(), word.len() as u64)).key_by::<String, _>(|pair| pair.0);
    let sums = lengths.sum(|pair| pair.1);
    let collected = [counts.collect(), sums.collect()];
    let result = env.execute("equal results").expect("the job succeeds");
    collected
        .iter()
        .map(|collected| {
            let mut records = result.collected(collected);
            records.sort();
            records
        })
        .collect()
}

#[test]
fn chaining_parallelism_and_threading_change_nothing() {
    let expected = run(&["parallelism.default=1"]);
    // "beta" and "b*", "c*" are short: 600 lines of three short words, without "b3".
    assert_eq!(expected[0].len(), 600 * 3 - 600 / 7 - 1);
    assert_eq!(expected[1].last(), Some(&("alpha".to_owned(), 3_000)));
    for settings in [
        &["parallelism.default=1", "pipeline.operator-chaining.enabled=false"][..],
        &["parallelism.default=2"],
        &["parallelism.default=2", "pipeline.operator-chaining.enabled=false"],
        &["parallelism.default=3", "task.threading=task"],
        &["parallelism.default=4", "execution.buffer-timeout.interval=0 ms"],
        &["parallelism.default=7", "taskmanager.memory.segment-size=4kb"],
        &["parallelism.default=2", "shuffle.validate=always"],
    ] {
        assert_eq!(run(settings), expected, "{settings:?}");
    }
}

#[test]
fn every_partitioning_delivers_every_record_as_it_promises() {
    type Partition = fn(&DataStream<u64>) -> DataStream<u64>;
    let ways: [(&str, Partition, u64); 5] = [
        ("rebalance", |stream| stream.rebalance(), 1),
        ("rescale", |stream| stream.rescale(), 1),
        ("shuffle", |stream| stream.shuffle(), 1),
        ("global", |stream| stream.global(), 1),
        ("broadcast", |stream| stream.broadcast(), 3),
    ];
    for (name, partition, copies) in ways {
        let env = local(&["parallelism.default=3"]);
        let numbers = env.from_collection(0..1_000_u64);
        let collected = partition(&numbers).map(|number| number * 2).collect();
        let result = env.execute(name).expect("the job succeeds");
        let mut seen = result.collected(&collected);
        seen.sort_unstable();
        let expected: Vec<u64> = (0..1_000).flat_map(|number| (0..copies).map(move |_| number * 2)).collect();
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
fn a_custom_partitioner_chooses_the_subtask_by_the_key() {
    for parallelism in [1, 3, 4] {
        let env = local(&[&format!("parallelism.default={parallelism}")]);
        let words = env.from_collection((0..300_u64).map(|number| (format!("{}", number % 7), number)));
        let sent = words.rebalance().filter(|_| true).partition_custom::<String, _, _>(
            |word| word.0,
            |key, channels| key.parse::<u32>().expect("keys are numbers") % channels,
        );
        let placed =
            sent.rich_map((), |(), context| Ok(context.index_of_this_subtask()), |subtask, word| (word.1, *subtask));
        let collected = placed.collect();
        let graph = serde_json::to_value(env.job_graph("custom").expect("a job")).expect("a graph can be written");
        let names: Vec<&str> =
            graph["edges"].as_array().into_iter().flatten().filter_map(|edge| edge["partitioning"].as_str()).collect();
        assert_eq!(names, ["REBALANCE", "CUSTOM"]);
        let mut seen = env.execute("custom").expect("the job succeeds").collected(&collected);
        seen.sort_unstable();
        let expected: Vec<(u64, u32)> = (0..300).map(|number| (number, (number % 7) as u32 % parallelism)).collect();
        assert_eq!(seen, expected, "parallelism {parallelism}");
    }
}

#[test]
fn a_batch_gives_the_final_value_of_each_key_and_nothing_else() {
    for (parallelism, mode) in [(1, "BATCH"), (3, "BATCH"), (2, "AUTOMATIC")] {
        let env = local(&[&format!("parallelism.default={parallelism}"), &format!("execution.runtime-mode={mode}")]);
        let numbers = env.from_collection(0..1_000_u64);
        let by_rest = numbers.key_by::<u64, _>(|number| *number % 10);
        let counts = by_rest.count().collect();
        let largest = by_rest.reduce(|largest, number| *largest = number.max(*largest)).collect();
        let result = env.execute("batch").expect("the job succeeds");
        let mut counts = result.collected(&counts);
        counts.sort_unstable();
        assert_eq!(counts, (0..10).map(|rest| (rest, 100)).collect::<Vec<(u64, u64)>>());
        let mut largest = result.collected(&largest);
        largest.sort_unstable();
        assert_eq!(largest, (990..1_000).collect::<Vec<u64>>());
    }
}

#[test]
fn automatic_is_streaming_if_one_source_has_no_end_and_a_batch_refuses_it() {
    let mode = |mode: &str, sources: &dyn Fn(&StreamExecutionEnvironment) -> DataStream<u64>| {
        let env = local(&[&format!("execution.runtime-mode={mode}")]);
        sources(&env).key_by::<u64, _>(|number| *number).count().discard();
        let graph = env.job_graph("mode").map_err(|invalid| invalid.to_string())?;
        Ok::<_, String>(graph.configuration.get(&RUNTIME_MODE).expect("a word"))
    };
    let ended = |env: &StreamExecutionEnvironment| env.from_source(GeneratorSource::new(Some(3), |index| index));
    let endless = |env: &StreamExecutionEnvironment| env.from_source(GeneratorSource::new(None, |index| index));
    let once = |env: &StreamExecutionEnvironment| {
        env.from_source(TextFileSource::new(["nowhere"])).map(|line: &str| line.len() as u64)
    };
    let watching = |env: &StreamExecutionEnvironment| {
        let source = TextFileSource::new(["nowhere"]).monitor_continuously(Duration::from_secs(1));
        env.from_source(source).map(|line: &str| line.len() as u64)
    };
    let socket = |env: &StreamExecutionEnvironment| {
        env.from_source(SocketTextSource::new("localhost", 1)).map(|line: &str| line.len() as u64)
    };
    let bounded = |env: &StreamExecutionEnvironment| env.from_collection(0..3_u64).union(&[&ended(env), &once(env)]);
    assert_eq!(mode("AUTOMATIC", &bounded), Ok(RuntimeMode::Batch));
    type Unbounded<'a> = &'a dyn Fn(&StreamExecutionEnvironment) -> DataStream<u64>;
    let unbounded: [Unbounded<'_>; 3] = [&endless, &watching, &socket];
    for source in unbounded {
        let with_others = |env: &StreamExecutionEnvironment| bounded(env).union(&[&source(env)]);
        assert_eq!(mode("AUTOMATIC", &with_others), Ok(RuntimeMode::Streaming));
        let refused = mode("BATCH", &with_others).expect_err("a batch ends");
        assert!(refused.contains("equal_results.rs:") && refused.contains("has no end"), "{refused}");
    }
}
