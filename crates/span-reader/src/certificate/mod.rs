//! What a model costs beside the one that it was made from, proved on questions that did not make it.
//!
//! ```text
//! loss         = EM(original) − EM(artefact)              on the same questions; the same for F1
//! certificate  = P(loss ≤ bound) ≥ 95 %                   "loses at most x points"
//! ```
//!
//! | file | what |
//! |---|---|
//! | `certify` | [`certify`](certify::certify): both models measured, to a certificate |
//! | `certificate_file` | [`Certificate`](certificate_file::Certificate): `certificate.json`, written, read and compared |
//! | `paired_loss`, `trinomial_bound` | the loss with its interval and its one-sided bound, by paragraphs |
//! | `slices` | the loss by length of the answer, question word and whether there is an answer |
//! | `seen_data` | [`SeenData`](seen_data::SeenData): `made_from.json`, the questions that made an artefact |
//! | `held_out` | [`HeldOut`](held_out::HeldOut): the questions of a certificate, by their content |
//! | `file_names` | what these files are called |
//! | `text_hash` | short hashes of questions and paragraphs |
//! | `model_files` | [`ModelFiles`](model_files::ModelFiles): every file of a model, by its content |
//! | `measured_model` | [`MeasuredModel`](measured_model::MeasuredModel): what a model answered, and what it took |
//! | `machine` | the machine that times and bytes are of |
//! | `model_card` | the section of `README.md` |

pub mod certificate_file;
pub mod certify;
pub mod file_names;
pub mod held_out;
pub mod machine;
pub mod measured_model;
pub mod model_card;
pub mod model_files;
pub mod paired_loss;
pub mod seen_data;
pub mod slices;
pub mod text_hash;
mod trinomial_bound;
