//! Results known from before.
//!
//! A result is one JSON file with what it was made from. Work that is started again reads the results
//! that are there; one made from something else is refused. Results are used as they read back from
//! their file, so that work which was interrupted ends like work that was not.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use span_reader::running::json_file::{read_json, write_json};

use crate::error::{Error, Result};
use crate::running::identity::{check_identity, check_version};

const VERSION: u32 = 1;

/// What is known from before, and where it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Memory {
    /// Nothing is known, and nothing kept.
    #[default]
    Nothing,
    /// A folder of results.
    Folder {
        /// The folder, made when missing.
        dir: PathBuf,
        /// Of which work the results are: model, data, seeds.
        identity: Value,
    },
}

/// Parts of one analysis: what is done of it survives while it is not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parts {
    memory: Memory,
    made_from: Value,
}

/// A result whose file says by itself what it was made from.
pub trait Identified {
    /// What it was made from.
    fn identity(&self) -> &Value;
}

/// The file of a result.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    /// What the result was made from.
    made_from: Value,
    result: Value,
}

impl Memory {
    /// Results in a folder, all of the same work: `identity` says of which.
    pub fn folder(dir: impl Into<PathBuf>, identity: Value) -> Self {
        Self::Folder { dir: dir.into(), identity }
    }

    /// The folder, if there is one.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Self::Nothing => None,
            Self::Folder { dir, .. } => Some(dir),
        }
    }

    /// Of which work the results are; null where nothing is kept.
    pub fn identity(&self) -> &Value {
        match self {
            Self::Nothing => &Value::Null,
            Self::Folder { identity, .. } => identity,
        }
    }

    /// The same memory in a folder of that name in it.
    #[must_use]
    pub fn within(&self, name: &str) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Folder { dir, identity } => Self::folder(dir.join(name), identity.clone()),
        }
    }

    /// Parts of an analysis in a folder of its name, all made from the same options.
    #[must_use]
    pub fn parts(&self, name: &str, made_from: Value) -> Parts {
        Parts::new(self.within(name), made_from)
    }

    /// Removes the folder, when what it was kept for is done.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn forget(&self) -> Result<()> {
        match self.dir().filter(|dir| dir.exists()) {
            Some(dir) => std::fs::remove_dir_all(dir).map_err(|e| Error::io(dir, e)),
            None => Ok(()),
        }
    }

    /// The result in `NAME.json`, or that of `compute`, saved there.
    ///
    /// `options` are what it depends on beside the identity of the work.
    ///
    /// # Errors
    ///
    /// When the file is of other work or other options, cannot be read or written, or the work fails.
    pub fn recall<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        options: &Value,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Self::Folder { dir, identity } = self else { return compute() };
        let path = file(dir, name);
        let made_from = json!({ "study": identity, "options": options });
        let record: Record = known_or(&path, || {
            let result = serde_json::to_value(compute()?).map_err(|e| Error::json(&path, e))?;
            Ok(Record { version: VERSION, made_from: made_from.clone(), result })
        })?;
        check_version(&path, record.version, VERSION)?;
        check_identity(&path, &record.made_from, &made_from)?;
        serde_json::from_value(record.result).map_err(|e| Error::json(&path, e))
    }

    /// The result in `NAME.json`, which says itself what it was made from, or that of `compute`, saved
    /// there.
    ///
    /// # Errors
    ///
    /// As [`recall`](Self::recall).
    pub fn recall_identified<T: Identified + Serialize + DeserializeOwned>(
        &self,
        name: &str,
        identity: &Value,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Self::Folder { dir, .. } = self else { return compute() };
        let path = file(dir, name);
        let result: T = known_or(&path, compute)?;
        check_identity(&path, result.identity(), identity)?;
        Ok(result)
    }
}

impl Parts {
    /// Parts in a memory, all made from the same options.
    pub fn new(memory: Memory, made_from: Value) -> Self {
        Self { memory, made_from }
    }

    /// The part of that name, known or computed; as [`Memory::recall`].
    ///
    /// # Errors
    ///
    /// As [`Memory::recall`].
    pub fn recall<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.memory.recall(name, &self.made_from, compute)
    }

    /// Removes the parts, when the analysis is done.
    ///
    /// # Errors
    ///
    /// When they cannot be removed.
    pub fn forget(&self) -> Result<()> {
        self.memory.forget()
    }
}

/// The file of a result in a folder.
fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.json"))
}

/// What a file holds, written first where it is not there.
fn known_or<T: Serialize + DeserializeOwned>(path: &Path, make: impl FnOnce() -> Result<T>) -> Result<T> {
    if !path.exists() {
        write_json(path, &make()?)?;
    }
    Ok(read_json(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_computed_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::folder(dir.path(), json!({ "model": "a" }));
        let first: Vec<f64> = memory.recall("part", &json!({ "seed": 1 }), || Ok(vec![0.1, 1e300])).unwrap();
        let again: Vec<f64> = memory.recall("part", &json!({ "seed": 1 }), || panic!("it is there")).unwrap();
        assert_eq!(first, again);
    }

    #[test]
    fn parts_of_other_studies_and_damaged_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let memory = |model: &str| Memory::folder(dir.path(), json!({ "model": model }));
        memory("a").recall("part", &json!({ "seed": 1 }), || Ok(1)).unwrap();
        let refused = |model: &str, seed| {
            let error = memory(model).recall::<i32>("part", &json!({ "seed": seed }), || Ok(2)).unwrap_err();
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
        let memory = Memory::folder(dir.path(), json!(null));
        let steps = memory.within("part");
        let work = |fail: bool| {
            memory.recall("part", &json!(null), || {
                let first: i32 = steps.recall("first", &json!(null), || Ok(20))?;
                if fail { Err(Error::Stopped) } else { Ok(first + 1) }
            })
        };
        assert!(work(true).is_err() && dir.path().join("part/first.json").exists());
        let first: i32 = steps.recall("first", &json!(null), || panic!("it is there")).unwrap();
        assert_eq!((work(false).unwrap(), first), (21, 20));
        steps.forget().unwrap();
        steps.forget().unwrap();
        assert!(!dir.path().join("part").exists() && dir.path().join("part.json").exists());
    }

    #[test]
    fn without_a_folder_everything_is_computed_and_nothing_kept() {
        let parts = Memory::Nothing.parts("part", json!({ "seed": 1 }));
        assert_eq!(parts.recall("first", || Ok(1)).unwrap(), 1);
        assert_eq!(parts.recall("first", || Ok(2)).unwrap(), 2);
        parts.forget().unwrap();
    }

    #[test]
    fn a_folder_written_by_earlier_versions_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::folder(dir.path(), json!({ "model": "a" }));
        let part = r#"{"version": 1, "made_from": {"study": {"model": "a"}, "options": {"seed": 1}}, "result": [0.5]}"#;
        std::fs::create_dir(dir.path().join("sites")).unwrap();
        std::fs::write(dir.path().join("sites").join("h.0.json"), part).unwrap();
        let parts = memory.parts("sites", json!({ "seed": 1 }));
        assert_eq!(parts.recall::<Vec<f64>>("h.0", || panic!("it is there")).unwrap(), [0.5]);
    }

    #[test]
    fn work_that_fails_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::folder(dir.path(), json!(null));
        assert!(matches!(memory.recall::<i32>("part", &json!(null), || Err(Error::Stopped)), Err(Error::Stopped)));
        assert!(!dir.path().join("part.json").exists());
    }
}
