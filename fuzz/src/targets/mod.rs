//! What is read, by the crate that reads it.

pub(crate) mod adapters;
pub(crate) mod data;
pub(crate) mod models;
pub(crate) mod packed;
pub(crate) mod results;
pub(crate) mod tokenizers;
