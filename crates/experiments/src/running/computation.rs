//! What the numbers of this crate mean.

use content_identity::Computation;

/// Raised whenever a computation comes to give other numbers for the same work: a quantiser, a kernel, a
/// metric, an interval, a training step, an attack. Saved results of another version are refused.
pub const COMPUTATION: Computation = Computation(6);
