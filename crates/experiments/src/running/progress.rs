//! Progress of long work: a bar on a terminal, a line now and then elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use squad_data::{NullAnswers, Predictions};
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::Result;

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(20);

/// Whether progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShowProgress {
    /// A bar or lines on standard error.
    #[default]
    Yes,
    /// Nothing.
    No,
}

/// Progress of one piece of work.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    label: String,
    show: ShowProgress,
    last_line: Instant,
}

impl Progress {
    /// Starts showing work of so many steps, of which some may be done.
    ///
    /// # Panics
    ///
    /// Never: the template is constant and valid.
    pub fn start(label: &str, done: usize, total: usize, show: ShowProgress) -> Self {
        let target = match show {
            ShowProgress::Yes => ProgressDrawTarget::stderr(),
            ShowProgress::No => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {elapsed}<{eta} {msg}");
        bar.set_style(style.expect("the template is valid"));
        bar.set_prefix(label.to_string());
        bar.set_position(done as u64);
        bar.reset_eta();
        Self { bar, label: label.into(), show, last_line: Instant::now() }
    }

    /// Moves on by one step, with a message.
    pub fn step(&mut self, message: String) {
        self.bar.inc(1);
        let hidden = self.bar.is_hidden();
        if hidden && self.show == ShowProgress::Yes && self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
            eprintln!("{} {done}/{all}, {} s left {message}", self.label, self.bar.eta().as_secs());
        }
        self.bar.set_message(message);
    }

    /// Ends the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// Progress of whole evaluations, batch by batch.
#[derive(Debug)]
pub struct EvaluationProgress(Mutex<Progress>);

impl EvaluationProgress {
    /// Starts showing so many evaluations.
    pub fn start<B: QuantBackend, M: SwitchableModel<B>>(
        label: &str,
        evaluator: &Evaluator<'_, B, M>,
        evaluations: usize,
        show: ShowProgress,
    ) -> Self {
        Self(Mutex::new(Progress::start(label, 0, evaluations * evaluator.batches(), show)))
    }

    /// Evaluates a plan and moves on by its batches.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::evaluate`].
    pub fn predict<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        plan: &SitePlan,
    ) -> Result<(Accuracy, Predictions)> {
        let (accuracy, predictions, _) = self.predict_with_nulls(evaluator, plan)?;
        Ok((accuracy, predictions))
    }

    /// The same with what null thresholds are compared by, for data of version 2.0.
    ///
    /// # Errors
    ///
    /// As [`Evaluator::evaluate`].
    pub fn predict_with_nulls<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        evaluator: &Evaluator<'_, B, M>,
        plan: &SitePlan,
    ) -> Result<(Accuracy, Predictions, Option<NullAnswers>)> {
        let step = || self.0.lock().unwrap_or_else(PoisonError::into_inner).step(String::new());
        Ok(evaluator.predict_with_nulls(plan, &step)?)
    }

    /// Ends the bar.
    pub fn finish(self) {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
    }
}
