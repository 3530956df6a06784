//! Why a connection has ended, in the words of all transports.

use quinn_proto::{ConnectionError, TransportErrorCode};

use crate::transport::{Closed, tls};

pub fn of(reason: ConnectionError) -> Closed {
    match reason {
        ConnectionError::ApplicationClosed(close) => {
            Closed::ByPeer(String::from_utf8_lossy(&close.reason).into_owned())
        }
        ConnectionError::ConnectionClosed(close) => {
            let text = String::from_utf8_lossy(&close.reason).into_owned();
            match refusal(close.error_code) {
                Some(words) => Closed::Refused(format!("by the peer: {words} ({text})")),
                None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                    Closed::Failed("the peer cannot take another connection".to_owned())
                }
                None => Closed::ByPeer(close.to_string()),
            }
        }
        ConnectionError::TransportError(error) => match refusal(error.code) {
            Some(words) => Closed::Refused(format!("of the peer: {words} ({})", error.reason)),
            None => Closed::Failed(error.to_string()),
        },
        ConnectionError::TimedOut => Closed::TimedOut,
        ConnectionError::LocallyClosed => Closed::Locally,
        ConnectionError::Reset => Closed::Failed("the peer does not know this connection any more".to_owned()),
        error @ (ConnectionError::VersionMismatch | ConnectionError::CidsExhausted) => {
            Closed::Failed(error.to_string())
        }
    }
}

/// Puts an error code in words if it is a TLS alert about an identity.
fn refusal(code: TransportErrorCode) -> Option<&'static str> {
    const CRYPTO: u64 = 0x100; // RFC 9001, section 4.8
    let alert = u64::from(code).checked_sub(CRYPTO)?;
    tls::refusal(u8::try_from(alert).ok()?)
}
