//! Random initial values that depend on the seed alone.
//!
//! ```text
//! w ~ N(0, r²),  r = initializer_range;     biases 0, gains of normalisations 1
//! ```
//!
//! As `transformers` starts a Llama: projections into the residual stream are drawn like all others.

use rand_chacha::ChaCha8Rng;

use switchable_model::error::{Error, Result};
use switchable_model::initial::{InitialWeights, normal_values};

/// Refuses ways to draw weights that are another family's.
pub(crate) fn check(initial: InitialWeights) -> Result<()> {
    match initial {
        InitialWeights::Published => Ok(()),
        InitialWeights::Matching => Err(Error::Option {
            field: "initial weights of a llama",
            got: "matching".into(),
            expected: "those drawn from initializer_range alone",
        }),
    }
}

/// Values of a parameter by its Hugging Face name.
pub(crate) fn values(range: f64, rng: &mut ChaCha8Rng, name: &str, shape: &[usize]) -> Vec<f32> {
    let n = shape.iter().product();
    if name.ends_with("bias") {
        vec![0.0; n]
    } else if name.ends_with("norm.weight") {
        vec![1.0; n]
    } else {
        normal_values(rng, n, range)
    }
}
