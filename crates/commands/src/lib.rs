//! The commands: each a module, a subcommand of the program `switchable-quant`, and an example of the workspace.
//!
//! | subcommand | module | what it does |
//! |---|---|---|
//! | `search` | [`greedy_search`] | which sub-modules can afford how few bits |
//! | `allocate` | [`allocate`] | bits per sub-module under a budget of bytes |
//! | `train-bank` | [`train_bank`] | adapters for every width |
//! | `evaluate` | [`evaluate`] | accuracy under a plan |
//! | `perplexity` | [`perplexity`] | how well a language model foretells documents |
//! | `pack`, `certify` | [`pack_gpt2`], [`certify`] | an artefact, and proof of what it costs |
//! | `export-gguf` | [`export_gguf`] | a plan's model for llama.cpp |
//! | `answer`, `generate` | [`answer`], [`generate`] | what an artefact says |
//! | `serve` | [`serve`] | the same over HTTP, with a page |
//! | `dynamic-inference` | [`dynamic_inference`] | more bits where confidence is low |
//! | `robustness` | [`robustness`] | attacks, width against width |
//! | `report` | [`report`] | the whole study |
//! | `pretrain`, `cloze-questions`, `train-default` | [`pretrain`], [`cloze_questions`], [`train_default`] | a model from nothing |
//! | `inspect` | [`inspect`] | what a model and a plan take, from headers alone |
//! | `import`, `nested-distortion` | [`import_gpt2`], [`nested_distortion`] | a folder read right; what one tensor for every width costs |

use std::ffi::OsString;

use command_line::output;

pub mod allocate;
mod allocator;
pub mod answer;
pub mod certify;
pub mod cloze_questions;
pub mod dynamic_inference;
pub mod evaluate;
pub mod export_gguf;
pub mod generate;
pub mod greedy_search;
pub mod import_gpt2;
pub mod inspect;
pub mod nested_distortion;
pub mod pack_gpt2;
pub mod perplexity;
pub mod pretrain;
pub mod report;
pub mod robustness;
pub mod serve;
pub mod train_bank;
pub mod train_default;

/// A command as a part of the program.
#[derive(Debug, Clone, Copy)]
pub struct Subcommand {
    /// What it is called by.
    pub name: &'static str,
    /// The example that is the same command.
    pub example: &'static str,
    /// Its flags.
    pub definition: fn() -> clap::Command,
    /// Runs it on a command line whose first word names the program.
    pub run: fn(Vec<OsString>) -> anyhow::Result<()>,
}

macro_rules! subcommands {
    ($($name:literal: $module:ident,)*) => {
        [$(Subcommand {
            name: $name,
            example: stringify!($module),
            definition: || output::definition::<$module::Arguments>().name($name),
            run: |line| $module::run(line),
        },)*]
    };
}

/// Every command, in the order of its use.
pub const SUBCOMMANDS: [Subcommand; 20] = subcommands![
    "search": greedy_search,
    "allocate": allocate,
    "train-bank": train_bank,
    "evaluate": evaluate,
    "perplexity": perplexity,
    "pack": pack_gpt2,
    "certify": certify,
    "export-gguf": export_gguf,
    "answer": answer,
    "generate": generate,
    "serve": serve,
    "dynamic-inference": dynamic_inference,
    "robustness": robustness,
    "report": report,
    "pretrain": pretrain,
    "cloze-questions": cloze_questions,
    "train-default": train_default,
    "import": import_gpt2,
    "inspect": inspect,
    "nested-distortion": nested_distortion,
];

#[cfg(test)]
mod tests {
    use command_line::next_command::subcommand_of;

    use super::*;

    #[test]
    fn a_command_is_named_as_it_is_called() {
        for Subcommand { name, example, .. } in SUBCOMMANDS {
            assert_eq!(subcommand_of(example), name);
        }
    }
}
