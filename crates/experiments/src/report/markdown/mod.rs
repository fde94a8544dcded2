//! The report as text.

pub mod cells;
pub mod dynamic;
pub mod regimes;
pub mod robustness;

use std::fmt::Write as _;

use crate::error::Result;
use crate::report::markdown::cells::{em, f1, percent, points};
use crate::report::markdown::dynamic::dynamic_text;
use crate::report::markdown::regimes::regimes_text;
use crate::report::markdown::robustness::{hardening_text, robustness_text};
use crate::report::study::Study;
use crate::search::uniform::{UniformRow, crossing, normalised_curves};

/// What stands at the top of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// The command that made it.
    pub command: String,
    /// Lines about model, data, quantiser, device and seed: name and value.
    pub facts: Vec<(String, String)>,
}

/// The report of a study; `figures` are file name and caption.
///
/// # Errors
///
/// When the runs of the regimes do not belong together.
pub fn markdown(study: &Study, heading: &Heading, figures: &[(String, String)]) -> Result<String> {
    let mut text = format!("# Switchable quantisation: report\n\n```sh\n{}\n```\n\n", heading.command);
    text += "| | |\n|---|---|\n";
    for (name, value) in &heading.facts {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text += "\nAccuracy in percent with 95 % intervals. Differences are paired, question by question; one whose \
             interval or test holds zero is called noise.\n";
    let section = |text: &mut String, title: &str, figure: &str| {
        let _ = write!(text, "\n## {title}\n\n");
        if let Some((name, caption)) = figures.iter().find(|(name, _)| name == figure) {
            let _ = write!(text, "![{caption}]({name})\n\n");
        }
    };

    section(&mut text, "One width everywhere", "uniform.png");
    text += &uniform_table(&study.plain_uniform, "without adapters");
    if study.uniform.len() > 1 {
        text += &uniform_table(&study.uniform, "with the adapters of the bank");
    }
    let crossing = match crossing(&normalised_curves(&study.plain_uniform)) {
        Some(crossing) => format!(
            "\nAccuracy and saved bytes, each as a share of full precision, cross at {:.2} bits; suggested: {} bits.\n",
            crossing.bits, crossing.suggested
        ),
        None => "\nThe curves of accuracy and of saved bytes do not cross between the widths measured.\n".to_string(),
    };
    text += &crossing;

    section(&mut text, "One block at a time", "layers.png");
    let _ = write!(
        text,
        "Every block alone at {} bits, n = {}.\n\n",
        study.layers.changed_to.weights, study.layers.reference.n
    );
    text += "| block | EM | F1 | divergence, nats | EM against 32 bits |\n|---|---|---|---|---|\n";
    for effect in &study.layers.effects {
        let divergence = effect.accuracy.divergence.map_or("–".to_string(), |d| format!("{d:.4}"));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {divergence} | {} |",
            effect.block,
            em(&effect.accuracy),
            f1(&effect.accuracy),
            points(&effect.comparison)
        );
    }

    section(&mut text, "One sub-module at a time", "sites.png");
    text += &sites_text(study);
    section(&mut text, "Greedy search", "greedy.png");
    text += &greedy_text(study);
    section(&mut text, "Exact allocation", "pareto.png");
    text += &allocation_text(study);
    if study.regimes.is_some() {
        section(&mut text, "Training regimes", "regimes.png");
        text += &regimes_text(study)?;
        if let Some((name, caption)) = figures.iter().find(|(name, _)| name == "regime-sites.png") {
            let _ = writeln!(text, "\n![{caption}]({name})");
        }
    }
    if let Some(robustness) = &study.robustness {
        section(&mut text, "Robustness", "robustness.png");
        text += &robustness_text(robustness);
        if !robustness.hardened.is_empty() {
            section(&mut text, "Training on attacks", "hardening.png");
            text += &hardening_text(robustness, study.seed);
        }
    }
    if let Some(dynamic) = &study.dynamic {
        section(&mut text, "Plans chosen at run time", "dynamic.png");
        text += &dynamic_text(dynamic);
    }
    Ok(text)
}

fn uniform_table(rows: &[UniformRow], label: &str) -> String {
    let mut text = format!("\nEvery site at one precision, {label}, n = {}.\n\n", rows[0].accuracy.n);
    text += "| weights | activations | KV cache | EM | F1 | EM against full | saved: sites | model, fp32 | model, fp16 \
             | stored | BitOps per token |\n|---|---|---|---|---|---|---|---|---|---|---|\n";
    for row in rows {
        let cost = &row.cost;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.2e} |",
            row.precision.weights,
            row.precision.activations,
            row.kv_cache,
            em(&row.accuracy),
            f1(&row.accuracy),
            points(&row.comparison),
            percent(cost.sites.saved),
            percent(cost.whole_vs_fp32.saved),
            percent(cost.whole_vs_fp16.saved),
            percent(cost.stored.saved),
            cost.bit_ops_per_token
        );
    }
    text
}

fn sites_text(study: &Study) -> String {
    let sites = &study.greedy.sites;
    let costly: Vec<&crate::Effect> = (sites.by_harm(crate::HarmOrder::Divergence).into_iter().rev())
        .filter(|effect| effect.comparison.difference < 0.0 && !effect.comparison.is_noise())
        .collect();
    let mut text = format!(
        "Every site alone at {} bits, n = {}. {} of {} cost more than the noise",
        sites.changed_to.weights,
        sites.reference.n,
        costly.len(),
        sites.effects.len()
    );
    // A test at 5 % calls one site in twenty an effect where there is none.
    let _ = write!(text, " (of so many tests {:.1} are expected to by chance).\n\n", 0.05 * sites.effects.len() as f64);
    let by_divergence = sites.by_harm(crate::HarmOrder::Divergence);
    let shown = by_divergence.len().min(5);
    let mut table = |title: &str, effects: &[&crate::Effect]| {
        let _ = writeln!(text, "{title}\n\n| site | divergence, nats | EM against 32 bits |\n|---|---|---|");
        for effect in effects {
            let divergence = effect.accuracy.divergence.unwrap_or(0.0);
            let _ = writeln!(text, "| `{}` | {divergence:.4} | {} |", effect.name, points(&effect.comparison));
        }
        text += "\n";
    };
    table("Least diverging:", &by_divergence[..shown]);
    table("Most diverging:", &by_divergence.iter().rev().copied().take(shown).collect::<Vec<_>>());
    let modules = sites.site_losses().map_or_else(Vec::new, |losses| losses.modules);
    let by_module = modules.iter().map(|&module| {
        let of: Vec<f64> = (sites.effects.iter())
            .filter(|effect| effect.module == Some(module))
            .map(|effect| effect.accuracy.divergence.unwrap_or(0.0))
            .collect();
        format!("`{module}` {:.4}", span_reader::statistics::mean(&of))
    });
    text + &format!("Mean divergence by sub-module, nats: {}.\n", by_module.collect::<Vec<_>>().join(", "))
}

fn greedy_text(study: &Study) -> String {
    let greedy = &study.greedy;
    let search = &greedy.search;
    let mut text = format!(
        "From 32 to {} bits in the order of least harm; {} of {} sites flipped, {:.2} bits on average. On the search \
         questions (n = {}) EM {}, at least {:.1} asked for.\n\n",
        greedy.low.weights,
        search.flipped.len(),
        greedy.sites.effects.len(),
        greedy.cost.average_bits,
        search.accuracy.n,
        em(&search.accuracy),
        search.threshold.unwrap_or(0.0)
    );
    let _ = write!(
        text,
        "On the report questions (n = {}): EM {} with every site at 32 bits, {} with the plan; difference {}. F1 {} \
         and {}.\n\n",
        greedy.found.n,
        em(&greedy.high),
        em(&greedy.found),
        points(&greedy.comparison),
        f1(&greedy.high),
        f1(&greedy.found)
    );
    let cost = &greedy.cost;
    let _ = write!(
        text,
        "Saved: {} of the sites, {} of the model against fp32, {} against fp16, {} as stored.\n\n",
        percent(cost.sites.saved),
        percent(cost.whole_vs_fp32.saved),
        percent(cost.whole_vs_fp16.saved),
        percent(cost.stored.saved)
    );
    let work = |name: &str, work: crate::Work| {
        format!(
            "{name}: {} block passes of {} that the plain loop needs ({} saved). ",
            work.blocks_computed,
            work.blocks_plain,
            percent(work.saved())
        )
    };
    text + &work("Sensitivity", greedy.sites.work) + &work("Search", search.work) + "\n"
}

fn allocation_text(study: &Study) -> String {
    let allocation = &study.allocation;
    let mut text = format!(
        "{} plans on the Pareto front over {} sites and {} widths. Plans at the budgets, chosen by divergence on the \
         search questions (n = {}), refined by swaps there, and evaluated on the report questions.\n\n",
        allocation.front.len(),
        study.damage.sites.len(),
        study.damage.sites.first().map_or(0, |site| site.choices.len()),
        study.damage.n
    );
    text += "| bytes | average bits | EM, search | refined, search | EM, report | F1, report |\n|---|---|---|---|---|---|\n";
    for ((verified, refined), reported) in allocation.verified.iter().zip(&allocation.refined).zip(&allocation.reported)
    {
        let _ = writeln!(
            text,
            "| {} | {:.2} | {} | {} | {} | {} |",
            reported.bytes,
            reported.average_bits,
            em(&verified.accuracy),
            em(&refined.accuracy),
            em(&reported.accuracy),
            f1(&reported.accuracy)
        );
    }
    text += "\nGreedy and exact at equal bytes, on the search questions:\n\n\
             | bytes | greedy EM | exact EM | exact minus greedy |\n|---|---|---|---|\n";
    for row in &study.greedy.equal_bytes {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            row.bytes,
            em(&row.greedy),
            em(&row.exact),
            points(&row.comparison)
        );
    }
    text
}
