//! What a study is made of.

use std::fmt;
use std::rc::Rc;

use serde::Serialize;

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use switchable_model::model::TrainableModel;

use crate::error::{Error, Result};
use crate::report::section::Section;
use crate::workbench::Workbench;

/// One analysis of a study. Its fields are its options.
///
/// A stage that needs the result of another has that other among its fields, and asks for its
/// [`output`](Self::output), which is made once.
pub trait Stage<B: QuantAutodiffBackend, M: TrainableModel<B>>: Serialize + fmt::Debug {
    /// What it finds.
    type Output: 'static;

    /// Its name; results of stages that keep one file stand in `NAME.json`.
    const NAME: &'static str;

    /// Looks at the options before any stage runs.
    ///
    /// # Errors
    ///
    /// When an option is out of its range; the error names it.
    fn check(&self, _bench: &Workbench<'_, B, M>) -> Result<()> {
        Ok(())
    }

    /// Does the work, or what is left of it: results of long work go through [`Workbench::memory`].
    ///
    /// # Errors
    ///
    /// When a file is of another study, or the work fails or is stopped.
    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<Self::Output>;

    /// What the report says of it: charts and text.
    ///
    /// # Errors
    ///
    /// When the results do not belong together.
    fn sections(&self, output: &Self::Output) -> Result<Vec<Section>>;

    /// What it finds, made when it is first asked for.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    fn output(&self, bench: &Workbench<'_, B, M>) -> Result<Rc<Self::Output>> {
        let options = serde_json::to_string(self).map_err(|e| Error::json(Self::NAME, e))?;
        bench.outputs.get_or(format!("{} {options}", Self::NAME), || self.run(bench))
    }
}

/// A stage among others, whatever it finds. Every [`Stage`] is one.
pub trait AnyStage<B: QuantAutodiffBackend, M: TrainableModel<B>>: fmt::Debug {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Looks at the options before any stage runs.
    ///
    /// # Errors
    ///
    /// As [`Stage::check`].
    fn check(&self, bench: &Workbench<'_, B, M>) -> Result<()>;

    /// Runs the stage and writes what the report says of it.
    ///
    /// # Errors
    ///
    /// As [`Stage::run`] and [`Stage::sections`].
    fn report(&self, bench: &Workbench<'_, B, M>) -> Result<Vec<Section>>;
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>, S: Stage<B, M>> AnyStage<B, M> for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn check(&self, bench: &Workbench<'_, B, M>) -> Result<()> {
        Stage::check(self, bench)
    }

    fn report(&self, bench: &Workbench<'_, B, M>) -> Result<Vec<Section>> {
        self.sections(&*self.output(bench)?)
    }
}
