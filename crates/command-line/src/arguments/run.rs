//! Where and how a command runs.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context as _;
use clap::Args;

use switchable_quant::device::{Device, DeviceChoice};
use switchable_quant::experiments::running::progress::ShowProgress;
use switchable_quant::kernels::QuantBackend;
use switchable_quant::lora::QuantizedCache;
use switchable_quant::reader::EvaluateOptions;
use switchable_quant::reader::artefact::manifest::Manifest;
use switchable_quant::reader::running::results_folder::{LockedFolder, prepare_folder};
use switchable_quant::reader::running::stop::StopFlag;
use switchable_quant::reader::running::workers::Workers;
use switchable_quant::transformer::model::SwitchableModel;

use crate::arguments::count::parse_up_to;
use crate::arguments::execution::ExecutionArgs;
use crate::ending::usage;
use crate::files::resolved;
use crate::made_folders;

/// The folder that the command writes to; locked until the program ends.
static IN_USE: OnceLock<LockedFolder> = OnceLock::new();

/// Where and how a command runs.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// auto, cpu, ndarray, cuda, cuda:N or wgpu
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceChoice,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder for results, made when missing; by default this one, for evaluate none, and for training and
    /// reports one in runs/
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Batches computed at once; by default one per core on a CPU, one on a GPU
    #[arg(long, value_name = "N", value_parser = parse_up_to::<1_024>)]
    pub workers: Option<usize>,
    /// How quantised weights are held and products are computed.
    #[command(flatten)]
    pub execution: ExecutionArgs,
    /// Show no progress
    #[arg(long)]
    pub quiet: bool,
}

impl RunArgs {
    /// The folder for results: that of `--out`, or this one.
    pub fn out(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new("."))
    }

    /// The folder of `--out`, or `default`.
    pub fn out_or(&self, default: &str) -> PathBuf {
        self.out.clone().unwrap_or_else(|| PathBuf::from(default))
    }

    /// The folder for results, or `default`: made, known to take files, and this command's until it ends,
    /// before anything is computed.
    ///
    /// # Errors
    ///
    /// When it cannot be made or written, lies in an artefact, or another command writes there.
    pub fn prepared_out(&self, default: &str) -> anyhow::Result<PathBuf> {
        refuse_artefact(&self.out_or(default))?;
        self.locked_out(default)
    }

    /// The same for a folder that may be an artefact, of which the command writes what artefacts do not hash.
    ///
    /// # Errors
    ///
    /// When it cannot be made or written, or another command writes there.
    pub fn locked_out(&self, default: &str) -> anyhow::Result<PathBuf> {
        let out = self.out_or(default);
        made_folders::note(&out);
        prepare_folder(&out).with_context(|| format!("results cannot be written to {}", out.display()))?;
        _ = IN_USE.set(LockedFolder::new(&out)?);
        Ok(out)
    }

    /// The workers for a device. On the CPU the results do not depend on their number.
    pub fn workers(&self, device: &Device) -> Workers {
        let on_device = device.worker_threads().get();
        match self.workers.unwrap_or(on_device) {
            // A GPU queues its work in the order of one thread.
            0 | 1 if on_device == 1 => Workers::callers_thread(),
            workers => Workers::new(workers),
        }
    }

    /// Whether progress is shown.
    pub fn show(&self) -> ShowProgress {
        if self.quiet { ShowProgress::No } else { ShowProgress::Yes }
    }

    /// Says on standard error how well the cache of quantised weights served, unless the run is quiet and
    /// nothing is wrong with it. Nothing where no weight was looked up, as with packed weights.
    pub fn tell_cache<B: QuantBackend, M: SwitchableModel<B>>(&self, model: &M) {
        let statistics = model.quantized_cache().map(QuantizedCache::statistics).unwrap_or_default();
        if statistics.hits + statistics.misses > 0 && (!self.quiet || statistics.is_too_small()) {
            eprintln!("{statistics}");
        }
    }

    /// Options of an evaluation.
    pub fn evaluate_options(&self, device: &Device, batch_size: usize, stop: &StopFlag) -> EvaluateOptions {
        let default = EvaluateOptions::default();
        let activation_bytes = default.activation_bytes.filter(|_| device.is_cpu());
        EvaluateOptions { batch_size, activation_bytes, workers: self.workers(device), stop: stop.clone(), ..default }
    }
}

/// Makes a folder for results that other processes may write to at the same time, and looks whether it takes files.
///
/// # Errors
///
/// When it cannot be made or written, or lies in an artefact.
pub(crate) fn prepare_shared(out: &Path) -> anyhow::Result<()> {
    refuse_artefact(out)?;
    prepare_folder(out).with_context(|| format!("results cannot be written to {}", out.display()))
}

/// Refuses a folder of results that lies in an artefact.
pub(crate) fn refuse_artefact(out: &Path) -> anyhow::Result<()> {
    if let Some(artefact) = resolved(out)?.ancestors().find(|folder| Manifest::is_in(folder)) {
        return Err(usage(format!(
            "`--out {}` writes into the artefact {}, whose files are all known by their hashes; expected another folder",
            out.display(),
            artefact.display()
        )));
    }
    Ok(())
}
