//! What a worker says when a signal ends it: which task the thread was running. The TaskManager that reads it names the
//! operator in the failure.
//!
//! Only of signals that come from what the thread itself does: a bad access to memory, `abort`. Whoever is killed, or calls
//! `exit`, says nothing. Afterwards the process ends as it would have, by whoever handled the signal before.

use std::{
    fmt::{self, Write},
    io,
    os::raw::c_int,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use millstream_model::log::{context, form::CRASH};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::logging::RECORD_SEPARATOR;

const SIGNALS: [Signal; 5] = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT];
/// Of what is said; names of tasks may be longer.
const TEXT_BYTES_MAX: usize = 512;

/// Who handled the signals before.
static BEFORE: OnceLock<Vec<(Signal, SigAction)>> = OnceLock::new();
static HAS_SAID: AtomicBool = AtomicBool::new(false);

/// Has this process say what it was doing when one of the signals ends it.
pub(crate) fn watch() {
    // On the stack that each thread has for it: its own may be what is used up.
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_ONSTACK, SigSet::empty());
    let before = SIGNALS.into_iter().filter_map(|signal| {
        // SAFETY: the handler does only what may be done in one: see there.
        let before = unsafe { sigaction(signal, &action) };
        Some((signal, before.ok()?))
    });
    let _ = BEFORE.set(before.collect());
}

/// Allocates nothing, takes no lock and panics never: a signal may come in the middle of whatever else does.
extern "C" fn on_signal(number: c_int) {
    for (signal, before) in BEFORE.get().into_iter().flatten() {
        if *signal as c_int == number {
            // SAFETY: it was there before this handler, and gets the signal when this one returns: what has caused it
            // happens again, or `abort` goes on.
            let _ = unsafe { sigaction(*signal, before) };
        }
    }
    if HAS_SAID.swap(true, Ordering::Relaxed) {
        return;
    }
    let mut text = Text { bytes: [0; TEXT_BYTES_MAX], length: 0 };
    let said = context::with_current(|task| {
        // What does not fit is left out.
        let _ = write!(text, "{}{CRASH}{number} ", RECORD_SEPARATOR as char);
        let _ = task.write_to(&mut text);
    });
    if said.is_some() {
        text.length = text.length.min(TEXT_BYTES_MAX - 1);
        text.bytes[text.length] = b'\n';
        let _ = nix::unistd::write(io::stderr(), &text.bytes[..=text.length]);
    }
}

/// Text in a place of its own.
struct Text {
    bytes: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.length..];
        let length = text.len().min(room.len());
        room[..length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        if length < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}
