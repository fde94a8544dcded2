//! Whether what enters a layer is rotated before it is quantised.

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Result},
    spec::text_form::serde_as_text,
};

/// Whether what enters a layer is rotated before it is quantised, and the rows of its weight with it.
///
/// | variant | text form | what it is for | source |
/// |---|---|---|---|
/// | `None` | `none` | | |
/// | `Hadamard(seed)` | `hadamard`, `hadamard:7` | activations of few bits: an input that is large is spread over all | arXiv:2404.00456 |
///
/// The rotation is a [`HadamardTransform`](crate::HadamardTransform); the seed, 0 where none is said, chooses its signs.
///
/// ```
/// use quant_kernels::Rotation;
///
/// assert_eq!("hadamard".parse(), Ok(Rotation::Hadamard(0)));
/// assert_eq!("hadamard:7".parse::<Rotation>()?.to_string(), "hadamard:7");
/// assert!("hadamard:-1".parse::<Rotation>().is_err());
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Rotation {
    /// As it is.
    #[default]
    None,
    /// Signs of a seed, then a Hadamard matrix.
    Hadamard(u16),
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Hadamard(0) => f.write_str("hadamard"),
            Self::Hadamard(seed) => write!(f, "hadamard:{seed}"),
        }
    }
}

impl FromStr for Rotation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let seed = match text {
            "none" => return Ok(Self::None),
            "hadamard" => Some(0),
            _ => text.strip_prefix("hadamard:").and_then(|seed| seed.parse().ok()),
        };
        seed.map(Self::Hadamard).ok_or_else(|| Error::Text {
            what: "rotation",
            got: text.to_owned(),
            expected: "`none`, `hadamard` or `hadamard:SEED` with SEED from 0 to 65535",
        })
    }
}

serde_as_text!(Rotation);
