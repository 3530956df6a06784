//! The values of `execution.buffer-timeout.interval`.

use std::time::Duration;

use super::value::Value;

/// How long a buffer that is not full may wait under load. Whatever it says, buffers leave when input runs dry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BufferTimeout {
    /// Not at all: each record leaves at once.
    EveryRecord,
    /// This long at most; never zero.
    After(Duration),
    /// Until it is full.
    WhenFull,
}

impl Value for BufferTimeout {
    const TYPE_NAME: &'static str = "duration";

    fn parse(text: &str) -> Result<Self, String> {
        if matches!(text.replace(' ', "").as_str(), "-1" | "-1ms") {
            return Ok(BufferTimeout::WhenFull);
        }
        match Duration::parse(text).map_err(|expected| format!("{expected}; or -1"))? {
            Duration::ZERO => Ok(BufferTimeout::EveryRecord),
            interval => Ok(BufferTimeout::After(interval)),
        }
    }

    fn to_text(&self) -> String {
        match self {
            BufferTimeout::EveryRecord => "0 ms".to_owned(),
            BufferTimeout::After(interval) => interval.to_text(),
            BufferTimeout::WhenFull => "-1".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_minus_one_are_modes_of_their_own() {
        assert_eq!(BufferTimeout::parse("0"), Ok(BufferTimeout::EveryRecord));
        assert_eq!(BufferTimeout::parse("0 s"), Ok(BufferTimeout::EveryRecord));
        assert_eq!(BufferTimeout::parse("-1"), Ok(BufferTimeout::WhenFull));
        assert_eq!(BufferTimeout::parse("5 ms"), Ok(BufferTimeout::After(Duration::from_millis(5))));
        assert!(BufferTimeout::parse("-2").is_err());
    }

    #[test]
    fn a_written_timeout_is_read_back_as_the_same() {
        for timeout in
            [BufferTimeout::EveryRecord, BufferTimeout::WhenFull, BufferTimeout::After(Duration::from_micros(7))]
        {
            assert_eq!(BufferTimeout::parse(&timeout.to_text()), Ok(timeout));
        }
    }
}
