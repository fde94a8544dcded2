//! Parts of a long study, each saved when it is done.
//!
//! A part is one JSON file with what it was made from. A study that is started again reads the parts
//! that are there; a part made from something else is refused. Results are used as they read back from
//! their file, so that a study that was interrupted ends like one that was not.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use span_reader::running::json_file::{read_json, write_json};

use crate::error::{Error, Result};
use crate::train::checkpoint::first_difference;

const VERSION: u32 = 1;

/// A folder of parts.
#[derive(Debug, Clone)]
pub struct Stages {
    dir: PathBuf,
    identity: Value,
}

/// The file of a part.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    version: u32,
    /// What the part was made from.
    made_from: Value,
    result: Value,
}

impl Stages {
    /// Parts in a folder, all of one study: `identity` says of which.
    pub fn new(dir: impl Into<PathBuf>, identity: Value) -> Self {
        Self { dir: dir.into(), identity }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Parts of a part, in a folder of its name: what is done of it survives while it is not.
    #[must_use]
    pub fn within(&self, name: &str) -> Self {
        Self { dir: self.dir.join(name), identity: self.identity.clone() }
    }

    /// Removes the folder, when the part that it belongs to is done.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<()> {
        if self.dir.exists() { std::fs::remove_dir_all(&self.dir).map_err(|e| Error::io(&self.dir, e)) } else { Ok(()) }
    }

    /// The result in `NAME.json`, or that of `compute`, saved there.
    ///
    /// `options` are what this part depends on beside the identity of the study.
    ///
    /// # Errors
    ///
    /// When the file is of another study or other options, cannot be read or written, or the work
    /// fails.
    pub fn run<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        options: &Value,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let path = self.dir.join(format!("{name}.json"));
        let made_from = serde_json::json!({ "study": self.identity, "options": options });
        if !path.exists() {
            let result = serde_json::to_value(compute()?).map_err(|e| Error::json(&path, e))?;
            write_json(&path, &Part { version: VERSION, made_from: made_from.clone(), result })?;
        }
        let part: Part = read_json(&path)?;
        let differs = |field: String, found: String, expected: String| {
            Err(Error::OtherRun { path: path.clone(), field, found, expected })
        };
        if part.version != VERSION {
            return differs("version".into(), part.version.to_string(), VERSION.to_string());
        }
        if let Some((field, found, expected)) = first_difference("", &part.made_from, &made_from) {
            return differs(field, found, expected);
        }
        serde_json::from_value(part.result).map_err(|e| Error::json(&path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_part_is_computed_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let stages = Stages::new(dir.path(), json!({ "model": "a" }));
        let first: Vec<f64> = stages.run("part", &json!({ "seed": 1 }), || Ok(vec![0.1, 1e300])).unwrap();
        let again: Vec<f64> = stages.run("part", &json!({ "seed": 1 }), || panic!("it is there")).unwrap();
        assert_eq!(first, again);
    }

    #[test]
    fn parts_of_other_studies_and_damaged_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let stages = |model: &str| Stages::new(dir.path(), json!({ "model": model }));
        stages("a").run("part", &json!({ "seed": 1 }), || Ok(1)).unwrap();
        let refused = |model: &str, seed| {
            let error = stages(model).run::<i32>("part", &json!({ "seed": seed }), || Ok(2)).unwrap_err();
            error.to_string()
        };
        assert!(refused("b", 1).contains("study.model"), "{}", refused("b", 1));
        assert!(refused("a", 2).contains("options.seed"), "{}", refused("a", 2));
        std::fs::write(dir.path().join("part.json"), "{\"version\":1").unwrap();
        assert!(refused("a", 1).contains("part.json"));
    }

    #[test]
    fn parts_of_a_part_survive_until_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let stages = Stages::new(dir.path(), json!(null));
        let steps = stages.within("part");
        let work = |fail: bool| {
            stages.run("part", &json!(null), || {
                let first: i32 = steps.run("first", &json!(null), || Ok(20))?;
                if fail { Err(Error::Stopped) } else { Ok(first + 1) }
            })
        };
        assert!(work(true).is_err() && dir.path().join("part/first.json").exists());
        let first: i32 = steps.run("first", &json!(null), || panic!("it is there")).unwrap();
        assert_eq!((work(false).unwrap(), first), (21, 20));
        steps.remove().unwrap();
        steps.remove().unwrap();
        assert!(!dir.path().join("part").exists() && dir.path().join("part.json").exists());
    }

    #[test]
    fn work_that_fails_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let stages = Stages::new(dir.path(), json!(null));
        assert!(matches!(stages.run::<i32>("part", &json!(null), || Err(Error::Stopped)), Err(Error::Stopped)));
        assert!(!dir.path().join("part.json").exists());
    }
}
