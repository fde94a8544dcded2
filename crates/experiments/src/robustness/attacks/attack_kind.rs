//! The attacks of this module by name, with their usual options.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use switchable_model::model::TrainableModel;

use crate::error::{Error, Result};
use crate::robustness::attacks::attack::Attack;
use crate::robustness::attacks::budget::AttackBudget;
use crate::robustness::attacks::distractor::Distractor;
use crate::robustness::attacks::hot_flip::{FlipUnit, HotFlip, HotFlipOptions};
use crate::robustness::attacks::misspellings::{MisspellingOptions, Misspellings};
use crate::robustness::attacks::typos::{TypoOptions, Typos};
use crate::robustness::attacks::word_substitution::{WordSubstitution, WordSubstitutionOptions};

/// An attack by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttackKind {
    /// [`Typos`].
    Typos,
    /// [`Misspellings`].
    Misspellings,
    /// [`Distractor`].
    Distractor,
    /// [`HotFlip`] of whole words.
    HotFlipWord,
    /// [`HotFlip`] of any token.
    HotFlipToken,
    /// [`WordSubstitution`].
    WordSubstitution,
}

impl AttackKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Typos,
        Self::Misspellings,
        Self::Distractor,
        Self::HotFlipWord,
        Self::HotFlipToken,
        Self::WordSubstitution,
    ];

    /// Name on command lines and in artefacts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Typos => "typos",
            Self::Misspellings => "misspellings",
            Self::Distractor => "distractor",
            Self::HotFlipWord => "hot-flip-word",
            Self::HotFlipToken => "hot-flip-token",
            Self::WordSubstitution => "word-substitution",
        }
    }

    /// The attack, with a budget if it searches.
    ///
    /// # Errors
    ///
    /// When the budget is too small for it.
    pub fn build<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        self,
        budget: AttackBudget,
    ) -> Result<Box<dyn Attack<B, M>>> {
        budget.check()?;
        let hot_flip = |unit| HotFlip::new(HotFlipOptions { unit, budget, ..HotFlipOptions::default() });
        let substitution = WordSubstitutionOptions { budget, ..WordSubstitutionOptions::default() };
        Ok(match self {
            Self::Typos => Box::new(Typos::new(TypoOptions::default())?),
            Self::Misspellings => Box::new(Misspellings::new(MisspellingOptions::default())?),
            Self::Distractor => Box::new(Distractor::default()),
            Self::HotFlipWord => Box::new(hot_flip(FlipUnit::Word)?),
            Self::HotFlipToken => Box::new(hot_flip(FlipUnit::Token)?),
            Self::WordSubstitution => Box::new(WordSubstitution::new(substitution)?),
        })
    }
}

impl fmt::Display for AttackKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for AttackKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let expected = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| Error::option("attack", text, expected()))
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};

    use gpt2_model::Gpt2;

    use super::*;

    #[test]
    fn every_attack_is_found_by_the_name_that_it_gives_itself() {
        for kind in AttackKind::ALL {
            assert_eq!(kind.to_string().parse::<AttackKind>().unwrap(), kind);
            let built = kind.build::<Autodiff<Flex>, Gpt2<Autodiff<Flex>>>(AttackBudget::default());
            assert_eq!(built.unwrap().name(), kind.name());
        }
        let message = "hot-flip".parse::<AttackKind>().unwrap_err().to_string();
        assert!(message.contains("attack") && message.contains("hot-flip-word"), "{message}");
    }
}
