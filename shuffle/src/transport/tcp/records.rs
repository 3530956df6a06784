//! TLS without sockets: records of bytes, and bytes of records.

use std::collections::VecDeque;

use bytes::Bytes;
use rustls::{
    AlertDescription, CommonState, Error,
    client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus},
};

use super::run::Run;
use crate::{
    copies::{Place, copied},
    transport::tls,
};

/// Chunks shorter than this share a record with their neighbours.
const SHORT_CHUNK_BYTES: usize = 4 << 10;

pub struct Tls {
    machine: Machine,
    /// Records to be sent.
    pub records: Run,
    /// Decrypted, but not wanted yet.
    pub early: Vec<u8>,
    /// Where short chunks are put together.
    record: Vec<u8>,
    /// The handshake is complete as far as this side knows, and nothing has failed.
    pub established: bool,
}

pub enum Machine {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Why TLS has failed.
pub enum TlsError {
    /// This side does not believe the other, or the other way round.
    Refused(String),
    Failed(String),
}

/// What one step of TLS has come to.
pub struct Step {
    /// So much of what was received is done with.
    pub discard: usize,
    pub state: Result<State, Error>,
}

pub enum State {
    /// There is more to do.
    Again,
    /// The handshake waits for the peer, or the peer has said its last.
    Blocked,
    /// Everything is read, and what was to be sent is sealed.
    Ready,
}

impl Tls {
    pub fn new(machine: Machine) -> Box<Self> {
        let (early, record) = (Vec::new(), Vec::new());
        Box::new(Tls { machine, records: Run::new(0), early, record, established: false })
    }

    pub fn common(&self) -> &CommonState {
        match &self.machine {
            Machine::Client(machine) => machine,
            Machine::Server(machine) => machine,
        }
    }

    /// Goes on with what was received: decrypted bytes go to `each`, and what is on the wire becomes records.
    pub fn step(&mut self, received: &mut [u8], wire: &mut VecDeque<Bytes>, each: &mut dyn FnMut(&[u8])) -> Step {
        let (records, record) = (&mut self.records, &mut self.record);
        match &mut self.machine {
            Machine::Client(machine) => step(machine.process_tls_records(received), records, record, wire, each),
            Machine::Server(machine) => step(machine.process_tls_records(received), records, record, wire, each),
        }
    }

    /// Puts an error in words, after the alert that tells the peer.
    pub fn fail(&mut self, received: &mut Run, error: &Error) -> TlsError {
        // One step, for the alert if there is one. Another would read on, and rustls panics over a second alert; and what
        // was received must be there, since parts of it are remembered by where they lie.
        let step = self.step(received.filled(), &mut VecDeque::new(), &mut |_| {});
        received.drop_front(step.discard);
        self.established = false;
        let (side, alert) = match error {
            Error::AlertReceived(alert) => ("by", Some(*alert)),
            Error::InvalidCertificate(reason) => ("of", Some(AlertDescription::from(reason.clone()))),
            Error::NoCertificatesPresented => ("of", Some(AlertDescription::CertificateRequired)),
            _ => ("of", None),
        };
        match alert.and_then(|alert| tls::refusal(alert.into())) {
            Some(words) => TlsError::Refused(format!("{side} the peer: {words} ({error})")),
            None => TlsError::Failed(error.to_string()),
        }
    }
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    records: &mut Run,
    record: &mut Vec<u8>,
    wire: &mut VecDeque<Bytes>,
    each: &mut dyn FnMut(&[u8]),
) -> Step {
    let UnbufferedStatus { mut discard, state } = status;
    let state = state.and_then(|state| {
        match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    each(record.payload);
                }
            }
            ConnectionState::EncodeTlsData(mut data) => loop {
                match data.encode(records.room(1)) {
                    Ok(bytes) => break records.fill(bytes),
                    Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        records.room(required_size);
                    }
                    Err(EncodeError::AlreadyEncoded) => break,
                }
            },
            // They lie among the records, which go out in order.
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::WriteTraffic(mut traffic) => {
                let mut seal = |bytes: &[u8]| {
                    loop {
                        match traffic.encrypt(bytes, records.room(bytes.len())) {
                            Ok(bytes) => break records.fill(bytes),
                            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                                records.room(required_size);
                            }
                            Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
                        }
                    }
                    Ok(())
                };
                record.clear();
                for chunk in wire.drain(..) {
                    if chunk.len() < SHORT_CHUNK_BYTES {
                        copied(Place::Record, chunk.len());
                        record.extend_from_slice(&chunk);
                        continue;
                    }
                    seal(record)?;
                    record.clear();
                    seal(&chunk)?;
                }
                seal(record)?;
                return Ok(State::Ready);
            }
            ConnectionState::BlockedHandshake | ConnectionState::PeerClosed | ConnectionState::Closed => {
                return Ok(State::Blocked);
            }
            // Early data is not allowed, and other states are unheard of.
            _ => return Ok(State::Blocked),
        }
        Ok(State::Again)
    });
    Step { discard, state }
}
