//! Rotations on tensors.

use quant_kernels::{
    HadamardTransform, InputMoments, QuantBackend, Rotation,
    rotation::hadamard::Direction,
    tensor::rotation::{rotate, rotate_inputs},
};

use crate::support::{Other, Plain, Tracked, assert_same_bits, numbers, tensor, values};

const WIDTHS: [usize; 7] = [1, 3, 12, 16, 23, 92, 192];
const WAYS: [Direction; 2] = [Direction::There, Direction::Back];

fn transform(width: usize) -> std::sync::Arc<HadamardTransform> {
    HadamardTransform::of(Rotation::Hadamard(0), width).expect("a rotation")
}

#[test]
fn backends_agree_and_so_do_plain_operations() {
    for width in WIDTHS {
        let (x, transform) = (numbers(2 * 3 * width, 5), transform(width));
        for way in WAYS {
            let of = |x| rotate(x, &transform, way);
            let flex = values(&of(tensor::<Plain, 3>(&x, [2, 3, width])));
            let ndarray = values(&rotate(tensor::<Other, 3>(&x, [2, 3, width]), &transform, way));
            assert_same_bits(&flex, &ndarray, &format!("width {width}, {way:?}"));
            // f64 has no kernel.
            let wide = tensor::<Plain, 3>(&x, [2, 3, width]).cast(burn::tensor::FloatDType::F64);
            let wide: Vec<f64> = of(wide).into_data().to_vec().unwrap();
            let worst = flex.iter().zip(&wide).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-5, "width {width}, {way:?}: {worst}");
        }
    }
}

#[test]
fn any_layout_and_no_rows_at_all() {
    let transform = transform(12);
    let x = numbers(12 * 5, 6);
    let exchanged = tensor::<Plain, 2>(&x, [12, 5]).transpose();
    let copied = tensor::<Plain, 2>(&values(&exchanged), [5, 12]);
    let [exchanged, copied] = [exchanged, copied].map(|x| values(&rotate(x, &transform, Direction::There)));
    assert_same_bits(&exchanged, &copied, "exchanged dimensions");
    let empty = rotate(tensor::<Plain, 2>(&[], [0, 12]), &transform, Direction::There);
    assert_eq!(empty.dims(), [0, 12]);
}

#[test]
fn products_are_those_of_before() {
    fn check<B: QuantBackend>() {
        for width in WIDTHS {
            let transform = transform(width);
            let x = tensor::<B, 2>(&numbers(4 * width, 1), [4, width]);
            let weight = tensor::<B, 2>(&numbers(width * 5, 2), [width, 5]);
            let expected = values(&x.clone().matmul(weight.clone()));
            let there = Direction::There;
            let got = values(&rotate(x, &transform, there).matmul(rotate_inputs(weight, &transform, there)));
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-4, "width {width}: {got}, expected {expected}");
            }
        }
    }
    check::<Plain>();
    check::<Other>();
}

#[test]
fn gradients_are_rotated_back() {
    for way in WAYS {
        let transform = transform(24);
        let x = tensor::<Tracked, 2>(&numbers(48, 3), [2, 24]).require_grad();
        let weights = tensor::<Tracked, 2>(&numbers(48, 4), [2, 24]);
        let gradients = (rotate(x.clone(), &transform, way) * weights.clone()).sum().backward();
        let got = values(&x.grad(&gradients).expect("a gradient"));
        let expected = values(&rotate(weights, &transform, way.reversed()));
        assert_same_bits(&got, &expected, &format!("{way:?}"));
    }
}

#[test]
fn moments_of_rotated_inputs_are_rotated_moments() {
    let (rows, width) = (50, 24);
    let (x, transform) = (numbers(rows * width, 8), transform(width));
    let moments = |x: &[f32]| {
        let mut second = vec![0.0; width * width];
        let (mut mean, mut largest) = (vec![0.0; width], vec![0f32; width]);
        for row in x.chunks(width) {
            for i in 0..width {
                (0..width).for_each(|j| second[i * width + j] += row[i] * row[j] / rows as f32);
                mean[i] += row[i] / rows as f32;
                largest[i] = largest[i].max(row[i].abs());
            }
        }
        InputMoments::new(second, mean, largest, rows as u64).expect("finite")
    };
    let (got, expected) = (moments(&x).rotated(&transform).expect("finite"), moments(&transform.rotated(&x)));
    for (got, expected) in [(got.second(), expected.second()), (got.mean(), expected.mean())] {
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-5, "{got}, expected {expected}");
        }
    }
    assert!(got.largest().iter().zip(expected.largest()).all(|(bound, largest)| bound >= largest));
    assert_eq!(got.rows(), 50);
}

#[test]
#[should_panic(expected = "do not end in 12")]
fn rows_of_another_width_are_refused() {
    rotate(tensor::<Plain, 2>(&[0.0; 26], [2, 13]), &transform(12), Direction::There);
}
