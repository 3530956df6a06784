//! A call to a socket that does not wait, with the memory that it reads or writes.

use std::{
    io,
    io::IoSlice,
    os::fd::{AsFd, BorrowedFd},
};

use super::{Answer, control::Control, trains::Train};

/// A call that is to be made together with others.
pub struct Call<'a> {
    pub(super) socket: BorrowedFd<'a>,
    pub(super) work: Work<'a>,
    /// `None` until it was made.
    pub(super) outcome: Outcome,
}

/// How many bytes have moved. `None` if the call was not made after all: then it is as if nobody had thought of it.
pub type Outcome = Option<io::Result<usize>>;

pub(super) enum Work<'a> {
    Receive(&'a mut [u8]),
    /// Receives a byte that stays where it is.
    Peek,
    ReceiveTrain(&'a mut Train),
    Send(Vec<IoSlice<'a>>),
    SendTrain(&'a [u8], Control),
}

impl<'a> Call<'a> {
    fn new(socket: &'a impl AsFd, work: Work<'a>) -> Call<'a> {
        Call { socket: socket.as_fd(), work, outcome: None }
    }

    /// Receives what a stream has, as far as there is room.
    pub fn receive(socket: &'a impl AsFd, room: &'a mut [u8]) -> Call<'a> {
        Call::new(socket, Work::Receive(room))
    }

    /// Finds out whether a stream has more, or has ended.
    pub fn peek(socket: &'a impl AsFd) -> Call<'a> {
        Call::new(socket, Work::Peek)
    }

    /// Receives datagrams of one length.
    pub(super) fn receive_train(socket: &'a impl AsFd, train: &'a mut Train) -> Call<'a> {
        Call::new(socket, Work::ReceiveTrain(train))
    }

    /// Sends into a stream what it takes.
    pub fn send(socket: &'a impl AsFd, slices: Vec<IoSlice<'a>>) -> Call<'a> {
        Call::new(socket, Work::Send(slices))
    }

    /// Sends a datagram, or several of one length: `control` says so.
    pub fn send_train(socket: &'a impl AsFd, bytes: &'a [u8], control: Control) -> Call<'a> {
        Call::new(socket, Work::SendTrain(bytes, control))
    }

    /// How much it sends at most.
    pub(super) fn bytes_to_send(&self) -> usize {
        match &self.work {
            Work::Send(slices) => slices.iter().map(|slice| slice.len()).sum(),
            Work::SendTrain(bytes, _) => bytes.len(),
            Work::Receive(_) | Work::Peek | Work::ReceiveTrain(_) => 0,
        }
    }

    /// What has come of it; nothing if it was not made.
    pub(super) fn into_answer(self) -> Option<Answer> {
        let outcome = self.outcome?;
        let train = match (self.work, &outcome) {
            (Work::ReceiveTrain(train), Ok(bytes)) => Some((train.take(*bytes), train.control.clone())),
            _ => None,
        };
        Some(Answer { outcome, train })
    }
}
