//! What long work needs: bars, results known from before.

pub(crate) mod progress;
pub(crate) mod remember;
