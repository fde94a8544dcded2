//! Where tests find the real files, which are not part of the repository.

use std::path::PathBuf;

/// The folder that `SQUAD_DATA` names; none, with a line that says so, where it is not set.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("SQUAD_DATA").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: SQUAD_DATA is not set");
    }
    folder
}

/// The folder of the SQuAD files.
pub(crate) fn squad_folder() -> Option<PathBuf> {
    folder().map(|folder| folder.join("squad"))
}
