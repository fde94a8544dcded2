#![doc = include_str!("../README.md")]

mod carry_over;
mod error;
#[cfg(any(test, feature = "failing"))]
pub mod failing;
mod mapped_file;
mod operation;
mod partial_file;
mod partial_folder;
mod reserved_name;

pub use carry_over::carry_over;
pub use error::{Error, Result};
pub use mapped_file::MappedFile;
pub use partial_file::{PartialFile, persist_all, write};
pub use partial_folder::PartialFolder;
pub use reserved_name::ReservedName;
