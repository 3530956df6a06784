//! A block that is checked as a whole: lines of valid text are then slices of it, which cost next to nothing.

use std::{
    ops::Range,
    str::{Utf8Error, from_utf8},
};

use super::blocks::Block;

/// A block that is being read.
#[derive(Debug)]
pub enum TextBlock {
    /// All of it is UTF-8.
    Text(String),
    /// Something in it is not, or a character goes on in another block: each line is checked for itself.
    Mixed(Block),
}

impl TextBlock {
    pub fn new(block: Block) -> TextBlock {
        if simdutf8::basic::from_utf8(&block).is_err() {
            return TextBlock::Mixed(block);
        }
        // SAFETY: it was checked a line above. (The standard library's check, which would give a string without this, is
        // several times slower, and this is done for every byte of the input.)
        TextBlock::Text(unsafe { String::from_utf8_unchecked(block) })
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            TextBlock::Text(text) => text.as_bytes(),
            TextBlock::Mixed(block) => block,
        }
    }

    /// A line of it.
    ///
    /// # Errors
    /// If it is not UTF-8; then [`Self::bytes`] has it.
    #[inline]
    pub fn line(&self, range: Range<usize>) -> Result<&str, Utf8Error> {
        match self {
            TextBlock::Text(text) => Ok(&text[range]),
            TextBlock::Mixed(block) => from_utf8(&block[range]),
        }
    }

    pub fn into_block(self) -> Block {
        match self {
            TextBlock::Text(text) => text.into_bytes(),
            TextBlock::Mixed(block) => block,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_bytes_spoil_only_their_own_line() {
        let block = TextBlock::new(b"a\xff\nb\n".to_vec());
        assert!(block.line(0..2).is_err());
        assert_eq!(block.line(3..4), Ok("b"));
        assert_eq!(block.into_block(), b"a\xff\nb\n");
    }
}
