//! Which values share a scale.

use std::{fmt, num::NonZeroUsize, str::FromStr};

use crate::{
    error::{Error, Result},
    spec::text_form::serde_as_text,
};

/// The number of consecutive rows that share a scale in each column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupSize(NonZeroUsize);

impl GroupSize {
    /// Checks a group size.
    ///
    /// # Errors
    ///
    /// [`Error::GroupSize`] if `rows` is 0.
    pub const fn new(rows: usize) -> Result<Self> {
        match NonZeroUsize::new(rows) {
            Some(rows) => Ok(Self(rows)),
            None => Err(Error::GroupSize),
        }
    }

    /// The number of rows.
    pub const fn get(self) -> usize {
        self.0.get()
    }
}

/// Which values of a tensor share one scale and zero point.
///
/// | variant | text form | shape of the scale for `[.., d_in, d_out]` |
/// |---|---|---|
/// | `PerTensor` | `per-tensor` | `[1, .., 1]` |
/// | `PerChannel` | `per-channel` | `[.., 1, d_out]` |
/// | `PerGroup(n)` | `per-group:n` | `[.., ⌈d_in / n⌉, d_out]`, the last group may be shorter |
/// | `PerToken` | `per-token` | `[.., d_in, 1]` |
///
/// Per channel and per group describe weights `[d_in, d_out]`: they reduce over `d_in`. Per token
/// describes activations: it reduces over the last dimension.
///
/// ```
/// use quant_kernels::Granularity;
///
/// let granularity: Granularity = "per-group:64".parse()?;
/// assert_eq!(granularity, Granularity::per_group(64)?);
/// assert_eq!(granularity.param_shape([768, 3072])?, [12, 3072]);
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Granularity {
    /// One scale for the whole tensor.
    #[default]
    PerTensor,
    /// One scale for each column: the output channels of a weight.
    PerChannel,
    /// One scale for each run of rows in each column.
    PerGroup(GroupSize),
    /// One scale for each row: the tokens of an activation.
    PerToken,
}

impl Granularity {
    const EXPECTED: &str = "`per-tensor`, `per-channel`, `per-group:<rows>` or `per-token`";

    /// One scale for each run of `rows` rows in each column.
    ///
    /// # Errors
    ///
    /// [`Error::GroupSize`] if `rows` is 0.
    pub fn per_group(rows: usize) -> Result<Self> {
        GroupSize::new(rows).map(Self::PerGroup)
    }

    /// The shape of the scale of a tensor of shape `dims`.
    ///
    /// # Errors
    ///
    /// [`Error::Rank`] for per channel and per group when there are fewer than 2 dimensions.
    pub fn param_shape<const D: usize>(self, dims: [usize; D]) -> Result<[usize; D]> {
        let mut shape = dims;
        match self {
            Self::PerTensor => shape = [1; D],
            Self::PerToken => {
                if let Some(features) = shape.last_mut() {
                    *features = 1;
                }
            }
            Self::PerChannel | Self::PerGroup(_) if D < 2 => {
                return Err(Error::Rank { granularity: self, rank: D });
            }
            Self::PerChannel => shape[D - 2] = 1,
            Self::PerGroup(size) => shape[D - 2] = dims[D - 2].div_ceil(size.get()),
        }
        Ok(shape)
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerTensor => f.write_str("per-tensor"),
            Self::PerChannel => f.write_str("per-channel"),
            Self::PerGroup(size) => write!(f, "per-group:{}", size.get()),
            Self::PerToken => f.write_str("per-token"),
        }
    }
}

impl FromStr for Granularity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::Text { what: "granularity", got: text.to_owned(), expected: Self::EXPECTED };
        match text.split_once(':') {
            None => match text {
                "per-tensor" => Ok(Self::PerTensor),
                "per-channel" => Ok(Self::PerChannel),
                "per-token" => Ok(Self::PerToken),
                _ => Err(unknown()),
            },
            Some(("per-group", rows)) => Self::per_group(rows.parse().map_err(|_| unknown())?),
            Some(_) => Err(unknown()),
        }
    }
}

serde_as_text!(Granularity);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip_and_others_are_refused() {
        for text in ["per-tensor", "per-channel", "per-group:1", "per-group:128", "per-token"] {
            let granularity: Granularity = text.parse().unwrap();
            assert_eq!(granularity.to_string(), text);
            let json = serde_json::to_string(&granularity).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Granularity>(&json).unwrap(), granularity);
        }
        assert_eq!("per-group:0".parse::<Granularity>(), Err(Error::GroupSize));
        for text in ["", "per-group", "per-group:", "per-group:-1", "per-axis", "per-tensor:2"] {
            let error = text.parse::<Granularity>().unwrap_err().to_string();
            assert!(error.contains(&format!("granularity `{text}`")), "{error}");
        }
    }

    #[test]
    fn shapes_of_scales_follow_the_table() {
        let dims = [3, 7, 5];
        let group = Granularity::per_group(4).unwrap();
        assert_eq!(Granularity::PerTensor.param_shape(dims), Ok([1, 1, 1]));
        assert_eq!(Granularity::PerChannel.param_shape(dims), Ok([3, 1, 5]));
        assert_eq!(group.param_shape(dims), Ok([3, 2, 5]));
        assert_eq!(Granularity::PerToken.param_shape(dims), Ok([3, 7, 1]));
    }

    #[test]
    fn vectors_have_no_channels_or_groups() {
        assert_eq!(Granularity::PerTensor.param_shape([9]), Ok([1]));
        assert_eq!(Granularity::PerToken.param_shape([9]), Ok([1]));
        for granularity in [Granularity::PerChannel, Granularity::per_group(2).unwrap()] {
            let error = granularity.param_shape([9]).unwrap_err();
            assert_eq!(error, Error::Rank { granularity, rank: 1 });
        }
    }
}
