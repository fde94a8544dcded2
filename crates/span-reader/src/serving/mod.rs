//! Answering and writing with a plan per call.
//!
//! ```text
//! request  = question, context, choice; or prompt, options, choice
//! choice   → plan     by name, bytes, BitOps, latency measured here, accuracy; or the cascade, by confidence
//! ```
//!
//! A choice is a look-up among plans that were resolved when the service was made: it changes no weight and
//! allocates none. Requests of one plan are read in the same batches.

pub mod generation;
pub mod plan_choice;
pub mod service;
