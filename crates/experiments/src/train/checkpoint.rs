//! The state of a run on disk: model, optimiser and step, from which it goes on exactly.
//!
//! A checkpoint is a folder `step-000200` that appears under its name only when it is whole; older
//! ones are removed after that. The order of the data follows from the seed and the step.

use std::path::{Path, PathBuf};

use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Record, Recorder};
use serde::{Deserialize, Serialize};

use content_identity::Identity;
use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::running::json_file::{read_json, write_json};
use whole_files::PartialFolder;

use crate::error::{Error, Result};
use crate::running::memory::{check_identity, check_version};

/// The first version told runs apart by paths.
const VERSION: u32 = 2;
const MODEL: &str = "model.mpk";
const OPTIMIZER: &str = "optimizer.mpk";
const STATE: &str = "state.json";

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) version: u32,
    /// Steps done.
    pub(crate) step: usize,
    /// What must be the same for the run to go on.
    pub(crate) run: Identity,
    /// Total loss of each step done, in nats.
    pub(crate) losses: Vec<f64>,
}

/// What a state says of itself, whatever its version.
#[derive(Debug, Deserialize)]
struct Label {
    version: u32,
}

impl State {
    pub(crate) fn new(run: Identity, losses: Vec<f64>) -> Self {
        Self { version: VERSION, step: losses.len(), run, losses }
    }
}

/// Saves a checkpoint and removes older ones, and what a killed process left half written.
pub(crate) fn save<B: QuantBackend>(
    dir: &Path,
    state: &State,
    model: impl Record<B>,
    optimizer: impl Record<B>,
) -> Result<()> {
    let folder = PartialFolder::create(dir.join(format!("step-{:06}", state.step)))?;
    let file = |name| folder.path().join(name);
    whole_files::write(file(MODEL), &encode(&file(MODEL), model)?)?;
    whole_files::write(file(OPTIMIZER), &encode(&file(OPTIMIZER), optimizer)?)?;
    write_json(file(STATE), state)?;
    folder.persist()?;
    for left in left_behind(dir)? {
        std::fs::remove_dir_all(&left).map_err(|e| Error::io(&left, e))?;
    }
    for (step, old) in folders(dir)? {
        if step < state.step {
            std::fs::remove_dir_all(&old).map_err(|e| Error::io(&old, e))?;
        }
    }
    Ok(())
}

/// The newest checkpoint's folder and state, if there is one and it belongs to this run.
pub(crate) fn newest(dir: &Path, run: &Identity) -> Result<Option<(PathBuf, State)>> {
    let Some((_, folder)) = folders(dir)?.pop() else { return Ok(None) };
    let path = folder.join(STATE);
    check_version(&path, read_json::<Label>(&path)?.version, VERSION)?;
    let state: State = read_json(&path)?;
    check_identity(&path, &state.run, run)?;
    if state.losses.len() != state.step {
        let reason = format!("{} losses of {} steps", state.losses.len(), state.step);
        return Err(Error::Checkpoint { path, reason });
    }
    Ok(Some((folder, state)))
}

/// Loads the model's record of a checkpoint.
pub(crate) fn load_model<B: QuantBackend, R: Record<B>>(folder: &Path, device: &B::Device) -> Result<R> {
    decode(&folder.join(MODEL), device)
}

/// Loads the optimiser's record of a checkpoint.
pub(crate) fn load_optimizer<B: QuantBackend, R: Record<B>>(folder: &Path, device: &B::Device) -> Result<R> {
    decode(&folder.join(OPTIMIZER), device)
}

fn encode<B: QuantBackend, R: Record<B>>(path: &Path, record: R) -> Result<Vec<u8>> {
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    Recorder::<B>::record(&recorder, record, ()).map_err(|e| fault(path, &e))
}

fn decode<B: QuantBackend, R: Record<B>>(path: &Path, device: &B::Device) -> Result<R> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    Recorder::<B>::load(&recorder, bytes, device).map_err(|e| fault(path, &e))
}

fn fault(path: &Path, reason: &impl ToString) -> Error {
    Error::Checkpoint { path: path.into(), reason: reason.to_string() }
}

/// Checkpoints in a folder, oldest first; none when the folder is not there.
fn folders(dir: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let step = |name: &str| name.strip_prefix("step-")?.parse::<usize>().ok();
    let mut found: Vec<_> =
        entries(dir)?.into_iter().filter_map(|path| Some((step(path.file_name()?.to_str()?)?, path))).collect();
    found.sort_unstable();
    Ok(found)
}

/// Folders that were being filled when their process was killed.
fn left_behind(dir: &Path) -> Result<Vec<PathBuf>> {
    let is_partial = |path: &PathBuf| {
        path.is_dir()
            && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(".partial-"))
    };
    Ok(entries(dir)?.into_iter().filter(is_partial).collect())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(dir, e)),
    };
    entries.map(|entry| Ok(entry.map_err(|e| Error::io(dir, e))?.path())).collect()
}
