//! Folders that a command made for its results, which go again where there are none.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Those of this program, the outer before the inner.
static MADE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Notes which of a folder and of those around it are about to be made.
pub(crate) fn note(folder: &Path) {
    let around = folder.ancestors().filter(|around| !around.as_os_str().is_empty());
    let missing: Vec<&Path> = around.take_while(|around| !around.exists()).collect();
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.extend(missing.into_iter().rev().map(Path::to_owned));
}

/// Removes those of them that are empty: what failed leaves nothing behind.
pub(crate) fn remove_empty() {
    let made = std::mem::take(&mut *MADE.lock().unwrap_or_else(PoisonError::into_inner));
    // One that holds anything is not removed by this, nor are those around it.
    made.iter().rev().for_each(|folder| _ = std::fs::remove_dir(folder));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_and_stayed_empty_goes_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("there")).unwrap();
        for folder in ["there", "there/new", "outer/inner", "full/inner"] {
            note(&at(folder));
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("full/inner/result.json"), "{}").unwrap();
        remove_empty();
        let left: Vec<bool> =
            ["there", "there/new", "outer", "full/inner/result.json"].iter().map(|name| at(name).exists()).collect();
        assert_eq!(left, [true, false, false, true]);
    }
}
