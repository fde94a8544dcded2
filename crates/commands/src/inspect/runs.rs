//! What the work of the commands takes, in passes over its questions.
//!
//! ```text
//! seconds of a pass = questions · tokens · (multiply-accumulates of a token, adapters among them) / (those of a second,
//!                     while a block of the model's shapes is computed)
//! ```
//!
//! | work | passes over S sites at W widths |
//! |---|---|
//! | `evaluate` | 1 |
//! | `allocate --solve-only`: all sites and widths from gradients | 3, forward and backward |
//! | `greedy_search`: two widths everywhere, each site alone, flip by flip | at most 2 + 0.55 (S + 1) + 0.49 S |
//! | `allocate --exact`: each site alone at each width | 1 + 0.55 S W |
//!
//! `allocate` as it comes lies between the two: it measures the damages that its plans hang on, and tries swaps.
//!
//! The shares are those that kept states of the blocks below a change leave of a loop over whole passes, as measured in
//! `docs/PERFORMANCE.md` ("Work of the searches"). The output matrix, what stands between products, and
//! quantisation come on top.

use serde::Serialize;

/// Widths of `allocate` beside full precision: 16, 8, 6, 5, 4, 3, 2.
const WIDTHS: f64 = 7.0;
/// Share of a loop over whole passes that one change at a time leaves.
const ONE_AT_A_TIME: f64 = 0.55;
/// Share that a search leaves whose changes stay.
const FLIP_BY_FLIP: f64 = 0.49;

/// What a command takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Run {
    /// The command.
    command: &'static str,
    /// Passes over the questions, at most.
    passes: f64,
    /// Seconds of that.
    seconds: f64,
}

/// The commands on a model of some sites, by the seconds that a pass takes.
pub(super) fn runs(sites: usize, seconds_of_a_pass: f64) -> Vec<Run> {
    let sites = sites as f64;
    let runs = [
        ("evaluate", 1.0),
        ("allocate --solve-only", 3.0),
        ("greedy_search", 2.0 + ONE_AT_A_TIME * (sites + 1.0) + FLIP_BY_FLIP * sites),
        ("allocate --exact", 1.0 + ONE_AT_A_TIME * sites * WIDTHS),
    ];
    runs.map(|(command, passes)| Run { command, passes, seconds: passes * seconds_of_a_pass }).into()
}

impl Run {
    /// `greedy_search             52.5 passes    8.7 min`
    pub(super) fn text(&self) -> String {
        let Self { command, passes, seconds } = self;
        let time = match seconds {
            seconds if *seconds < 90.0 => format!("{seconds:.1} s"),
            seconds if *seconds < 5400.0 => format!("{:.1} min", seconds / 60.0),
            seconds => format!("{:.1} h", seconds / 3600.0),
        };
        format!("{command:<21} {passes:>8.1} passes {time:>10}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_takes_longer_than_an_evaluation_and_less_than_every_width_of_every_site() {
        let runs = runs(48, 10.0);
        let seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
        assert!(seconds.is_sorted() && (seconds[0], seconds[1]) == (10.0, 30.0), "{seconds:?}");
        assert_eq!(runs[2].text(), "greedy_search             52.5 passes    8.7 min");
    }
}
