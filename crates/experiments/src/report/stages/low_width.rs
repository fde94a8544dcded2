//! The width of the sensitivities and of the greedy search.

use serde::Serialize;
use serde_json::json;

use quant_kernels::{backends::quant_backend::QuantAutodiffBackend, spec::bit_width::BitWidth};
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::TrainableModel;

use crate::error::Result;
use crate::report::section::Section;
use crate::report::stage::Stage;
use crate::search::uniform::{SweepOptions, uniform_sweep};
use crate::workbench::Workbench;

/// A width, or by default the highest of 4, 3 and 2 bits that costs more than the noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LowWidth {
    /// The width, where it is not looked for.
    pub width: Option<BitWidth>,
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Stage<B, M> for LowWidth {
    type Output = SitePrecision;

    const NAME: &'static str = "low";

    fn run(&self, bench: &Workbench<'_, B, M>) -> Result<SitePrecision> {
        if let Some(width) = self.width {
            return Ok(bench.precision(width));
        }
        let seed = bench.run.seed;
        bench.memory.recall(<Self as Stage<B, M>>::NAME, &json!({ "seed": seed }), || {
            let candidates = [BitWidth::B4, BitWidth::B3, BitWidth::B2].map(|bits| bench.precision(bits));
            let precisions: Vec<_> = std::iter::once(SitePrecision::FULL).chain(candidates).collect();
            let how = SweepOptions { seed, show: bench.run.show, ..SweepOptions::default() };
            let rows = uniform_sweep(&bench.evaluator(bench.data.search)?, &precisions, &how)?;
            let costly = rows[1..].iter().find(|row| row.is_costly());
            Ok(costly.map_or(candidates[2], |row| row.precision))
        })
    }

    fn sections(&self, _output: &SitePrecision) -> Result<Vec<Section>> {
        Ok(Vec::new())
    }
}
