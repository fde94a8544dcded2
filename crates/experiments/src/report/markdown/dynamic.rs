//! The section on plans chosen at run time.

use std::fmt::Write as _;

use crate::report::dynamic::DynamicResults;
use crate::report::markdown::cells::{em, points};

pub(super) fn dynamic_text(results: &DynamicResults) -> String {
    let (resident, curve) = (&results.resident, &results.cascade.curve);
    let mut text = format!(
        "One nested 8-bit copy of the matrices serves all widths: {} bytes with scales, against {} for one packed copy \
         for each width and {} in f32. Temperatures and thresholds come from {} questions, results from {} others.\n\n",
        resident.sites,
        resident.per_width.values().sum::<usize>(),
        resident.sites_f32,
        curve.calibration_n,
        curve.n
    );
    text += "| plan | EM | BitOps per question | calibration error before → after |\n|---|---|---|---|\n";
    for (plan, bits) in curve.plans.iter().zip(resident.per_width.keys()) {
        let answers = &plan.answers;
        let _ = writeln!(
            text,
            "| {bits} bits | {} | {:.3e} | {:.3} → {:.3} |",
            em(&answers.accuracy),
            plan.bit_ops_per_question,
            answers.calibration_error_before,
            answers.calibration_error
        );
    }
    let outcome = &results.cascade.outcome;
    let _ = writeln!(
        text,
        "| cascade, thresholds {} | {} | {:.3e} | |",
        outcome.thresholds_text(),
        em(&outcome.accuracy),
        outcome.bit_ops_per_question
    );
    text += "\nThe cascade over its range of cost, against its last stage alone:\n\n\
             | thresholds | EM | BitOps per question | EM against the last stage |\n|---|---|---|---|\n";
    for point in &curve.cascade {
        let _ = writeln!(
            text,
            "| {} | {} | {:.3e} | {} |",
            point.outcome.thresholds_text(),
            em(&point.outcome.accuracy),
            point.outcome.bit_ops_per_question,
            points(&point.comparison)
        );
    }
    text
}
