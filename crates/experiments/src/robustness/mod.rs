//! Attacks and the protocol that measures robustness against them (D8 of the study).
//!
//! | file | what |
//! |---|---|
//! | `protected_example` | [`ProtectedExample`]: edits that leave every gold answer where it can be found |
//! | `attack`, `attack_kind` | [`Attack`]: what an attack gets and gives; [`AttackKind`]: each by name |
//! | `typos`, `misspellings`, `distractor` | attacks that need no model |
//! | `hot_flip` | [`HotFlip`]: swaps chosen by the gradient |
//! | `word_substitution` | [`WordSubstitution`]: substitutes proposed by the model itself |
//! | `victim`, `oracle` | the model under attack, and access to it with every query counted |
//! | `craft` | [`craft()`]: an attack made on one plan or several, item by item |
//! | `robust_accuracy`, `edit_size` | the same items clean and attacked; how much was changed |
//! | `matrix` | [`RobustnessProtocol`]: attacks made on each plan, tried on each |
//! | `adversarial_training` | [`adversarial_training()`]: training on the attacks, at one width or a random one |
//! | `adversarial_study` | [`harden_and_attack`]: the trained models attacked beside the untrained one |
//! | `threat` | [`Threat`]: a matrix in a few figures, by what the attacker knows |
//! | `attack_report` | tables and heat maps |
//!
//! ```
//! use experiments::robustness::{Outcome, ProtectedExample, TypoOptions, Typos};
//! use rand::SeedableRng as _;
//! use squad_data::{GeneratorConfig, Split, generate};
//!
//! let corpus = generate(&GeneratorConfig::new(Split::Dev, 1, 7))?;
//! let item = ProtectedExample::new(corpus.examples().remove(0)).expect("it has an answer");
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
//! let Outcome::Attacked(edited) = Typos::new(TypoOptions::default())?.perturb(&item, &mut rng)? else {
//!     panic!("its words can be edited");
//! };
//! let answer = &edited.example().answers[0];
//! let there: String = edited.example().context.chars().skip(answer.start).take(answer.text.chars().count()).collect();
//! assert_eq!(there, answer.text);
//! # Ok::<(), experiments::Error>(())
//! ```

mod adversarial_study;
mod adversarial_training;
mod attack;
mod attack_kind;
mod attack_report;
mod craft;
mod distractor;
mod edit_size;
mod hot_flip;
mod matrix;
mod misspellings;
mod oracle;
mod protected_example;
mod robust_accuracy;
mod threat;
mod typos;
mod victim;
mod word_substitution;

pub use adversarial_study::{
    ALL_PLANS, HardenedModel, Hardening, HardeningData, HardeningRun, harden_and_attack, plans_and_sources,
};
pub use adversarial_training::{AdversarialTraining, Round, RoundPrecision, adversarial_training};
pub use attack::{Access, Amount, Attack, Outcome, Unattackable};
pub use attack_kind::AttackKind;
pub use attack_report::{AttackReport, MatrixMap};
pub use craft::{AttackSource, CraftOutcome, CraftRecord, CraftSummary, Crafted, ItemChoice, RobustnessOptions, craft};
pub use distractor::{Distractor, DistractorPlace};
pub use edit_size::EditSize;
pub use hot_flip::{FlipUnit, HotFlip, HotFlipOptions, TokenFlip};
pub use matrix::{AttackMatrix, InferencePlan, MatrixRow, NO_SOURCE, RandomPrecision, RobustnessProtocol};
pub use misspellings::{MisspellingOptions, Misspellings};
pub use oracle::{EmbeddingGradient, GoldWindow, Oracle, Reading};
pub use protected_example::{Edit, EditScope, Names, Place, ProtectedExample, Word};
pub use robust_accuracy::{ItemScores, RobustAccuracy};
pub use threat::{Threat, ThreatAccuracy};
pub use typos::{TypoKind, TypoOptions, Typos};
pub use victim::{TokenText, Victim, VictimOptions};
pub use word_substitution::{WordSubstitution, WordSubstitutionOptions};
