#![doc = include_str!("../README.md")]

mod error;
#[cfg(test)]
mod failing;
mod mapped_file;
mod operation;
mod partial_file;
mod partial_folder;

pub use error::{Error, Result};
pub use mapped_file::MappedFile;
pub use partial_file::{PartialFile, persist_all, write};
pub use partial_folder::PartialFolder;
