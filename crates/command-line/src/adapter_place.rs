//! Where the adapters of a command come from.

use std::path::PathBuf;

/// Where adapters lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterPlace {
    /// With the model.
    Own,
    /// In another folder, in the place of the model's own.
    Folder(PathBuf),
    /// None are used.
    LeftOut,
}
