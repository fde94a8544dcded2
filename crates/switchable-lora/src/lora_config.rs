//! The size and the start of an adapter.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How an adapter starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum LoraInit {
    /// A normal with variance 1 / `d_in`, B zero: the adapter starts by adding nothing
    /// (LoRA, arXiv:2106.09685).
    #[default]
    ZeroB,
    /// `s · A · B` is the best approximation of its rank to what quantisation took from the weight,
    /// `W − Qw(W)`: the adapter starts by repairing (LoftQ, arXiv:2310.08659).
    ///
    /// LoftQ alternates between the adapter and the quantised weight. Here the quantised weight
    /// belongs to all adapters and is fixed, so one factorisation is the optimum.
    LoftQ {
        /// How often the factorisation is refined. 4 reaches the optimum to a few digits.
        iterations: usize,
    },
}

/// Where the scales of the weight that an adapter repairs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightScales {
    /// The weight's quantiser finds them.
    #[default]
    Found,
    /// They are a step that is trained with the adapter (LSQ, arXiv:1902.08153).
    Learned,
}

/// The rank, scale and start of an adapter, and the scales of its weight.
///
/// ```
/// use switchable_lora::{LoraConfig, LoraInit};
///
/// let config = LoraConfig::new(8, 16.0)?.with_init(LoraInit::LoftQ { iterations: 4 });
/// assert_eq!(config.scaling(), 2.0);
/// assert!(LoraConfig::new(0, 16.0).is_err());
/// # Ok::<(), switchable_lora::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "LoraConfigFields", into = "LoraConfigFields")]
pub struct LoraConfig {
    rank: usize,
    alpha: f64,
    init: LoraInit,
    scales: WeightScales,
}

impl LoraConfig {
    /// An adapter of `rank` columns whose product is scaled by `alpha / rank`.
    ///
    /// # Errors
    ///
    /// [`Error::Rank`] if `rank` is 0, [`Error::Alpha`] unless `alpha` is finite and above 0.
    pub fn new(rank: usize, alpha: f64) -> Result<Self> {
        if rank == 0 {
            return Err(Error::Rank);
        }
        if !alpha.is_finite() || alpha <= 0.0 {
            return Err(Error::Alpha { got: alpha });
        }
        Ok(Self { rank, alpha, init: LoraInit::default(), scales: WeightScales::default() })
    }

    /// The same with another start.
    pub const fn with_init(self, init: LoraInit) -> Self {
        Self { init, ..self }
    }

    /// The same with other scales of the weight.
    pub const fn with_scales(self, scales: WeightScales) -> Self {
        Self { scales, ..self }
    }

    /// The number of columns of A and rows of B.
    pub const fn rank(&self) -> usize {
        self.rank
    }

    /// The numerator of the scale.
    pub const fn alpha(&self) -> f64 {
        self.alpha
    }

    /// How the adapter starts.
    pub const fn init(&self) -> LoraInit {
        self.init
    }

    /// Where the scales of the weight come from.
    pub const fn scales(&self) -> WeightScales {
        self.scales
    }

    /// Checks that the rank is one for a weight `[d_in, d_out]`. It may be above the rank of the weight, as in
    /// PEFT, but not such that the adapter needs more memory than anybody has.
    ///
    /// # Errors
    ///
    /// [`Error::RankOfWeight`] if the rank is above `d_in + d_out`.
    pub fn check_weight(&self, weight: [usize; 2]) -> Result<()> {
        let got = self.rank;
        if got <= weight[0] + weight[1] { Ok(()) } else { Err(Error::RankOfWeight { got, weight }) }
    }

    /// `alpha / rank`, by which the product of the factors is multiplied.
    pub fn scaling(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoraConfigFields {
    rank: usize,
    alpha: f64,
    #[serde(default)]
    init: LoraInit,
    #[serde(default, skip_serializing_if = "is_found")]
    scales: WeightScales,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_found(scales: &WeightScales) -> bool {
    *scales == WeightScales::Found
}

impl TryFrom<LoraConfigFields> for LoraConfig {
    type Error = Error;

    fn try_from(fields: LoraConfigFields) -> Result<Self> {
        Ok(Self::new(fields.rank, fields.alpha)?.with_init(fields.init).with_scales(fields.scales))
    }
}

impl From<LoraConfig> for LoraConfigFields {
    fn from(LoraConfig { rank, alpha, init, scales }: LoraConfig) -> Self {
        Self { rank, alpha, init, scales }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_alphas_that_mean_nothing_are_errors() {
        assert!(matches!(LoraConfig::new(0, 1.0), Err(Error::Rank)));
        let of_rank = |rank: usize| LoraConfig::new(rank, 1.0).unwrap();
        assert!(of_rank(10).check_weight([6, 4]).is_ok());
        let message = of_rank(11).check_weight([6, 4]).unwrap_err().to_string();
        assert_eq!(message, "rank 11 is more than both sides of a weight of shape [6, 4] together, 10");
        for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(LoraConfig::new(1, alpha), Err(Error::Alpha { .. })), "{alpha}");
        }
        assert!(serde_json::from_str::<LoraConfig>(r#"{"rank":0,"alpha":1}"#).is_err());
        assert!(serde_json::from_str::<LoraConfig>(r#"{"rank":1,"alpha":1,"r":1}"#).is_err());
    }

    #[test]
    fn json_round_trips() {
        let config = LoraConfig::new(8, 12.5).unwrap().with_init(LoraInit::LoftQ { iterations: 3 });
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<LoraConfig>(&json).unwrap(), config);
    }
}
