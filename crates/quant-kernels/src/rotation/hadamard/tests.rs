use super::{Direction, HadamardTransform, factors};
use crate::spec::rotation::Rotation;

const WIDTHS: [usize; 14] = [1, 2, 3, 5, 7, 12, 16, 24, 40, 92, 192, 576, 768, 3072];

fn transform(width: usize, seed: u16) -> HadamardTransform {
    HadamardTransform::new(width, seed)
}

/// `R`, in double precision and from its definition.
fn matrix(transform: &HadamardTransform) -> Vec<f64> {
    let (width, [order, power]) = (transform.width(), transform.orders());
    let entry = |index: usize| {
        let (row, column) = (index / width, index % width);
        let block = order * power;
        if row / block != column / block {
            return 0.0;
        }
        let (row_in, column_in) = (row % block, column % block);
        let paley = f64::from(transform.mixing()[row_in / power * order + column_in / power].signum());
        let sylvester =
            if ((row_in % power) & (column_in % power)).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
        f64::from(transform.signs()[row]) * paley * sylvester / (block as f64).sqrt()
    };
    (0..width * width).map(entry).collect()
}

#[test]
fn a_width_is_mixed_whole_where_there_is_a_matrix() {
    let orders = |width| transform(width, 0).orders();
    assert_eq!([1, 2, 64, 4096].map(orders), [[1, 1], [1, 2], [1, 64], [1, 4096]]);
    assert_eq!([192, 768, 3072, 576, 960].map(orders), [[12, 16], [12, 64], [12, 256], [36, 16], [60, 16]]);
    // 43 · 256 has one of order 5504 alone, which would cost more than it saves.
    assert_eq!([1600, 14336, 11008].map(orders), [[200, 8], [28, 512], [1, 256]]);
    // No matrix of Paley's of order 3, 6; 92; 23·2.
    assert_eq!([3, 6, 92, 46].map(orders), [[1, 1], [1, 2], [1, 4], [1, 2]]);
}

#[test]
fn rows_are_multiplied_by_an_orthogonal_matrix() {
    for width in WIDTHS.into_iter().filter(|&width| width <= 768) {
        let transform = transform(width, 3);
        let matrix = matrix(&transform);
        let x: Vec<f32> = (0..2 * width).map(|index| ((index * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
        let rotated = transform.rotated(&x);
        for (row, got) in x.chunks(width).zip(rotated.chunks(width)) {
            for (column, got) in got.iter().enumerate() {
                let products = row.iter().enumerate().map(|(i, x)| f64::from(*x) * matrix[i * width + column]);
                let expected: f64 = products.sum();
                assert!((f64::from(*got) - expected).abs() < 1e-5, "width {width}, column {column}: {got}, {expected}");
            }
        }
        let columns = (0..width).map(|column| (0..width).map(move |row| row * width + column));
        let lengths = columns.map(|column| column.map(|index| matrix[index].powi(2)).sum::<f64>());
        assert!(lengths.into_iter().all(|length| (length - 1.0).abs() < 1e-6), "width {width}");
    }
}

#[test]
fn back_is_where_it_was() {
    for width in WIDTHS {
        let transform = transform(width, 0);
        let x: Vec<f32> = (0..3 * width).map(|index| ((index * 53 + 7) % 211) as f32 / 100.0 - 1.0).collect();
        let back = transform.rotated_back(&transform.rotated(&x));
        let worst = x.iter().zip(&back).map(|(x, back)| (x - back).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-6, "width {width}: {worst}");
    }
}

#[test]
fn what_stands_out_is_spread() {
    let transform = transform(768, 0);
    let mut x = vec![0.01; 768];
    x[100] = 10.0;
    let largest = transform.rotated(&x).into_iter().map(f32::abs).fold(0.0, f32::max);
    assert!(largest < 0.5, "{largest}");
    // A row of equal values is not put into one.
    let largest = transform.rotated(&[1.0; 768]).into_iter().map(f32::abs).fold(0.0, f32::max);
    assert!(largest < 6.0, "{largest}");
}

#[test]
fn seeds_and_widths_have_signs_of_their_own() {
    let signs = |width, seed| transform(width, seed).signs()[..64].to_vec();
    assert_ne!(signs(64, 0), signs(64, 1));
    assert_ne!(signs(64, 0), signs(128, 0));
    let positive = transform(3072, 0).signs().iter().filter(|sign| **sign > 0.0).count();
    assert!((1400..1672).contains(&positive), "{positive}");
}

#[test]
fn no_values_are_no_values() {
    assert_eq!(factors(0), (1, 1, vec![1.0]));
    let empty = transform(0, 0);
    assert!(empty.rotated(&[]).is_empty() && empty.rotated_back(&[]).is_empty());
    assert!(transform(8, 0).rotated(&[]).is_empty());
}

#[test]
fn what_is_not_finite_stays_in_its_row() {
    for width in [16, 24, 768] {
        let mut x = vec![1.0; 2 * width];
        x[3] = f32::NAN;
        let rotated = transform(width, 0).rotated(&x);
        assert!(rotated[..width].iter().all(|value| value.is_nan()), "width {width}");
        assert!(rotated[width..].iter().all(|value| value.is_finite()), "width {width}");
    }
}

#[test]
fn the_same_rotation_is_made_once() {
    let [first, second] = [(); 2].map(|()| HadamardTransform::of(Rotation::Hadamard(9), 48).unwrap());
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    assert_eq!(Direction::There.reversed().reversed(), Direction::There);
}
