//! Values that are one of a few words. Case, `-` and `_` do not matter: `fixed-delay` and `fixeddelay` are the same.

use serde::{Deserialize, Serialize};

use super::value::Value;

/// Declares an enum whose values are written as one of a few words; the first word of each variant is documented.
macro_rules! words {
    ($(
        $(#[$doc:meta])*
        $name:ident {
            $(#[$first_doc:meta])* $first:ident = $first_word:literal $(| $first_other:literal)*,
            $($(#[$variant_doc:meta])* $variant:ident = $word:literal $(| $other:literal)*,)*
        }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        pub enum $name {
            $(#[$first_doc])* $first,
            $($(#[$variant_doc])* $variant,)*
        }

        impl Value for $name {
            const TYPE_NAME: &'static str = concat!("`", $first_word, "`" $(, ", `", $word, "`")*);

            fn parse(text: &str) -> Result<Self, String> {
                let plain = plain(text);
                if [$first_word $(, $first_other)*].iter().any(|word| self::plain(word) == plain) {
                    return Ok(Self::$first);
                }
                $(if [$word $(, $other)*].iter().any(|word| self::plain(word) == plain) {
                    return Ok(Self::$variant);
                })*
                Err(concat!("one of ", $first_word $(, ", ", $word)*).to_owned())
            }

            fn to_text(&self) -> String {
                match self {
                    Self::$first => $first_word,
                    $(Self::$variant => $word,)*
                }
                .to_owned()
            }
        }
    )+};
}

words! {
    /// What carries records between worker processes.
    ShuffleTransport {
        Quic = "quic",
        Tcp = "tcp",
        /// By what suits the path to each peer.
        Auto = "auto",
    }

    /// What the sockets between workers are read and written with.
    NetworkIo {
        /// `uring` where it is faster.
        Auto = "auto",
        /// io_uring if the kernel has it and allows it, else system calls.
        Uring = "uring",
        Syscall = "syscall",
    }

    /// What keeps a worker process to the memory of its slots.
    MemoryLimit {
        /// A cgroup if the TaskManager may make one, else a limit of the process.
        Auto = "auto",
        /// A limit of what the process may allocate: `RLIMIT_DATA`.
        Rlimit = "rlimit",
        /// Nothing.
        None = "none",
    }

    /// Who is told the numbers of a cluster.
    MetricReporterKind {
        /// Prometheus, which asks for them.
        Prometheus = "prometheus" | "org.apache.flink.metrics.prometheus.PrometheusReporterFactory",
        /// A collector of OpenTelemetry, to which they are sent.
        Otlp = "otlp" | "org.apache.flink.metrics.otel.OpenTelemetryMetricReporterFactory",
    }

    /// How a collector of OpenTelemetry is spoken to.
    OtlpProtocol {
        Grpc = "gRPC",
        Http = "HTTP",
    }

    /// Whether results are updated as input arrives, or final ones are given at the end of a bounded input.
    RuntimeMode {
        Streaming = "STREAMING",
        Batch = "BATCH",
        /// Batch if every source is bounded.
        Automatic = "AUTOMATIC",
    }

    /// What a failure may do to the state.
    CheckpointingMode {
        /// Each record counts once: inputs wait for each other at a barrier.
        ExactlyOnce = "EXACTLY_ONCE",
        /// No record is lost, but some may count twice: inputs never wait.
        AtLeastOnce = "AT_LEAST_ONCE",
    }

    /// What happens to a job's checkpoints when it ends.
    CheckpointRetention {
        /// They stay, and have to be deleted by hand.
        RetainOnCancellation = "RETAIN_ON_CANCELLATION",
        /// They stay if the job fails, and go if it is cancelled.
        DeleteOnCancellation = "DELETE_ON_CANCELLATION",
        /// They always go.
        Never = "NO_EXTERNALIZED_CHECKPOINTS",
    }

    /// When a failed job is restarted, and after how long.
    RestartStrategy {
        /// Never.
        None = "none" | "off" | "disable",
        /// A number of times, after the same pause.
        FixedDelay = "fixed-delay",
        /// As long as failures are rare enough.
        FailureRate = "failure-rate",
        /// After a pause that grows with each failure.
        ExponentialDelay = "exponential-delay",
    }

    /// Which tasks are restarted after a failure.
    FailoverStrategy {
        /// Those of the pipelined regions that it has touched.
        Region = "region",
        /// All tasks of the job.
        Full = "full",
    }

    /// Which threads run subtasks.
    Threading {
        /// One thread per slot runs all subtasks of the slot in turn.
        Slot = "slot",
        /// Each subtask has a thread, as in Flink; for functions that block.
        Task = "task",
    }

    /// Where coordinators keep what must survive them.
    HighAvailability {
        /// Nowhere: a coordinator's death ends its jobs.
        None = "NONE",
        /// In files of this machine.
        File = "file",
        /// In the memory of this process, for tests.
        Memory = "memory",
        /// In etcd.
        Etcd = "etcd",
    }

    /// What holds keyed state.
    StateBackend {
        /// Tables in memory.
        HashMap = "hashmap",
    }

    /// Which records are checked before they are read in place.
    Validation {
        /// Every record of a link that is not both authenticated and encrypted, and the first of each other channel.
        Auto = "auto",
        Always = "always",
        Never = "never",
    }

    /// The least important messages that are logged.
    LogLevel {
        Off = "OFF",
        Error = "ERROR",
        Warn = "WARN",
        Info = "INFO",
        Debug = "DEBUG",
        Trace = "TRACE",
    }

    /// How log lines are written.
    LogFormat {
        /// For people.
        Text = "text",
        /// An object per line.
        Json = "json",
    }
}

fn plain(word: &str) -> String {
    word.trim().chars().filter(|c| !matches!(c, '-' | '_')).collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_separators_do_not_matter() {
        for text in ["fixed-delay", "fixeddelay", "FIXED_DELAY", " Fixed-Delay "] {
            assert_eq!(RestartStrategy::parse(text), Ok(RestartStrategy::FixedDelay), "{text:?}");
        }
        assert_eq!(RestartStrategy::parse("disable"), Ok(RestartStrategy::None));
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_known_ones() {
        assert_eq!(HighAvailability::parse("zookeeper"), Err("one of NONE, file, memory, etcd".to_owned()));
    }

    #[test]
    fn a_written_word_is_read_back_as_the_same() {
        assert_eq!(Validation::parse(&Validation::Never.to_text()), Ok(Validation::Never));
        assert_eq!(CheckpointingMode::ExactlyOnce.to_text(), "EXACTLY_ONCE");
    }
}
