//! Rotations of what enters the matrices of GPT-2 small, by the kernel and by a product with the matrix itself.

use switchable_quant::burn::tensor::Tensor;
use switchable_quant::kernels::{
    HadamardTransform, QuantBackend, Rotation, rotation::hadamard::Direction, tensor::rotation::rotate,
};

use crate::answer::{assert_close, finish, matrix};
use crate::case::{Case, Unit};

const SHAPES: [[usize; 2]; 4] = [[1, 768], [1, 3072], [1024, 768], [1024, 3072]];

pub(crate) fn cases<B: QuantBackend>(device: &B::Device) -> Vec<Case> {
    [Way::Kernel, Way::Product].into_iter().flat_map(|way| SHAPES.map(|shape| case::<B>(way, shape, device))).collect()
}

#[derive(Clone, Copy)]
enum Way {
    Kernel,
    Product,
}

/// Both give the same, and the length of each row stays.
fn case<B: QuantBackend>(way: Way, shape: [usize; 2], device: &B::Device) -> Case {
    let [rows, width] = shape;
    let id = match way {
        Way::Kernel => format!("rotation/hadamard/{rows}x{width}"),
        Way::Product => format!("rotation/hadamard/{rows}x{width}/product"),
    };
    let amount = ((rows * width * size_of::<f32>()) as u64, Unit::Bytes);
    let device = device.clone();
    Case::new(id.clone(), amount, move || {
        let transform = HadamardTransform::of(Rotation::Hadamard(0), width).expect("a rotation");
        let x = matrix::<B>(shape, &device);
        // R itself: the rows of 1 rotated.
        let dense = rotate(Tensor::<B, 2>::eye(width, &device), &transform, Direction::There);
        let by_product = x.clone().matmul(dense.clone());
        let by_kernel = rotate(x.clone(), &transform, Direction::There);
        assert_close(&by_kernel, &by_product, 1e-5, &id);
        move || match way {
            Way::Kernel => finish::<B>(rotate(x.clone(), &transform, Direction::There), &device),
            Way::Product => finish::<B>(x.clone().matmul(dense.clone()), &device),
        }
    })
}
