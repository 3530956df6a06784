//! Where workers come from. So far: processes of this machine, started from an artifact.
//!
//! | Look here for | module |
//! |---|---|
//! | starting a worker process and speaking with it | [`process`] |

pub mod process;
