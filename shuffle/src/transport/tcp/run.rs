//! Bytes on their way: a run of them, filled at its end and emptied at its start.

use crate::copies::{Place, copied};

/// Its memory is touched only as far as it is used.
pub struct Run {
    memory: Vec<u8>,
    start: usize,
    end: usize,
}

impl Run {
    pub fn new(bytes: usize) -> Self {
        Run { memory: vec![0; bytes], start: 0, end: 0 }
    }

    pub fn filled(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    /// Room of this size at least, at the end.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.start > 0 && self.memory.len() - self.end < bytes {
            copied(Place::Aside, self.end - self.start);
            self.memory.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.memory.len() - self.end < bytes {
            self.memory.resize(self.end + bytes, 0);
        }
        &mut self.memory[self.end..]
    }

    /// Makes it so large in all, unless it is larger.
    pub fn grow(&mut self, bytes: usize) {
        if self.memory.len() < bytes {
            let mut memory = vec![0; bytes];
            copied(Place::Aside, self.len());
            memory[..self.len()].copy_from_slice(&self.memory[self.start..self.end]);
            (self.memory, self.start, self.end) = (memory, 0, self.end - self.start);
        }
    }

    /// What was put into the room counts from now on.
    pub fn fill(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.memory.len() - self.end);
        self.end += bytes;
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether its last place is taken.
    pub fn is_filled_to_the_end(&self) -> bool {
        self.end == self.memory.len()
    }

    /// How much more it holds without growing.
    pub fn vacant(&self) -> usize {
        self.memory.len() - self.len()
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn drop_front(&mut self, bytes: usize) {
        self.start += bytes;
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_it_stays_when_it_grows() {
        let mut run = Run::new(8);
        run.room(8).copy_from_slice(b"whatever");
        run.fill(8);
        assert!(run.is_filled_to_the_end());
        run.drop_front(4);
        run.grow(16);
        assert_eq!(run.filled(), b"ever");
        assert_eq!(run.vacant(), 12);
        assert!(!run.is_filled_to_the_end());
        run.grow(8);
        assert_eq!(run.vacant(), 12, "it never becomes smaller");
    }
}
