//! The study on a model of another family: what holds for GPT-2 holds for a Llama.

use burn::module::AutodiffModule as _;

use experiments::banks::bank::{BankConfig, train_bank, train_base};
use experiments::running::progress::ShowProgress;
use experiments::search::greedy::{GreedyOptions, GreedyStart, StopAt, greedy_search};
use experiments::search::sensitivity::{Part, SensitivityOptions, sensitivity};
use llama_model::{LlamaConfig, LlamaForQuestionAnswering};
use quant_kernels::BitWidth;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;
use squad_data::{BpeConfig, Split, TextTokenizer, corpus_texts};
use switchable_lora::{BasePolicy, LinearSettings, LoraConfig, SitePrecision};
use switchable_model::config::ModelConfig as _;
use switchable_model::model::SwitchableModel as _;
use switchable_model::options::ModelOptions;
use switchable_model::packed::form::{PackOptions, PackedForm};

use crate::support::{Training, device, questions, quiet, skip_without_device, train_config, training};

/// Two query heads share a key and value head; seven sites in each of two blocks.
fn start(task_tokenizer: &TextTokenizer) -> (LlamaConfig, LlamaForQuestionAnswering<Training>) {
    let config = LlamaConfig {
        max_position_embeddings: 256,
        num_key_value_heads: 1,
        intermediate_size: 40,
        initializer_range: 0.2,
        tie_word_embeddings: true,
        ..LlamaConfig::new(task_tokenizer.vocab_size(), 16, 2, 2)
    };
    let linear = LinearSettings { base: BasePolicy::Trainable, ..LinearSettings::default() };
    let options = ModelOptions { linear, ..ModelOptions::default() };
    let model = LlamaForQuestionAnswering::random(&config, &options, 5, &device()).expect("valid input");
    (config, model)
}

#[test]
fn a_llama_is_trained_searched_given_a_bank_evaluated_and_packed() {
    skip_without_device!();
    let device = device();
    let dataset = questions(Split::Train, 4);
    let bpe = BpeConfig { vocab_size: 600, ..BpeConfig::default() };
    let tokenizer = TextTokenizer::train_bpe(corpus_texts(&dataset), &bpe).expect("valid input");
    let (config, model) = start(&tokenizer);
    let task = ReadingTask::new(dataset, &tokenizer, &config, None).expect("valid input");

    let (trained, outcome) = train_base(model, &task, training(&train_config(150), &quiet(2))).expect("it trains");
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&outcome.losses[140..]) < 0.5 * mean(&outcome.losses[..10]), "{:?}", outcome.losses);

    // Search: every site alone, then one after another until the sites have 10 bits on average.
    let low = SitePrecision::uniform(BitWidth::B2).without_adapter();
    let plain = trained.valid();
    let full = plain.transformer.uniform_plan(SitePrecision::FULL);
    let evaluator = Evaluator::new(&plain, &task, EvaluateOptions::default(), &device).expect("it fits");
    let how = SensitivityOptions { show: ShowProgress::No, ..SensitivityOptions::new(Part::Site, low) };
    let (sites, kept) = sensitivity(&evaluator, &full, &how).expect("effects");
    let names: Vec<&str> = sites.effects.iter().map(|effect| effect.name.as_str()).collect();
    assert_eq!(names.len(), config.sites().len());
    assert_eq!((names[0], names[13]), ("layers.0.self_attn.q_proj", "layers.1.mlp.down_proj"));
    assert!(sites.effects.iter().any(|effect| effect.accuracy.loss != sites.reference.loss));

    let options =
        GreedyOptions { stop_at: StopAt::AverageBits(10.0), show: ShowProgress::No, ..GreedyOptions::new(low) };
    let start = GreedyStart { reference: &full, sensitivity: &sites, kept };
    let (found, plan) = greedy_search(&evaluator, start, &options).expect("a plan");
    assert!(plan.average_weight_bits() <= 10.0 && !found.flipped.is_empty());
    let whole = evaluator.evaluate(&plan).expect("it runs");
    assert_eq!(whole.loss.map(f64::to_bits), found.accuracy.loss.map(f64::to_bits));
    assert_eq!(whole.exact_match.to_bits(), found.accuracy.exact_match.to_bits());

    // The same plan from codes.
    let packed = plain.clone().pack(PackedForm::Plan(&plan), &PackOptions::default()).expect("it packs");
    let packed = Evaluator::new(&packed, &task, EvaluateOptions::default(), &device).expect("it fits");
    let from_codes = packed.evaluate(&plan).expect("it runs").loss.expect("gold spans");
    let simulated = whole.loss.expect("gold spans");
    assert!((from_codes / simulated - 1.0).abs() < 1e-5, "{from_codes} from codes, {simulated} simulated");

    // A bank of two widths, each trained for a step.
    let widths = [BitWidth::B4, BitWidth::B2];
    let bank = BankConfig::new(&widths, LoraConfig::new(2, 4.0).expect("a configuration"), 1);
    let (banked, outcome) =
        train_bank(trained, &task, &bank, training(&train_config(2), &quiet(1))).expect("it trains");
    assert_eq!(outcome.losses.len(), 2);
    let banked = banked.valid();
    let evaluator = Evaluator::new(&banked, &task, EvaluateOptions::default(), &device).expect("it fits");
    for width in widths {
        let [with, without] = [bank.precision(width), bank.precision(width).without_adapter()]
            .map(|precision| evaluator.evaluate(&banked.transformer.uniform_plan(precision)).expect("it runs"));
        assert_ne!(with.loss.map(f64::to_bits), without.loss.map(f64::to_bits), "{width} bits have no adapter");
    }
}
