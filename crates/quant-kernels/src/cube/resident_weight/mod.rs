//! Packed weights that stay on a device.
//!
//! ```text
//! PackedTensor ── codes, scales, zero points ──→ device        once
//! codes on the device ──→ W [d_in, d_out] ──→ x·W              a kernel each, for every product
//! ```
//!
//! What is kept are b bits a weight; `W` in floats lives as long as the product.

use burn::tensor::{DType, Shape};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};

use crate::{
    cube::{
        DeviceParams,
        unpack::{PackedShape, unpack},
    },
    packed::packed_tensor::PackedTensor,
    spec::granularity::Granularity,
};

/// The codes and scales of packed weights on a device.
#[derive(Debug, Clone)]
struct ResidentWeight<R: CubeRuntime> {
    device: R::Device,
    words: CubeTensor<R>,
    params: DeviceParams<R>,
}

/// The values of packed weights at `kept` bits, which are fewer than the weights' own for nested ones.
///
/// # Shapes
///
/// - output: `[d_in, d_out]`, not empty
pub(crate) fn dequantize_on_device<R: CubeRuntime>(
    weight: &PackedTensor,
    kept: u8,
    device: &R::Device,
    dtype: DType,
) -> CubeTensor<R> {
    let [rows, columns] = weight.shape();
    let group = match weight.granularity() {
        Granularity::PerGroup(group) => group.get(),
        _ => rows,
    };
    let [bits, kept] = [weight.bits().bits(), kept].map(usize::from);
    let ResidentWeight { words, params, .. } = ResidentWeight::of(weight, device);
    unpack(words, params, PackedShape { rows, columns, bits, kept, group }, dtype)
}

impl<R: CubeRuntime> ResidentWeight<R> {
    /// The copy on this device, which the weights keep.
    fn of(weight: &PackedTensor, device: &R::Device) -> Self {
        let copies = weight.device_copies();
        copies.get_or_make(|copy: &Self| copy.device == *device, || Self::upload(weight, device))
    }

    fn upload(weight: &PackedTensor, device: &R::Device) -> Self {
        let client = R::client(device);
        let tensor = |bytes: &[u8], shape: Shape, dtype| {
            let handle = client.create_from_slice(bytes);
            CubeTensor::new_contiguous(client.clone(), device.clone(), shape, handle, dtype)
        };
        let floats = |values: &[f32]| tensor(bytemuck::cast_slice(values), [values.len()].into(), DType::F32);
        let zero_points: Vec<f32> = weight.zero_points().iter().copied().map(f32::from).collect();
        Self {
            device: device.clone(),
            words: tensor(weight.codes(), [weight.codes().len() / 4].into(), DType::U32),
            params: DeviceParams {
                scale: floats(&weight.scales()),
                zero_point: (!zero_points.is_empty()).then(|| floats(&zero_points)),
            },
        }
    }
}

#[cfg(test)]
mod tests;
