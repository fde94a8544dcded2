//! The training loop.

use quant_kernels::QuantAutodiffBackend;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use burn::module::{AutodiffModule as _, Module as _};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer as _};
use burn::tensor::ElementConversion as _;
use gpt2_model::Gpt2ForQuestionAnswering;
use serde::Serialize;
use serde_json::{Value, json};
use squad_data::{Batch, BatchConfig, Batches, Select};

use super::{Regime, TrainConfig, checkpoint, gradients};
use crate::progress::{Progress, ShowProgress};
use crate::reading::{BatchTensors, ReadingTask};
use crate::workers::Workers;
use crate::{Error, Result, StopFlag};

/// Where a run works and what may interrupt it.
#[derive(Debug, Clone, Default)]
pub struct TrainRun {
    /// Folder of checkpoints and of `train.jsonl`; without one nothing is saved.
    pub dir: Option<PathBuf>,
    /// Micro-batches computed at once.
    pub workers: Workers,
    /// Asked between steps; a run that stops saves a checkpoint first.
    pub stop: StopFlag,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Anything else that must be the same for a saved run to go on, such as model and data.
    pub identity: Value,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainOutcome {
    /// Total loss of each step done by this call, in nats.
    pub losses: Vec<f64>,
    /// Step it started at: above 0 when a checkpoint was found.
    pub first_step: usize,
    /// Tokens per second, padding not counted.
    pub tokens_per_second: f64,
}

/// One line of `train.jsonl`.
#[derive(Serialize)]
struct LogLine<'a> {
    step: usize,
    regime: &'a str,
    loss: f64,
    span_loss: f64,
    gradient_norm: f64,
    learning_rate: f64,
    tokens_per_second: f64,
}

/// What one micro-batch gives.
struct Part {
    gradients: GradientsParams,
    loss: f64,
    span_loss: f64,
}

/// Trains every parameter that requires a gradient, with AdamW.
///
/// With a folder, a run goes on from its newest checkpoint, with the same result as if it had not
/// been interrupted.
///
/// # Errors
///
/// When the configuration is out of range, no window holds its answer, the folder belongs to
/// another run, the loss is not finite, or the work is stopped (its state saved).
pub fn train<B: QuantAutodiffBackend>(
    model: Gpt2ForQuestionAnswering<B>,
    task: &ReadingTask,
    regime: &dyn Regime,
    config: &TrainConfig,
    run: &TrainRun,
    device: &B::Device,
) -> Result<(Gpt2ForQuestionAnswering<B>, TrainOutcome)> {
    config.check()?;
    for plan in regime.plans(0) {
        model.transformer.check_plan(plan)?;
    }
    let micro = config.batch_size / config.micro_batches;
    let mut batch_config = BatchConfig::training(micro, task.special.pad, config.seed);
    batch_config.select = Select::WithTarget;
    let batches = Batches::new(&task.features, batch_config)?;
    let per_epoch = batches.steps_per_epoch();
    if per_epoch == 0 {
        return Err(Error::NoQuestions { what: format!("a batch of {micro} windows with their answers inside") });
    }
    let identity = json!({ "config": config, "regime": regime.name(), "run": run.identity });
    let optimizer = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(config.weight_decay);
    let mut optimizer = optimizer.init::<B, Gpt2ForQuestionAnswering<B>>();
    let (mut model, mut first_step) = (model, 0);
    if let Some((folder, state)) =
        run.dir.as_deref().map(|dir| checkpoint::newest(dir, &identity)).transpose()?.flatten()
    {
        model = model.load_record(checkpoint::load_model::<B, _>(&folder, device)?);
        optimizer = optimizer.load_record(checkpoint::load_optimizer::<B, _>(&folder, device)?);
        first_step = state.step;
    }
    let save = |step: usize, model: &Gpt2ForQuestionAnswering<B>, optimizer: &_| -> Result<()> {
        let Some(dir) = &run.dir else { return Ok(()) };
        let record = burn::optim::Optimizer::<Gpt2ForQuestionAnswering<B>, B>::to_record(optimizer);
        let state = checkpoint::State::new(step, identity.clone());
        checkpoint::save::<B>(dir, &state, model.clone().into_record(), record)
    };

    let position = first_step * config.micro_batches;
    let mut data = batches.iter_from(position / per_epoch, position % per_epoch);
    let mut progress = Progress::start("training", first_step, config.steps, run.show);
    let mut log = Log::open(run)?;
    let mut losses = Vec::new();
    let (mut tokens, start) = (0, Instant::now());
    for step in first_step..config.steps {
        if run.stop.is_requested() {
            save(step, &model, &optimizer)?;
            return Err(Error::Stopped);
        }
        let parts: Vec<Batch> = data.by_ref().take(config.micro_batches).collect();
        tokens += parts.iter().map(Batch::tokens).sum::<usize>();
        let outputs = run_parts(&model, &parts, regime, config, run, step, device);
        let loss = outputs.iter().map(|part| part.loss).sum::<f64>();
        if !loss.is_finite() {
            return Err(Error::Diverged { step, loss });
        }
        let span_loss = outputs.iter().map(|part| part.span_loss).sum::<f64>();
        let mut total = gradients::sum(&model, outputs.into_iter().map(|part| part.gradients).collect());
        let gradient_norm = gradients::clip(&model, &mut total, config.clip_norm);
        let learning_rate = config.schedule.rate(step, config.steps);
        model = optimizer.step(learning_rate, model, total);
        losses.push(loss);
        let tokens_per_second = tokens as f64 / start.elapsed().as_secs_f64();
        progress.step(format!("loss {loss:.3} (span {span_loss:.3}) {tokens_per_second:.0} tokens/s"));
        let regime = regime.name();
        log.line(&LogLine { step, regime, loss, span_loss, gradient_norm, learning_rate, tokens_per_second })?;
        if (step + 1) % config.checkpoint_every == 0 || step + 1 == config.steps {
            save(step + 1, &model, &optimizer)?;
        }
    }
    progress.finish();
    let tokens_per_second = tokens as f64 / start.elapsed().as_secs_f64().max(1e-9);
    Ok((model, TrainOutcome { losses, first_step, tokens_per_second }))
}

/// Losses and gradients of the micro-batches of a step, each already divided by their number.
fn run_parts<B: QuantAutodiffBackend>(
    model: &Gpt2ForQuestionAnswering<B>,
    parts: &[Batch],
    regime: &dyn Regime,
    config: &TrainConfig,
    run: &TrainRun,
    step: usize,
    device: &B::Device,
) -> Vec<Part> {
    let plans = regime.plans(step);
    let share = 1.0 / (parts.len() * plans.len()) as f64;
    run.workers.map(parts, |_, batch| {
        // A copy with leaves of its own: graphs that share leaves would wait for one another.
        let model = Gpt2ForQuestionAnswering::<B>::from_inner(model.valid());
        let tensors = BatchTensors::new(batch, device);
        let (mut loss, mut span_loss, mut sums) = (0.0, 0.0, Vec::new());
        for plan in &plans {
            let losses = config.objective.loss(&model, &tensors, plan);
            loss += losses.total.clone().into_scalar().elem::<f64>() * share;
            span_loss += losses.span.into_scalar().elem::<f64>() * share;
            let gradients = (losses.total * share).backward();
            sums.push(GradientsParams::from_grads(gradients, &model));
        }
        Part { gradients: gradients::sum(&model, sums), loss, span_loss }
    })
}

/// `train.jsonl`: one line per step.
struct Log(Option<(PathBuf, std::fs::File)>);

impl Log {
    fn open(run: &TrainRun) -> Result<Self> {
        let Some(dir) = &run.dir else { return Ok(Self(None)) };
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let path = dir.join("train.jsonl");
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
