//! Inputs that are like those of the corpus, but not quite. This knows nothing of which code an input reaches (it is no
//! coverage-guided fuzzer): it keeps an input if what the decoder says of it is news, numbers aside.

use std::{
    collections::HashSet,
    panic::{self, AssertUnwindSafe},
};

use super::Decoder;

/// The longest input that is made.
const BYTES_MAX: usize = 4 << 10;
/// The most inputs that are kept.
const KEPT_MAX: usize = 4_096;

/// Feeds one decoder.
pub struct Mutator<'d> {
    decoder: &'d Decoder,
    random: fastrand::Rng,
    pool: Vec<Vec<u8>>,
    /// Outcomes that were seen, without their numbers.
    seen: HashSet<String>,
}

/// An input that a decoder must not have panicked on.
#[derive(Debug)]
pub struct Crash {
    pub input: Vec<u8>,
    pub cause: String,
}

impl<'d> Mutator<'d> {
    /// `corpus` is what to begin with.
    ///
    /// # Panics
    /// If it is empty.
    pub fn new(decoder: &'d Decoder, corpus: Vec<Vec<u8>>, seed: u64) -> Self {
        assert!(!corpus.is_empty(), "there is nothing to begin with for {}", decoder.name);
        Mutator { decoder, random: fastrand::Rng::with_seed(seed), pool: corpus, seen: HashSet::new() }
    }

    /// How many inputs are worth mutating.
    pub fn pool(&self) -> usize {
        self.pool.len()
    }

    /// Tries one more input.
    ///
    /// # Errors
    /// If the decoder panics.
    pub fn step(&mut self) -> Result<(), Crash> {
        let input = self.input();
        let outcome = self.decoder.outcome;
        match panic::catch_unwind(AssertUnwindSafe(|| outcome(&input))) {
            Ok(outcome) => {
                let kind = outcome.replace(|letter: char| letter.is_ascii_digit(), "");
                if self.pool.len() < KEPT_MAX && self.seen.insert(kind) {
                    self.pool.push(input);
                }
                Ok(())
            }
            Err(payload) => {
                let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
                Err(Crash { input, cause: text.unwrap_or_else(|| "a panic without a text".to_owned()) })
            }
        }
    }

    fn input(&mut self) -> Vec<u8> {
        let mut input = self.pool[self.random.usize(..self.pool.len())].clone();
        for _ in 0..=self.random.u32(..4) {
            self.mutate(&mut input);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        /// Where numbers turn over.
        const EDGES: [u64; 12] =
            [0, 1, 7, 8, 0x7f, 0xff, 0x7fff, 0xffff, 0x3fff_ffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];
        let random = &mut self.random;
        let at = random.usize(..=input.len());
        let length = random.usize(..=(input.len() - at).min(64));
        match random.u32(..8) {
            0 if at < input.len() => input[at] ^= 1 << random.u32(..8),
            1 if at < input.len() => input[at] = random.u8(..),
            2 => drop(input.drain(at..at + length)),
            3 => {
                let copy = input[at..at + length].to_vec();
                input.splice(at..at, copy);
            }
            4 => input.truncate(at),
            5 => {
                let edge = EDGES[random.usize(..EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.usize(..4)];
                let end = (at + width).min(input.len());
                input.splice(at..end, edge[..width].iter().copied());
            }
            6 => {
                // The rest of another input.
                let other = &self.pool[random.usize(..self.pool.len())];
                input.truncate(at);
                input.extend_from_slice(&other[random.usize(..=other.len())..]);
            }
            _ => input.insert(at, random.u8(..)),
        }
    }
}
