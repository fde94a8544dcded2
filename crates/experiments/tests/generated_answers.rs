//! Questions that a language model answers in words: evaluation, search, estimates and training.

use std::sync::LazyLock;

use burn::module::AutodiffModule as _;
use burn::tensor::{Int, Tensor, TensorData};

use experiments::banks::bank::{BankConfig, train_bank, train_base};
use experiments::running::progress::ShowProgress;
use experiments::search::allocation::damage::{DamageMeasure, DamageOptions, DamageTable, measure_damage};
use experiments::search::estimates::estimate_damage;
use experiments::search::greedy::{
    GreedyOptions, GreedyResult, GreedyStart, Ranking, StopAt, TrialLength, greedy_search,
};
use experiments::search::sensitivity::{Part, SensitivityOptions, sensitivity};
use experiments::train::config::TrainConfig;
use gpt2_model::{Gpt2, Gpt2Config, Gpt2ForQuestionAnswering};
use llama_model::{LlamaConfig, LlamaForQuestionAnswering};
use quant_kernels::BitWidth;
use quant_kernels::spec::granularity::Granularity;
use quant_kernels::spec::quant_spec::QuantSpec;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::prompt_task::{PromptOptions, PromptTask};
use span_reader::running::workers::Workers;
use squad_data::{
    BpeConfig, Dataset, Example, Format, PromptTemplate, SpecialTokens, Split, TextTokenizer, corpus_texts,
};
use switchable_lora::linear_settings::LinearSettings;
use switchable_lora::{LoraConfig, SitePrecision};
use switchable_model::config::ModelConfig as _;
use switchable_model::generate::{Generate as _, GenerateOptions};
use switchable_model::loss::answer_loss;
use switchable_model::model::SwitchableModel;
use switchable_model::options::ModelOptions;
use switchable_model::shape::ModelShape;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use crate::support::{Plain, Training, device, questions, quiet, skip_without_device, train_config, training};

const ANSWER_TOKENS: usize = 12;

fn tokenizer() -> TextTokenizer {
    let bpe = BpeConfig { vocab_size: 600, ..BpeConfig::default() };
    TextTokenizer::train_bpe(corpus_texts(&questions(Split::Train, 60)), &bpe).expect("valid input")
}

fn options(shots: &[Example]) -> PromptOptions {
    let template = PromptTemplate::default().with_shots(shots);
    PromptOptions { template, answer_tokens: ANSWER_TOKENS, window: None }
}

fn prompts(dataset: Dataset, tokenizer: &TextTokenizer, shape: &ModelShape, shots: &[Example]) -> PromptTask {
    PromptTask::new(dataset, tokenizer, shape, &options(shots)).expect("valid input")
}

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}

fn gpt2_config(tokenizer: &TextTokenizer) -> Gpt2Config {
    Gpt2Config::new(tokenizer.vocab_size(), 512, 16, 3, 2).with_initializer_range(0.3)
}

/// Full precision, keys and values at few bits, weights and activations too.
fn plans<M: SwitchableModel<Plain>>(model: &M) -> Vec<SitePlan> {
    let full = model.uniform_plan(SitePrecision::FULL);
    let w4a8 = SitePrecision::FULL.with_weights(width(4)).with_activations(width(8));
    vec![full.clone(), full.with_kv_cache(width(8)), model.uniform_plan(w4a8).with_kv_cache(width(4))]
}

/// That an evaluation gives what plain generation and a plain pass over the gold answer give.
fn assert_plain<M: SwitchableModel<Plain>>(model: &ForQuestionAnswering<Plain, M>, task: &PromptTask) {
    let (body, tokenizer) = (&model.transformer, tokenizer());
    let stop = vec![SpecialTokens::of(&tokenizer).expect("it has them").end];
    let generate = GenerateOptions { max_new_tokens: ANSWER_TOKENS, stop, ..GenerateOptions::default() };
    for plan in plans(body) {
        let evaluate = |workers: Workers| {
            let options = EvaluateOptions { workers, ..EvaluateOptions::default() };
            Evaluator::new(model, task, options, &device()).expect("valid input").predict(&plan).expect("it answers")
        };
        let (accuracy, predictions) = evaluate(Workers::new(2));
        assert_eq!(evaluate(Workers::new(1)), (accuracy.clone(), predictions.clone()), "workers change nothing");
        let mut losses = 0.0;
        for prompt in task.prompts() {
            let written = body.generate(&prompt.ids, &generate, &plan).expect("it writes");
            let expected = PromptTemplate::default().cut(&tokenizer.decode(&written).expect("it has the tokens"));
            assert_eq!(predictions.get(&prompt.id), Some(expected.as_str()), "{}", prompt.id);

            let text: Vec<i64> = prompt.ids.iter().chain(&prompt.answer).map(|&id| i64::from(id)).collect();
            let tokens = text.len();
            let ids = Tensor::<Plain, 2, Int>::from_data(TensorData::new(text, [1, tokens]), &device());
            let scores = body.next_token_scores(body.forward(ids, None, &plan), &plan).squeeze_dim::<2>(0);
            let behind = scores.narrow(0, prompt.ids.len() - 1, prompt.answer.len());
            losses += f64::from(answer_loss(behind, &prompt.answer).into_scalar());
        }
        let (found, expected) = (accuracy.loss.expect("it has one"), losses / task.prompts().len() as f64);
        // A loss near 0 is the small difference of large scores.
        assert!((found - expected).abs() < 1e-5 * (1.0 + expected), "{found} for {expected}");
        assert_eq!(accuracy.n, task.prompts().len());
    }
}

#[test]
fn answers_are_those_of_greedy_generation_with_and_without_shots() {
    skip_without_device!();
    let tokenizer = tokenizer();
    let dataset = questions(Split::Train, 2).limited(7);
    let others = questions(Split::Dev, 3).examples();
    let config = gpt2_config(&tokenizer);
    let gpt2 = Gpt2ForQuestionAnswering::random(&config, &ModelOptions::default(), 5, &device()).expect("a model");
    let config = LlamaConfig {
        max_position_embeddings: 1024,
        num_key_value_heads: 1,
        intermediate_size: 40,
        initializer_range: 0.3,
        ..LlamaConfig::new(tokenizer.vocab_size(), 16, 2, 2)
    };
    let llama = LlamaForQuestionAnswering::random(&config, &ModelOptions::default(), 5, &device()).expect("a model");
    let alone = prompts(dataset.clone(), &tokenizer, &gpt2.transformer.shape(), &[]);
    let all: usize = alone.prompts().iter().map(|prompt| prompt.ids.len()).sum();
    assert!(3 * alone.tokens() < 2 * all, "{} of {all} tokens are read: paragraphs are shared", alone.tokens());
    for shots in [&[], &others[..1]] {
        assert_plain(&gpt2, &prompts(dataset.clone(), &tokenizer, &gpt2.transformer.shape(), shots));
        assert_plain(&llama, &prompts(dataset.clone(), &tokenizer, &llama.transformer.shape(), shots));
    }
    let one = prompts(dataset.limited(1), &tokenizer, &gpt2.transformer.shape(), &[]);
    assert_plain(&gpt2, &one);
    assert_plain(&gpt2, &prompts(unanswerable(&dataset), &tokenizer, &gpt2.transformer.shape(), &[]));
}

/// The same questions in version 2.0, every other one without an answer.
fn unanswerable(dataset: &Dataset) -> Dataset {
    let mut dataset = Dataset { format: Format::V2, ..dataset.clone() };
    let paragraphs = dataset.articles.iter_mut().flat_map(|article| &mut article.paragraphs);
    for question in paragraphs.flat_map(|paragraph| &mut paragraph.questions).step_by(2) {
        (question.answers, question.is_impossible) = (Vec::new(), true);
    }
    dataset
}

#[test]
fn a_model_learns_to_answer_with_nothing_and_is_scored_by_what_it_writes() {
    skip_without_device!();
    let tokenizer = tokenizer();
    let config = Gpt2Config::new(tokenizer.vocab_size(), 512, 32, 2, 2).with_initializer_range(0.1);
    let model = Gpt2ForQuestionAnswering::<Training>::random(&config, &ModelOptions::default(), 5, &device());
    let dataset = unanswerable(&questions(Split::Train, 1).limited(4));
    let task = prompts(dataset, &tokenizer, &config.shape(), &[]);
    // Alone the tokenizer puts a space before it; behind a prompt there is none.
    let newline = tokenizer.encode_ids("\n").expect("it has the token");
    assert_eq!(task.prompts()[0].answer, newline[newline.len() - 1..], "nothing is the end of the line");
    let config = TrainConfig { batch_size: 4, ..train_config(120) };
    let (trained, _) = train_base(model.expect("a model"), &task, training(&config, &quiet(1))).expect("it trains");
    let plain = trained.valid();
    let full = plain.transformer.uniform_plan(SitePrecision::FULL);
    let (accuracy, predictions) = evaluator(&plain, &task).predict(&full).expect("it answers");
    assert!(accuracy.exact_match > 70.0, "{}", accuracy.exact_match);
    let nothing = task.prompts().iter().filter(|prompt| predictions.get(&prompt.id) == Some("")).count();
    assert!(nothing > 0 && nothing < 4, "{predictions:?}");
    assert_plain(&plain, &task);
}

/// A model that was trained to write the answers of a few questions, and the questions.
static TRAINED: LazyLock<(PromptTask, Gpt2ForQuestionAnswering<Training>)> = LazyLock::new(|| {
    let tokenizer = tokenizer();
    let config = Gpt2Config::new(tokenizer.vocab_size(), 512, 32, 3, 2).with_initializer_range(0.1);
    let model = Gpt2ForQuestionAnswering::<Training>::random(&config, &ModelOptions::default(), 5, &device());
    let model = model.expect("a model");
    let task = prompts(questions(Split::Train, 3).limited(12), &tokenizer, &model.transformer.shape(), &[]);
    let (trained, outcome) = train_base(model, &task, training(&train_config(150), &quiet(2))).expect("it trains");
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&outcome.losses[140..]) < 0.3 * mean(&outcome.losses[..10]), "{:?}", outcome.losses);
    (task, trained)
});

fn evaluator<'a>(
    model: &'a Gpt2ForQuestionAnswering<Plain>,
    task: &'a PromptTask,
) -> Evaluator<'a, Plain, Gpt2<Plain>> {
    let options = EvaluateOptions { workers: Workers::new(2), ..EvaluateOptions::default() };
    Evaluator::new(model, task, options, &device()).expect("valid input")
}

#[test]
fn a_model_learns_to_write_answers_and_a_bank_repairs_few_bits() {
    skip_without_device!();
    let (task, trained) = &*TRAINED;
    let plain = trained.valid();
    let full = plain.transformer.uniform_plan(SitePrecision::FULL);
    let learnt = evaluator(&plain, task).evaluate(&full).expect("it answers");
    assert!(learnt.exact_match > 60.0, "{}", learnt.exact_match);
    // Answers that are gold to their ends, to some token, and not at all.
    assert_plain(&plain, task);

    let bank = BankConfig::new(&[width(2)], LoraConfig::new(4, 8.0).expect("a configuration"), 1);
    let (banked, _) =
        train_bank(trained.clone(), task, &bank, training(&train_config(60), &quiet(2))).expect("it trains");
    let banked = banked.valid();
    let evaluator = evaluator(&banked, task);
    let [with, without] = [bank.precision(width(2)), bank.precision(width(2)).without_adapter()]
        .map(|precision| evaluator.evaluate(&banked.transformer.uniform_plan(precision)).expect("it runs"));
    let [with, without] = [with, without].map(|accuracy| accuracy.loss.expect("it has one"));
    assert!(with < 0.7 * without, "{with} nats with the adapter, {without} without");
}

#[test]
fn a_search_that_gives_trials_up_decides_as_one_that_reads_them_to_their_ends() {
    skip_without_device!();
    let (task, trained) = &*TRAINED;
    let plain = trained.valid();
    let evaluator = evaluator(&plain, task);
    let full = plain.transformer.uniform_plan(SitePrecision::FULL);
    let low = SitePrecision::uniform(width(2)).without_adapter();
    let how = SensitivityOptions { show: ShowProgress::No, ..SensitivityOptions::new(Part::Site, low) };
    let found = |trials: TrialLength| -> (GreedyResult, SitePlan) {
        let (sites, kept) = sensitivity(&evaluator, &full, &how).expect("effects");
        assert!(sites.effects.iter().any(|effect| effect.accuracy.divergence.is_some_and(|nats| nats > 0.0)));
        let options = GreedyOptions {
            stop_at: StopAt::Tolerance(0.2),
            ranking: Ranking::AfterEachFlip,
            trials,
            show: ShowProgress::No,
            ..GreedyOptions::new(low)
        };
        let start = GreedyStart { reference: &full, sensitivity: &sites, kept };
        greedy_search(&evaluator, start, &options).expect("a plan")
    };
    let [(whole, plan), (short, other)] = [TrialLength::Whole, TrialLength::UntilDecided].map(found);
    assert_eq!(plan, other);
    assert_eq!(whole.flipped, short.flipped);
    assert!(!whole.flipped.is_empty() && whole.flipped.len() < 12, "{:?}", whole.flipped);
    let alone = evaluator.evaluate(&plan).expect("it runs");
    assert_eq!(alone.exact_match.to_bits(), whole.accuracy.exact_match.to_bits());
}

#[test]
fn estimated_damage_of_small_changes_is_what_is_measured() {
    skip_without_device!();
    let (task, trained) = &*TRAINED;
    let plain = trained.valid();
    let evaluator = evaluator(&plain, task);
    let full = plain.transformer.uniform_plan(SitePrecision::FULL);
    let at = |bits| SitePrecision::uniform(width(bits)).without_adapter();
    for measure in [DamageMeasure::Divergence, DamageMeasure::Loss] {
        let options = |seed| DamageOptions {
            measure,
            seed,
            show: ShowProgress::No,
            ..DamageOptions::new(vec![SitePrecision::FULL, at(8), at(6), at(4)])
        };
        let measured = measure_damage(&evaluator, &full, &options(0)).expect("it runs");
        let tables: Vec<DamageTable> = (0..16)
            .map(|seed| {
                estimate_damage::<Training, Gpt2<Training>>(&evaluator, &full, &options(seed)).expect("it runs")
            })
            .collect();
        // The second order is the divergence of either measure, where little changes.
        let divergence = |table: &DamageTable, bits: u8| -> Vec<f64> {
            let choices = table.sites.iter().flat_map(|row| &row.choices);
            choices.filter(|c| c.precision.weights.bits() == bits).map(|c| c.divergence).collect()
        };
        let expected: f64 = divergence(&measured, 8).iter().sum();
        let found: f64 = tables.iter().map(|table| divergence(table, 8).iter().sum::<f64>()).sum::<f64>() / 16.0;
        if measure == DamageMeasure::Divergence {
            assert!((0.7..1.4).contains(&(found / expected)), "{found:.3e} for {expected:.3e} nats");
            let validation = measured.validate(&tables[0], &[]).expect("the same cells");
            assert!(validation.all.coefficient > 0.9, "{:?}", validation.all);
        } else {
            let losses = |table: &DamageTable| -> Vec<f64> {
                let choices = table.sites.iter().flat_map(|row| &row.choices);
                choices.filter(|c| c.precision.weights.bits() == 8).map(|c| c.loss.expect("a loss")).collect()
            };
            let pairs = losses(&measured).into_iter().zip(losses(&tables[0]));
            for (site, (expected, found)) in pairs.enumerate() {
                assert!((found - expected).abs() < 2e-3 + 0.3 * expected.abs(), "site {site}: {found} for {expected}");
            }
        }
    }
}

#[test]
fn prompts_that_do_not_fit_and_options_out_of_range_are_refused_by_name() {
    skip_without_device!();
    let tokenizer = tokenizer();
    let shape = Gpt2Config::new(tokenizer.vocab_size(), 200, 16, 1, 2);
    let model = Gpt2ForQuestionAnswering::<Plain>::random(&shape, &ModelOptions::default(), 5, &device());
    let model = model.expect("a model");
    let dataset = questions(Split::Train, 1).limited(2);
    let refused = |dataset: &Dataset, change: &dyn Fn(&mut PromptOptions)| {
        let mut options = options(&[]);
        change(&mut options);
        let made = PromptTask::new(dataset.clone(), &tokenizer, &model.transformer.shape(), &options);
        made.expect_err("it is refused").to_string()
    };
    let none = Dataset { articles: Vec::new(), ..dataset.clone() };
    let long = Example { question: "why ".repeat(300), ..dataset.examples()[0].clone() };
    assert_eq!(refused(&none, &|_| ()), "the data set holds no question");
    let message = refused(&dataset, &|options| options.answer_tokens = 0);
    assert_eq!(message, "`answer_tokens` is 0, expected at least 1 and fewer than the 200 tokens of a window");
    assert!(refused(&dataset, &|options| options.window = Some(12)).starts_with("`answer_tokens` is 12, expected"));
    let message = refused(&dataset, &|options| options.window = Some(201));
    assert_eq!(message, "the window is 201, the model has room for 200");
    let message = refused(&dataset, &|options| {
        options.template = PromptTemplate::default().with_shots(std::slice::from_ref(&long));
    });
    assert!(
        message.starts_with(&format!("question `{}`: expected a prompt of at most 188", dataset.examples()[0].id)),
        "{message}"
    );

    let small = PromptOptions { window: Some(90), ..options(&[]) };
    let cut = PromptTask::new(dataset, &tokenizer, &model.transformer.shape(), &small);
    let cut = cut.expect("the contexts lose their ends");
    assert!(cut.prompts().iter().all(|prompt| prompt.is_cut && prompt.ids.len() <= 78));
    assert!(cut.cut_text().expect("a line").starts_with("2 of 2 prompts hold the start of their context alone, "));

    let activation = QuantSpec::default().with_granularity(Granularity::PerTensor);
    let shared = model.clone().with_linear_settings(LinearSettings { activation, ..LinearSettings::default() });
    let plan = shared.transformer.uniform_plan(SitePrecision::FULL.with_activations(width(8)));
    let evaluator = Evaluator::new(&shared, &cut, EvaluateOptions::default(), &device()).expect("valid input");
    let message = evaluator.evaluate(&plan).expect_err("it is refused").to_string();
    assert!(
        message.starts_with("`activations` is of one scale for many tokens, expected a scale for each"),
        "{message}"
    );
}
