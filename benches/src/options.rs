//! The command line of a benchmark program: what all have in common, and what each adds.

use clap::{Args, Parser};

/// Options of every program.
#[derive(Clone, Copy, Debug, Args)]
pub struct Common {
    /// Print one JSON object a line. (There is no other form: `cargo xtask bench` makes the table.)
    #[arg(long)]
    pub json: bool,
    /// Runs, each with lines of its own
    #[arg(long, default_value_t = 3)]
    pub repetitions: u32,
    /// A twentieth of the work: for checking that it runs, not for figures
    #[arg(long)]
    pub quick: bool,
}

#[derive(Parser)]
struct Line<O: Args> {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    own: O,
}

/// Options of a program that has none of its own.
#[derive(Clone, Copy, Debug, Args)]
pub struct NoneOfItsOwn {}

/// The options that this process was started with; ends it if they make no sense.
pub fn parse<O: Args>() -> (Common, O) {
    let program = std::env::args().next().unwrap_or_default();
    let line = Line::<O>::parse_from(std::iter::once(program).chain(millstream::args()));
    (line.common, line.own)
}
