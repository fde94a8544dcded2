//! Attacks and the protocol that measures robustness against them.
//!
//! | where | what |
//! |---|---|
//! | `protected_example` | [`ProtectedExample`](protected_example::ProtectedExample): edits that leave every gold answer where it can be found |
//! | `victim/` | the model under attack, and access to it with every query counted |
//! | `attacks/` | [`Attack`](attacks::attack::Attack): what an attack gets and gives; typos, misspellings, distractor, HotFlip, substitution |
//! | `protocol/` | [`Crafting`](protocol::craft::Crafting), [`RobustnessProtocol`](protocol::matrix::RobustnessProtocol): attacks made on each plan, tried on each; tables |
//! | `hardening/` | [`adversarial_training()`](hardening::adversarial_training::adversarial_training): training on the attacks, at one width or a random one |
//!
//! ```
//! use experiments::robustness::attacks::attack::Outcome;
//! use experiments::robustness::attacks::typos::{TypoOptions, Typos};
//! use experiments::robustness::protected_example::ProtectedExample;
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
//! # Ok::<(), experiments::error::Error>(())
//! ```

pub mod attacks;
pub mod hardening;
pub mod protected_example;
pub mod protocol;
pub mod victim;
