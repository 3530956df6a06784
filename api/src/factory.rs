//! How an operator gets from the program that planned a job into the process that runs it: as the offset of a
//! monomorphised function from an anchor symbol, and its serialized configuration.
//!
//! That works because both are the same executable: a worker compares hashes before it calls anything. Addresses must
//! also lie inside the executable's own text, which fails for operators in dynamically linked Rust libraries.

use millstream_model::{fault::Failure, job_graph::FactoryRef};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    context::RuntimeContext,
    coordinator::OperatorCoordinator,
    head::Head,
    output::Channels,
    push::{AnyPush, TaggedPush},
    record::{Key, Record, key::KeyOf},
    source::SourceTask,
};

/// Builds one operator, one end of an edge, or one coordinator.
pub type Factory = fn(Build<'_>) -> Result<Product, Failure>;

/// What a factory builds from.
pub struct Build<'a> {
    pub conf: &'a [u8],
    pub context: RuntimeContext,
    /// The consumers of an operator.
    pub outputs: Vec<TaggedPush>,
    /// The channels of an edge that is to be written.
    pub channels: Option<Box<dyn Channels>>,
    /// What a coordinator contributed to the checkpoint.
    pub restored_coordinator: Option<Vec<u8>>,
}

/// What a factory has built.
pub enum Product {
    /// An operator with one input, or the writer of an edge.
    Push(AnyPush),
    /// A source.
    Source(Box<dyn SourceTask>),
    /// The consuming end of a task: a reader, or an operator with two inputs.
    Head(Box<dyn Head>),
    Coordinator(Box<dyn OperatorCoordinator>),
}

impl Build<'_> {
    /// The configuration of the function.
    ///
    /// # Errors
    /// If the bytes are not of this type: then another program wrote them.
    pub fn conf<C: DeserializeOwned>(&self) -> Result<C, Failure> {
        postcard::from_bytes(self.conf).map_err(|cause| {
            let name = &self.context.name;
            Failure::fatal(format!("the configuration of operator '{name}' cannot be read: {cause}"))
        })
    }
}

/// Serializes the configuration of a function.
pub(crate) fn encode_conf<C: Serialize>(conf: &C) -> Vec<u8> {
    postcard::to_allocvec(conf).unwrap_or_else(|cause| {
        panic!("the configuration {} cannot be serialized: {cause}", std::any::type_name::<C>())
    })
}

/// The symbol that offsets count from. It is exported so that the linker keeps exactly one.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn __millstream_anchor() {}

fn anchor() -> usize {
    __millstream_anchor as *const () as usize
}

#[cfg(not(miri))]
unsafe extern "C" {
    // Defined by the linkers for ELF: the first byte of the image, and the first after its code.
    static __executable_start: u8;
    static etext: u8;
}

/// The addresses of the executable's own code.
#[cfg(not(miri))]
fn text() -> std::ops::Range<usize> {
    (&raw const __executable_start).addr()..(&raw const etext).addr()
}

/// Miri has no image of the executable: a function may be anywhere.
#[cfg(miri)]
fn text() -> std::ops::Range<usize> {
    1..usize::MAX
}

/// An address that cannot be code of this executable.
fn outside_text(what: &str) -> Failure {
    Failure::fatal(format!(
        "{what} lies outside the code of this executable; operators must be linked statically (no `dylib` crates, no \
         `-C prefer-dynamic`), and a job graph runs only in the executable that planned it"
    ))
}

/// The reference by which a job graph names `factory`.
pub(crate) fn reference(factory: Factory) -> FactoryRef {
    FactoryRef::Offset(offset_of(factory as usize))
}

fn offset_of(address: usize) -> i64 {
    assert!(text().contains(&address), "{}", outside_text("an operator's factory"));
    address.wrapping_sub(anchor()) as i64
}

/// What lies at `offset`. The pointer may be called as the function that is there: the cast in `reference` (or
/// `KeyRef::of`, or by the linker's relocations, in the process that planned the job) has exposed it.
fn code_at(offset: i64, what: &str) -> Result<*const (), Failure> {
    let address = anchor().wrapping_add(offset as usize);
    if text().contains(&address) { Ok(std::ptr::with_exposed_provenance(address)) } else { Err(outside_text(what)) }
}

/// The factory that `reference` names.
///
/// # Safety
/// The job graph must have been planned by this very executable (its hash is the graph's), so that an offset is that
/// of a [`Factory`].
///
/// # Errors
/// If the offset lies outside the executable's code, or the name is unknown.
pub unsafe fn resolve(reference: &FactoryRef) -> Result<Factory, Failure> {
    match reference {
        FactoryRef::Offset(offset) => {
            let code = code_at(*offset, "the factory of an operator")?;
            // SAFETY: by this function's contract the offset was made by `reference` in the same executable, so a
            // `Factory` is there; the range check only turns mistakes into errors.
            Ok(unsafe { std::mem::transmute::<*const (), Factory>(code) })
        }
        FactoryRef::Named(name) => {
            Err(Failure::fatal(format!("this executable has no built-in operator called '{name}'")))
        }
    }
}

/// A key selector in a job graph: the offset of a monomorphised function.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct KeyRef(i64);

impl KeyRef {
    pub(crate) fn of<K: Key, T: Record>(key: KeyOf<K, T>) -> KeyRef {
        KeyRef(offset_of(key as usize))
    }

    /// # Safety
    /// As [`resolve`], and `K` and `T` must be those it was made with.
    ///
    /// # Errors
    /// If the offset lies outside the executable's code.
    pub(crate) unsafe fn resolve<K: Key, T: Record>(self) -> Result<KeyOf<K, T>, Failure> {
        let code = code_at(self.0, "a key selector")?;
        // SAFETY: by this function's contract such a function is there.
        Ok(unsafe { std::mem::transmute::<*const (), KeyOf<K, T>>(code) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(build: Build<'_>) -> Result<Product, Failure> {
        Err(Failure::fatal(build.context.name()))
    }

    fn second<'a>(pair: &'a (&'a str, &'a str)) -> &'a str {
        pair.1
    }

    #[test]
    fn a_key_selector_that_went_through_a_job_graph_is_the_function_it_was() {
        let sent = postcard::to_allocvec(&KeyRef::of::<String, (String, String)>(second)).unwrap();
        let received: KeyRef = postcard::from_bytes(&sent).unwrap();
        // SAFETY: made a moment ago of a function of these types.
        let key = unsafe { received.resolve::<String, (String, String)>() }.unwrap();
        assert_eq!(key(&("one", "two")), "two");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no image of the executable, so nothing lies outside it")]
    fn an_offset_that_leaves_the_executable_is_refused() {
        let FactoryRef::Offset(offset) = reference(refuses) else { panic!("factories are offsets") };
        for outside in [offset + (1 << 40), offset - (1 << 40), i64::MIN] {
            // SAFETY: it is refused before it is called.
            let failure = unsafe { resolve(&FactoryRef::Offset(outside)) }.unwrap_err();
            assert!(failure.message.contains("outside the code of this executable"), "{failure}");
        }
    }
}
