//! The options of a quantiser, apart from its bits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    spec::{bit_width::BitWidth, formats::format::Format, granularity::Granularity, range_estimator::RangeEstimator},
};

/// How a tensor is quantised, whatever the number of bits, which is chosen at run time.
///
/// | option | default | others |
/// |---|---|---|
/// | `granularity` | `per-tensor` | `per-channel`, `per-group:<rows>`, `per-token` |
/// | `format` | `symmetric` | `asymmetric`, `nf4` |
/// | `range` | `min-max` | `percentile:<percent>`, `mse`, `importance` |
///
/// The text form lists the three in this order, separated by commas; options that are left out
/// keep their default.
///
/// ```
/// use quant_kernels::{Granularity, Format, QuantSpec};
///
/// let spec: QuantSpec = "per-channel,asymmetric".parse()?;
/// let built = QuantSpec::default()
///     .with_granularity(Granularity::PerChannel)
///     .with_format(Format::Asymmetric);
/// assert_eq!(spec, built);
/// assert_eq!(spec.to_string(), "per-channel,asymmetric,min-max");
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantSpec {
    /// Which values share a scale.
    pub granularity: Granularity,
    /// Which numbers codes stand for.
    #[serde(rename = "mapping")]
    pub format: Format,
    /// How the range of the values is found.
    pub range: RangeEstimator,
}

impl QuantSpec {
    /// Symmetric, min-max, one scale per token: the usual choice for activations.
    pub const PER_TOKEN: Self =
        Self { granularity: Granularity::PerToken, format: Format::Symmetric, range: RangeEstimator::MinMax };

    /// The same options with another granularity.
    pub const fn with_granularity(self, granularity: Granularity) -> Self {
        Self { granularity, ..self }
    }

    /// The same options with another mapping.
    pub const fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// The same options with another range estimator.
    pub const fn with_range(self, range: RangeEstimator) -> Self {
        Self { range, ..self }
    }

    /// Checks that a tensor of rank `rank` can be quantised to `bits` with these options. Full
    /// precision always can.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewBits`] for 1 symmetric bit, [`Error::Rank`] for channels or groups of a
    /// vector.
    pub fn check(self, bits: BitWidth, rank: usize) -> Result<()> {
        if bits.is_full() {
            return Ok(());
        }
        self.format.levels(bits)?;
        match self.granularity {
            Granularity::PerChannel | Granularity::PerGroup(_) if rank < 2 => {
                Err(Error::Rank { granularity: self.granularity, rank })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for QuantSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.granularity, self.format, self.range)
    }
}

impl FromStr for QuantSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut options = text.split(',');
        let mut spec = Self::default();
        if let Some(option) = options.next() {
            spec.granularity = option.parse()?;
        }
        if let Some(option) = options.next() {
            spec.format = option.parse()?;
        }
        if let Some(option) = options.next() {
            spec.range = option.parse()?;
        }
        match options.next() {
            None => Ok(spec),
            Some(_) => Err(Error::Text {
                what: "quantiser",
                got: text.to_owned(),
                expected: "at most `<granularity>,<mapping>,<range>`",
            }),
        }
    }
}

/// The text form in JSON, in the place of an object: `"per-channel,symmetric,min-max"`, as flags take it.
///
/// ```
/// use quant_kernels::QuantSpec;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Settings {
///     #[serde(with = "quant_kernels::spec::quant_spec::text")]
///     weight: QuantSpec,
/// }
///
/// let json = serde_json::to_string(&Settings { weight: QuantSpec::PER_TOKEN })?;
/// assert_eq!(json, r#"{"weight":"per-token,symmetric,min-max"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub mod text {
    use std::borrow::Cow;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::QuantSpec;

    /// Writes the text form.
    ///
    /// # Errors
    ///
    /// Those of the serialiser.
    pub fn serialize<S: Serializer>(spec: &QuantSpec, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(spec)
    }

    /// Reads the text form.
    ///
    /// # Errors
    ///
    /// When it is no quantiser, which the message says.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<QuantSpec, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// [`text`] for a quantiser that may be left out; give the field `#[serde(default)]` too.
pub mod optional_text {
    use std::borrow::Cow;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::{QuantSpec, text};

    /// Writes the text form, or null.
    ///
    /// # Errors
    ///
    /// Those of the serialiser.
    pub fn serialize<S: Serializer>(spec: &Option<QuantSpec>, serializer: S) -> Result<S::Ok, S::Error> {
        match spec {
            Some(spec) => text::serialize(spec, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads the text form.
    ///
    /// # Errors
    ///
    /// When it is no quantiser, which the message says; null is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<QuantSpec>, D::Error> {
        let text = Option::<Cow<'de, str>>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_round_trip() {
        for text in
            ["per-tensor,symmetric,min-max", "per-channel,asymmetric,mse", "per-group:32,symmetric,percentile:99.95"]
        {
            let spec: QuantSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<QuantSpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn the_default_is_symmetric_per_tensor_min_max() {
        assert_eq!(QuantSpec::default().to_string(), "per-tensor,symmetric,min-max");
        assert_eq!(serde_json::from_str::<QuantSpec>("{}").unwrap(), QuantSpec::default());
    }

    #[test]
    fn unknown_fields_and_extra_options_are_refused() {
        assert!(serde_json::from_str::<QuantSpec>(r#"{"bits":4}"#).is_err());
        assert!("per-tensor,symmetric,min-max,4".parse::<QuantSpec>().is_err());
        assert!("".parse::<QuantSpec>().is_err());
    }

    #[test]
    fn check_agrees_with_mapping_and_rank() {
        let spec = QuantSpec::default();
        assert!(spec.check(BitWidth::FULL, 1).is_ok());
        assert!(spec.check(BitWidth::B1, 2).is_err());
        assert!(spec.with_format(Format::Asymmetric).check(BitWidth::B1, 2).is_ok());
        let channels = spec.with_granularity(Granularity::PerChannel);
        assert!(channels.check(BitWidth::B4, 1).is_err());
        assert!(channels.check(BitWidth::B4, 2).is_ok());
    }
}
