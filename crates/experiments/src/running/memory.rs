//! Results known from before.
//!
//! A result is one JSON file with what it was made from, the last of which is the option `part`: which of the results of
//! the work it is. Work that is started again reads the results that are there; one made from something else, or of another
//! name, is refused, and the first difference named. Results are used as they read back from their file, so that work which
//! was interrupted ends like work that was not.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use content_identity::Identity;
use span_reader::running::json_file::write_json;

use crate::error::{Error, Result};
use crate::running::computation::COMPUTATION;
use crate::running::kept_file::{self, Made, VERSION, check_format, read_kept};
use crate::running::share::{Left, Share, Turn};

pub use crate::running::kept_file::check_version;

/// The option that says which of the results of a work a file holds.
const PART: &str = "part";

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
        /// Of which work the results are: contents of model and data, options.
        identity: Identity,
        /// Where it lies in the folder of the work: `cells/`; empty for that folder itself.
        within: String,
        /// What of the work this process does.
        share: Share,
    },
}

/// Parts of one analysis: what is done of it survives while it is not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parts {
    memory: Memory,
    made_from: Value,
}

/// The file of a result.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<T> {
    version: u32,
    /// What the result was made from.
    made_from: Identity,
    result: T,
}

impl Memory {
    /// Results in a folder, all of the same work: `identity` says of which. The version of the computation
    /// is added.
    pub fn folder(dir: impl Into<PathBuf>, identity: impl Into<Identity>) -> Self {
        let identity = identity.into().computed_by(COMPUTATION);
        Self::Folder { dir: dir.into(), identity, within: String::new(), share: Share::all() }
    }

    /// The same memory, of which this process does a share.
    #[must_use]
    pub fn shared(self, share: Share) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Folder { dir, identity, within, .. } => Self::Folder { dir, identity, within, share },
        }
    }

    /// Whether the one item is done that this process does of the work.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Folder { share, .. } if share.is_over())
    }

    /// The folder, if there is one.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Self::Nothing => None,
            Self::Folder { dir, .. } => Some(dir),
        }
    }

    /// The same memory in a folder of that name in it.
    #[must_use]
    pub fn within(&self, name: &str) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Folder { dir, identity, within, share } => Self::Folder {
                dir: dir.join(name),
                identity: identity.clone(),
                within: format!("{within}{name}/"),
                share: share.clone(),
            },
        }
    }

    /// The same memory of work that is made from something else as well.
    #[must_use]
    pub fn made_from(self, also: impl FnOnce() -> Identity) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Folder { dir, identity, within, share } => {
                Self::Folder { dir, identity: identity.with(&also()), within, share }
            }
        }
    }

    /// Parts of an analysis in a folder of its name, all made from the same options.
    #[must_use]
    pub fn parts(&self, name: &str, made_from: Value) -> Parts {
        Parts::new(self.within(name), made_from)
    }

    /// Removes the results of this work, when what they were kept for is done, and the folders that held nothing
    /// else. Files of other work, and those of others, stay; so do all where processes share the work.
    ///
    /// # Errors
    ///
    /// When one cannot be removed.
    pub fn forget(&self) -> Result<()> {
        match self {
            Self::Folder { dir, identity, share, .. } if share.is_all() && dir.is_dir() => forget_in(dir, identity),
            Self::Folder { .. } | Self::Nothing => Ok(()),
        }
    }

    /// Whether the result in `NAME.json` is known.
    pub fn knows(&self, name: &str) -> bool {
        self.dir().is_some_and(|dir| file(dir, name).exists())
    }

    /// The result in `NAME.json`, or that of `compute`, saved there.
    ///
    /// `options` are what it depends on beside the identity of the work: a JSON object.
    ///
    /// # Errors
    ///
    /// When the file is of other work, other options or another name, is damaged, cannot be read or written, or the work
    /// fails.
    pub fn recall<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        options: &Value,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Self::Folder { dir, share, .. } = self else { return compute() };
        let path = file(dir, name);
        let made_from = self.identity_of(name, options);
        if !path.exists() {
            if share.meet(dir, name, &made_from, false) == Turn::Elsewhere {
                return Err(Error::Elsewhere);
            }
            let result = share.inside(compute)?;
            write_json(&path, &Record { version: VERSION, made_from: made_from.clone(), result })?;
        }
        check_format(&path)?;
        let record: Record<T> = read_kept(&path)?;
        check_identity(&path, &record.made_from, &made_from)?;
        share.meet(dir, name, &made_from, true);
        Ok(record.result)
    }

    /// What the result in `NAME.json` is made from. Its name stands behind all else: of several differences it is the last to
    /// be named, and what the results of a work have in common is the start of it.
    fn identity_of(&self, name: &str, options: &Value) -> Identity {
        let Self::Folder { identity, within, .. } = self else { return Identity::default() };
        identity.clone().with_options(options.clone()).with_option(PART, format!("{within}{name}"))
    }

    /// Results that do not need one another, each by its name and its options and known or computed by its place among them;
    /// as [`recall`](Self::recall).
    ///
    /// # Errors
    ///
    /// As [`recall`](Self::recall); where processes share the work, when any result is left to another, after all are looked
    /// at.
    pub fn each<'r, T: Serialize + DeserializeOwned>(
        &self,
        results: impl IntoIterator<Item = (&'r str, &'r Value)>,
        mut compute: impl FnMut(usize) -> Result<T>,
    ) -> Result<Vec<T>> {
        let (mut left, mut known) = (Left::default(), Vec::new());
        for (index, (name, options)) in results.into_iter().enumerate() {
            known.extend(left.unless(self.recall(name, options, || compute(index)))?);
            // What is made of the results is another item.
            if self.is_over() {
                return Err(Error::Elsewhere);
            }
        }
        left.finish()?;
        Ok(known)
    }

    /// The result in `NAME.json`, or that of `compute`, which gathers parts; as [`recall`](Self::recall).
    ///
    /// Where processes share the work, the parts are items, and the result is one when all of them are there: `compute` must
    /// go through them by [`Parts::each`].
    ///
    /// # Errors
    ///
    /// As [`recall`](Self::recall).
    pub fn gather<T: Serialize + DeserializeOwned>(
        &self,
        name: &str,
        options: &Value,
        parts: &[(&Parts, &[String])],
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Self::Folder { share, .. } = self else { return compute() };
        if self.knows(name) || share.is_open() || parts.iter().all(|(parts, names)| parts.know(names)) {
            return self.recall(name, options, compute);
        }
        if parts.iter().any(|(parts, names)| parts.are_wanted(names)) {
            return compute();
        }
        for (parts, names) in parts {
            parts.meet(names)?;
        }
        Err(Error::Elsewhere)
    }
}

/// Refuses a file of other work, by the first thing in which it differs.
///
/// # Errors
///
/// When the work is another.
pub fn check_identity(path: &Path, found: &Identity, at_hand: &Identity) -> Result<()> {
    let other = |difference| Err(Error::OtherRun { path: path.into(), difference });
    found.first_difference(at_hand).map_or(Ok(()), other)
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

    /// The parts of those names, each known or computed by its place among them.
    ///
    /// # Errors
    ///
    /// As [`Memory::each`].
    pub fn each<T: Serialize + DeserializeOwned>(
        &self,
        names: &[String],
        compute: impl FnMut(usize) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.memory.each(names.iter().map(|name| (name.as_str(), &self.made_from)), compute)
    }

    /// What is made of the parts of those names and kept nowhere: `compute` must go through them by [`each`](Self::each).
    ///
    /// Where processes share the work, the parts are items, and what is made of them is left to the process that
    /// [concludes](Share::concludes).
    ///
    /// # Errors
    ///
    /// Those of `compute`; where processes share the work, [`Error::Elsewhere`] once the parts are looked at.
    pub fn gather<T>(&self, names: &[String], compute: impl FnOnce() -> Result<T>) -> Result<T> {
        let is_open = match &self.memory {
            Memory::Folder { share, .. } => share.is_open(),
            Memory::Nothing => true,
        };
        if is_open || self.are_wanted(names) {
            return compute();
        }
        self.meet(names)?;
        Err(Error::Elsewhere)
    }

    /// Whether the one item is done that this process does of the work.
    pub fn is_over(&self) -> bool {
        self.memory.is_over()
    }

    /// How many parts of those names are there.
    pub fn count(&self, names: &[String]) -> usize {
        names.iter().filter(|name| self.memory.knows(name)).count()
    }

    /// Whether all parts of those names are there.
    fn know(&self, names: &[String]) -> bool {
        self.count(names) == names.len()
    }

    /// Whether one of them is the item that this process does, and is not there.
    fn are_wanted(&self, names: &[String]) -> bool {
        let Memory::Folder { dir, share, .. } = &self.memory else { return false };
        names.iter().any(|name| share.wants(dir, name, &self.memory.identity_of(name, &self.made_from)))
    }

    /// Takes note of all of them.
    fn meet(&self, names: &[String]) -> Result<()> {
        let Memory::Folder { dir, share, .. } = &self.memory else { return Ok(()) };
        for name in names {
            let made_from = self.memory.identity_of(name, &self.made_from);
            let is_known = self.memory.knows(name);
            if is_known {
                let path = file(dir, name);
                check_identity(&path, &kept_file::made_from(&path)?, &made_from)?;
            }
            share.meet(dir, name, &made_from, is_known);
        }
        Ok(())
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

fn forget_in(dir: &Path, identity: &Identity) -> Result<()> {
    let named = |error| Error::io(dir, error);
    for entry in std::fs::read_dir(dir).map_err(named)? {
        let entry = entry.map_err(named)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(named)?);
        if kind.is_dir() {
            forget_in(&path, identity)?;
        } else if kind.is_file() && (is_result_of(&path, identity) || is_unfinished(&path)) {
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        }
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => Err(named(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether a file is a result of some work.
fn is_result_of(path: &Path, identity: &Identity) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
        && read_kept::<Made>(path).is_ok_and(|made| identity.is_start_of(&made.made_from))
}

/// Whether a file is what a writer left that was killed.
fn is_unfinished(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(".partial-"))
}

/// The file of a result in a folder.
fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use content_identity::ContentHash;
    use serde_json::json;

    use span_reader::running::json_file::read_json;

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
    fn parts_of_other_work_and_damaged_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let memory = |weights: &[u8]| {
            let weights = Identity::default().with_content("weights", "m.safetensors", ContentHash::of_bytes(weights));
            Memory::folder(dir.path(), weights)
        };
        memory(b"a").recall("part", &json!({ "seed": 1 }), || Ok(1)).unwrap();
        let refused = |weights: &[u8], seed| {
            let error = memory(weights).recall::<i32>("part", &json!({ "seed": seed }), || Ok(2)).unwrap_err();
            error.to_string()
        };
        let message = refused(b"b", 1);
        assert!(message.contains("part.json") && message.contains("weights changed: m.safetensors"), "{message}");
        let message = refused(b"a", 2);
        assert!(message.contains("option `seed` was 1, is 2"), "{message}");
        for damaged in [b"{\"version\":2".as_slice(), b"", b"\xff\xfe"] {
            std::fs::write(dir.path().join("part.json"), damaged).unwrap();
            let message = refused(b"a", 1);
            assert!(message.contains("part.json") && message.contains("may be removed"), "{message}");
        }
        // Whole, and something else: it may be somebody's.
        std::fs::write(dir.path().join("part.json"), "{\"version\":2,\"made_from\":7}").unwrap();
        let message = refused(b"a", 1);
        assert!(message.contains("field `made_from`") && !message.contains("removed"), "{message}");
    }

    #[test]
    fn a_part_under_the_name_of_another_is_refused_by_both_names() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::folder(dir.path(), json!({ "model": "a" }));
        let cells = memory.parts("cells", json!({ "seed": 1 }));
        let names = ["h.0", "h.10"].map(str::to_owned);
        cells.each(&names, Ok).unwrap();
        let at = |name: &str| dir.path().join(format!("{name}.json"));
        std::fs::copy(at("cells/h.10"), at("cells/h.0")).unwrap();
        let message = cells.recall::<usize>("h.0", || panic!("it is there")).unwrap_err().to_string();
        let expected = r#"option `part` was "cells/h.10", is "cells/h.0""#;
        assert!(message.contains("h.0.json") && message.contains(expected), "{message}");
        // Of the same name in another folder of the work.
        std::fs::create_dir(dir.path().join("rows")).unwrap();
        std::fs::copy(at("cells/h.10"), at("rows/h.10")).unwrap();
        let rows = memory.parts("rows", json!({ "seed": 1 }));
        assert!(rows.recall::<usize>("h.10", || panic!("it is there")).is_err());
        // The same folder under another path is the same work.
        let moved = tempfile::tempdir().unwrap();
        std::fs::create_dir(moved.path().join("cells")).unwrap();
        std::fs::copy(at("cells/h.10"), moved.path().join("cells/h.10.json")).unwrap();
        let again = Memory::folder(moved.path(), json!({ "model": "a" })).parts("cells", json!({ "seed": 1 }));
        assert_eq!(again.recall::<usize>("h.10", || panic!("it is there")).unwrap(), 1);
    }

    #[test]
    fn a_part_that_does_not_say_its_name_is_refused_and_still_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::folder(dir.path(), json!({ "model": "a" }));
        memory.recall("part", &json!({ "seed": 1 }), || Ok(1)).unwrap();
        let path = dir.path().join("part.json");
        let mut record: Value = read_json(&path).unwrap();
        record["made_from"]["parts"].as_array_mut().unwrap().pop();
        write_json(&path, &record).unwrap();
        let message = memory.recall::<i32>("part", &json!({ "seed": 1 }), || Ok(2)).unwrap_err().to_string();
        assert!(message.contains(r#"option `part` was not given, is "part""#), "{message}");
        memory.forget().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_part_of_another_computation_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::folder(dir.path(), Identity::default());
        memory.recall("part", &json!(null), || Ok(1)).unwrap();
        let path = dir.path().join("part.json");
        let mut record: Value = read_json(&path).unwrap();
        record["made_from"]["computation"] = json!(COMPUTATION.0 - 1);
        write_json(&path, &record).unwrap();
        let message = memory.recall::<i32>("part", &json!(null), || Ok(2)).unwrap_err().to_string();
        assert!(message.contains("computation changed"), "{message}");
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
    fn only_results_of_the_same_work_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::folder(dir.path(), json!({ "model": "a" }));
        let (own, other) =
            (memory.within("search"), Memory::folder(dir.path().join("search"), json!({ "model": "b" })));
        own.within("uniform").recall("row-1", &json!({ "bits": 4 }), || Ok(1)).unwrap();
        own.recall("h.0", &json!(null), || Ok(1)).unwrap();
        other.recall("of-another", &json!(null), || Ok(1)).unwrap();
        std::fs::write(dir.path().join("search/plan.json"), "{\"version\": 2}").unwrap();
        std::fs::write(dir.path().join("search/.partial-x.tmp"), "half").unwrap();
        own.forget().unwrap();
        let names = std::fs::read_dir(dir.path().join("search")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["of-another.json", "plan.json"]);
    }

    #[test]
    fn without_a_folder_everything_is_computed_and_nothing_kept() {
        let parts = Memory::Nothing.parts("part", json!({ "seed": 1 }));
        assert_eq!(parts.recall("first", || Ok(1)).unwrap(), 1);
        assert_eq!(parts.recall("first", || Ok(2)).unwrap(), 2);
        parts.forget().unwrap();
    }

    #[test]
    fn a_part_of_earlier_versions_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::folder(dir.path(), json!({ "model": "a" }));
        let by_path =
            r#"{"version": 1, "made_from": {"study": {"model": "a"}, "options": {"seed": 1}}, "result": [0.5]}"#;
        let without_version = r#"{"attack": "typos", "records": []}"#;
        for part in [by_path, without_version] {
            std::fs::create_dir_all(dir.path().join("sites")).unwrap();
            std::fs::write(dir.path().join("sites").join("h.0.json"), part).unwrap();
            let parts = memory.parts("sites", json!({ "seed": 1 }));
            let message = parts.recall::<Vec<f64>>("h.0", || panic!("it is there")).unwrap_err().to_string();
            assert!(message.contains("h.0.json") && message.contains("earlier version"), "{message}");
        }
    }

    #[test]
    fn work_that_fails_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::folder(dir.path(), json!(null));
        assert!(matches!(memory.recall::<i32>("part", &json!(null), || Err(Error::Stopped)), Err(Error::Stopped)));
        assert!(!dir.path().join("part.json").exists());
    }
}
