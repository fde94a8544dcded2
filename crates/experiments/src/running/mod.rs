//! What long work needs: JSON files, bars, results known from before, Ctrl-C, several batches at once.

pub(crate) mod artefact;
pub(crate) mod progress;
pub(crate) mod remember;
pub(crate) mod stop;
pub(crate) mod workers;
