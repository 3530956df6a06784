//! Which role this process has, and what each role does with `main`.

use std::{
    env,
    process::{ExitCode, Termination},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use millstream_api::job;

use crate::{
    artifact,
    client_line::{self, CLIENT_VARIABLE},
    logging, memory,
    mini_cluster::MiniCluster,
    settings, worker_process,
};

/// Set by the launcher of a process; absent if a person started it.
pub(crate) const ROLE_VARIABLE: &str = "MILLSTREAM_ROLE";

static KNOWS_ROLES: AtomicBool = AtomicBool::new(false);

/// Whether this program, started again with a role, would take it. Tests and programs without `#[millstream::main]` would
/// run as they always do.
pub(crate) fn knows_roles() -> bool {
    KNOWS_ROLES.load(Ordering::Relaxed)
}

/// Runs a program in the role that it was started in. Called by what `#[millstream::main]` writes.
pub fn enter<R: Termination>(init: impl FnOnce(), main: impl FnOnce() -> R) -> ExitCode {
    KNOWS_ROLES.store(true, Ordering::Relaxed);
    memory::allow_huge_pages(false);
    match env::var(ROLE_VARIABLE).as_deref() {
        Err(_) | Ok("run") => run(init, main),
        Ok("worker") => worker_process::run(init),
        Ok("plan") => {
            init();
            match env::var_os(CLIENT_VARIABLE) {
                Some(socket) => client_line::plan(socket.into(), main),
                None => artifact::plan(main),
            }
        }
        Ok(other) => {
            eprintln!("{ROLE_VARIABLE} is '{other}'; this program knows run, plan and worker");
            ExitCode::from(2)
        }
    }
}

/// Runs the program with an embedded cluster.
fn run<R: Termination>(init: impl FnOnce(), main: impl FnOnce() -> R) -> ExitCode {
    let configuration = match settings::load() {
        Ok(configuration) => configuration,
        Err(cause) => {
            eprintln!("{cause}");
            return ExitCode::from(2);
        }
    };
    logging::start(&configuration);
    settings::report(&configuration);
    init();
    job::set_default_executor(Arc::new(MiniCluster::new(configuration)));
    main().report()
}

/// The program's own arguments: those of the command line without the `-Dkey=value` ones, which are configuration, and
/// without the program's name.
pub fn args() -> impl Iterator<Item = String> {
    env::args().skip(1).filter(|argument| !settings::is_dynamic(argument))
}
