//! One question about one text.

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{Decoded, Example, SpanFeatures, SpecialTokens, TextTokenizer};
use switchable_model::model::SwitchableModel;
use switchable_model::shape::ModelShape;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::reader::Reader;
use crate::evaluation::reading::span_config;

/// Answers a question about a text, which may be longer than the model's window.
///
/// # Errors
///
/// When the question or the text is empty, the question does not fit the window, or the plan asks
/// for an adapter that is missing.
///
/// # Panics
///
/// When the backend gives scores that cannot be read as f32.
pub fn answer<B: QuantBackend, M: SwitchableModel<B>>(
    model: &ForQuestionAnswering<B, M>,
    tokenizer: &TextTokenizer,
    question: &str,
    context: &str,
    plan: &SitePlan,
) -> Result<Decoded> {
    let (features, pad) = request_features(tokenizer, question, context, &model.transformer.shape())?;
    let options = EvaluateOptions { batch_size: 8, ..EvaluateOptions::default() };
    let mut read = Reader { model, options: &options }.read(&features, pad, plan)?;
    let answer = read.questions.pop().ok_or_else(|| Error::NoQuestions { what: "the request".into() })?;
    Ok(answer.decoded)
}

/// The windows of one question about one text, and the id that pads them.
///
/// # Errors
///
/// When the question or the text is empty, or the question does not fit the window.
pub(crate) fn request_features(
    tokenizer: &TextTokenizer,
    question: &str,
    context: &str,
    shape: &ModelShape,
) -> Result<(SpanFeatures, u32)> {
    for (field, text) in [("question", question), ("context", context)] {
        if text.trim().is_empty() {
            return Err(Error::option(field, "empty", "some text"));
        }
    }
    let example = Example {
        id: "question".into(),
        context: context.into(),
        question: question.into(),
        answers: Vec::new(),
        is_impossible: false,
    };
    let special = SpecialTokens::of(tokenizer)?;
    let span = span_config(shape, None, &special);
    Ok((SpanFeatures::new(tokenizer, &[example], &span)?, special.pad))
}
