//! The training loop.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use burn::module::AutodiffModule;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer as _};
use burn::tensor::backend::DeviceId;
use burn::tensor::{ElementConversion as _, Tensor};
use serde::Serialize;
use serde_json::json;

use content_identity::Identity;
use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::running::stop::StopFlag;
use span_reader::running::workers::Workers;

use crate::error::{Error, Result};
use crate::running::computation::COMPUTATION;
use crate::running::progress::{Progress, ShowProgress};
use crate::train::branch::{Branch, Protection};
use crate::train::config::TrainConfig;
use crate::train::regimes::Regime;
use crate::train::replicas::Replicas;
use crate::train::step_sizes::StepSizes;
use crate::train::task::TrainTask;
use crate::train::{checkpoint, gradients};

/// Where a run works and what may interrupt it.
#[derive(Debug, Clone, Default)]
pub struct TrainRun {
    /// Folder of checkpoints and of `train.jsonl`; without one nothing is saved.
    pub dir: Option<PathBuf>,
    /// Micro-batches computed at once.
    pub workers: Workers,
    /// Devices beside that of the model, of the same backend, which share the micro-batches of a step. What is trained
    /// does not depend on them: all that they change is time.
    pub beside: Vec<DeviceId>,
    /// Asked between steps; a run that stops saves a checkpoint first.
    pub stop: StopFlag,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Contents and options that must be the same for a saved run to go on, beside those of the training
    /// itself: model, data.
    pub identity: Identity,
}

/// What a run does, and where it works.
#[derive(Debug, Clone, Copy)]
pub struct Training<'a> {
    /// Hyper-parameters.
    pub config: &'a TrainConfig,
    /// Where it works and what may interrupt it.
    pub run: &'a TrainRun,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainOutcome {
    /// Total loss of each step done by this call, in nats.
    pub losses: Vec<f64>,
    /// Total loss of each step that was done before and found in a checkpoint, in nats.
    pub earlier_losses: Vec<f64>,
    /// Step it started at: above 0 when a checkpoint was found.
    pub first_step: usize,
    /// Tokens per second, padding not counted.
    pub tokens_per_second: f64,
}

/// Looks at a model while it is trained.
pub struct Watch<'w, M> {
    /// Steps from one look to the next, the start and the last step included.
    pub every: usize,
    /// Looks at the model after some steps; asked again of the step that a run goes on from.
    pub look: &'w (dyn Fn(usize, &M) -> Result<()> + 'w),
}

impl<M> std::fmt::Debug for Watch<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("every", &self.every).finish_non_exhaustive()
    }
}

/// One line of `train.jsonl`.
#[derive(Serialize)]
struct LogLine<'a> {
    step: usize,
    regime: &'a str,
    loss: f64,
    main_loss: f64,
    gradient_norm: f64,
    learning_rate: f64,
    tokens_per_second: f64,
}

/// What one micro-batch gives.
struct Part {
    /// Gradients of the guarded branches; empty where no branch is guarded.
    guarded: Option<GradientsParams>,
    /// Gradients of the other branches.
    free: Option<GradientsParams>,
    loss: f64,
    main_loss: f64,
}

impl Part {
    fn map_gradients(self, map: impl Fn(GradientsParams) -> GradientsParams) -> Self {
        let Self { guarded, free, .. } = self;
        Self { guarded: guarded.map(&map), free: free.map(map), ..self }
    }
}

/// Trains every parameter that requires a gradient, with AdamW. Learned steps of weights move by their
/// size times AdamW's update, so that the learning rate is their relative change; none of them comes to 0 or changes
/// its sign.
///
/// With a folder, a run goes on from its newest checkpoint, with the same result as if it had not
/// been interrupted.
///
/// # Errors
///
/// When the configuration is out of range, there is nothing to train on, the folder belongs to
/// another run, the loss is not finite, or the work is stopped (its state saved).
pub fn train<B: QuantAutodiffBackend, M: AutodiffModule<B> + Sync, T: TrainTask<B, M>>(
    model: M,
    task: &T,
    regime: &dyn Regime,
    training: Training<'_>,
) -> Result<(M, TrainOutcome)> {
    train_watched(model, task, regime, training, None)
}

/// [`train()`], and what is trained is looked at on the way. The result is the same.
///
/// Where a look is stopped, or fails, the step before it is saved, and a run that goes on from there looks again.
///
/// # Errors
///
/// As [`train()`], and when a look fails.
pub fn train_watched<B: QuantAutodiffBackend, M: AutodiffModule<B> + Sync, T: TrainTask<B, M>>(
    model: M,
    task: &T,
    regime: &dyn Regime,
    training: Training<'_>,
    watch: Option<&Watch<'_, M>>,
) -> Result<(M, TrainOutcome)> {
    let Training { config, run } = training;
    if watch.is_some_and(|watch| watch.every == 0) {
        return Err(Error::option("every", 0, "at least 1 step from one look to the next"));
    }
    let look = |step: usize, model: &M| match watch {
        Some(watch) if step.is_multiple_of(watch.every) || step == config.steps => (watch.look)(step, model),
        _ => Ok(()),
    };
    let device = &device_of(&model);
    config.check()?;
    if config.micro_batches <= run.beside.len() {
        let devices = run.beside.len() + 1;
        let expected = format!("at least {devices}: one for each of {devices} devices");
        return Err(Error::option("micro_batches", config.micro_batches, expected));
    }
    task.check_model(&model)?;
    for branch in regime.branches(0) {
        task.check_plan(&model, &branch.plan)?;
    }
    let identity = identity::<B>(regime, training).with_option("model settings", task.model_identity(&model));
    let optimizer = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(config.weight_decay);
    let mut optimizer = optimizer.init::<B, M>();
    let starting_steps = StepSizes::of(&model);
    let (mut model, mut earlier_losses, mut found) = (model, Vec::new(), None);
    if let Some((folder, state)) =
        run.dir.as_deref().map(|dir| checkpoint::newest(dir, &identity)).transpose()?.flatten()
    {
        model = model.load_record(checkpoint::load_model::<B, _>(&folder, device)?);
        optimizer = optimizer.load_record(checkpoint::load_optimizer::<B, _>(&folder, device)?);
        found = Some(state.step);
        earlier_losses = state.losses;
    }
    let first_step = found.unwrap_or(0);
    let save = |losses: &[f64], model: &M, optimizer: &_| -> Result<()> {
        let step = first_step + losses.len();
        // A checkpoint that is there is the only one: it is not written again in its place.
        let Some(dir) = run.dir.as_deref().filter(|_| found != Some(step)) else { return Ok(()) };
        let record = burn::optim::Optimizer::<M, B>::to_record(optimizer);
        let state = checkpoint::State::new(identity.clone(), [&earlier_losses, losses].concat());
        checkpoint::save::<B>(dir, &state, model.clone().into_record(), record)
    };

    let mut replicas = Replicas::new(&model, device, &run.beside)?;
    let mut data = task.batches_from(first_step * config.micro_batches)?;
    let mut progress = Progress::start("training", first_step, config.steps, run.show);
    let mut log = Log::open(run, first_step)?;
    let mut losses = Vec::new();
    look(first_step, &model)?;
    let (mut tokens, start) = (0, Instant::now());
    for step in first_step..config.steps {
        if run.stop.is_requested() {
            save(&losses, &model, &optimizer)?;
            return Err(Error::Stopped);
        }
        let parts: Vec<T::Batch> = data.by_ref().take(config.micro_batches).collect();
        tokens += parts.iter().map(|batch| task.tokens(batch)).sum::<usize>();
        let branches = regime.branches(step);
        for branch in &branches {
            task.check_plan(&model, &branch.plan)?;
        }
        replicas.follow(&model);
        let outputs = run.workers.map(&parts, |part, batch| {
            // A copy with leaves of its own: graphs that share leaves would wait for one another.
            let model = M::from_inner(replicas.of_part(part, &model).valid());
            let share = Share { branches: &branches, of_step: 1.0 / parts.len() as f64 };
            run_part(&model, task, batch, share).map_gradients(|gradients| replicas.home(gradients, &model))
        });
        let loss = outputs.iter().map(|part| part.loss).sum::<f64>();
        if !loss.is_finite() {
            return Err(Error::Diverged { step, loss });
        }
        let main_loss = outputs.iter().map(|part| part.main_loss).sum::<f64>();
        let mut total = combine(&model, outputs);
        let gradient_norm = gradients::clip(&model, &mut total, config.clip_norm);
        let learning_rate = config.schedule.rate(step, config.steps);
        let sizes = StepSizes::of(&model);
        model = sizes.scale_update(&starting_steps, optimizer.step(learning_rate, model, total));
        losses.push(loss);
        let tokens_per_second = tokens as f64 / start.elapsed().as_secs_f64();
        progress.step(format!("loss {loss:.3} (task {main_loss:.3}) {tokens_per_second:.0} tokens/s"));
        let regime = regime.name();
        log.line(&LogLine { step, regime, loss, main_loss, gradient_norm, learning_rate, tokens_per_second })?;
        let looked = look(step + 1, &model);
        if (step + 1) % config.checkpoint_every == 0 || step + 1 == config.steps || looked.is_err() {
            save(&losses, &model, &optimizer)?;
        }
        looked?;
    }
    progress.finish();
    let tokens_per_second = tokens as f64 / start.elapsed().as_secs_f64().max(1e-9);
    Ok((model, TrainOutcome { losses, earlier_losses, first_step, tokens_per_second }))
}

/// What must be the same for a saved run to go on. How often it is saved need not be.
fn identity<B: QuantAutodiffBackend>(regime: &dyn Regime, Training { config, run }: Training<'_>) -> Identity {
    let mut config = json!(config);
    if let Some(fields) = config.as_object_mut() {
        fields.remove("checkpoint_every");
    }
    let of_training = json!({
        "backend": B::name(&B::Device::default()), "config": config, "regime": regime.name(),
        "regime_parameters": regime.parameters(),
    });
    run.identity.clone().computed_by(COMPUTATION).with_options(of_training)
}

/// The part of a step that a micro-batch is.
#[derive(Clone, Copy)]
struct Share<'a> {
    branches: &'a [Branch],
    /// For how much of the step it counts, 0 to 1.
    of_step: f64,
}

/// The device of a model's parameters.
fn device_of<B: QuantAutodiffBackend, M: AutodiffModule<B>>(model: &M) -> B::Device {
    model.devices().into_iter().next().unwrap_or_default()
}

/// Losses and gradients of all branches on one micro-batch.
fn run_part<B: QuantAutodiffBackend, M: AutodiffModule<B> + Sync, T: TrainTask<B, M>>(
    model: &M,
    task: &T,
    batch: &T::Batch,
    Share { branches, of_step }: Share<'_>,
) -> Part {
    let mut taught: Vec<Vec<Tensor<B::InnerBackend, 2>>> = Vec::with_capacity(branches.len());
    let (mut guarded, mut free) = (Vec::new(), Vec::new());
    let (mut loss, mut main_loss) = (0.0, 0.0);
    for branch in branches {
        let output = task.forward(model, batch, &branch.plan);
        let mut total = output.loss;
        for teacher in &branch.teachers {
            let known = taught[teacher.branch].iter().cloned().map(Tensor::<B, 2>::from_inner);
            total = total + teacher.pull(known, &output.scores);
        }
        taught.push(output.scores.into_iter().map(Tensor::inner).collect());
        let total = total * (branch.weight * of_step);
        loss += total.clone().into_scalar().elem::<f64>();
        main_loss += output.main_loss.into_scalar().elem::<f64>() * branch.weight * of_step;
        let gradients = GradientsParams::from_grads(total.backward(), model);
        match branch.protection {
            Protection::Guarded => guarded.push(gradients),
            Protection::None => free.push(gradients),
        }
    }
    let sum = |parts: Vec<GradientsParams>| (!parts.is_empty()).then(|| gradients::sum(model, parts));
    Part { guarded: sum(guarded), free: sum(free), loss, main_loss }
}

/// The gradient of a step: the parts of the micro-batches added, what acts against a guarded branch
/// taken out.
fn combine<B: QuantAutodiffBackend, M: AutodiffModule<B>>(model: &M, parts: Vec<Part>) -> GradientsParams {
    let (guarded, free): (Vec<_>, Vec<_>) = parts.into_iter().map(|part| (part.guarded, part.free)).unzip();
    let [guarded, free] = [guarded, free].map(|parts| parts.into_iter().flatten().collect::<Vec<_>>());
    match (guarded.is_empty(), free.is_empty()) {
        (true, _) => gradients::sum(model, free),
        (_, true) => gradients::sum(model, guarded),
        _ => {
            let guarded = gradients::sum(model, guarded);
            let mut free = gradients::sum(model, free);
            gradients::remove_conflict(model, &mut free, &guarded);
            gradients::sum(model, vec![guarded, free])
        }
    }
}

/// `train.jsonl`: one line per step.
struct Log(Option<(PathBuf, std::fs::File)>);

impl Log {
    /// Opens the log behind its lines of steps before the first one. What follows them was done after the
    /// checkpoint that the run goes on from, and is done again.
    fn open(run: &TrainRun, first_step: usize) -> Result<Self> {
        let Some(dir) = &run.dir else { return Ok(Self(None)) };
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let path = dir.join("train.jsonl");
        if path.exists() {
            let text = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
            let is_before = |line: &&[u8]| {
                let line: Option<serde_json::Value> = serde_json::from_slice(line).ok();
                line.and_then(|line| line["step"].as_u64()).is_some_and(|step| (step as usize) < first_step)
            };
            let lines = text.split(|&byte| byte == b'\n').filter(is_before);
            whole_files::write(&path, &lines.flat_map(|line| [line, b"\n"].concat()).collect::<Vec<u8>>())?;
        }
        let file =
            std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        Ok(Self(Some((path, file))))
    }

    fn line(&mut self, line: &LogLine<'_>) -> Result<()> {
        let Some((path, file)) = &mut self.0 else { return Ok(()) };
        let text = serde_json::to_string(line).map_err(|e| Error::json(path.as_path(), e))?;
        writeln!(file, "{text}").map_err(|e| Error::io(path.as_path(), e))
    }
}
