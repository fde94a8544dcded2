//! Model, adapters and questions behind the flags.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use switchable_quant::burn::tensor::backend::Backend;
use switchable_quant::data::{Dataset, TextTokenizer};
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::hub::{Hub, log_to_stderr};
use switchable_quant::kernels::{BitWidth, QuantBackend};
use switchable_quant::model::{AdapterFolders, Gpt2ForQuestionAnswering, MissingHead, ModelOptions, SitePrecision};
use switchable_quant::reader::evaluation::reading::ReadingTask;

use crate::{InputArgs, RunArgs};

/// What a command works on.
#[derive(Debug)]
pub struct Input<B: Backend> {
    /// The model with its adapters.
    pub model: Gpt2ForQuestionAnswering<B>,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// The questions.
    pub task: ReadingTask,
    /// Where all this comes from, for artefacts.
    pub source: Value,
}

impl<B: QuantBackend> Input<B> {
    /// Loads what the flags name; `set` are the generated questions used without `--data`.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or things do not fit together.
    pub fn load(
        input: &InputArgs,
        run: &RunArgs,
        options: &ModelOptions,
        set: QuestionSet,
        device: &B::Device,
    ) -> anyhow::Result<Self> {
        let (model, tokenizer, model_name) = match &input.model {
            None => {
                let mut default = default_model::load::<B>(options, device)?;
                if let Some(dir) = &input.adapters {
                    default.model.transformer.load_adapters(dir)?;
                }
                (default.model, default.tokenizer, "built-in".to_string())
            }
            Some(name) => {
                let dir = resolve_model(name)?;
                let head = MissingHead::Random(run.seed);
                let mut model = Gpt2ForQuestionAnswering::load(&dir, options, head, device)?;
                if let Some(adapters) = &input.adapters {
                    model.transformer.load_adapters(adapters)?;
                }
                (model, TextTokenizer::from_dir(&dir)?, name.clone())
            }
        };
        let (dataset, data_name) = load_questions(input, set)?;
        let dataset = match input.limit {
            Some(0) => bail!("`--limit` is 0, expected at least 1"),
            Some(limit) => dataset.limited(limit),
            None => dataset,
        };
        let n = dataset.len();
        let task = ReadingTask::new(dataset, &tokenizer, model.config(), input.window)
            .with_context(|| format!("{data_name} with the model {model_name}"))?;
        let source = json!({ "model": model_name, "adapters": input.adapters, "data": data_name, "questions": n });
        Ok(Self { model, tokenizer, task, source })
    }

    /// The precision of a width with its adapter, or without where the model has none.
    pub fn precision(&self, bits: BitWidth) -> SitePrecision {
        let precision = SitePrecision::uniform(bits);
        if self.model.transformer.adapter_widths().contains(&bits) { precision } else { precision.without_adapter() }
    }
}

/// Folder of a model: the argument itself when it is one, else downloaded by its name.
///
/// # Errors
///
/// When there is no such folder and no such name, or the download fails.
pub fn resolve_model(argument: &str) -> anyhow::Result<PathBuf> {
    if Path::new(argument).is_dir() {
        return Ok(argument.into());
    }
    Ok(Hub::from_env()?.model(argument, &mut |event| log_to_stderr(event))?)
}

/// File of a data set: the argument itself when it is one, else downloaded by its name.
///
/// # Errors
///
/// When there is no such file and no such name, or the download fails.
pub fn resolve_data(argument: &str) -> anyhow::Result<PathBuf> {
    if Path::new(argument).is_file() {
        return Ok(argument.into());
    }
    Ok(Hub::from_env()?.data(argument, &mut |event| log_to_stderr(event))?)
}

fn load_questions(input: &InputArgs, set: QuestionSet) -> anyhow::Result<(Dataset, String)> {
    match &input.data {
        Some(name) => Ok((Dataset::read(resolve_data(name)?)?, name.clone())),
        None if input.model.is_some() => {
            bail!("`--model` needs `--data`: the generated questions are for the built-in model")
        }
        None => Ok((default_model::questions(set)?, format!("generated ({set})"))),
    }
}

/// One data set from several SQuAD files.
///
/// # Errors
///
/// When a file is missing or damaged.
pub fn load_training_set(files: &[PathBuf]) -> anyhow::Result<Dataset> {
    let mut whole: Option<Dataset> = None;
    for file in files {
        let dataset = Dataset::read(Path::new(file))?;
        match &mut whole {
            None => whole = Some(dataset),
            Some(whole) => whole.articles.extend(dataset.articles),
        }
    }
    whole.context("`--train` names no file")
}
