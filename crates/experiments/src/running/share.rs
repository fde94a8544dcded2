//! Which part of some work a process does.
//!
//! A study is a list of results that do not need one another: cells of a table, sites of a model, regimes with their
//! seeds. Each is an [`Item`] under a key that says what it is made from, kept as the file that a process which does all
//! of the work would keep. Several processes that share a folder do an item each; when none is left, the study reads
//! what one process would have found.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use content_identity::Identity;

use crate::error::{Error, Result};
use crate::running::kept_file;

/// Digits of the hash in a key: 64 bits.
const DIGITS: usize = 16;

/// An item of some work: the file of its result in the folder of the work, and what it is made from.
///
/// As text `PATH@HASH`: the path below the folder without `.json`, and the first 16 digits of the BLAKE3 of contents,
/// options and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ItemKey {
    path: String,
    made_from: String,
}

/// An item, and whether its result is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its key.
    pub key: ItemKey,
    /// Whether its result is there.
    pub done: bool,
}

/// What a process does of some work: all of it, nothing but to list it, one item, or what is left when the items are done.
#[derive(Debug, Clone, Default)]
pub struct Share(Kind);

#[derive(Debug, Clone, Default)]
enum Kind {
    #[default]
    All,
    Rest,
    Items(Arc<State>),
}

#[derive(Debug)]
struct State {
    /// The folder of the work.
    root: PathBuf,
    /// The one item that is done here; `None` where items are listed.
    wanted: Option<ItemKey>,
    /// Whether that item is being done: all that it needs is done with it.
    inside: AtomicBool,
    /// What has been met, each once.
    met: Mutex<Vec<Item>>,
}

/// What is to be done about a result that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is computed here.
    Here,
    /// It is left to another process.
    Elsewhere,
}

impl ItemKey {
    /// The key of the file `dir/NAME.json` of the work in `root`.
    fn of(root: &Path, dir: &Path, name: &str, made_from: &Identity) -> Self {
        let file = dir.strip_prefix(root).unwrap_or(dir).join(name);
        let path = file.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
        Self { path, made_from: digits(made_from) }
    }

    /// The path of its file below the folder of the work, without `.json`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the result of this key is in the folder of the work. Nothing but its file is read.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is damaged, or is of other work or of another item.
    pub fn is_done_in(&self, root: &Path) -> Result<bool> {
        let path = root.join(format!("{}.json", self.path));
        if !path.exists() {
            return Ok(false);
        }
        let found = digits(&kept_file::made_from(&path)?);
        if found == self.made_from { Ok(true) } else { Err(Error::OtherItem { path, key: self.to_string(), found }) }
    }
}

fn digits(made_from: &Identity) -> String {
    let mut hash = made_from.fingerprint().to_string();
    hash.truncate(DIGITS);
    hash
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.path, self.made_from)
    }
}

impl FromStr for ItemKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (path, made_from) = text.rsplit_once('@').unwrap_or_default();
        let is_inside = !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let is_hash = made_from.len() == DIGITS && made_from.bytes().all(|digit| digit.is_ascii_hexdigit());
        if is_inside && is_hash && !path.contains('\\') {
            Ok(Self { path: path.to_owned(), made_from: made_from.to_owned() })
        } else {
            Err(Error::option("run-item", format!("`{text}`"), "a key that `--items` lists: PATH@HASH"))
        }
    }
}

impl Share {
    /// All of it.
    pub fn all() -> Self {
        Self(Kind::All)
    }

    /// What is left when the items are done: what is made of them. Their files stay for processes that still ask for them.
    pub fn rest() -> Self {
        Self(Kind::Rest)
    }

    /// Nothing: what is met of the work in a folder is listed.
    pub fn listing(root: impl Into<PathBuf>) -> Self {
        Self::of(root.into(), None)
    }

    /// One item of the work in a folder.
    pub fn item(root: impl Into<PathBuf>, key: ItemKey) -> Self {
        Self::of(root.into(), Some(key))
    }

    fn of(root: PathBuf, wanted: Option<ItemKey>) -> Self {
        Self(Kind::Items(Arc::new(State { root, wanted, inside: AtomicBool::new(false), met: Mutex::default() })))
    }

    fn state(&self) -> Option<&State> {
        match &self.0 {
            Kind::All | Kind::Rest => None,
            Kind::Items(state) => Some(state),
        }
    }

    /// What has been met so far, in the order of the work.
    pub fn items(&self) -> Vec<Item> {
        self.state().map_or_else(Vec::new, |state| state.met.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Whether all of the work is done here.
    pub fn is_all(&self) -> bool {
        matches!(self.0, Kind::All)
    }

    /// Whether this process comes to what the work is done for, and says it: not where it lists the items, or does one.
    pub fn concludes(&self) -> bool {
        self.state().is_none()
    }

    /// Whether the one item that is wanted here is done: the rest of the work is not looked at.
    pub fn is_over(&self) -> bool {
        let Some(wanted) = self.state().and_then(|state| state.wanted.as_ref()) else { return false };
        self.items().iter().any(|item| item.done && item.key == *wanted)
    }

    /// Whether what is not known is computed here, whatever it is.
    pub(crate) fn is_open(&self) -> bool {
        self.state().is_none_or(|state| state.inside.load(Ordering::Relaxed))
    }

    /// Whether a result is the item that is wanted here.
    pub(crate) fn wants(&self, dir: &Path, name: &str, made_from: &Identity) -> bool {
        let wanted = |state: &State| state.wanted.as_ref() == Some(&ItemKey::of(&state.root, dir, name, made_from));
        self.state().is_some_and(wanted)
    }

    /// Takes note of a result; where it is not there, says whose turn it is.
    pub(crate) fn meet(&self, dir: &Path, name: &str, made_from: &Identity, done: bool) -> Turn {
        let Some(state) = self.state().filter(|_| !self.is_open()) else { return Turn::Here };
        let key = ItemKey::of(&state.root, dir, name, made_from);
        let turn = if state.wanted.as_ref() == Some(&key) { Turn::Here } else { Turn::Elsewhere };
        let mut met = state.met.lock().unwrap_or_else(PoisonError::into_inner);
        match met.iter_mut().find(|item| item.key == key) {
            Some(item) => item.done |= done,
            None => met.push(Item { key, done }),
        }
        turn
    }

    /// Does an item with all that it needs.
    pub(crate) fn inside<T>(&self, compute: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(state) = self.state().filter(|_| !self.is_open()) else { return compute() };
        state.inside.store(true, Ordering::Relaxed);
        let result = compute();
        state.inside.store(false, Ordering::Relaxed);
        result
    }
}

/// Of one process: two are the same when they list into the same place.
impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::All, Kind::All) | (Kind::Rest, Kind::Rest) => true,
            (Kind::Items(own), Kind::Items(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

impl Eq for Share {}

/// What of several results is left to other processes.
#[derive(Debug, Default)]
pub struct Left(bool);

impl Left {
    /// The result, or `None` where it is left to another process.
    ///
    /// # Errors
    ///
    /// Every other error.
    pub fn unless<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(Error::Elsewhere) => {
                self.0 = true;
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    /// Says whether nothing was left.
    ///
    /// # Errors
    ///
    /// [`Error::Elsewhere`] where something was.
    pub fn finish(self) -> Result<()> {
        if self.0 { Err(Error::Elsewhere) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::running::memory::Memory;

    /// Work of three cells that are summed, and a result of its own.
    fn work(memory: &Memory, computed: &mut Vec<String>) -> Result<(i32, i32)> {
        let cells = memory.parts("cells", json!({ "seed": 1 }));
        let names: Vec<String> = (1..=3).map(|cell| format!("cell-{cell}")).collect();
        let mut left = Left::default();
        let table = memory.gather("table", &json!({ "seed": 1 }), &[(&cells, &names)], || {
            let values = cells.each(&names, |index| {
                computed.push(names[index].clone());
                Ok(index as i32 + 1)
            })?;
            computed.push("table".into());
            Ok(values.iter().sum())
        });
        let table = left.unless(table)?;
        let other = left.unless(memory.recall("other", &Value::Null, || {
            computed.push("other".into());
            memory.within("inner").recall("step", &Value::Null, || Ok(7))
        }))?;
        left.finish()?;
        Ok((table.unwrap(), other.unwrap()))
    }

    fn memory(dir: &Path, share: Share) -> Memory {
        Memory::folder(dir, json!({ "model": "a" })).shared(share)
    }

    fn listed(dir: &Path) -> Vec<ItemKey> {
        let share = Share::listing(dir);
        let mut computed = Vec::new();
        _ = work(&memory(dir, share.clone()), &mut computed);
        assert!(computed.is_empty(), "{computed:?}");
        share.items().into_iter().filter(|item| !item.done).map(|item| item.key).collect()
    }

    #[test]
    fn items_done_one_by_one_give_what_one_process_gives() {
        let dir = tempfile::tempdir().unwrap();
        let mut rounds = Vec::new();
        loop {
            let keys = listed(dir.path());
            if keys.is_empty() {
                break;
            }
            // In another order than one process has.
            for key in keys.iter().rev() {
                assert!(!key.is_done_in(dir.path()).unwrap());
                let (share, mut computed) = (Share::item(dir.path(), key.clone()), Vec::new());
                assert!(matches!(
                    work(&memory(dir.path(), share.clone()), &mut computed),
                    Ok(_) | Err(Error::Elsewhere)
                ));
                assert!(share.is_over() && key.is_done_in(dir.path()).unwrap());
                assert_eq!(computed.len(), 1, "{key}: {computed:?}");
            }
            rounds.push(keys.iter().map(|key| key.path.clone()).collect::<Vec<_>>());
        }
        assert_eq!(rounds, [vec!["cells/cell-1", "cells/cell-2", "cells/cell-3", "other"], vec!["table"]]);
        let mut computed = Vec::new();
        assert_eq!(work(&memory(dir.path(), Share::all()), &mut computed).unwrap(), (6, 7));
        assert!(computed.is_empty());
        assert_eq!(work(&memory(tempfile::tempdir().unwrap().path(), Share::all()), &mut computed).unwrap(), (6, 7));
    }

    /// A sum of cells that is kept nowhere, and steps behind it.
    fn sum(memory: &Memory) -> Result<i32> {
        let cells = memory.parts("cells", json!({ "seed": 1 }));
        let names: Vec<String> = (1..=3).map(|cell| format!("cell-{cell}")).collect();
        let values = cells.gather(&names, || cells.each(&names, |index| Ok(index as i32 + 1)))?;
        let first = memory.recall("first", &Value::Null, || Ok(values.iter().sum::<i32>()))?;
        Ok(first + memory.recall("second", &Value::Null, || Ok(1))?)
    }

    #[test]
    fn what_is_kept_nowhere_is_left_to_the_process_that_concludes() {
        let dir = tempfile::tempdir().unwrap();
        let listed = || {
            let share = Share::listing(dir.path());
            assert!(matches!(sum(&memory(dir.path(), share.clone())), Err(Error::Elsewhere)));
            assert!(!share.concludes());
            share.items()
        };
        let items = listed();
        assert_eq!(items.len(), 3);
        for Item { key, done } in items {
            let share = Share::item(dir.path(), key.clone());
            assert!(!done && matches!(sum(&memory(dir.path(), share.clone())), Err(Error::Elsewhere)));
            assert!(share.is_over() && key.is_done_in(dir.path()).unwrap());
        }
        assert!(listed().iter().all(|item| item.done), "no step is an item");
        let rest = memory(dir.path(), Share::rest());
        assert_eq!(sum(&rest).unwrap(), 7);
        rest.forget().unwrap();
        assert!(dir.path().join("cells/cell-1.json").exists() && Share::rest().concludes());
        assert_eq!(sum(&memory(tempfile::tempdir().unwrap().path(), Share::all())).unwrap(), 7);
    }

    #[test]
    fn an_item_under_the_name_of_another_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let keys = listed(dir.path());
        work(&memory(dir.path(), Share::rest()), &mut Vec::new()).unwrap();
        let file = |key: &ItemKey| dir.path().join(format!("{}.json", key.path()));
        assert_ne!(keys[0].made_from, keys[1].made_from, "the hash is of the name as well");
        std::fs::copy(file(&keys[1]), file(&keys[0])).unwrap();
        let message = keys[0].is_done_in(dir.path()).unwrap_err().to_string();
        assert!(message.contains("cell-1.json") && message.contains(&keys[0].to_string()), "{message}");
        assert!(keys[1].is_done_in(dir.path()).unwrap());
        std::fs::write(file(&keys[0]), "{").unwrap();
        let message = keys[0].is_done_in(dir.path()).unwrap_err().to_string();
        assert!(message.contains("cell-1.json") && message.contains("may be removed"), "{message}");
    }

    #[test]
    fn keys_are_read_back_and_those_of_other_work_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = listed(dir.path()).remove(0);
        assert_eq!(key.to_string().parse::<ItemKey>().unwrap(), key);
        for text in ["", "cells", "@0123456789abcdef", "../x@0123456789abcdef", "/x@0123456789abcdef", "x@0123"] {
            assert!(text.parse::<ItemKey>().is_err(), "{text}");
        }
        let other = Memory::folder(dir.path(), json!({ "model": "b" }));
        work(&other, &mut Vec::new()).unwrap();
        let share = Share::item(dir.path(), key.clone());
        let message = key.is_done_in(dir.path()).unwrap_err().to_string();
        assert!(message.contains("cell-1.json") && message.contains(&key.to_string()), "{message}");
        assert!(work(&memory(dir.path(), share), &mut Vec::new()).is_err());
    }
}
