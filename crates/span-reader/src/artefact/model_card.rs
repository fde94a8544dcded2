//! The model card of an artefact.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use switchable_lora::precision_plan::PrecisionPlan;

use crate::artefact::manifest::Manifest;
use crate::choice::front::MeasuredFront;
use crate::cost::Cost;

/// What a card says of its artefact.
pub(crate) struct Card<'a> {
    pub(crate) manifest: &'a Manifest,
    /// Of the plan that it was packed by.
    pub(crate) cost: &'a Cost,
    pub(crate) widths: &'a [String],
    pub(crate) plans: &'a BTreeMap<String, PrecisionPlan>,
    pub(crate) front: Option<&'a MeasuredFront>,
}

impl Card<'_> {
    /// The card, as Markdown with the head that Hugging Face reads.
    pub(crate) fn text(&self) -> String {
        let Self { manifest, cost, widths, plans, front } = self;
        let mut text = format!(
            "---\nlibrary_name: switchable-quant\ntags:\n- quantized\n---\n\n# {} as codes\n\n\
             Packed from `{}` (content `{:.12}`) by {}: weights of {} bits, {:.1} bits on average in the blocks, \
             {} bytes on disk, {:.1} % of what it takes in f32.\n\n\
             ```sh\ncargo run --release --example evaluate -- --model . --data dev-v1.1.json\n```\n",
            manifest.source.name,
            manifest.source.name,
            manifest.source.hash,
            manifest.made_by,
            widths.join(", "),
            cost.average_bits,
            manifest.files.model_bytes(),
            100.0 * manifest.files.model_bytes() as f64 / cost.stored.baseline as f64,
        );
        if !plans.is_empty() {
            let names: Vec<String> = plans.keys().map(|name| format!("`{name}`")).collect();
            _ = write!(text, "\nPlans by name: {}.\n", names.join(", "));
        }
        if let Some(front) = front {
            _ = write!(
                text,
                "\nMeasured on {} questions, which also chose the plans:\n\n\
                 | average bits | bytes | GBitOps per token | exact match [95 %] | F1 |\n|---|---|---|---|---|\n",
                front.n()
            );
            for point in front.points() {
                let [low, high] = [point.exact_match_interval.low, point.exact_match_interval.high];
                _ = writeln!(
                    text,
                    "| {:.2} | {} | {:.3} | {:.1} [{low:.1}, {high:.1}] | {:.1} |",
                    point.average_bits,
                    point.bytes(),
                    point.bit_ops_per_token / 1e9,
                    point.exact_match,
                    point.f1
                );
            }
        }
        text
    }
}
