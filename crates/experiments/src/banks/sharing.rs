//! What the adapters of a bank share.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use switchable_lora::lora_config::LoraConfig;

use crate::error::{Error, Result};

/// What the adapters of a bank share. Where nothing is shared, no width learns from another.
///
/// ```text
/// adapters          y = Qw(x) + s · x·A_w·B_w
/// shared-adapter    y = Qw(x) + s · x·A·B
/// shared+own        y = Qw(x) + s · x·A·B + s · x·A_w·B_w       A_w, B_w of a quarter of the rank
/// ```
///
/// The adapter that is shared is that of the widest width, which has no other.
///
/// ```
/// use experiments::banks::sharing::Sharing;
///
/// assert_eq!("shared+own".parse::<Sharing>()?, Sharing::SharedAndOwn);
/// assert_eq!(Sharing::default().to_string(), "adapters");
/// # Ok::<(), experiments::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Sharing {
    /// Each width has an adapter of its own.
    #[default]
    Adapters,
    /// One adapter serves all widths.
    SharedAdapter,
    /// A common adapter, and a small one of each width's own beside it.
    SharedAndOwn,
}

impl Sharing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Adapters, Self::SharedAdapter, Self::SharedAndOwn];

    /// Whether some adapter serves several widths.
    pub fn is_shared(self) -> bool {
        self != Self::Adapters
    }

    /// The adapter of a width's own beside a shared one: a quarter of the rank, the same scaling.
    ///
    /// # Errors
    ///
    /// As [`LoraConfig::new`].
    pub(crate) fn own(lora: LoraConfig) -> Result<LoraConfig> {
        let rank = (lora.rank() / 4).max(1);
        let small = LoraConfig::new(rank, lora.scaling() * rank as f64)?;
        Ok(small.with_init(lora.init()).with_scales(lora.scales()))
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Adapters => "adapters",
            Self::SharedAdapter => "shared-adapter",
            Self::SharedAndOwn => "shared+own",
        })
    }
}

impl FromStr for Sharing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|sharing| sharing.to_string() == text);
        named.ok_or_else(|| {
            Error::option("sharing", format!("`{text}`"), "`adapters`, `shared-adapter` or `shared+own`")
        })
    }
}

impl TryFrom<String> for Sharing {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Sharing> for String {
    fn from(sharing: Sharing) -> Self {
        sharing.to_string()
    }
}
