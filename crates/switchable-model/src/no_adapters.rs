//! What a folder holds that should hold adapters.

use std::path::Path;

use crate::error::Error;

/// The error for a folder without adapters, which says what to name or to do instead where that is plain.
pub(crate) fn no_adapters(dir: &Path) -> Error {
    let there = |name: &str| dir.join(name).exists();
    let found = if dir.is_file() {
        "a file".to_owned()
    } else if there("adapter_config.json") {
        let moved = dir.join("bits-N");
        format!("one adapter: move its files into {}, N the bits that it was trained for", moved.display())
    } else if there("adapters") {
        format!("a model, whose adapters are in {}", dir.join("adapters").display())
    } else if there("model/adapters") {
        format!("results, whose adapters are in {}", dir.join("model/adapters").display())
    } else {
        "none".to_owned()
    };
    Error::NoAdapters { path: dir.into(), found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_something_else_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let message = |name: &str| no_adapters(&at(name)).to_string();
        for folder in ["empty", "one", "model/adapters", "results/model/adapters"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("one/adapter_config.json"), "{}").unwrap();
        for (name, expected) in [
            ("one/adapter_config.json", "found a file".to_owned()),
            ("one", format!("found one adapter: move its files into {}", at("one/bits-N").display())),
            ("model", format!("found a model, whose adapters are in {}", at("model/adapters").display())),
            ("results", format!("found results, whose adapters are in {}", at("results/model/adapters").display())),
            ("empty", "found none".to_owned()),
        ] {
            let message = message(name);
            assert!(message.contains(&expected) && message.contains("expected folders such as `bits-4`"), "{message}");
        }
    }
}
