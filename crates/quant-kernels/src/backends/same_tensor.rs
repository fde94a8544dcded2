//! Whether tensors are the same numbers.

use burn::tensor::{Tensor, backend::Backend};

/// Whether two tensors hold the same numbers on the same device. Nothing is read where they are seen to share their
/// memory; NaN is then itself, and else no number.
pub fn is_same<B: Backend, const D: usize>(a: &Tensor<B, D>, b: &Tensor<B, D>) -> bool {
    share_memory(a, b)
        || a.dims() == b.dims()
            && a.dtype() == b.dtype()
            && a.device() == b.device()
            && a.clone().equal(b.clone()).all().into_data().iter::<bool>().all(|same| same)
}

/// Whether two tensors are seen to share their memory; those of backends that are not known here never are.
fn share_memory<B: Backend, const D: usize>(a: &Tensor<B, D>, b: &Tensor<B, D>) -> bool {
    #[cfg(feature = "flex")]
    {
        let [a, b] = [a, b].map(|tensor| tensor.clone().into_primitive().tensor());
        match (flex::tensor(&a), flex::tensor(&b)) {
            (Some(a), Some(b)) => {
                a.dtype() == b.dtype() && a.layout() == b.layout() && std::ptr::eq(a.bytes(), b.bytes())
            }
            _ => false,
        }
    }
    #[cfg(not(feature = "flex"))]
    {
        let _ = (a, b);
        false
    }
}

#[cfg(feature = "flex")]
mod flex {
    use std::any::Any;

    use burn::backend::flex::FlexTensor;
    #[cfg(feature = "autodiff")]
    use burn::{
        backend::{Autodiff, Flex},
        tensor::ops::FloatTensor,
    };

    /// A primitive as a tensor of flex, gradients around it or not.
    pub(super) fn tensor<T: 'static>(primitive: &T) -> Option<&FlexTensor> {
        let primitive: &dyn Any = primitive;
        #[cfg(feature = "autodiff")]
        if let Some(tracked) = primitive.downcast_ref::<FloatTensor<Autodiff<Flex>>>() {
            return Some(&tracked.primitive);
        }
        primitive.downcast_ref()
    }
}

#[cfg(all(test, feature = "autodiff", feature = "flex"))]
mod tests {
    use burn::backend::{Autodiff, Flex, NdArray, flex::FlexDevice};

    use super::*;

    fn of<B: Backend>() -> [bool; 4] {
        let device = B::Device::default();
        let a = Tensor::<B, 2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &device);
        let same = Tensor::<B, 2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &device);
        [
            share_memory(&a, &a.clone()),
            share_memory(&a, &a.clone().set_require_grad(false)),
            share_memory(&a, &same),
            share_memory(&a, &a.clone().transpose()),
        ]
    }

    #[test]
    fn clones_share_their_memory_where_it_can_be_seen_and_equals_do_not() {
        assert_eq!(of::<Flex>(), [true, true, false, false]);
        assert_eq!(of::<Autodiff<Flex>>(), [true, true, false, false]);
        assert_eq!(of::<NdArray>(), [false; 4]);
    }

    #[test]
    fn tensors_are_the_same_by_their_numbers_wherever_they_lie() {
        let of = |values: [f32; 2]| Tensor::<Flex, 1>::from_floats(values, &FlexDevice);
        let a = of([1.0, f32::NAN]);
        assert!(is_same(&a, &a.clone()) && is_same(&of([1.0, 2.0]), &of([1.0, 2.0])));
        assert!(!is_same(&of([1.0, 2.0]), &of([1.0, 3.0])) && !is_same(&a, &of([1.0, f32::NAN])));
        assert!(!is_same(&of([1.0, 2.0]), &of([1.0, 2.0]).narrow(0, 0, 1)));
    }
}
