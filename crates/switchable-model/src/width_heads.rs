//! Span heads that adapters bring with them.
//!
//! ```text
//! head(plan) = as the plan says     where it does
//!              head of b            where the plan asks for adapters of one width b alone, and b has a head
//!              base head            where none of the plan's adapters has a head
//!              as the model says    where the plan's adapters have different heads
//! ```
//!
//! PEFT trains the head of a question-answering model beside the adapter (`modules_to_save`) and keeps it in
//! the adapter's folder. It reads what the body computes with that adapter: switching widths switches heads.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Tensor, TensorData, backend::Backend};

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::peft::saved_module::SavedModule;

pub use switchable_lora::head_choice::HeadChoice;

use crate::error::{Error, Result};
use crate::site_plan::SitePlan;

/// The module's name in the files of `transformers` and PEFT.
pub(crate) const HEAD_MODULE: &str = "qa_outputs";

/// One span head.
#[derive(Module, Debug)]
pub struct SpanHead<B: Backend> {
    /// `[2, width]`.
    pub weight: Param<Tensor<B, 2>>,
    /// `[2]`.
    pub bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> SpanHead<B> {
    pub(crate) fn new(weight: TensorData, bias: TensorData, device: &B::Device) -> Self {
        Self {
            weight: Param::initialized(ParamId::new(), Tensor::from_data(weight, device).require_grad()),
            bias: Param::initialized(ParamId::new(), Tensor::from_data(bias, device).require_grad()),
        }
    }

    pub(crate) fn with_gradients(self, train: bool) -> Self {
        Self { weight: self.weight.set_require_grad(train), bias: self.bias.set_require_grad(train) }
    }

    /// The head as the files of an adapter hold it.
    pub(crate) fn to_saved_module(&self) -> SavedModule {
        let (weight, bias) = (self.weight.val().into_data(), self.bias.val().into_data());
        SavedModule { name: HEAD_MODULE.into(), weight: weight.convert::<f32>(), bias: bias.convert::<f32>() }
    }
}

/// The heads that came with adapters, at most one for each width.
///
/// A record of it holds the widths too, and decides which heads there are after it is loaded.
#[derive(Debug, Clone)]
pub(crate) struct WidthHeads<B: Backend> {
    /// In the order of `widths`.
    pub(crate) heads: Vec<SpanHead<B>>,
    /// In rising order.
    pub(crate) widths: Vec<BitWidth>,
    /// Whether the heads record gradients.
    pub(crate) trained: bool,
}

impl<B: Backend> WidthHeads<B> {
    pub(crate) fn none() -> Self {
        Self { heads: Vec::new(), widths: Vec::new(), trained: true }
    }

    pub(crate) fn widths(&self) -> &[BitWidth] {
        &self.widths
    }

    pub(crate) fn get(&self, width: BitWidth) -> Option<&SpanHead<B>> {
        self.widths.binary_search(&width).ok().map(|index| &self.heads[index])
    }

    /// Sets the head of a width.
    pub(crate) fn insert(&mut self, width: BitWidth, head: SpanHead<B>) {
        let head = head.with_gradients(self.trained);
        match self.widths.binary_search(&width) {
            Ok(index) => self.heads[index] = head,
            Err(index) => {
                self.widths.insert(index, width);
                self.heads.insert(index, head);
            }
        }
    }

    /// Takes the head of a width out.
    pub(crate) fn remove(&mut self, width: BitWidth) -> Option<SpanHead<B>> {
        let index = self.widths.binary_search(&width).ok()?;
        self.widths.remove(index);
        Some(self.heads.remove(index))
    }

    /// The same without a head.
    pub(crate) fn cleared(self) -> Self {
        Self { trained: self.trained, ..Self::none() }
    }

    pub(crate) fn with_gradients(self, train: bool) -> Self {
        let heads = self.heads.into_iter().map(|head| head.with_gradients(train)).collect();
        Self { heads, trained: train, ..self }
    }

    /// The head of a plan; `mixed` says which where its adapters have different ones and the plan does not say.
    ///
    /// # Errors
    ///
    /// When they have and neither says, or one that there is not.
    pub(crate) fn choose(&self, plan: &SitePlan, mixed: Option<HeadChoice>) -> Result<HeadChoice> {
        match (plan.span_head(), self.of_adapters(plan), mixed) {
            (Some(said), ..) => self.there(said),
            (None, Ok(head), _) => Ok(head),
            (None, Err(_), Some(mixed)) => self.there(mixed),
            (None, Err(error), None) => Err(error),
        }
    }

    /// The head that follows from a plan's adapters.
    ///
    /// # Errors
    ///
    /// When they have different ones.
    pub(crate) fn of_adapters(&self, plan: &SitePlan) -> Result<HeadChoice> {
        let own = |width: BitWidth| if self.get(width).is_some() { HeadChoice::Width(width) } else { HeadChoice::Base };
        let mut choices: Vec<HeadChoice> = plan.adapter_widths().into_iter().map(own).collect();
        choices.dedup();
        match choices.first() {
            None => Ok(HeadChoice::Base),
            Some(&first) if choices.iter().all(|&choice| choice == first) => Ok(first),
            Some(_) => {
                let heads = choices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                Err(Error::SeveralSpanHeads { heads })
            }
        }
    }

    fn there(&self, choice: HeadChoice) -> Result<HeadChoice> {
        match choice {
            HeadChoice::Width(bits) if self.get(bits).is_none() => {
                Err(Error::NoHeadOfWidth { bits, available: self.widths.clone() })
            }
            choice => Ok(choice),
        }
    }
}
