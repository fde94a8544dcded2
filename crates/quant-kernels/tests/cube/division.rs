//! Whether a device divides as IEEE 754 says, on which the equality of all else rests.

use burn::tensor::Tensor;
use burn_cubecl::CubeRuntime;

use crate::{Gpu, devices::on_every_gpu};

fn quotients_are_rounded_correctly<R: CubeRuntime>(device: &R::Device) {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mantissa = (state >> 41) as u32;
        let exponent = 100 + (state >> 20) as u32 % 50;
        f32::from_bits(exponent << 23 | mantissa)
    };
    let count = 1 << 20;
    let [x, y] = [(); 2].map(|()| (0..count).map(|_| next()).collect::<Vec<f32>>());
    let [of_x, of_y] = [&x, &y].map(|values| Tensor::<Gpu<R>, 1>::from_floats(values.as_slice(), device));
    let quotients = (of_x / of_y).into_data().to_vec::<f32>().unwrap();
    let wrong = (0..count).filter(|&index| quotients[index].to_bits() != (x[index] / y[index]).to_bits()).count();
    println!("{wrong} of {count} quotients differ from those of IEEE 754");
    assert_eq!(wrong, 0);
}

#[test]
fn the_device_divides_as_the_cpu_does() {
    on_every_gpu!(quotients_are_rounded_correctly);
}
