//! The state of a run on disk: model, optimiser and step, from which it goes on exactly.
//!
//! A checkpoint is a folder `step-000200` that appears under its name only when it is whole; older
//! ones are removed after that. The order of the data follows from the seed and the step.

use std::path::{Path, PathBuf};

use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Record, Recorder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::running::json_file::{read_json, write_json};
use whole_files::PartialFolder;

use crate::error::{Error, Result};
use crate::running::identity::{check_identity, check_version};

const VERSION: u32 = 1;
const MODEL: &str = "model.mpk";
const OPTIMIZER: &str = "optimizer.mpk";
const STATE: &str = "state.json";
/// The field of a run that says what its model was.
const MODEL_FIELD: &str = "model";

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) version: u32,
    /// Steps done.
    pub(crate) step: usize,
    /// What must be the same for the run to go on.
    pub(crate) run: Value,
}

impl State {
    pub(crate) fn new(step: usize, run: Value) -> Self {
        Self { version: VERSION, step, run }
    }
}

/// Saves a checkpoint and removes older ones.
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
    for (step, old) in folders(dir)? {
        if step < state.step {
            std::fs::remove_dir_all(&old).map_err(|e| Error::io(&old, e))?;
        }
    }
    Ok(())
}

/// The newest checkpoint's folder and state, if there is one and it belongs to this run.
pub(crate) fn newest(dir: &Path, run: &Value) -> Result<Option<(PathBuf, State)>> {
    let Some((_, folder)) = folders(dir)?.pop() else { return Ok(None) };
    let path = folder.join(STATE);
    let state: State = read_json(&path)?;
    check_version(&path, state.version, VERSION)?;
    let mut expected = run.clone();
    // Checkpoints of version 0.1.0 do not say what the model was, and are taken as they were.
    if let (Some(fields), None) = (expected.as_object_mut(), state.run.get(MODEL_FIELD)) {
        fields.remove(MODEL_FIELD);
    }
    check_identity(&path, &state.run, &expected)?;
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
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(dir, e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(dir, e))?;
        if let Some(step) =
            entry.file_name().to_str().and_then(|n| n.strip_prefix("step-")).and_then(|n| n.parse().ok())
        {
            found.push((step, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}
