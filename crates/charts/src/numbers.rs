//! Numbers as a reader expects them on an axis or in a cell.

/// From here on numbers are written with a power of ten.
const LARGE: f64 = 1e6;
const MOST_DECIMALS: usize = 6;
/// Digits after the first of a number with a power of ten.
const MOST_DIGITS: usize = 12;
const SUPERSCRIPTS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];

/// With so many decimals, a true minus sign, and no minus before zero.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.bytes().all(|b| matches!(b, b'0' | b'.')) => digits.to_owned(),
        Some(digits) => format!("−{digits}"),
        None => text,
    }
}

/// Labels of an axis: all with as many decimals as the one that needs most.
pub(crate) fn labels(values: &[f64]) -> Vec<String> {
    let largest = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let is_exact = |decimals: usize| {
        let unit = 10_f64.powi(decimals as i32);
        values.iter().all(|v| ((v * unit).round() / unit - v).abs() <= largest * 1e-9)
    };
    match (0..=MOST_DECIMALS).find(|&d| is_exact(d)) {
        Some(decimals) if largest < LARGE => values.iter().map(|&v| fixed(v, decimals)).collect(),
        _ => {
            let is_exact = |digits: usize| {
                values.iter().all(|v| {
                    let read: Result<f64, _> = format!("{v:.digits$e}").parse();
                    read.is_ok_and(|read| (read - v).abs() <= largest * 1e-11)
                })
            };
            let digits = (0..=MOST_DIGITS).find(|&d| is_exact(d)).unwrap_or(MOST_DIGITS);
            values.iter().map(|&v| scientific(v, digits)).collect()
        }
    }
}

/// Labels of powers of two, by their exponents.
pub(crate) fn powers_of_two(exponents: &[i32]) -> Vec<String> {
    if exponents.iter().all(|e| (-3..20).contains(e)) {
        exponents.iter().map(|&e| 2_f64.powi(e).to_string()).collect()
    } else {
        exponents.iter().map(|&e| format!("2{}", superscript(e))).collect()
    }
}

fn scientific(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let text = format!("{value:.digits$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    format!("{}·10{}", mantissa.replace('-', "−"), superscript(exponent.parse().unwrap_or(0)))
}

fn superscript(exponent: i32) -> String {
    let sign = if exponent < 0 { "⁻" } else { "" };
    let digits = exponent.unsigned_abs().to_string();
    digits.bytes().fold(sign.to_owned(), |mut text, digit| {
        text.push(SUPERSCRIPTS[usize::from(digit - b'0')]);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_no_minus_sign_and_negatives_have_a_true_one() {
        assert_eq!(fixed(-0.04, 1), "0.0");
        assert_eq!(fixed(-1.25, 1), "−1.2");
    }

    #[test]
    fn labels_of_an_axis_share_their_decimals() {
        assert_eq!(labels(&[0.0, 0.5, 1.0]), ["0.0", "0.5", "1.0"]);
        assert_eq!(labels(&[2.0, 3.0, 32.0]), ["2", "3", "32"]);
    }

    #[test]
    fn large_and_tiny_numbers_have_a_power_of_ten() {
        assert_eq!(labels(&[0.0, 2_500_000.0, -5e6]), ["0", "2.5·10⁶", "−5·10⁶"]);
        assert_eq!(labels(&[3e-9]), ["3·10⁻⁹"]);
        assert_eq!(labels(&[1e9, 1e9 + 1.0]), ["1·10⁹", "1.000000001·10⁹"]);
        assert_eq!(powers_of_two(&[0, 5, 21]), ["2⁰", "2⁵", "2²¹"]);
        assert_eq!(powers_of_two(&[-1, 5]), ["0.5", "32"]);
    }
}
