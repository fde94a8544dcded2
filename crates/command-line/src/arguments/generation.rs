//! How a text is continued.

use anyhow::{Context as _, ensure};
use clap::Args;

use switchable_quant::data::TextTokenizer;
use switchable_quant::transformer::generate::{DrawOptions, GenerateOptions, Sampling};

use crate::arguments::count::parse_count;
use crate::ending::usage;

/// Choice, length and end of a text. What is not given is as the model's folder has it.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct GenerationArgs {
    /// Tokens to generate at most
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub max_new_tokens: Option<usize>,
    /// Always take the best token, whatever the folder says
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "seed"])]
    pub greedy: bool,
    /// Draw tokens by their scores divided by this
    #[arg(long, value_name = "T", value_parser = parse_positive)]
    pub temperature: Option<f32>,
    /// Draw from this many best tokens
    #[arg(long, value_name = "K", value_parser = parse_count)]
    pub top_k: Option<usize>,
    /// Draw from the fewest best tokens that together have this probability
    #[arg(long, value_name = "P", value_parser = parse_probability)]
    pub top_p: Option<f32>,
    /// Divide the scores of tokens that are there already by this
    #[arg(long, value_name = "THETA", value_parser = parse_positive)]
    pub repetition_penalty: Option<f32>,
    /// Seed of the draws
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// End at this token, by its id or its spelling in the vocabulary, in place of the folder's; can be repeated
    #[arg(long, value_name = "TOKEN")]
    pub stop: Vec<String>,
}

fn parse_positive(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a finite number above 0".to_owned()),
    }
}

fn parse_probability(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number > 0.0 && number <= 1.0 => Ok(number),
        _ => Err("expected a number above 0, at most 1".to_owned()),
    }
}

impl GenerationArgs {
    /// The options of a folder with what the flags say in their place. A flag of draws asks for draws; those that
    /// the folder has for them hold beside it.
    ///
    /// # Errors
    ///
    /// When `--stop` names no token of a vocabulary of this size, or `--seed` stands without draws.
    pub fn options(
        &self,
        folder: GenerateOptions,
        tokenizer: &TextTokenizer,
        vocabulary: usize,
    ) -> anyhow::Result<GenerateOptions> {
        let Self { max_new_tokens, greedy, temperature, top_k, top_p, repetition_penalty, seed, stop } = self;
        let asks = temperature.is_some() || top_k.is_some() || top_p.is_some();
        let of_folder = match folder.sampling {
            Sampling::Draws(draws) => Some(draws),
            Sampling::Greedy => asks.then(DrawOptions::default),
        };
        let sampling = match of_folder {
            Some(draws) if !greedy => Sampling::Draws(DrawOptions {
                temperature: temperature.unwrap_or(draws.temperature),
                top_k: top_k.or(draws.top_k),
                top_p: top_p.or(draws.top_p),
                seed: seed.unwrap_or(draws.seed),
            }),
            _ if seed.is_some() => {
                return Err(usage("`--seed` needs draws: add `--temperature`, `--top-k` or `--top-p`"));
            }
            _ => Sampling::Greedy,
        };
        let token = |spelling: &String| {
            let id = spelling.parse().ok().or_else(|| tokenizer.token_id(spelling));
            let id = id.with_context(|| format!("`--stop {spelling}`: expected a token of the vocabulary or an id"))?;
            ensure!((id as usize) < vocabulary, "`--stop {spelling}`: expected an id below {vocabulary}, got {id}");
            Ok(id)
        };
        let stop = stop.iter().map(token).collect::<anyhow::Result<Vec<u32>>>()?;
        Ok(GenerateOptions {
            max_new_tokens: max_new_tokens.unwrap_or(folder.max_new_tokens),
            // The flag counts new tokens and is all that counts, as `max_new_tokens` does in a folder.
            max_length: if max_new_tokens.is_some() { None } else { folder.max_length },
            sampling,
            repetition_penalty: repetition_penalty.unwrap_or(folder.repetition_penalty),
            stop: if stop.is_empty() { folder.stop } else { stop },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> TextTokenizer {
        let files = switchable_quant::default_model::FILES;
        TextTokenizer::from_bytes(files.tokenizer, "<built-in>").expect("a tokenizer")
    }

    fn options(arguments: &GenerationArgs, folder: GenerateOptions) -> anyhow::Result<GenerateOptions> {
        let tokenizer = tokenizer();
        arguments.options(folder, &tokenizer, tokenizer.vocab_size())
    }

    #[test]
    fn without_flags_the_options_are_the_folders() {
        let draws = DrawOptions { temperature: 0.6, top_k: Some(50), top_p: Some(0.9), seed: 0 };
        let folder = GenerateOptions {
            max_new_tokens: 7,
            max_length: Some(9),
            sampling: Sampling::Draws(draws),
            repetition_penalty: 1.2,
            stop: vec![3],
        };
        assert_eq!(options(&GenerationArgs::default(), folder.clone()).unwrap(), folder);
        let flags = GenerationArgs { top_k: Some(4), seed: Some(8), max_new_tokens: Some(2), ..Default::default() };
        let got = options(&flags, folder.clone()).unwrap();
        assert_eq!(got.sampling, Sampling::Draws(DrawOptions { top_k: Some(4), seed: 8, ..draws }));
        assert_eq!((got.max_new_tokens, got.max_length), (2, None));
        let greedy = GenerationArgs { greedy: true, ..Default::default() };
        assert_eq!(options(&greedy, folder).unwrap().sampling, Sampling::Greedy);
    }

    #[test]
    fn a_flag_of_draws_asks_for_draws() {
        let flags = GenerationArgs { temperature: Some(0.5), ..Default::default() };
        let got = options(&flags, GenerateOptions::default()).unwrap();
        assert_eq!(got.sampling, Sampling::Draws(DrawOptions { temperature: 0.5, ..Default::default() }));
        let seed = GenerationArgs { seed: Some(1), ..Default::default() };
        let error = options(&seed, GenerateOptions::default()).unwrap_err().to_string();
        assert!(error.contains("`--seed`"), "{error}");
    }

    #[test]
    fn stop_tokens_are_spelt_or_numbered() {
        let end = tokenizer().token_id("<eos>").expect("the built-in tokenizer has an end");
        let stop = |stop: &[&str]| {
            let stop = stop.iter().map(|&token| token.to_owned()).collect();
            options(&GenerationArgs { stop, ..Default::default() }, GenerateOptions::default())
        };
        assert_eq!(stop(&["<eos>", "7"]).unwrap().stop, [end, 7]);
        for bad in ["no such token", "-1", "999999"] {
            let error = stop(&[bad]).unwrap_err().to_string();
            assert!(error.contains(&format!("`--stop {bad}`")), "{error}");
        }
    }
}
