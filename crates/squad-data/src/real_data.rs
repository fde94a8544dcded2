//! Where tests find the real files, which are not part of the repository.

use std::io::Write as _;
use std::path::PathBuf;

/// The folder that `SQUAD_DATA` names; none where it is not set, with a line that is shown although the test
/// passes. With `SWITCHABLE_QUANT_REQUIRE_SQUAD_DATA=1` the test fails.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("SQUAD_DATA").map(PathBuf::from);
    if folder.is_none() {
        let is_required = std::env::var_os("SWITCHABLE_QUANT_REQUIRE_SQUAD_DATA").is_some_and(|value| value == "1");
        assert!(!is_required, "SQUAD_DATA is not set");
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        // Not by a macro, whose output is kept from the terminal where a test passes.
        writeln!(std::io::stderr(), "skipped: {test}: SQUAD_DATA is not set").expect("there is a terminal or a file");
    }
    folder
}

/// The folder of the SQuAD files.
pub(crate) fn squad_folder() -> Option<PathBuf> {
    folder().map(|folder| folder.join("squad"))
}
