//! Any one operation of the system fails, or is the last that the process comes to: for tests that what had a name
//! keeps it or has been replaced, whole.
//!
//! The fault is that of the calling thread.

use std::cell::Cell;
use std::io;

/// What happens at the operation that is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails.
    Error,
    /// The process ends, as by SIGKILL.
    Death,
}

thread_local! {
    /// Operations until the fault, and which it is.
    static NEXT: Cell<Option<(usize, Fault)>> = const { Cell::new(None) };
    static EXCHANGES: Cell<bool> = const { Cell::new(true) };
}

/// Does some work whose operation of a number, counted from 0, does not happen; gives what came of the work and
/// whether it did so many operations.
pub fn with_fault<T>(operation: usize, fault: Fault, work: impl FnOnce() -> T) -> (T, bool) {
    NEXT.set(Some((operation, fault)));
    let result = work();
    let happened = NEXT.take().is_none();
    (result, happened)
}

/// Does some work on a file system that cannot exchange two names.
pub fn without_exchange<T>(work: impl FnOnce() -> T) -> T {
    EXCHANGES.set(false);
    let result = work();
    EXCHANGES.set(true);
    result
}

/// Whether the file system can exchange two names.
pub(crate) fn exchanges() -> bool {
    EXCHANGES.get()
}

/// Counts an operation; the chosen one does not happen.
pub(crate) fn before() -> io::Result<()> {
    let Some((left, fault)) = NEXT.get() else { return Ok(()) };
    NEXT.set(left.checked_sub(1).map(|left| (left, fault)));
    match (left, fault) {
        (1.., _) => Ok(()),
        (0, Fault::Error) => Err(io::Error::from(io::ErrorKind::StorageFull)),
        (0, Fault::Death) => std::process::abort(),
    }
}

#[cfg(test)]
mod tests;
