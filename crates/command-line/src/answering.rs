//! A command that only answers: a folder opened without training, on every device and for every family of models.

use std::path::{Path, PathBuf};

use switchable_quant::default_model;
use switchable_quant::device::{Device, WithBackend};
use switchable_quant::families::{WithFamily, with_family};
use switchable_quant::kernels::QuantBackend;
use switchable_quant::lora::LinearSettings;
use switchable_quant::reader::model_folder::{FolderOptions, ModelFolder, Quantiser};
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::options::ModelOptions;
use switchable_quant::transformer::span_head::{ForQuestionAnswering, MissingHead};

use crate::arguments::execution::ExecutionArgs;
use crate::files::resolve_model;

/// What a command does with an open folder.
pub trait WithFolder {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of the command.
    fn run<B: QuantBackend, M: SwitchableModel<B>>(self, opened: Opened<B, M>) -> anyhow::Result<()>;
}

/// An open folder.
#[derive(Debug)]
pub struct Opened<B: QuantBackend, M> {
    /// Model, tokenizer, adapters.
    pub folder: ModelFolder<B, M>,
    /// Where it lies; `None` for the one that is part of the program.
    pub dir: Option<PathBuf>,
    /// Whether it has a span head, its own or that of an adapter.
    pub has_head: bool,
}

/// Which folder a command answers with, and on what.
#[derive(Debug, Clone, Copy)]
pub struct Answering<'a> {
    /// Folder or name of the model; by default the one that is part of the program.
    pub model: Option<&'a str>,
    /// The device.
    pub machine: &'a Device,
    /// How quantised weights are held and products are computed.
    pub execution: ExecutionArgs,
    /// What a folder without a span head is to the command.
    pub without_head: WithoutHead,
}

/// What a folder without a span head is to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WithoutHead {
    /// An error.
    Refused,
    /// A language model alone, which writes all the same.
    Writes,
}

impl Answering<'_> {
    /// Opens the folder and runs a command on it.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or the command fails.
    pub fn run(self, command: impl WithFolder) -> anyhow::Result<()> {
        self.machine.dispatch(OnDevice { answering: self, command })
    }
}

struct OnDevice<'a, C> {
    answering: Answering<'a>,
    command: C,
}

impl<C: WithFolder> WithBackend for OnDevice<'_, C> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantBackend>(self, device: B::Device) -> anyhow::Result<()> {
        let Self { answering, command } = self;
        let linear = answering.execution.settings::<B>(LinearSettings::default(), answering.machine);
        let model = ModelOptions { linear, ..ModelOptions::default() };
        let Some(name) = answering.model else {
            let folder = default_model::load::<B>(&model, &device)?;
            return command.run(Opened { folder, dir: None, has_head: true });
        };
        let dir = resolve_model(name)?;
        let options = FolderOptions {
            model,
            missing_head: MissingHead::OfAdapters,
            quantiser: Quantiser::OfAdapters,
            ..FolderOptions::default()
        };
        with_family::<B, _>(
            &dir,
            OfFamily { dir: &dir, options, device, without_head: answering.without_head, command },
        )?
    }
}

struct OfFamily<'a, D, C> {
    dir: &'a Path,
    options: FolderOptions,
    device: D,
    without_head: WithoutHead,
    command: C,
}

impl<B: QuantBackend, C: WithFolder> WithFamily<B> for OfFamily<'_, B::Device, C> {
    type Output = anyhow::Result<()>;

    fn run<M: SwitchableModel<B>>(self) -> anyhow::Result<()> {
        let Self { dir, options, device, without_head, command } = self;
        let mut folder = ModelFolder::<B, M>::open(dir, &options, &device)?;
        let has_head = ForQuestionAnswering::<B, M>::holds_head(dir)? || !folder.model.head_widths().is_empty();
        if !has_head && without_head == WithoutHead::Writes {
            folder =
                ModelFolder::open(dir, &FolderOptions { missing_head: MissingHead::Random(0), ..options }, &device)?;
        }
        command.run(Opened { folder, dir: Some(dir.to_owned()), has_head })
    }
}
