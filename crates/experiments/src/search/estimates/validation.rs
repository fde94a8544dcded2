//! How far estimated damages can stand in for measured ones.
//!
//! ```text
//! ρ         correlation of the ranks of estimated and measured damages, equals sharing their mean rank
//! interval  2.5 % and 97.5 % quantiles of ρ over 2000 resamples of the sites, each with all of its widths
//! ratio     work of the measured table / work of the estimated one
//! regret    measured damage of the plan solved from estimates − that of the plan solved from measurements
//! ```
//!
//! Sites and not cells are resampled, as the widths of a site are not independent. Choices that the reference has
//! are left out: their damage is 0 by definition. Source: Spearman, *The proof and measurement of association between
//! two things*, American Journal of Psychology 1904.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use quant_kernels::spec::bit_width::BitWidth;
use span_reader::statistics::Interval;

use crate::error::{Error, Result};
use crate::search::allocation::damage::{Damage, DamageTable, SiteDamage};
use crate::search::allocation::pareto::Allocation;

const RESAMPLES: usize = 2000;

/// One site at one precision, estimated and measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidatedCell {
    /// The site.
    pub site: String,
    /// Its width.
    pub bits: BitWidth,
    /// Damage as it is estimated, in nats.
    pub estimated: f64,
    /// Damage as it is measured, in nats.
    pub measured: f64,
}

impl ValidatedCell {
    /// How many times the measured damage the estimate is; infinite where nothing was measured.
    pub fn ratio(&self) -> f64 {
        self.estimated / self.measured
    }
}

/// Agreement of two orders of the same cells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RankCorrelation {
    /// Spearman's coefficient, from −1 to 1; 0 where one of the two does not vary.
    pub coefficient: f64,
    /// Its interval over resampled sites.
    pub interval: Interval,
    /// Number of cells.
    pub cells: usize,
}

/// What solving from estimates costs at one budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Regret {
    /// Bytes that neither plan exceeds.
    pub budget: usize,
    /// Measured damages of the plan solved from measurements, summed, in nats.
    pub best: f64,
    /// Measured damages of the plan solved from estimates, summed, in nats.
    pub by_estimates: f64,
}

/// Estimates beside what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EstimateValidation {
    /// Every cell that both tables have and the reference has not.
    pub cells: Vec<ValidatedCell>,
    /// Over all sites and widths.
    pub all: RankCorrelation,
    /// Over all sites at each width, the lowest first.
    pub by_width: Vec<(BitWidth, RankCorrelation)>,
    /// Work of the measured table over that of the estimated one.
    pub work_ratio: f64,
    /// At each budget asked for.
    pub regrets: Vec<Regret>,
}

impl EstimateValidation {
    /// The cells whose estimate is farthest from what was measured, as a ratio either way, among the half that is
    /// measured to do most harm: in the other half rounding decides.
    pub fn worst(&self, count: usize) -> Vec<&ValidatedCell> {
        let mut cells: Vec<&ValidatedCell> = self.cells.iter().filter(|cell| cell.measured > 0.0).collect();
        cells.sort_by(|a, b| b.measured.total_cmp(&a.measured));
        cells.truncate(cells.len().div_ceil(2));
        let error = |cell: &ValidatedCell| cell.ratio().max(f64::MIN_POSITIVE).ln().abs();
        cells.sort_by(|a, b| error(b).total_cmp(&error(a)));
        cells.truncate(count);
        cells
    }
}

impl DamageTable {
    /// Compares the table, which is measured, with one that is estimated over the same choices.
    ///
    /// # Errors
    ///
    /// When the tables are of other choices, or a budget is smaller than every plan.
    pub fn validate(&self, estimates: &Self, budgets: &[usize]) -> Result<EstimateValidation> {
        let rows = self.paired(estimates)?;
        let of = |width: Option<BitWidth>| {
            let chosen = |row: &Vec<ValidatedCell>| -> Vec<(f64, f64)> {
                let cells = row.iter().filter(|cell| width.is_none_or(|bits| cell.bits == bits));
                cells.map(|cell| (cell.estimated, cell.measured)).collect()
            };
            correlation(&rows.iter().map(chosen).collect::<Vec<_>>(), self.seed)
        };
        let mut widths: Vec<BitWidth> = rows.iter().flatten().map(|cell| cell.bits).collect();
        widths.sort_unstable();
        widths.dedup();
        let regret = |&budget: &usize| {
            let [best, found] = [self, estimates].map(|table| table.best_under(budget));
            let by_estimates = self.damage_of(&found?)?;
            Ok(Regret { budget, best: best?.damage, by_estimates })
        };
        Ok(EstimateValidation {
            all: of(None),
            by_width: widths.into_iter().map(|bits| (bits, of(Some(bits)))).collect(),
            work_ratio: self.work.blocks_computed as f64 / estimates.work.blocks_computed as f64,
            regrets: budgets.iter().map(regret).collect::<Result<_>>()?,
            cells: rows.into_iter().flatten().collect(),
        })
    }

    /// The cells of each site beside those of an estimate.
    fn paired(&self, estimates: &Self) -> Result<Vec<Vec<ValidatedCell>>> {
        let precisions = |row: &SiteDamage| row.choices.iter().map(|choice| choice.precision).collect::<Vec<_>>();
        let of_row = |(row, other): (&SiteDamage, &SiteDamage)| {
            if row.site != other.site || precisions(row) != precisions(other) {
                let got = format!("other choices at {}", self.name(row.site));
                return Err(Error::option("estimates", got, "those of the measured table"));
            }
            let cell = |(measured, estimated): (&Damage, &Damage)| ValidatedCell {
                site: self.name(row.site),
                bits: measured.precision.weights,
                estimated: estimated.by(self.measure),
                measured: measured.by(self.measure),
            };
            // What the reference has is 0 in both.
            let changes = |cell: &ValidatedCell| cell.estimated != 0.0 || cell.measured != 0.0;
            Ok(row.choices.iter().zip(&other.choices).map(cell).filter(changes).collect())
        };
        if self.sites.len() != estimates.sites.len() {
            return Err(Error::option("estimates", estimates.sites.len(), format!("{} sites", self.sites.len())));
        }
        self.sites.iter().zip(&estimates.sites).map(of_row).collect()
    }

    /// The sum of the damages of an allocation's choices in this table.
    fn damage_of(&self, allocation: &Allocation) -> Result<f64> {
        let of_row = |row: &SiteDamage| {
            let precision = allocation.plan.get(&self.name(row.site));
            let choice = row.choices.iter().find(|choice| choice.precision == precision);
            let missing = || Error::option("estimates", self.name(row.site), "a choice of the measured table");
            Ok(choice.ok_or_else(missing)?.by(self.measure))
        };
        self.sites.iter().map(of_row).sum()
    }
}

/// Rank correlation over all cells of all sites, with its interval.
fn correlation(sites: &[Vec<(f64, f64)>], seed: u64) -> RankCorrelation {
    let of = |chosen: &mut dyn Iterator<Item = &Vec<(f64, f64)>>| {
        let (first, second): (Vec<f64>, Vec<f64>) = chosen.flatten().copied().unzip();
        spearman(&first, &second)
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut resampled: Vec<f64> =
        (0..RESAMPLES).map(|_| of(&mut (0..sites.len()).map(|_| &sites[rng.random_range(0..sites.len())]))).collect();
    resampled.sort_by(f64::total_cmp);
    RankCorrelation {
        coefficient: of(&mut sites.iter()),
        interval: Interval { low: resampled[RESAMPLES / 40], high: resampled[RESAMPLES - 1 - RESAMPLES / 40] },
        cells: sites.iter().map(Vec::len).sum(),
    }
}

/// Spearman's coefficient; 0 where one of the two does not vary.
fn spearman(first: &[f64], second: &[f64]) -> f64 {
    let [first, second] = [first, second].map(ranks);
    let middle = f64::midpoint(first.len() as f64, 1.0);
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum::<f64>();
    let scale = (product(&first, &first) * product(&second, &second)).sqrt();
    if scale > 0.0 { product(&first, &second) / scale } else { 0.0 }
}

/// Ranks from 1 on; equals share their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equals in order.chunk_by(|&a, &b| values[a].total_cmp(&values[b]).is_eq()) {
        for &i in equals {
            ranks[i] = before as f64 + f64::midpoint(equals.len() as f64, 1.0);
        }
        before += equals.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_equals_are_their_mean() {
        assert_eq!(ranks(&[0.5, -1.0, 0.5, 9.0]), [2.5, 1.0, 2.5, 4.0]);
    }

    #[test]
    fn the_coefficient_is_that_of_the_textbook() {
        // Ten pairs whose squared rank differences sum to 194: 1 − 6·194/(10·99) = −29/165.
        let iq = [106.0, 86.0, 100.0, 101.0, 99.0, 103.0, 97.0, 113.0, 112.0, 110.0];
        let hours = [7.0, 0.0, 27.0, 50.0, 28.0, 29.0, 20.0, 12.0, 6.0, 17.0];
        assert!((spearman(&iq, &hours) + 29.0 / 165.0).abs() < 1e-12);
        assert!((spearman(&[1.0, 2.0, 3.0], &[1.0, 8.0, 27.0]) - 1.0).abs() < 1e-12);
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]).to_bits(), 0.0f64.to_bits());
    }

    #[test]
    fn the_interval_holds_the_coefficient_and_narrows_with_more_sites() {
        let site = |i: usize| vec![(i as f64, (i as f64) + 3.0 * (i as f64 * 7.3).sin())];
        let [few, many] = [12, 120].map(|n| correlation(&(0..n).map(site).collect::<Vec<_>>(), 1));
        for found in [few, many] {
            assert!(found.interval.low <= found.coefficient && found.coefficient <= found.interval.high, "{found:?}");
        }
        assert!(many.interval.high - many.interval.low < few.interval.high - few.interval.low);
        assert_eq!((few.cells, many.cells), (12, 120));
    }
}
