//! A ring of the kernel's (io_uring) as the way to make many calls with one system call.
//!
//! ```text
//!  calls ─► submission queue ─► io_uring_enter: one after the other, none waits ─► completion queue ─► outcomes
//! ```
//! **Invariant:** when [`Ring::execute`] returns, the kernel has nothing to do any more and knows of no memory but its own two
//! queues. So calls borrow what they read and write, and it does not matter which thread makes the next ones, what becomes of
//! a connection, or in which order anything is dropped.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixStream,
    },
    process, ptr,
};

use io_uring::{IoUring, Probe, opcode, squeue::Entry, types::Fd};
use nix::libc::{MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, iovec, msghdr};

use super::call::{Call, Work};

/// Calls that one system call makes at most.
pub const CALLS_MAX: usize = 128;
/// What all calls are asked for: to come back at once, and to fail rather than kill the process.
const FLAGS: i32 = MSG_DONTWAIT | MSG_NOSIGNAL;

pub struct Ring {
    /// `None` once it has failed.
    ring: Option<IoUring>,
}

impl Ring {
    /// Makes a ring, if the kernel has what it takes and allows it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn probe() -> io::Result<Ring> {
        // Kernels that do not know these flags are from before 5.19. Calls after one that fails are to be made, too; and
        // nobody's thread is to be interrupted.
        let ring = IoUring::builder().setup_submit_all().setup_coop_taskrun().build(CALLS_MAX as u32)?;
        let mut known = Probe::new();
        ring.submitter().register_probe(&mut known)?;
        let needed = [opcode::Send::CODE, opcode::Recv::CODE, opcode::SendMsg::CODE, opcode::RecvMsg::CODE];
        if !needed.into_iter().all(|code| known.is_supported(code)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut ring = Ring { ring: Some(ring) };
        // It may be allowed to have a ring and forbidden to use it.
        let (near, _far) = UnixStream::pair()?;
        let mut call = [Call::peek(&near)];
        ring.execute(&mut call)?;
        match &call[0].outcome {
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(ring),
            other => Err(io::Error::other(format!("a call that has to wait gave {other:?}"))),
        }
    }

    /// Makes all calls, in order.
    ///
    /// # Errors
    /// If the kernel does not take them all: those that were not made have no outcome, and the ring is of no more use.
    pub fn execute(&mut self, calls: &mut [Call<'_>]) -> io::Result<()> {
        for calls in calls.chunks_mut(CALLS_MAX) {
            self.execute_some(calls)?;
        }
        Ok(())
    }

    fn execute_some(&mut self, calls: &mut [Call<'_>]) -> io::Result<()> {
        let Some(ring) = &mut self.ring else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let mut messages: Vec<Message> = calls.iter_mut().map(Message::of).collect();
        let mut byte = 0;
        // It is empty, since each call that was ever submitted was waited for, and it holds `CALLS_MAX`.
        let mut queue = ring.submission();
        for (index, (call, message)) in calls.iter_mut().zip(&mut messages).enumerate() {
            let entry = message.entry(call, &mut byte).user_data(index as u64);
            // SAFETY: the entry is about the memory that `call` borrows, about `messages` and about `byte`. All of them
            // live until this function returns, and nothing moves or touches them before the kernel is done with them:
            // below it is waited for that each entry that the kernel has taken is completed, and if it has not taken all,
            // the queue with the others is thrown away.
            if unsafe { queue.push(&entry) }.is_err() {
                break;
            }
        }
        drop(queue);
        let (mut taken, mut completed, mut failure) = (0, 0, None);
        loop {
            for completion in ring.completion() {
                completed += 1;
                if let Some(call) = calls.get_mut(completion.user_data() as usize) {
                    let result = completion.result();
                    call.outcome = Some(usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)));
                }
            }
            let is_taken = taken == calls.len() || failure.is_some();
            if is_taken && completed == taken {
                break;
            }
            // There is not long to wait, if at all: no call does.
            let missing = if is_taken { taken - completed } else { 0 };
            match ring.submit_and_wait(missing) {
                Ok(0) if !is_taken => failure = Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => taken += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if !is_taken => failure = Some(error),
                Err(error) => {
                    // The kernel is not done with memory that is about to be used for something else.
                    tracing::error!(%error, "calls of a ring cannot be waited for");
                    process::abort();
                }
            }
        }
        for (call, message) in calls.iter_mut().zip(&messages) {
            if let Work::ReceiveTrain(train) = &mut call.work {
                train.control.filled(message.header.msg_controllen as _);
            }
        }
        match failure {
            None => Ok(()),
            Some(error) => {
                self.ring = None;
                Err(error)
            }
        }
    }
}

/// What the kernel reads, and writes to, of a call with more than one piece of memory.
struct Message {
    header: msghdr,
    piece: iovec,
}

impl Message {
    /// Points nowhere yet.
    fn of(_: &mut Call<'_>) -> Message {
        // SAFETY: both are plain data of C, for which zeros are good values: null pointers and no lengths.
        let header = unsafe { std::mem::zeroed() };
        Message { header, piece: iovec { iov_base: ptr::null_mut(), iov_len: 0 } }
    }

    /// What the kernel is told. It points to this, to the memory of the call, and to `byte`.
    fn entry(&mut self, call: &mut Call<'_>, byte: &mut u8) -> Entry {
        let socket = Fd(call.socket.as_fd().as_raw_fd());
        match &mut call.work {
            Work::Receive(room) => opcode::Recv::new(socket, room.as_mut_ptr(), length(room)).flags(FLAGS).build(),
            Work::Peek => opcode::Recv::new(socket, byte, 1).flags(FLAGS | MSG_PEEK).build(),
            Work::ReceiveTrain(train) => {
                let control = train.control.memory();
                self.header.msg_control = control.as_mut_ptr().cast();
                self.header.msg_controllen = control.len() as _;
                self.piece = iovec { iov_base: train.memory.as_mut_ptr().cast(), iov_len: train.memory.len() };
                self.header.msg_iov = &mut self.piece;
                self.header.msg_iovlen = 1;
                opcode::RecvMsg::new(socket, &mut self.header).flags(FLAGS as u32).build()
            }
            Work::Send(slices) => match &slices[..] {
                [slice] => opcode::Send::new(socket, slice.as_ptr(), length(slice)).flags(FLAGS).build(),
                slices => {
                    // Slices are laid out as the kernel's are; it only reads them.
                    self.header.msg_iov = slices.as_ptr().cast::<iovec>().cast_mut();
                    self.header.msg_iovlen = slices.len() as _;
                    opcode::SendMsg::new(socket, &self.header).flags(FLAGS as u32).build()
                }
            },
            Work::SendTrain(bytes, control) => {
                let control = control.bytes();
                self.header.msg_control = control.as_ptr().cast_mut().cast();
                self.header.msg_controllen = control.len() as _;
                self.piece = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
                self.header.msg_iov = &mut self.piece;
                self.header.msg_iovlen = 1;
                opcode::SendMsg::new(socket, &self.header).flags(FLAGS as u32).build()
            }
        }
    }
}

/// The kernel does less than it was asked for, if that is more than it can count.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
