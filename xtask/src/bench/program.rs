//! Which programs a benchmark compares, and how they are called.
//!
//! The engine's side is a program of package `millstream-benches`, named like the benchmark with
//! underscores. It is called with `--json --repetitions 1`, `--quick` where the user said so, and
//! the options of the load; the opponents are called with the same options of the load.

use std::fmt::Write;

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Full,
    /// A twentieth: for checking that everything runs, not for figures.
    Quick,
}

/// Who is measured beside the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Opponents {
    /// What is written by hand for the one benchmark, and what the machine can do at all.
    Near,
    /// Other engines too.
    WithPeers,
}

/// One benchmark: a question with programs that answer it.
pub struct Benchmark {
    pub name: &'static str,
    about: &'static str,
    load: Load,
    opponents: &'static [Opponent],
}

/// What is done, as options that both sides understand.
enum Load {
    /// The program has one load of its own.
    Own,
    /// The same, on a cluster that it starts itself.
    Cluster,
    Records(u64),
    Text,
    /// Records per second, one run each.
    Rates(&'static [u64]),
    Rounds(u64),
    /// Other options, one run each.
    Variants(&'static [&'static str]),
    /// The first load over each transport.
    OverEach(&'static Load, &'static [&'static str]),
}

struct Opponent {
    /// What the baselines program is called with before the options of the load.
    command: &'static str,
    is_peer: bool,
    load: OpponentLoad,
}

enum OpponentLoad {
    Same,
    /// Fewer records, for an engine that needs longer for each: the figure is a rate.
    Records(u64),
    Own,
    Other(Load),
}

/// How two worker processes speak with each other; the opponents' TCP has no TLS.
const TRANSPORTS: [&str; 3] = ["quic", "tcp --no-tls", "tcp"];
const OPPONENTS_TRANSPORTS: [&str; 2] = ["quic", "tcp"];

const TEXT_BYTES: u64 = 1_000_000_000;
const SECONDS: f64 = 5.0;

const fn near(command: &'static str) -> Opponent {
    Opponent { command, is_peer: false, load: OpponentLoad::Same }
}

const fn peer(command: &'static str, records: u64) -> Opponent {
    Opponent { command, is_peer: true, load: OpponentLoad::Records(records) }
}

/// What two threads can copy: the yardstick between machines.
const MEMCPY: Opponent = Opponent { command: "memcpy", is_peer: false, load: OpponentLoad::Own };

/// All benchmarks. Adding one is a line here and a program in `benches/src/bin/`.
pub const BENCHMARKS: [Benchmark; 14] = [
    Benchmark {
        name: "keyed-sum-local",
        about: "running sum by key over two slots, a million keys, 100-byte records",
        load: Load::Records(60_000_000),
        opponents: &[
            near("keyed-sum-local --engine hand"),
            MEMCPY,
            peer("keyed-sum-local --engine timely", 40_000_000),
            peer("keyed-sum-local --engine renoir", 40_000_000),
        ],
    },
    Benchmark {
        name: "word-count-local",
        about: "running count by word over two slots, 1 GB of Zipf text",
        load: Load::Text,
        opponents: &[near("word-count-local"), MEMCPY],
    },
    Benchmark {
        name: "latency-local",
        about: "open-loop latency through one key_by between two slots, three rates",
        load: Load::Rates(&[1_000, 10_000, 100_000]),
        opponents: &[near("latency-local")],
    },
    Benchmark {
        name: "shuffle-bulk",
        about: "bytes of 100-byte records between two worker processes, 1 and 16 channels",
        load: Load::OverEach(&Load::Variants(&["--channels 1", "--channels 16"]), &TRANSPORTS),
        opponents: &[Opponent {
            command: "shuffle-bulk",
            is_peer: false,
            load: OpponentLoad::Other(Load::OverEach(&Load::Own, &OPPONENTS_TRANSPORTS)),
        }],
    },
    Benchmark {
        name: "shuffle-ping-pong",
        about: "round trips of one 64-byte record between two worker processes",
        load: Load::OverEach(&Load::Rounds(50_000), &TRANSPORTS),
        opponents: &[Opponent {
            command: "shuffle-ping-pong",
            is_peer: false,
            load: OpponentLoad::Other(Load::OverEach(&Load::Rounds(50_000), &OPPONENTS_TRANSPORTS)),
        }],
    },
    Benchmark {
        name: "shuffle-latency",
        about: "open-loop latency through one key_by between two worker processes, three rates",
        load: Load::OverEach(&Load::Rates(&[1_000, 10_000, 100_000]), &TRANSPORTS),
        opponents: &[Opponent {
            command: "shuffle-latency",
            is_peer: false,
            load: OpponentLoad::Other(Load::OverEach(&Load::Rates(&[1_000, 10_000, 100_000]), &OPPONENTS_TRANSPORTS)),
        }],
    },
    Benchmark {
        name: "keyed-sum-two-process",
        about: "running sum by key over two worker processes of one slot, a million keys, 100-byte records",
        load: Load::OverEach(&Load::Records(60_000_000), &TRANSPORTS),
        opponents: &[
            Opponent {
                command: "keyed-sum-two-process --engine hand",
                is_peer: false,
                load: OpponentLoad::Other(Load::OverEach(&Load::Records(60_000_000), &OPPONENTS_TRANSPORTS)),
            },
            peer("keyed-sum-two-process --engine timely", 20_000_000),
            peer("keyed-sum-two-process --engine renoir", 20_000_000),
        ],
    },
    Benchmark {
        name: "fan-out",
        about: "64 worker processes of one slot, all to all, 200,000 records a second, beside two processes",
        load: Load::OverEach(&Load::Own, &["quic", "tcp"]),
        opponents: &[],
    },
    Benchmark {
        name: "records",
        about: "cost of an operator on records of 4 and of 40 fields that reads two",
        load: Load::Own,
        opponents: &[],
    },
    Benchmark {
        name: "user-build",
        about: "a scaffolded job crate: cold build, and from edit to running",
        load: Load::Own,
        opponents: &[],
    },
    Benchmark {
        name: "operations",
        about: "a standalone cluster: its start, submissions, idle memory, recoveries",
        load: Load::Cluster,
        opponents: &[],
    },
    Benchmark {
        name: "session-50",
        about: "fifty small jobs on a cluster: the last submission beside the first, and what a job costs",
        load: Load::Cluster,
        opponents: &[],
    },
    Benchmark {
        name: "deciders-scale",
        about: "the control plane's deciders: slots and deployment of 500 jobs on 1,000 TaskManagers",
        load: Load::Own,
        opponents: &[],
    },
    Benchmark {
        name: "idle",
        about: "processor time of a job of 1,000 channels without input",
        load: Load::Own,
        opponents: &[],
    },
];

impl Size {
    pub fn repetitions(self) -> usize {
        match self {
            Size::Full => 3,
            Size::Quick => 1,
        }
    }

    pub fn text_bytes(self) -> u64 {
        self.of(TEXT_BYTES)
    }

    fn of(self, full: u64) -> u64 {
        match self {
            Size::Full => full,
            Size::Quick => full / 20,
        }
    }

    fn seconds(self) -> f64 {
        match self {
            Size::Full => SECONDS,
            Size::Quick => SECONDS / 20.0,
        }
    }
}

impl Benchmark {
    /// The program's name in package `millstream-benches`.
    pub fn engine_program(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Whether both sides read the text that the opponents write.
    pub fn needs_text(&self) -> bool {
        matches!(self.load, Load::Text)
    }

    /// Whether the program starts a cluster of processes, with the command `millstream`.
    pub fn needs_command(&self) -> bool {
        matches!(self.load, Load::Cluster)
    }

    /// The program in the same package that has Flink do what it can of this.
    pub fn flink_program(&self) -> Option<&'static str> {
        (self.name == "operations").then_some("operations_flink")
    }

    pub fn has_opponents(&self) -> bool {
        !self.opponents.is_empty()
    }

    /// The arguments of each run of the engine's program, without the files of a text.
    pub fn engine_lines(&self, size: Size, path: &str) -> Vec<Vec<String>> {
        let loads = match self.load {
            // The engine gets files, and finds out their size.
            Load::Text => vec![Vec::new()],
            _ => self.load.options(size),
        };
        let mut fixed = words("--json --repetitions 1");
        if size == Size::Quick {
            fixed.push("--quick".to_owned());
        }
        let lines = loads.into_iter().map(|load| [fixed.clone(), load].concat());
        self.over_path(lines.collect(), path)
    }

    /// The arguments of each run of the opponents' program, without the folder of a text.
    pub fn opponent_lines(&self, size: Size, who: Opponents, path: &str) -> Vec<Vec<String>> {
        let mut lines = Vec::new();
        // Peers know loopback only.
        let all = who == Opponents::WithPeers && path == "loopback";
        let invited = |opponent: &&Opponent| !opponent.is_peer || all;
        for opponent in self.opponents.iter().filter(invited) {
            let loads = match &opponent.load {
                OpponentLoad::Same => self.load.options(size),
                OpponentLoad::Records(records) => Load::Records(*records).options(size),
                OpponentLoad::Other(load) => load.options(size),
                OpponentLoad::Own => Load::Own.options(size),
            };
            for load in loads {
                lines.push([words(opponent.command), words("--json --repetitions 1"), load].concat());
            }
        }
        self.over_path(lines, path)
    }

    /// Whether it is about two worker processes, between which there may be something else than loopback.
    pub fn has_paths(&self) -> bool {
        matches!(self.load, Load::OverEach(..))
    }

    /// The same lines over a path, as far as it carries them.
    fn over_path(&self, mut lines: Vec<Vec<String>>, path: &str) -> Vec<Vec<String>> {
        if self.has_paths() {
            lines.retain(|line| path != "lossy" || line.iter().any(|word| word == "quic"));
            lines.iter_mut().for_each(|line| line.extend(["--path".to_owned(), path.to_owned()]));
        }
        lines
    }
}

impl Load {
    /// One entry for each run.
    fn options(&self, size: Size) -> Vec<Vec<String>> {
        let lines = match self {
            Load::Own | Load::Cluster => vec![String::new()],
            Load::Records(records) => vec![format!("--records {}", size.of(*records))],
            Load::Text => vec![format!("--bytes {}", size.text_bytes())],
            Load::Rates(rates) => {
                rates.iter().map(|rate| format!("--rate {rate} --seconds {}", size.seconds())).collect()
            }
            Load::Rounds(rounds) => vec![format!("--rounds {}", size.of(*rounds))],
            Load::Variants(variants) => variants.iter().map(|variant| (*variant).to_owned()).collect(),
            Load::OverEach(load, transports) => {
                let over = |transport: &&str| {
                    let add = format!(" --transport {transport}");
                    load.options(size).into_iter().map(move |options| options.join(" ") + &add)
                };
                transports.iter().flat_map(over).collect()
            }
        };
        lines.iter().map(|line| words(line)).collect()
    }
}

/// The benchmarks by name, for people.
pub fn list() -> String {
    let mut list = String::new();
    for Benchmark { name, about, .. } in &BENCHMARKS {
        writeln!(list, "{name:<22} {about}").expect("a string takes all");
    }
    list
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn benchmark(name: &str) -> &'static Benchmark {
        BENCHMARKS.iter().find(|bench| bench.name == name).expect("it is in the table")
    }

    fn joined(lines: &[Vec<String>]) -> Vec<String> {
        lines.iter().map(|line| line.join(" ")).collect()
    }

    #[test]
    fn both_sides_of_a_comparison_get_the_same_load() {
        let bench = benchmark("latency-local");
        assert_eq!(
            joined(&bench.engine_lines(Size::Full, "loopback"))[2],
            "--json --repetitions 1 --rate 100000 --seconds 5"
        );
        assert_eq!(
            joined(&bench.opponent_lines(Size::Full, Opponents::Near, "loopback"))[2],
            "latency-local --json --repetitions 1 --rate 100000 --seconds 5"
        );
    }

    #[test]
    fn peers_are_measured_only_on_request() {
        let bench = benchmark("keyed-sum-local");
        let near = joined(&bench.opponent_lines(Size::Quick, Opponents::Near, "loopback"));
        assert_eq!(
            near,
            ["keyed-sum-local --engine hand --json --repetitions 1 --records 3000000", "memcpy --json --repetitions 1",]
        );
        let all = joined(&bench.opponent_lines(Size::Quick, Opponents::WithPeers, "loopback"));
        assert!(all.iter().any(|line| line.contains("timely")) && all.len() == 4);
    }

    #[test]
    fn both_sides_are_measured_over_each_transport_with_the_same_load() {
        let bench = benchmark("shuffle-latency");
        let ours = joined(&bench.engine_lines(Size::Full, "mtu1500"));
        let theirs = joined(&bench.opponent_lines(Size::Full, Opponents::Near, "mtu1500"));
        assert_eq!((ours.len(), theirs.len()), (9, 6));
        assert_eq!(ours[3], "--json --repetitions 1 --rate 1000 --seconds 5 --transport tcp --no-tls --path mtu1500");
        assert_eq!(
            theirs[3],
            "shuffle-latency --json --repetitions 1 --rate 1000 --seconds 5 --transport tcp --path mtu1500"
        );
        // Losing datagrams is a matter of QUIC.
        let lossy = joined(&bench.engine_lines(Size::Full, "lossy"));
        assert!(lossy.len() == 3 && lossy.iter().all(|line| line.ends_with("--transport quic --path lossy")));
    }

    #[test]
    fn every_benchmark_has_another_name() {
        let mut names: Vec<_> = BENCHMARKS.iter().map(|bench| bench.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), BENCHMARKS.len());
    }
}
