//! Files for readers that open paths.

use std::cell::OnceCell;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

thread_local! {
    static SCRATCH: OnceCell<TempDir> = const { OnceCell::new() };
}

/// Calls a reader with a folder of these files and removes them again.
pub(crate) fn with_files<T>(files: &[(&str, &[u8])], read: impl FnOnce(&Path) -> T) -> T {
    SCRATCH.with(|scratch| {
        let memory = Path::new("/dev/shm");
        let make = || if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = scratch.get_or_init(|| make().expect("a temporary folder")).path();
        for (name, bytes) in files {
            fs::write(folder.join(name), bytes).expect("a temporary file");
        }
        let result = read(folder);
        for (name, _) in files {
            fs::remove_file(folder.join(name)).expect("it was written above");
        }
        result
    })
}
