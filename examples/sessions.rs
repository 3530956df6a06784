//! Sessions: clicks of a user that follow one another within 30 seconds belong together.
//!
//! ```text
//! cargo run -p millstream-examples --bin sessions
//! cargo run -p millstream-examples --bin sessions -- --gap-seconds 60
//! ```
//!
//! ```text
//!  clicks ─► time stamps and watermarks ══by user══► Sessions (state, event-time timers) ─► collect
//! ```
//! When a session ends is known only when no earlier click can follow any more. That is what watermarks say, and what an
//! event-time timer waits for: results do not depend on how fast, or in which order within 10 seconds, clicks come in.

use std::{process::ExitCode, time::Duration};

use millstream::prelude::*;

/// What comes in. `#[derive(Record)]` makes `ClickRef`, the handle by which functions see a click, whether it lies in
/// this process as a struct or came from another one as bytes.
#[derive(Record)]
struct Click {
    user: String,
    page: String,
    at_millis: i64,
}

/// What comes out.
#[derive(Record, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Session {
    start_millis: i64,
    end_millis: i64,
    user: String,
    pages: Vec<String>,
}

/// Gathers the clicks of each user.
struct Sessions {
    gap_millis: i64,
    /// The user's clicks that are not in a finished session yet: when, and on which page.
    clicks: ListState<String, (i64, String)>,
}

impl KeyedProcessFunction for Sessions {
    type Key = String;
    type In = Click;
    type Out = Session;
    /// Travels from main() to the workers.
    type Conf = i64;

    /// Runs on the worker, once per subtask.
    fn open(gap_millis: i64, context: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(Sessions { gap_millis, clicks: context.list_state("clicks")? })
    }

    /// A click. State and timers are those of its user.
    fn process(
        &mut self,
        click: ClickRef<'_>,
        context: &KeyedContext<'_, String>,
        _: &mut Out<'_, Session>,
    ) -> Result<(), Failure> {
        self.clicks.add(context, (click.at_millis(), click.page().to_owned()));
        // The session may end with this click. Whether it does is known when this much event time has passed.
        context.register_event_time_timer(EventTime(click.at_millis() + self.gap_millis));
        Ok(())
    }

    /// All clicks up to the timer's time are there; later ones may be there as well.
    fn on_timer(
        &mut self,
        timer: Timer,
        context: &KeyedContext<'_, String>,
        out: &mut Out<'_, Session>,
    ) -> Result<(), Failure> {
        let Timer::EventTime(EventTime(now)) = timer else { return Ok(()) };
        let mut clicks = self.clicks.clear(context);
        clicks.sort();
        for session in clicks.chunk_by(|(a, _), (b, _)| b - a < self.gap_millis) {
            let ((start_millis, _), (end_millis, _)) = (&session[0], &session[session.len() - 1]);
            if end_millis + self.gap_millis <= now {
                let pages = session.iter().map(|(_, page)| page.clone()).collect();
                let (start_millis, end_millis) = (*start_millis, *end_millis);
                out.emit(&Session { start_millis, end_millis, user: context.key().to_owned(), pages });
            } else {
                session.iter().for_each(|click| self.clicks.add(context, click.clone()));
            }
        }
        Ok(())
    }
}

#[millstream::main]
fn main() -> ExitCode {
    let arguments: Vec<String> = millstream::args().collect();
    let gap_seconds = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Some(30),
        ["--gap-seconds", seconds] => seconds.parse().ok().filter(|seconds| (1..=86_400).contains(seconds)),
        _ => None,
    };
    let Some(gap_seconds) = gap_seconds else {
        eprintln!("usage: sessions [--gap-seconds N] [-Dkey=value]...");
        return ExitCode::from(2);
    };
    match run(gap_seconds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sessions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(gap_seconds: i64) -> Result<(), JobError> {
    let mut env = StreamExecutionEnvironment::get();
    env.set_parallelism(2);
    let sessions = env
        .from_collection(clicks())
        .assign_timestamps_and_watermarks(
            WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_secs(10)),
            |click| click.at_millis(),
        )
        .key_by::<String, _>(|click| click.user())
        .process::<Sessions>(gap_seconds * 1000)
        .name("sessions")
        .uid("sessions")
        .collect();
    let result = env.execute("sessions")?;
    let mut sessions = result.collected(&sessions);
    sessions.sort();
    for Session { start_millis, end_millis, user, pages } in sessions {
        println!("{user}: {:>3} s to {:>3} s: {}", start_millis / 1000, end_millis / 1000, pages.join(", "));
    }
    Ok(())
}

/// Clicks as they might come in, some of them late.
fn clicks() -> Vec<Click> {
    let clicks = [
        (0, "ann", "home"),
        (4, "bob", "home"),
        (12, "ann", "search"),
        // Late by 4 seconds.
        (8, "ann", "login"),
        (20, "bob", "help"),
        (31, "ann", "cart"),
        (66, "bob", "home"),
        // 42 seconds after the one before: a session of its own, unless the gap is a minute.
        (73, "ann", "home"),
        (70, "bob", "search"),
        (80, "cid", "home"),
        (101, "ann", "order"),
    ];
    let click =
        |(at, user, page): (i64, &str, &str)| Click { user: user.into(), page: page.into(), at_millis: at * 1000 };
    clicks.map(click).into()
}
