//! Training on answers that a language model writes behind prompts.
//!
//! ```text
//! L = −1/k · Σ log p(aᵢ | prompt, a<ᵢ) + λ·L_next      over the k tokens of the answers of a micro-batch
//! ```
//!
//! The prompts themselves are not learned, unless λ says so.

use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};
use serde_json::Value;

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::evaluation::prompt_task::{Prompt, PromptTask};
use switchable_model::loss::{answer_loss, next_token_loss};
use switchable_model::model::TrainableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};
use crate::train::config::TrainConfig;
use crate::train::epochs::Epochs;
use crate::train::model_identity::model_identity;
use crate::train::objective::Objective;
use crate::train::task::{TaskOutput, TrainTask};

/// Stands where there is no token. Nothing that counts sees it.
const PADDING: u32 = 0;

/// Prompts that hold their answer, in a seeded order.
#[derive(Debug)]
pub struct AnswerTask<'a> {
    prompts: Vec<&'a Prompt>,
    micro_batch: usize,
    seed: u64,
    objective: Objective,
}

impl<'a> AnswerTask<'a> {
    /// Batches and losses of a run.
    ///
    /// # Errors
    ///
    /// When fewer prompts hold their answer than a micro-batch needs.
    pub fn new(task: &'a PromptTask, config: &TrainConfig) -> Result<Self> {
        let micro_batch = config.batch_size / config.micro_batches;
        let prompts: Vec<&Prompt> = task.prompts().iter().filter(|prompt| !prompt.lost_its_answer).collect();
        if prompts.len() < micro_batch {
            return Err(Error::NoQuestions {
                what: format!("a batch of {micro_batch} prompts with their answers inside"),
            });
        }
        Ok(Self { prompts, micro_batch, seed: config.seed, objective: config.objective })
    }
}

/// Prompts and answers, padded on the right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerBatch {
    /// `[rows, tokens]`.
    ids: Vec<i64>,
    is_padding: Vec<bool>,
    shape: [usize; 2],
    /// Places among all ids whose next token is one of an answer.
    places: Vec<i64>,
    /// Those tokens.
    answers: Vec<u32>,
}

impl AnswerBatch {
    fn new(prompts: &[&Prompt]) -> Self {
        let length = |prompt: &Prompt| prompt.ids.len() + prompt.answer.len() - 1;
        let tokens = prompts.iter().map(|prompt| length(prompt)).max().unwrap_or(0);
        let (mut ids, mut is_padding) = (Vec::new(), Vec::new());
        let (mut places, mut answers) = (Vec::new(), Vec::new());
        for (row, prompt) in prompts.iter().enumerate() {
            let real = length(prompt);
            let text = prompt.ids.iter().chain(&prompt.answer).copied().take(real);
            ids.extend(text.chain(std::iter::repeat_n(PADDING, tokens - real)).map(i64::from));
            is_padding.extend((0..tokens).map(|place| place >= real));
            let first = row * tokens + prompt.ids.len() - 1;
            places.extend((first..first + prompt.answer.len()).map(|place| place as i64));
            answers.extend_from_slice(&prompt.answer);
        }
        Self { ids, is_padding, shape: [prompts.len(), tokens], places, answers }
    }

    fn ids<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        Tensor::from_data(TensorData::new(self.ids.clone(), self.shape), device)
    }

    fn padding<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Bool> {
        Tensor::from_data(TensorData::new(self.is_padding.clone(), self.shape), device)
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> TrainTask<B, ForQuestionAnswering<B, M>> for AnswerTask<'_> {
    type Batch = AnswerBatch;

    fn batches_from(&self, position: usize) -> Result<Box<dyn Iterator<Item = AnswerBatch> + '_>> {
        let epochs = Epochs { items: self.prompts.len(), micro_batch: self.micro_batch, seed: self.seed };
        let batch = |places: Vec<usize>| {
            AnswerBatch::new(&places.into_iter().map(|place| self.prompts[place]).collect::<Vec<_>>())
        };
        Ok(Box::new(epochs.micro_batches_from(position).map(batch)))
    }

    fn tokens(&self, batch: &AnswerBatch) -> usize {
        batch.is_padding.iter().filter(|is_padding| !**is_padding).count()
    }

    fn check_model(&self, _model: &ForQuestionAnswering<B, M>) -> Result<()> {
        // A `PromptTask` is made for its model.
        Ok(())
    }

    fn model_identity(&self, model: &ForQuestionAnswering<B, M>) -> Value {
        model_identity(&model.transformer)
    }

    fn check_plan(&self, model: &ForQuestionAnswering<B, M>, plan: &SitePlan) -> Result<()> {
        Ok(model.transformer.check_plan(plan)?)
    }

    fn forward(&self, model: &ForQuestionAnswering<B, M>, batch: &AnswerBatch, plan: &SitePlan) -> TaskOutput<B> {
        let body = &model.transformer;
        let device = body.device();
        let ids = batch.ids::<B>(&device);
        let hidden = body.forward(ids.clone(), None, plan);
        let [rows, tokens, width] = hidden.dims();
        let places = TensorData::new(batch.places.clone(), [batch.places.len()]);
        let behind = hidden.clone().reshape([rows * tokens, width]).select(0, Tensor::from_data(places, &device));
        let scores = body.next_token_scores(behind.unsqueeze::<3>(), plan).squeeze_dim::<2>(0);
        let answer = answer_loss(scores.clone(), &batch.answers);
        let loss = if self.objective.next_token > 0.0 {
            let all = body.next_token_scores(hidden, plan);
            answer.clone() + next_token_loss(all, ids, Some(batch.padding::<B>(&device))) * self.objective.next_token
        } else {
            answer.clone()
        };
        TaskOutput { loss, main_loss: answer, scores: vec![scores] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(ids: &[u32], answer: &[u32]) -> Prompt {
        let (ids, answer) = (ids.to_vec(), answer.to_vec());
        Prompt { id: String::new(), ids, answer, is_cut: false, lost_its_answer: false }
    }

    #[test]
    fn a_batch_foretells_the_tokens_of_its_answers_alone() {
        let (long, short) = (prompt(&[1, 2, 3], &[4, 5]), prompt(&[6], &[7]));
        let batch = AnswerBatch::new(&[&long, &short]);
        assert_eq!(batch.shape, [2, 4]);
        assert_eq!(batch.ids, [1, 2, 3, 4, 6, 0, 0, 0]);
        assert_eq!(batch.is_padding, [false, false, false, false, false, true, true, true]);
        assert_eq!((batch.places.as_slice(), batch.answers.as_slice()), ([2, 3, 4].as_slice(), [4, 5, 7].as_slice()));
    }
}
