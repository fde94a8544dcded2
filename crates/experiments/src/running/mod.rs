//! What long work needs: bars, results known from before.

pub mod progress;
pub mod remember;
