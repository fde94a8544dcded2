//! One token from the scores of all.

use std::collections::HashSet;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::options::{DrawOptions, GenerateOptions, Sampling};
use super::scores::{Candidate, candidates, fault, penalise};

/// Chooses the tokens of one sequence and keeps the state of its draws.
#[derive(Debug, Clone)]
pub(super) struct Chooser {
    penalty: f32,
    /// Tokens that the penalty is for.
    seen: HashSet<u32>,
    draws: Option<(DrawOptions, ChaCha8Rng)>,
}

impl Chooser {
    /// For a prompt, by options that were checked.
    pub(super) fn new(prompt: &[u32], options: &GenerateOptions) -> Self {
        let draws = match options.sampling {
            Sampling::Greedy => None,
            Sampling::Draws(draws) => Some((draws, ChaCha8Rng::seed_from_u64(draws.seed))),
        };
        let is_penalised = (options.repetition_penalty - 1.0).abs() > 0.0;
        let seen = if is_penalised { prompt.iter().copied().collect() } else { HashSet::new() };
        Self { penalty: options.repetition_penalty, seen, draws }
    }

    /// The next token.
    ///
    /// # Errors
    ///
    /// The score from which none can be chosen.
    pub(super) fn choose(&mut self, scores: &mut [f32]) -> Result<u32, f32> {
        let check = |scores: &[f32]| fault(scores).map_or(Ok(()), Err);
        check(scores)?;
        if !self.seen.is_empty() {
            penalise(scores, &self.seen, self.penalty);
            check(scores)?;
        }
        let token = match &mut self.draws {
            None => argmax(scores),
            Some((options, rng)) => draw(&candidates(scores, options), rng),
        };
        if !self.seen.is_empty() {
            self.seen.insert(token);
        }
        Ok(token)
    }
}

/// The first of the largest.
fn argmax(scores: &[f32]) -> u32 {
    scores.iter().enumerate().fold(0, |best, (i, &score)| if score > scores[best] { i } else { best }) as u32
}

fn draw(candidates: &[Candidate], rng: &mut ChaCha8Rng) -> u32 {
    let mut draw = rng.random::<f64>() * candidates.iter().map(|candidate| candidate.weight).sum::<f64>();
    let drawn = candidates.iter().find(|candidate| {
        draw -= candidate.weight;
        draw < 0.0
    });
    // Rounding may leave a bit of the draw behind the last of them.
    let heaviest = || candidates.iter().max_by(|a, b| a.weight.total_cmp(&b.weight));
    drawn.or_else(heaviest).map_or(0, |candidate| candidate.token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing(options: DrawOptions) -> Chooser {
        Chooser::new(&[0], &GenerateOptions { sampling: Sampling::Draws(options), ..Default::default() })
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        let mut chooser = Chooser::new(&[0], &GenerateOptions::default());
        assert_eq!(chooser.choose(&mut [0.0, 2.0, 2.0, 1.0]), Ok(1));
    }

    #[test]
    fn draws_stay_within_the_best_and_follow_their_probabilities() {
        let mut chooser = drawing(DrawOptions { top_k: Some(2), seed: 3, ..Default::default() });
        let mut counts = [0usize; 4];
        for _ in 0..4000 {
            counts[chooser.choose(&mut [0.0, 3f32.ln(), -5.0, -9.0]).unwrap() as usize] += 1;
        }
        assert_eq!(counts[2] + counts[3], 0);
        // 3:1; three standard deviations of 4000 draws are 82.
        assert!((2918..=3082).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn draws_of_a_seed_are_the_same_and_those_of_another_are_not() {
        let draws = |seed| {
            let mut chooser = drawing(DrawOptions { seed, ..Default::default() });
            (0..32).map(|_| chooser.choose(&mut [0.0; 50]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn a_token_is_penalised_from_the_step_after_it_on() {
        let options = GenerateOptions { repetition_penalty: 2.0, ..Default::default() };
        let mut chooser = Chooser::new(&[3], &options);
        let scores = [3.0, 2.0, 1.2, 5.0];
        // 3 is halved, then 0, then 1.
        let tokens = [(); 4].map(|()| chooser.choose(&mut scores.clone()).unwrap());
        assert_eq!(tokens, [0, 3, 3, 3]);
        let mut negative = Chooser::new(&[0], &options);
        assert_eq!(negative.choose(&mut [-1.0, -1.5]), Ok(1), "a score below 0 is multiplied");
    }

    #[test]
    fn scores_that_are_not_numbers_are_an_error_and_hidden_tokens_are_not() {
        let [nan, inf] = [f32::NAN, f32::INFINITY];
        for sampling in [Sampling::Greedy, Sampling::Draws(DrawOptions::default())] {
            let mut chooser = Chooser::new(&[1], &GenerateOptions { sampling, ..Default::default() });
            for scores in [[1.0, nan, 0.0], [nan; 3], [inf, 0.0, 1.0], [-inf; 3]] {
                assert!(chooser.choose(&mut scores.clone()).is_err(), "{scores:?} by {sampling:?}");
            }
            assert_eq!(chooser.choose(&mut [-inf, 0.0, -inf]), Ok(1));
        }
        // The penalty itself leads out of the numbers.
        let options = GenerateOptions { repetition_penalty: 1e-38, ..Default::default() };
        assert_eq!(Chooser::new(&[0], &options).choose(&mut [1e10, 0.0]), Err(inf));
    }

    #[test]
    fn the_lowest_temperature_draws_the_best() {
        let options = DrawOptions { temperature: f32::MIN_POSITIVE, seed: 5, ..Default::default() };
        assert_eq!(drawing(options).choose(&mut [1.0, 1.000_001, -3.0]), Ok(1));
    }
}
