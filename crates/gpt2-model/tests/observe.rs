//! The visitor of site inputs: what it sees, and that it changes nothing.

use burn::tensor::Tensor;

use gpt2_model::{BitWidth, Site, SitePrecision, SwitchableModel};

use crate::support::{Fixture, Plain, full, load, skip_without_device, values};

#[test]
fn a_visitor_sees_the_input_of_every_site_in_order_and_changes_nothing() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let (fixture, four) = (Fixture::open("tiny"), SitePrecision::FULL.with_weights(BitWidth::B4));
    let ids = fixture.batch::<Plain>("input_ids");
    let [batch, tokens] = ids.dims();
    for padding in [None, Some(fixture.padding::<Plain>("attention_mask"))] {
        let plan = full(&model).with_block(1, four);
        let mut seen: Vec<(Site, [usize; 2])> = Vec::new();
        let mut visit = |site: Site, input: &Tensor<Plain, 2>| seen.push((site, input.dims()));
        let observed = model.observe(ids.clone(), padding.as_ref(), &plan, &mut visit);
        assert_eq!(values(observed), values(model.forward(ids.clone(), padding.as_ref(), &plan)));
        let sites = model.sites();
        let expected: Vec<_> = sites.iter().map(|site| (site, [batch * tokens, sites.shape(site)[0]])).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn what_a_visitor_sees_is_what_the_layer_multiplies() {
    skip_without_device!();
    let model = load::<Plain>("tiny");
    let ids = Fixture::open("tiny").batch::<Plain>("input_ids");
    let mut inputs = Vec::new();
    let mut visit = |_: Site, input: &Tensor<Plain, 2>| inputs.push(input.clone());
    model.observe(ids.clone(), None, &full(&model), &mut visit);
    // The first site reads the normalised embedding.
    let embedded = model.h[0].ln_1.forward(model.embed(ids, None, &full(&model)));
    let [batch, tokens, d] = embedded.dims();
    assert_eq!(values(inputs[0].clone()), values(embedded.reshape([batch * tokens, d])));
}
