#![doc = include_str!("../README.md")]

mod content_hash;
mod error;
mod identity;

pub use content_hash::{ContentHash, Hasher};
pub use error::{Error, Result};
pub use identity::{Computation, Difference, Identity};
