//! Models that are written as GGUF and read again.

use gpt2_model::{Activation, Gpt2, Gpt2Config};
use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::gguf::export::{MatrixFloats, WhyFloats, export_model};
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;

use crate::support::{Folder, Plain, device, full, load, skip_without_device, values};

type Model = Gpt2<Plain>;

fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}

fn random(config: &Gpt2Config) -> Model {
    Gpt2::random(config, &ModelOptions::default(), 3, &device()).expect("a model")
}

fn parameters(model: &Model) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let bits = |values: Vec<f32>| values.iter().map(|value| value.to_bits()).collect();
    let all = model.named_parameters().into_iter();
    all.map(|(name, parameter)| (name, parameter.shape(), bits(parameter.values()))).collect()
}

#[test]
fn floats_are_those_of_the_folder_to_the_bit() {
    skip_without_device!();
    let untied = Gpt2Config { tie_word_embeddings: false, ..Gpt2Config::new(96, 16, 32, 2, 2) };
    for model in [load::<Plain>("tiny"), random(&untied)] {
        let folder = Folder::empty();
        let export = export_model(&model, &full(&model), MatrixFloats::F32).unwrap();
        export.writer.write(folder.join("model.gguf")).unwrap();
        let read = Gpt2::load(folder.join("model.gguf"), &ModelOptions::default(), &device()).unwrap();
        assert_eq!(parameters(&read), parameters(&model));
        assert_eq!(read.config().tie_word_embeddings, model.config().tie_word_embeddings);
    }
}

#[test]
fn each_site_is_of_the_type_that_its_precision_has() {
    skip_without_device!();
    let model = random(&Gpt2Config { n_inner: 72, ..Gpt2Config::new(96, 16, 64, 2, 2) });
    let at = |bits, quantizer: &str| {
        SitePrecision::FULL.with_weights(width(bits)).with_quantizer(quantizer.parse().expect("a quantiser"))
    };
    let sites = model.sites().clone();
    let plan = sites.iter().fold(full(&model), |plan, site| {
        let precision = match site.module.to_string().as_str() {
            "attn.c_attn" => at(8, "per-group:32,symmetric,min-max"),
            "attn.c_proj" => at(8, "per-channel,asymmetric,min-max"),
            "mlp.c_fc" => at(16, "per-channel,symmetric,min-max"),
            _ => at(4, "per-channel,symmetric,min-max"),
        };
        plan.with(site, precision)
    });
    let export = export_model(&model, &plan, MatrixFloats::F16).unwrap();
    let folder = Folder::empty();
    export.writer.write(folder.join("model.gguf")).unwrap();
    let read = Gpt2::<Plain>::load(folder.join("model.gguf"), &ModelOptions::default(), &device()).unwrap();
    for (site, name, why) in [
        ("h.0.attn.c_attn", "Q8_0", None),
        ("h.0.attn.c_proj", "F16", Some(WhyFloats::Grid { bits: width(8), grid: "per-channel,asymmetric".into() })),
        ("h.0.mlp.c_fc", "F16", Some(WhyFloats::Width(width(16)))),
        ("h.0.mlp.c_proj", "F16", Some(WhyFloats::RowLength(72))),
        ("wte", "F16", Some(WhyFloats::Width(width(32)))),
    ] {
        let tensor = export.tensors.iter().find(|tensor| tensor.site.as_deref() == Some(site)).expect(site);
        assert_eq!((tensor.block_type.name(), &tensor.why_floats), (name, &why), "{site}");
        let Some(site) = sites.find(site).filter(|site| site.block.is_some()) else { continue };
        let exact = values(model.site(site).effective_weight(&plan.get(site)).unwrap());
        for (got, exact) in values(read.site(site).weight()).iter().zip(&exact) {
            // Half of the last bit of a normal f16, or of a subnormal one.
            let bound = (exact.abs() * 2f32.powi(-11) * 1.001).max(2f32.powi(-25));
            assert!((got - exact).abs() <= bound, "{got}, {exact} in {}", sites.name(site));
        }
    }
    assert!(
        export.tensors.iter().filter(|tensor| tensor.site.is_none()).all(|tensor| tensor.block_type.name() == "F32")
    );
}

#[test]
fn what_llama_cpp_computes_otherwise_is_refused_by_field() {
    skip_without_device!();
    let config = Gpt2Config::new(96, 16, 32, 1, 2);
    for (config, expected) in [
        (
            config.clone().with_activation(Activation::Gelu),
            "field `activation_function` is \"gelu\", expected \"gelu_new\"",
        ),
        (Gpt2Config { scale_attn_weights: false, ..config.clone() }, "field `scale_attn_weights` is false"),
        (
            Gpt2Config { scale_attn_by_inverse_layer_idx: true, ..config.clone() },
            "field `scale_attn_by_inverse_layer_idx` is true",
        ),
    ] {
        let model = random(&config);
        let message = export_model(&model, &full(&model), MatrixFloats::F16).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}
