//! Which of a model's heads answers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use quant_kernels::spec::bit_width::BitWidth;

/// A head of a model whose adapters may bring heads of their own.
///
/// As text, `base` or a number of bits; in JSON, `"base"` or an integer.
///
/// ```
/// use switchable_lora::{BitWidth, head_choice::HeadChoice};
///
/// assert_eq!("8".parse(), Ok(HeadChoice::Width(BitWidth::B8)));
/// for choice in [HeadChoice::Base, HeadChoice::Width(BitWidth::B4)] {
///     assert_eq!(choice.to_string().parse(), Ok(choice));
///     assert_eq!(serde_json::from_str::<HeadChoice>(&serde_json::to_string(&choice)?)?, choice);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadChoice {
    /// The head of the model's own folder.
    Base,
    /// The head that came with the adapters of a width.
    Width(BitWidth),
}

const BASE: &str = "base";

impl FromStr for HeadChoice {
    type Err = quant_kernels::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == BASE { Ok(Self::Base) } else { text.parse().map(Self::Width) }
    }
}

impl fmt::Display for HeadChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str(BASE),
            Self::Width(bits) => bits.fmt(f),
        }
    }
}

impl Serialize for HeadChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Base => serializer.serialize_str(BASE),
            Self::Width(bits) => bits.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for HeadChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = HeadChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`base` or a number of bits")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HeadChoice, E> {
        if text == BASE { Ok(HeadChoice::Base) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
    }

    fn visit_u64<E: de::Error>(self, bits: u64) -> Result<HeadChoice, E> {
        let width = u8::try_from(bits).ok().and_then(|bits| BitWidth::new(bits).ok());
        width.map(HeadChoice::Width).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(bits), &self))
    }
}
