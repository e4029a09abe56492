//! Sums along a row, and logarithms that are the same on every machine.
//!
//! Sums run in 16 lanes of float32 over at most 1024 keys, joined by one tree, and from there on in
//! float64. The logarithm is a polynomial, because a library call per weight would cost more than all
//! the rest, and libraries differ in the last bit.

use super::Segments;
use crate::sparsify::kernels::{LANES, tree_sum};

/// Keys that are summed in float32 before float64 takes over.
const PIECE: usize = 1024;

/// Mean of ln(max(x, 2^-126)) in float64; 0 for none.
pub(crate) fn mean_log(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|&value| ln(value.max(f32::MIN_POSITIVE))).sum();
    if values.is_empty() { 0.0 } else { (sum / values.len() as f64) as f32 }
}

/// Mass of each segment of one row; gives the entropy of the row.
pub(super) fn take_sums(weights: &[f32], segments: &Segments, masses: &mut [f32]) -> f32 {
    let mut bits = 0.0;
    for (range, mass) in segments.ranges(weights.len()).zip(masses) {
        let mut sum = 0.0;
        for piece in weights[range].chunks(PIECE) {
            let (piece_sum, piece_bits) = piece_sums(piece);
            sum += f64::from(piece_sum);
            bits += f64::from(piece_bits);
        }
        // Adding 0.0 turns -0.0 into 0.0.
        *mass = sum as f32 + 0.0;
    }
    (-bits * std::f64::consts::LN_2) as f32 + 0.0
}

/// Σ w and Σ w · log2 w over at most [`PIECE`] weights.
fn piece_sums(weights: &[f32]) -> (f32, f32) {
    let (blocks, tail) = weights.as_chunks::<LANES>();
    let (mut sums, mut bits) = ([0.0; LANES], [0.0; LANES]);
    for block in blocks {
        add_block(block, &mut sums, &mut bits);
    }
    if !tail.is_empty() {
        let mut block = [0.0; LANES];
        block[..tail.len()].copy_from_slice(tail);
        add_block(&block, &mut sums, &mut bits);
    }
    (tree_sum(sums), tree_sum(bits))
}

fn add_block(block: &[f32; LANES], sums: &mut [f32; LANES], bits: &mut [f32; LANES]) {
    for lane in 0..LANES {
        let weight = block[lane];
        sums[lane] += weight;
        // What is subnormal adds less than 1e-36, and slow arithmetic.
        let weight = if weight >= f32::MIN_POSITIVE { weight } else { 0.0 };
        bits[lane] += weight * log2(weight);
    }
}

/// log2 of a normal weight within 3e-7 of its value, exactly 0 at 1; finite at 0.
///
/// log2 w = e + log2 m with m in [√½, √2), where log2 m = (m - 1) · P(m - 1): the factor keeps the
/// relative error small around 1. P minimises the largest relative error.
fn log2(weight: f32) -> f32 {
    const P: [f32; 8] = [
        1.442_694_9,
        -0.721_353,
        0.480_929_2,
        -0.360_234_7,
        0.286_954_2,
        -0.248_805_96,
        0.235_044_23,
        -0.147_182_64,
    ];
    let (exponent, mantissa) = split(weight);
    let x = mantissa - 1.0;
    let p = P[7] * x + P[6];
    let p = p * x + P[5];
    let p = p * x + P[4];
    let p = p * x + P[3];
    let p = p * x + P[2];
    let p = p * x + P[1];
    let p = p * x + P[0];
    exponent as f32 + x * p
}

/// Exponent e and mantissa m in [√½, √2) with w = m · 2^e.
fn split(weight: f32) -> (i32, f32) {
    const SQRT_HALF: i32 = std::f32::consts::FRAC_1_SQRT_2.to_bits().cast_signed();
    let bits = weight.to_bits().cast_signed();
    let exponent = bits.wrapping_sub(SQRT_HALF) >> 23;
    (exponent, f32::from_bits(bits.wrapping_sub(exponent << 23).cast_unsigned()))
}

/// ln of a normal weight in float64, by 2 · atanh((m - 1) / (m + 1)): the same on every machine.
fn ln(weight: f32) -> f64 {
    let (exponent, mantissa) = split(weight);
    let mantissa = f64::from(mantissa);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let series = (0..10).rev().fold(0.0, |sum, n| sum * s * s + 1.0 / f64::from(2 * n + 1));
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_within_their_bounds() {
        assert_eq!((log2(1.0).to_bits(), ln(1.0).to_bits()), (0, 0));
        assert!(log2(0.0).is_finite());
        for bits in (0x0080_0000..0x7f80_0000_u32).step_by(997) {
            let weight = f32::from_bits(bits);
            let wanted = f64::from(weight).ln();
            let base_two = f64::from(log2(weight)) * std::f64::consts::LN_2;
            assert!((base_two - wanted).abs() <= 4e-7 * wanted.abs(), "log2 of {weight:e}");
            assert!(
                (ln(weight) - wanted).abs() <= 1e-15 * wanted.abs() + 1e-16,
                "ln of {weight:e}"
            );
        }
    }
}
