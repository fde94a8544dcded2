//! Statistics of the inputs, collected block by block.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::calibrated::input_moments::InputMoments;
use switchable_lora::site_precision::SitePrecision;

use super::ModelMoments;
use crate::error::{Error, Result, at_site};
use crate::model::SwitchableModel;
use crate::pass::Pass;
use crate::sites::Site;
use crate::token_tensor::token_tensor;

/// The rows that are multiplied at once: products of fewer are bound by memory.
const ROWS: usize = 1024;

/// A model that can be calibrated. It is implemented for every model.
pub trait Calibrate<B: QuantBackend>: SwitchableModel<B> {
    /// The moments of the inputs of every linear site on some windows of tokens. `done` is told the blocks that are
    /// done, and may end the work by an error.
    ///
    /// # Errors
    ///
    /// [`Error::CalibrationWindows`] without a token; [`Error::SequenceLength`] for a window longer than the model's
    /// positions; an error that names the site where inputs are not finite; when the model's weights are codes; and
    /// that of `done`.
    ///
    /// # Panics
    ///
    /// When a token is none of the model's.
    fn collect_moments(&self, windows: &[Vec<u32>], done: &mut dyn FnMut(usize) -> Result<()>) -> Result<ModelMoments> {
        let windows: Vec<&Vec<u32>> = windows.iter().filter(|window| !window.is_empty()).collect();
        if windows.is_empty() {
            return Err(Error::CalibrationWindows);
        }
        for window in &windows {
            self.check_tokens(window.len(), None)?;
        }
        let (plan, device) = (self.uniform_plan(SitePrecision::FULL), self.device());
        self.check_plan(&plan)?;
        let embedded = |window: &&Vec<u32>| self.embed(token_tensor(window, [1, window.len()], &device), None, &plan);
        let mut hidden: Vec<Tensor<B, 3>> = windows.iter().map(embedded).collect();
        let mut all = ModelMoments::default();
        for block in 0..self.sites().blocks() {
            let mut sums: BTreeMap<Site, Sums<B>> = BTreeMap::new();
            for states in &mut hidden {
                let mut visit = |site: Site, x: &Tensor<B, 2>| sums.entry(site).or_default().add(x.clone());
                let pass = Pass::new(&plan).with_visitor(&mut visit);
                *states = self.run(block..block + 1, states.clone(), pass);
            }
            for (site, sums) in sums {
                let name = self.sites().name(site);
                let moments = sums.moments().map_err(|error| at_site(name.clone(), error))?;
                all.insert(name, moments);
            }
            done(block + 1)?;
        }
        Ok(all)
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> Calibrate<B> for M {}

/// Sums over the inputs of a site.
struct Sums<B: QuantBackend> {
    waiting: Vec<Tensor<B, 2>>,
    waiting_rows: usize,
    rows: u64,
    of_all: Option<[Tensor<B, 2>; 3]>,
}

impl<B: QuantBackend> Default for Sums<B> {
    fn default() -> Self {
        Self { waiting: Vec::new(), waiting_rows: 0, rows: 0, of_all: None }
    }
}

impl<B: QuantBackend> Sums<B> {
    fn add(&mut self, x: Tensor<B, 2>) {
        let [rows, _] = x.dims();
        self.waiting.push(x);
        self.waiting_rows += rows;
        if self.waiting_rows >= ROWS {
            self.take_in();
        }
    }

    /// Adds what waits.
    fn take_in(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let x = Tensor::cat(std::mem::take(&mut self.waiting), 0);
        self.rows += std::mem::take(&mut self.waiting_rows) as u64;
        let (sum, largest) = (x.clone().sum_dim(0), x.clone().abs().max_dim(0));
        let second = x.clone().transpose().matmul(x);
        self.of_all = Some(match self.of_all.take() {
            None => [second, sum, largest],
            Some([seconds, sums, largests]) => [seconds + second, sums + sum, largests.max_pair(largest)],
        });
    }

    fn moments(mut self) -> switchable_lora::Result<InputMoments> {
        self.take_in();
        let Some([second, sum, largest]) = self.of_all else {
            return Ok(InputMoments::new(Vec::new(), Vec::new(), Vec::new(), self.rows)?);
        };
        let rows = self.rows as f64;
        let mean =
            |tensor: Tensor<B, 2>| tensor.into_data().iter::<f32>().map(|sum| (f64::from(sum) / rows) as f32).collect();
        let largest = largest.into_data().iter::<f32>().collect();
        Ok(InputMoments::new(mean(second), mean(sum), largest, self.rows)?)
    }
}
