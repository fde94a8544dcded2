//! A run that is stopped at a step.

use experiments::train::branch::Branch;
use experiments::train::regimes::Regime;
use span_reader::running::stop::StopFlag;

/// Raises a stop flag when the plans of a step are asked for.
#[derive(Clone)]
pub(crate) struct StopAfter {
    step: usize,
    pub(crate) flag: StopFlag,
}

pub(crate) struct Stopping<R>(StopAfter, R);

impl StopAfter {
    pub(crate) fn new(step: usize) -> Self {
        Self { step, flag: StopFlag::default() }
    }

    pub(crate) fn around<R: Regime>(&self, regime: R) -> Stopping<R> {
        Stopping(self.clone(), regime)
    }
}

impl<R: Regime> Regime for Stopping<R> {
    fn name(&self) -> &'static str {
        self.1.name()
    }

    fn parameters(&self) -> serde_json::Value {
        self.1.parameters()
    }

    fn branches(&self, step: usize) -> Vec<Branch> {
        if step + 1 == self.0.step {
            self.0.flag.request();
        }
        self.1.branches(step)
    }
}
