//! Models that are written as GGUF and read again.

use llama_model::Llama;
use llama_model::config::LlamaConfig;
use llama_model::rotary::scaling::RopeScaling;
use switchable_lora::adapter_pair::LoraAdapterPair;
use switchable_lora::placement::Placement;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::gguf::export::{MatrixFloats, WhyFloats, WrittenTensor, export_model};
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;
use switchable_model::site_plan::SitePlan;

use crate::support::{
    Folder, LANGUAGE_MODELS, Plain, batch_of_one, device, full, largest_difference, load, skip_without_device, values,
    width,
};

type Model = Llama<Plain>;

/// What a model is when it was written and read again.
fn written(model: &Model, plan: &SitePlan, matrices: MatrixFloats) -> (Model, Vec<WrittenTensor>) {
    let (folder, export) = (Folder::empty(), export_model(model, plan, matrices).expect("it is exported"));
    export.writer.write(folder.join("model.gguf")).expect("it is written");
    let read = Llama::load(folder.join("model.gguf"), &ModelOptions::default(), &device()).expect("it is read");
    (read, export.tensors)
}

fn parameters(model: &Model) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let bits = |values: Vec<f32>| values.iter().map(|value| value.to_bits()).collect();
    let all = model.named_parameters().into_iter();
    all.map(|(name, parameter)| (name, parameter.shape(), bits(parameter.values()))).collect()
}

/// Rows of whole blocks, two heads of keys for four of queries, biases, an output matrix of its own.
fn model() -> Model {
    let scaling = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let config = LlamaConfig {
        num_key_value_heads: 2,
        rope_scaling: scaling,
        attention_bias: true,
        initializer_range: 0.3,
        max_position_embeddings: 64,
        ..LlamaConfig::new(96, 64, 2, 4)
    };
    Llama::random(&config, &ModelOptions::default(), 3, &device()).expect("a model")
}

fn logits(model: &Model, plan: &SitePlan) -> Vec<f32> {
    let ids = batch_of_one(&[1, 5, 90, 7, 33, 2, 8, 64]);
    values(model.next_token_scores(model.forward(ids, None, plan), plan))
}

#[test]
fn floats_are_those_of_the_folder_to_the_bit() {
    skip_without_device!();
    for case in LANGUAGE_MODELS {
        let model = load::<Plain>(case);
        if matches!(model.config().rope_scaling, RopeScaling::Llama3 { .. }) {
            // Of other numbers than any published Llama: a file would not say which.
            let message = export_model(&model, &full(&model), MatrixFloats::F32).unwrap_err().to_string();
            assert!(message.contains("field `rope_scaling` is"), "{message}");
            continue;
        }
        let (read, tensors) = written(&model, &full(&model), MatrixFloats::F32);
        assert_eq!(parameters(&read), parameters(&model), "{case}");
        assert!(tensors.iter().all(|tensor| tensor.block_type.name() == "F32"));
        let got = read.config().clone();
        assert!((got.rms_norm_eps - model.config().rms_norm_eps).abs() < 1e-12);
        let LlamaConfig { rms_norm_eps, initializer_range, kept, rope_scaling, .. } = got.clone();
        assert_eq!(got, LlamaConfig { rms_norm_eps, initializer_range, kept, rope_scaling, ..model.config().clone() });
    }
    let model = model();
    let (read, _) = written(&model, &full(&model), MatrixFloats::F32);
    assert_eq!((parameters(&read), read.config().rope_scaling), (parameters(&model), model.config().rope_scaling));
}

#[test]
fn every_grid_that_a_type_has_is_read_back_within_the_rounding_of_its_scales() {
    skip_without_device!();
    let model = model();
    for (bits, quantizer, expected) in [
        (4, "per-group:32,symmetric,min-max", "Q4_0"),
        (4, "per-group:32,asymmetric,min-max", "Q4_1"),
        (8, "per-group:32,symmetric,min-max", "Q8_0"),
        (5, "per-channel,symmetric,mse", "Q5_0"),
        (5, "per-group:64,asymmetric,min-max", "Q5_1"),
        (3, "per-channel,symmetric,mse", "Q4_0"),
        (2, "per-tensor,asymmetric,min-max", "Q4_1"),
    ] {
        let precision = SitePrecision::FULL.with_weights(width(bits)).with_quantizer(quantizer.parse().unwrap());
        let plan = model.uniform_plan(precision).with_embedding_bits(width(8));
        let (read, tensors) = written(&model, &plan, MatrixFloats::F16);
        let is_linear = |tensor: &&WrittenTensor| tensor.site.as_deref().is_some_and(|site| site.starts_with("layers"));
        let linear: Vec<&WrittenTensor> = tensors.iter().filter(is_linear).collect();
        assert_eq!(linear.len(), 14);
        assert!(linear.iter().all(|tensor| tensor.block_type.name() == expected && tensor.why_floats.is_none()));
        for site in model.sites().iter() {
            let exact = values(model.site(site).effective_weight(&plan.get(site)).unwrap());
            let got = values(read.site(site).weight());
            let largest = exact.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            for (got, exact) in got.iter().zip(&exact) {
                // A minimum is no larger than the largest weight.
                let minimum = if quantizer.contains("asymmetric") { largest } else { 0.0 };
                let bound = 2f32.powi(-11) * (exact.abs() + minimum) * 1.001;
                assert!((got - exact).abs() <= bound, "{got}, {exact} at {bits} bits {quantizer}");
            }
        }
        let (got, exact) = (logits(&read, &full(&read)), logits(&model, &plan));
        let largest = exact.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let difference = largest_difference(&got, &exact);
        // The bound of a weight, through two blocks.
        assert!(difference < 2e-2 * largest, "{difference} of {largest} at {bits} bits {quantizer}");
    }
}

#[test]
fn merged_adapters_are_in_the_codes_and_others_in_floats() {
    skip_without_device!();
    let mut model = model();
    for site in model.sites().clone().iter() {
        let layer = model.site_mut(site);
        let (weight, [d_in, d_out]) = (layer.weight(), [layer.d_in(), layer.d_out()]);
        let (a, b) = (weight.clone().slice([0..d_in, 0..2]), weight.slice([0..2, 0..d_out]));
        layer.insert_adapter(width(4), LoraAdapterPair::from_factors(a, b, 0.5).unwrap()).unwrap();
    }
    let four = SitePrecision::uniform(width(4)).with_quantizer("per-group:32,symmetric,min-max".parse().unwrap());
    for (placement, name) in [(Placement::Merged, "Q4_0"), (Placement::Residual, "F16")] {
        let plan = model.uniform_plan(four.with_placement(placement));
        let (read, tensors) = written(&model, &plan, MatrixFloats::F16);
        for tensor in tensors.iter().filter(|tensor| tensor.name.contains("attn_q.weight")) {
            let why = (placement == Placement::Residual).then_some(WhyFloats::Adapter);
            assert_eq!((tensor.block_type.name(), &tensor.why_floats), (name, &why));
        }
        let (got, exact) = (logits(&read, &full(&read)), logits(&model, &plan));
        let without = logits(&model, &plan.without_adapters());
        let difference = largest_difference(&got, &exact);
        assert!(difference < 0.05 * largest_difference(&without, &exact), "{difference} {placement:?}");
    }
}
