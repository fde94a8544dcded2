//! What long work needs: JSON files, Ctrl-C, several batches at once.

pub mod json_file;
pub mod stop;
pub mod workers;
