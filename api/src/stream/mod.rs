//! The methods that programs are written with. They describe a job; nothing runs before `execute`.
//!
//! | Look here for | module |
//! |---|---|
//! | where a program starts, and `execute` | [`environment`] |
//! | streams without keys | [`data_stream`] |
//! | their async functions | [`async_functions`] |
//! | streams with keys | [`keyed_stream`] |
//! | two streams at once | [`connected`] |

/// Refuses, when the program is built, a closure that captures something: it could not be made again on a worker. In
/// each method's own body, so that the compiler's last note points at the user's line.
macro_rules! refuse_captures {
    ($($function:ty),*) => { $(
        const {
            assert!(
                size_of::<$function>() == 0,
                "this closure captures variables, which do not travel to the workers: pass them as configuration \
                 (map_with, filter_with, flat_map_with), or open what cannot be serialized on the worker (rich_map, …, process)"
            )
        }
    )* };
}

pub mod async_functions;
pub mod connected;
pub mod data_stream;
pub mod environment;
pub mod keyed_stream;
