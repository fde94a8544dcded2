//! How the plan of a call is chosen.

use std::fmt;

use crate::choice::controller::PlanRequest;

/// How the plan of a call is chosen.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum PlanChoice {
    /// The plan that the model was packed by; full precision where it is in floats.
    #[default]
    Default,
    /// A plan of the artefact, by its name.
    Named(String),
    /// By what was measured of the plans: bytes, BitOps, latency or accuracy.
    Measured(PlanRequest),
    /// By the confidence of the answer: few bits first, more where it is unsure. For questions alone.
    Confidence,
}

/// `the plan "small"`
impl fmt::Display for PlanChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default plan"),
            Self::Named(name) => write!(f, "the plan {name:?}"),
            Self::Measured(request) => write!(f, "the plan for {request:?}"),
            Self::Confidence => f.write_str("the cascade"),
        }
    }
}
