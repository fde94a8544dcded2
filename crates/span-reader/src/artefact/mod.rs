//! The one folder that runs what a search found.
//!
//! | file | what |
//! |---|---|
//! | `artefact.json` | [`Manifest`](manifest::Manifest): version, what it was made from, every file with its hash |
//! | `config.json` | configuration; `artefact_manifest` in it says that there is an `artefact.json` |
//! | `packed.safetensors` | codes, with the plan that they were packed by |
//! | `tokenizer.json` and the like | the tokenizer |
//! | `adapters/bits-N` | adapters and learned steps of the width N |
//! | `plans/NAME.json` | further plans, by name |
//! | `front.json` | plans with what they were measured to give and to cost on these codes |
//! | `cascade.json` | [`SavedCascade`](saved_cascade::SavedCascade): stages with their temperatures, and thresholds |
//! | `made_from.json` | the questions that it was made from |
//! | `certificate.json`, `README.md` | what it costs beside its original, and the model card |
//!
//! [`Pack`](pack::Pack) writes all but the certificate, whole or not at all, under a name that an
//! [`ArtefactTarget`](target::ArtefactTarget) reserves;
//! [`ModelFolder::open`](crate::model_folder::ModelFolder::open) reads it.

pub mod contents;
pub mod manifest;
mod model_card;
pub mod pack;
pub mod plans;
pub mod saved_cascade;
pub mod target;
