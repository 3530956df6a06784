//! Logs as files: what the workers of a TaskManager log and print, job by job, and how that and the logs of the processes
//! themselves are read, piece by piece.
//!
//! ```text
//!  worker ──stdout, stderr──► capture ──lines──► store ──a thread──► DIRECTORY/NAME-JOB.log, .log.1
//!                                │                                          │
//!                                └► the last lines, for its failure        reader ──pages──► JobManager ──► client
//! ```
//! | Look here for | module |
//! |---|---|
//! | from what a worker writes to lines | [`capture`] |
//! | the files of jobs, and their limits | [`store`] |
//! | which files a process has, and pieces of them | [`files`] |
//! | pages of what is in a file | [`reader`] |

pub(crate) mod capture;
pub(crate) mod files;
pub(crate) mod reader;
pub(crate) mod store;
