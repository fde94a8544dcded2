//! Span heads that adapters bring with them.
//!
//! ```text
//! head(plan) = head of b    where the plan asks for adapters of one width b alone, and b has a head
//!              base head    where none of the plan's adapters has a head
//!              as said      where the plan's adapters have different heads
//! ```
//!
//! PEFT trains the head of a question-answering model beside the adapter (`modules_to_save`) and keeps it in
//! the adapter's folder. It reads what the body computes with that adapter: switching widths switches heads.

use std::fmt;
use std::str::FromStr;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Tensor, TensorData, backend::Backend};

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::peft::saved_module::SavedModule;

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

/// Which head answers under a plan whose adapters have different ones.
///
/// As text, `base` or a number of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadChoice {
    /// The head of the model's own folder.
    Base,
    /// The head that came with the adapters of a width.
    Width(BitWidth),
}

impl FromStr for HeadChoice {
    type Err = quant_kernels::Error;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        if text == "base" { Ok(Self::Base) } else { text.parse().map(Self::Width) }
    }
}

impl fmt::Display for HeadChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => f.write_str("base"),
            Self::Width(bits) => bits.fmt(f),
        }
    }
}

/// The heads that came with adapters, at most one for each width.
#[derive(Module, Debug)]
pub(crate) struct WidthHeads<B: Backend> {
    /// In the order of `widths`.
    heads: Vec<SpanHead<B>>,
    /// In rising order.
    widths: Vec<BitWidth>,
}

impl<B: Backend> WidthHeads<B> {
    pub(crate) fn none() -> Self {
        Self { heads: Vec::new(), widths: Vec::new() }
    }

    pub(crate) fn widths(&self) -> &[BitWidth] {
        &self.widths
    }

    pub(crate) fn get(&self, width: BitWidth) -> Option<&SpanHead<B>> {
        self.widths.binary_search(&width).ok().map(|index| &self.heads[index])
    }

    /// Sets the head of a width, or drops it.
    pub(crate) fn set(&mut self, width: BitWidth, head: Option<SpanHead<B>>) {
        match (self.widths.binary_search(&width), head) {
            (Ok(index), Some(head)) => self.heads[index] = head,
            (Err(index), Some(head)) => {
                self.widths.insert(index, width);
                self.heads.insert(index, head);
            }
            (Ok(index), None) => {
                self.widths.remove(index);
                self.heads.remove(index);
            }
            (Err(_), None) => {}
        }
    }

    pub(crate) fn with_gradients(self, train: bool) -> Self {
        Self { heads: self.heads.into_iter().map(|head| head.with_gradients(train)).collect(), ..self }
    }

    /// The head of a plan; `mixed` says which where its adapters have different ones.
    ///
    /// # Errors
    ///
    /// When they have and `mixed` does not say, or says one that there is not.
    pub(crate) fn choose(&self, plan: &SitePlan, mixed: Option<HeadChoice>) -> Result<HeadChoice> {
        let own = |width: BitWidth| if self.get(width).is_some() { HeadChoice::Width(width) } else { HeadChoice::Base };
        let mut choices: Vec<HeadChoice> = plan.adapter_widths().into_iter().map(own).collect();
        choices.dedup();
        match (choices[..].first(), mixed) {
            (None, _) => Ok(HeadChoice::Base),
            (Some(&first), _) if choices.iter().all(|&choice| choice == first) => Ok(first),
            (_, Some(HeadChoice::Width(bits))) if self.get(bits).is_none() => {
                Err(Error::NoSpanHead { bits, available: self.widths.clone() })
            }
            (_, Some(choice)) => Ok(choice),
            (_, None) => {
                let heads = choices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                Err(Error::SeveralSpanHeads { heads })
            }
        }
    }
}
