//! The first bytes of a stream, which say what it is. A connection is open once the peer's greeting on the control
//! stream has arrived: only then is it sure that the peer believes this worker, too.

use super::Stream;

/// Every preamble begins with these: magic and version of the preambles themselves.
const MAGIC: [u8; 5] = *b"MILL\x01";
const CONTROL: u8 = 0;
const LANE: u8 = 1;
const CHANNEL: u8 = 2;
const AES_128_GCM: u8 = 1;
const CHACHA20_POLY1305: u8 = 2;

/// The length of every preamble.
pub const PREAMBLE_BYTES: usize = 16;

/// What the first bytes of a stream say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preamble {
    /// The control stream.
    Hello(Hello),
    Lane(u8),
    /// A channel's own stream; by the number that its receiver has given it.
    Channel(u32),
}

/// What a peer tells of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The most bytes that may be under way to it: what its socket can hold.
    pub window: u32,
    /// The cipher suite that it asks for if it is the one that dials.
    pub cipher: &'static str,
}

/// The first bytes of a stream make no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stream begins with {0:02x?}, which is no preamble")]
pub struct NoPreamble([u8; PREAMBLE_BYTES]);

impl Preamble {
    pub fn encode(self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..5].copy_from_slice(&MAGIC);
        match self {
            Preamble::Hello(hello) => {
                bytes[5] = CONTROL;
                bytes[6] = match hello.cipher {
                    "TLS13_AES_128_GCM_SHA256" => AES_128_GCM,
                    "TLS13_CHACHA20_POLY1305_SHA256" => CHACHA20_POLY1305,
                    _ => 0,
                };
                bytes[8..12].copy_from_slice(&hello.window.to_le_bytes());
            }
            Preamble::Lane(lane) => {
                bytes[5] = LANE;
                bytes[6] = lane;
            }
            Preamble::Channel(channel) => {
                bytes[5] = CHANNEL;
                bytes[8..12].copy_from_slice(&channel.to_le_bytes());
            }
        }
        bytes
    }

    /// # Errors
    /// If the bytes are not a preamble of this version.
    pub fn decode(bytes: [u8; PREAMBLE_BYTES]) -> Result<Self, NoPreamble> {
        let number = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let cipher = match bytes[6] {
            AES_128_GCM => "TLS13_AES_128_GCM_SHA256",
            CHACHA20_POLY1305 => "TLS13_CHACHA20_POLY1305_SHA256",
            _ => "unknown",
        };
        let preamble = match bytes[5] {
            CONTROL => Preamble::Hello(Hello { window: number, cipher }),
            LANE => Preamble::Lane(bytes[6]),
            CHANNEL => Preamble::Channel(number),
            _ => return Err(NoPreamble(bytes)),
        };
        if preamble.encode() == bytes { Ok(preamble) } else { Err(NoPreamble(bytes)) }
    }

    pub fn stream(self) -> Stream {
        match self {
            Preamble::Hello(_) => Stream::Control,
            Preamble::Lane(lane) => Stream::Lane(lane),
            Preamble::Channel(channel) => Stream::Channel(channel),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preamble_survives_the_wire_and_one_wrong_bit_does_not() {
        let hello = Hello { window: 4 << 20, cipher: "TLS13_AES_128_GCM_SHA256" };
        let channel = Preamble::Channel(0x0102_0304);
        for preamble in [Preamble::Hello(hello), Preamble::Lane(0), Preamble::Lane(255), channel] {
            let bytes = preamble.encode();
            assert_eq!(Preamble::decode(bytes), Ok(preamble));
            // The kind, the lane, the window and the channel may become others.
            for byte in [0, 1, 2, 3, 4, 7, 12, 15] {
                let mut wrong = bytes;
                wrong[byte] ^= 1 << (byte % 8);
                assert_eq!(Preamble::decode(wrong), Err(NoPreamble(wrong)), "byte {byte} of {preamble:?}");
            }
        }
    }
}
