//! Evaluation of a plan by what a language model writes behind prompts.
//!
//! ```text
//! zᵢ      = scores of the next token behind the prompt and the first i tokens of the gold answer a
//! loss    = −1/k · Σᵢ log softmax(zᵢ)[aᵢ]                         mean over the questions
//! answer  = a₁ … aⱼ and what is written greedily behind them,     j the first i with argmax zᵢ ≠ aᵢ
//! ```
//!
//! What all prompts begin with is read once for each plan, what a [group](PromptGroup) has in common once for the group. A
//! worker holds one cache of keys and values, with room for the longest prompt and its answer; it is cut to what is shared
//! before each prompt. A prompt is read once for its loss and for its answer: one
//! pass over the gold answer gives the loss, and as long as the best token is the gold one, the same pass is the greedy
//! one, as in speculative decoding (Leviathan et al., arXiv:2211.17192). The answer is that of
//! [`generate`](switchable_model::generate::Generate::generate) behind the whole prompt, unless two tokens are as close to each
//! other as rounding is.

use std::ops::ControlFlow;

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{Predictions, evaluate};
use switchable_model::error::Error as ModelError;
use switchable_model::generate::{Generate as _, GenerateOptions, greedy_token};
use switchable_model::kv_cache::KvCache;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::token_tensor::token_tensor;

use crate::error::{Error, Result};
use crate::evaluation::accuracy::Accuracy;
use crate::evaluation::answer_distribution::AnswerScores;
use crate::evaluation::evaluate::{Evaluated, Evaluator, Request};
use crate::evaluation::floor::{Tally, Trial};
use crate::evaluation::prompt_group::PromptGroup;
use crate::evaluation::prompt_task::PromptTask;

/// Groups that one worker answers before results are taken.
const GROUPS_AT_ONCE: usize = 16;

/// What a prompt gives.
struct Answered {
    text: String,
    loss: f64,
    /// From the reference, if there is one.
    divergence: Option<f64>,
    /// Where the run is the reference.
    scores: Option<AnswerScores>,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Evaluator<'_, B, M> {
    pub(super) fn run_prompts(&self, task: &PromptTask, request: &Request<'_, B>) -> Result<Trial<Evaluated<B>>> {
        let body = &self.model.transformer;
        if !body.reads_tokens_alone(request.plan) {
            let expected = "a scale for each token: an answer would depend on what is read beside it";
            return Err(Error::option("activations", "of one scale for many tokens", expected));
        }
        let prompts = task.prompts();
        if request.is_reference() {
            let scores: usize = prompts.iter().map(|prompt| prompt.answer.len() * body.shape().vocabulary * 4).sum();
            let most = self.options.kept_state_bytes;
            if scores > most {
                let expected = format!("{scores} for the scores of {} answers: ask fewer questions", prompts.len());
                return Err(Error::option("kept_state_bytes", most, expected));
            }
        }
        let per_prompt = request.plan.blocks();
        self.meter.add_plain(per_prompt * prompts.len());
        let opening = self.opening(task, request.plan);
        let mut predictions = Predictions::new();
        let (mut loss, mut divergence, mut scores, mut read) = (0.0, 0.0, Vec::new(), 0);
        let asked = || prompts.iter().enumerate().map(|(example, prompt)| (prompt.id.as_str(), example));
        let mut watch = request.floor.map(|floor| (floor, Tally::new(&task.dataset, asked())));
        let mut groups = task.groups.as_slice();
        while !groups.is_empty() {
            let most = if watch.is_some() { 1 } else { GROUPS_AT_ONCE } * self.options.workers.len();
            let (chunk, others) = groups.split_at(groups.len().min(most));
            groups = others;
            let answered =
                self.options.workers.map(chunk, |_, group| self.answer_group(task, group, &opening, request));
            let answered = answered.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten();
            let chunk = chunk.iter().flat_map(|group| &prompts[group.prompts.clone()]);
            self.meter.add_computed(per_prompt * chunk.clone().count());
            for (prompt, answered) in chunk.zip(answered) {
                let mut answer = Predictions::new();
                answer.insert(&prompt.id, &answered.text);
                predictions.insert(&prompt.id, answered.text);
                loss += answered.loss;
                divergence += answered.divergence.unwrap_or_default();
                scores.extend(answered.scores);
                read += 1;
                let Some((floor, tally)) = &mut watch else { continue };
                if tally.reads(&prompt.id).is_some() {
                    tally.count(&answer)?;
                }
                let bounds = tally.bounds();
                match floor.decided_by(bounds) {
                    Some(false) if read < prompts.len() => return Ok(Trial::Short(bounds)),
                    Some(true) => watch = None,
                    _ => {}
                }
            }
        }
        let n = prompts.len() as f64;
        let evaluation = evaluate(&task.dataset, &predictions)?;
        let mut accuracy = Accuracy::new(evaluation.exact_match, evaluation.f1, evaluation.scores, Some(loss / n));
        accuracy.divergence = request.kept.map(|_| divergence / n);
        Ok(Trial::Whole(Evaluated { accuracy, predictions, nulls: None, scores, states: Vec::new() }))
    }

    /// What all prompts begin with, read, with room for the longest prompt and its answer.
    fn opening(&self, task: &PromptTask, plan: &SitePlan) -> KvCache<B> {
        let body = &self.model.transformer;
        let mut cache = KvCache::new(&body.shape(), 1, task.longest(), &body.device());
        if !task.opening.is_empty() {
            drop(body.forward_cached(
                token_tensor(&task.opening, [1, task.opening.len()], &body.device()),
                &mut cache,
                plan,
            ));
        }
        cache
    }

    /// What the prompts of a group give, in their order.
    fn answer_group(
        &self,
        task: &PromptTask,
        group: &PromptGroup,
        opening: &KvCache<B>,
        request: &Request<'_, B>,
    ) -> Result<Vec<Answered>> {
        let (body, mut cache) = (&self.model.transformer, opening.clone());
        let shared = &task.prompts()[group.prompts.start].ids[cache.len()..group.shared];
        if !shared.is_empty() {
            self.options.stop.check()?;
            let ids = token_tensor(shared, [1, shared.len()], &body.device());
            drop(body.forward_cached(ids, &mut cache, request.plan));
        }
        let answer = |index| {
            self.options.stop.check()?;
            cache.truncate(group.shared);
            let answered = self.answer_prompt(task, index, &mut cache, request)?;
            if let Some(tell) = request.after_batch {
                tell();
            }
            Ok(answered)
        };
        group.prompts.clone().map(answer).collect()
    }

    /// What a prompt gives whose first tokens a cache holds.
    fn answer_prompt(
        &self,
        task: &PromptTask,
        index: usize,
        cache: &mut KvCache<B>,
        request: &Request<'_, B>,
    ) -> Result<Answered> {
        let (body, plan, prompt) = (&self.model.transformer, request.plan, &task.prompts()[index]);
        let answer = prompt.answer.as_slice();
        // The last token of an answer is foretold and not read.
        let (text, gold) = (&prompt.ids[cache.len()..], &answer[..answer.len() - 1]);
        let read: Vec<u32> = text.iter().chain(gold).copied().collect();
        let hidden = body.forward_cached(token_tensor(&read, [1, read.len()], &body.device()), cache, plan);
        let [_, tokens, width] = hidden.dims();
        let behind = hidden.slice([0..1, tokens - answer.len()..tokens, 0..width]);
        let values = body.next_token_scores(behind, plan).into_data().convert::<f32>();
        let values = values.into_vec::<f32>().expect("data converted to f32 is f32");
        let rows: Vec<Vec<f32>> = values.chunks(body.shape().vocabulary).map(<[f32]>::to_vec).collect();
        let best = |row: &Vec<f32>| {
            let fault = |got| ModelError::Scores { sequence: index, tokens: prompt.ids.len(), got };
            greedy_token(row).map_err(fault)
        };
        let best = rows.iter().map(best).collect::<Result<Vec<u32>, _>>()?;
        let scores = AnswerScores { rows };
        let loss = scores.loss_of(answer);
        let agreed = best.iter().zip(answer).take_while(|(best, gold)| best == gold).count();
        // The last token of a gold answer need not end what is written.
        let kept = agreed.min(answer.len() - 1);
        cache.truncate(prompt.ids.len() + kept);
        let written = self.write_on(task, answer[..kept].to_vec(), best[kept], cache, plan)?;
        let divergence = request.kept.map(|kept| scores.divergence_from(&kept.reference[index]));
        let text = task.template.cut(&task.text_of(&written)?);
        Ok(Answered { text, loss, divergence, scores: request.is_reference().then_some(scores) })
    }

    /// The answer that begins with tokens that were read and one that was not.
    fn write_on(
        &self,
        task: &PromptTask,
        mut written: Vec<u32>,
        next: u32,
        cache: &mut KvCache<B>,
        plan: &SitePlan,
    ) -> Result<Vec<u32>> {
        if task.stop.contains(&next) {
            return Ok(written);
        }
        written.push(next);
        let has_ended = |written: &[u32]| Ok::<_, Error>(task.template.is_complete(&task.text_of(written)?));
        let room = task.answer_tokens.saturating_sub(written.len());
        if room == 0 || has_ended(&written)? {
            return Ok(written);
        }
        let options = GenerateOptions { max_new_tokens: room, stop: task.stop.clone(), ..GenerateOptions::default() };
        let mut failed = None;
        self.model.transformer.generate_cached(cache, &[next], &options, plan, |new| {
            written.push(new.token);
            match has_ended(&written) {
                Ok(false) => ControlFlow::Continue(()),
                Ok(true) => ControlFlow::Break(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(written), Err)
    }
}
