//! What long work needs: folders and JSON files of results, Ctrl-C, several batches at once.

pub mod json_file;
pub mod results_folder;
pub mod stop;
pub mod workers;
