//! Records of models whose adapters came with heads.

use burn::module::Module;
use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Recorder as _};
use burn::tensor::Tensor;

use gpt2_model::{
    BitWidth, Gpt2ForQuestionAnswering, MissingHead, ModelOptions, QuantBackend, SitePrecision, SwitchableModel,
};
use switchable_lora::{head_choice::HeadChoice, linear_settings::BasePolicy};
use test_support::panics::assert_panics;

use crate::support::{Fixture, Plain, Train, assert_close, golden, skip_without_device, values};

type Bytes = NamedMpkBytesRecorder<FullPrecisionSettings>;

fn without_head<B: QuantBackend>() -> Gpt2ForQuestionAnswering<B> {
    let (dir, options) = (golden("tiny_qa"), ModelOptions::default());
    Gpt2ForQuestionAnswering::load(dir, &options, MissingHead::Refuse, &B::Device::default())
        .expect("a golden folder loads")
}

fn with_head<B: QuantBackend>(width: BitWidth) -> Gpt2ForQuestionAnswering<B> {
    let mut model = without_head();
    _ = model.load_adapter(golden("peft_qa/adapter"), width).expect("PEFT's adapter loads");
    model
}

/// What a model is after it has loaded the record of another one, by way of a file's bytes.
fn loaded<B: QuantBackend>(
    model: Gpt2ForQuestionAnswering<B>,
    of: Gpt2ForQuestionAnswering<B>,
) -> Gpt2ForQuestionAnswering<B> {
    let bytes = Bytes::default().record(of.into_record(), ()).expect("it is written");
    model.load_record(Bytes::default().load(bytes, &B::Device::default()).expect("it is read"))
}

/// The start scores under the adapter of a width, where it has one.
fn starts(model: &Gpt2ForQuestionAnswering<Plain>, width: BitWidth) -> Vec<f32> {
    let body = &model.transformer;
    let sites = body.sites().clone();
    let plan = sites
        .iter()
        .filter(|site| body.site(*site).bank().get(width).is_some())
        .fold(body.uniform_plan(SitePrecision::FULL), |plan, site| {
            plan.with(site, SitePrecision::FULL.with_adapter(width))
        });
    values(model.forward(Fixture::open("peft_qa").batch("input_ids"), None, &plan).start)
}

#[test]
fn a_record_says_which_widths_have_heads() {
    skip_without_device!();
    let expected = starts(&with_head(BitWidth::B8), BitWidth::B8);
    for model in [without_head(), with_head(BitWidth::B4), with_head(BitWidth::B8)] {
        let loaded = loaded::<Plain>(model, with_head(BitWidth::B8));
        assert_eq!(loaded.head_widths(), [BitWidth::B8]);
        // Equal factors may lie in memory in another order, in which products are summed.
        assert_close("start", &starts(&loaded, BitWidth::B8), &expected, 1e-5);
        let head = |model: &Gpt2ForQuestionAnswering<Plain>| {
            let head = model.width_head(BitWidth::B8).expect("listed").clone();
            (values(head.weight.val()), values(head.bias.val()))
        };
        assert_eq!(head(&loaded), head(&with_head(BitWidth::B8)));
    }
    let none = loaded::<Plain>(with_head(BitWidth::B8), without_head());
    assert!(
        none.head_widths().is_empty()
            && none.transformer.sites().iter().all(|site| { none.transformer.site(site).bank().is_empty() })
    );
}

#[test]
fn heads_of_a_record_are_trained_where_the_base_is() {
    skip_without_device!();
    for (policy, trained) in [(BasePolicy::Frozen, false), (BasePolicy::Trainable, true)] {
        let model = without_head::<Train>().with_policy(policy);
        let loaded = loaded(model, with_head(BitWidth::B8));
        let head = loaded.width_head(BitWidth::B8).expect("it came with the record");
        assert_eq!([head.weight.is_require_grad(), head.bias.is_require_grad()], [trained; 2]);
    }
}

#[test]
fn a_record_that_does_not_say_whose_its_heads_are_is_refused() {
    skip_without_device!();
    let record = || {
        let mut record = with_head::<Plain>(BitWidth::B8).into_record();
        record.width_heads.as_mut().expect("there is a head").widths = None;
        record
    };
    assert_panics("record of 1 span heads without their widths", || {
        drop(with_head::<Plain>(BitWidth::B4).load_record(record()));
    });
}

#[test]
fn a_plan_without_a_head_is_refused_before_anything_is_computed() {
    skip_without_device!();
    let model = with_head::<Plain>(BitWidth::B8);
    let bits = SitePrecision::uniform(BitWidth::B8).without_adapter();
    let plan = model.transformer.uniform_plan(bits).with_span_head(Some(HeadChoice::Width(BitWidth::B4)));
    let ids = || Fixture::open("peft_qa").batch::<Plain>("input_ids");
    let looked_up = || model.transformer.quantized_cache().expect("there are sites").statistics();
    assert_panics("no span head of 4 bits, available: base, 8", || drop(model.forward(ids(), None, &plan)));
    assert_eq!((looked_up().hits, looked_up().misses), (0, 0));
    let hidden = Tensor::<Plain, 3>::zeros([1, 2, 5], &model.transformer.device());
    let plan = plan.with_span_head(None);
    assert_panics("hidden states of width 5", || drop(model.span_logits(hidden.clone(), &plan)));
    assert_panics("hidden states of width 5", || drop(model.transformer.next_token_scores(hidden.clone(), &plan)));
    drop(model.forward(ids(), None, &plan));
    assert_ne!(looked_up().misses, 0);
}
