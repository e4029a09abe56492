//! Sums along a row, and logarithms that are the same on every machine.
//!
//! Sums run in 16 lanes of float32 over at most 1024 keys, joined by one tree, and from there on in
//! float64; those of `mass` from the beginning of each segment, that of `entropy` from key 0. The logarithm is a polynomial, because a library call per weight would cost more than all
//! the rest, and libraries differ in the last bit.

use super::Segments;
use crate::simd::{Kernel, LANES, Row, SQRT_HALF, Simd, Stored};

/// Blocks of 16 keys that are summed in float32 before float64 takes over.
pub(crate) const PIECE: usize = 64;

/// Mean of ln(max(x, 2^-126)) in float64; 0 for none.
pub(crate) struct MeanLog<'a>(pub &'a [f32]);

impl Kernel for MeanLog<'_> {
    type Output = f32;

    /// Nothing here is written for a set; the compiler makes vectors of the logarithms.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f32 {
        let mut sum = 0.0;
        for values in self.0.chunks(LANES) {
            let mut block = [1.0; LANES];
            block[..values.len()].copy_from_slice(values);
            let mut logs = [0.0; LANES];
            for (log, value) in logs.iter_mut().zip(block) {
                *log = ln(value.max(f32::MIN_POSITIVE));
            }
            for log in &logs[..values.len()] {
                sum += log;
            }
        }
        if self.0.is_empty() { 0.0 } else { (sum / self.0.len() as f64) as f32 }
    }
}

/// Mass of each segment of one row.
#[inline(always)]
pub(super) fn take_masses<S: Simd, T: Stored>(
    simd: S,
    row: Row<'_, T>,
    segments: &Segments,
    masses: &mut [f32],
) {
    for (range, mass) in segments.ranges(row.keys()).zip(masses) {
        *mass = match range.len() {
            0 => 0.0,
            1 => row.get(range.start),
            // Adding 0.0 turns -0.0 into 0.0.
            _ => sum_segment(simd, row.slice(range)) as f32 + 0.0,
        };
    }
}

#[inline(always)]
fn sum_segment<S: Simd, T: Stored>(simd: S, segment: Row<'_, T>) -> f64 {
    let (mut sum, mut lanes) = (0.0, simd.splat(0.0));
    for piece in segment.blocks().chunks(PIECE) {
        for block in piece {
            lanes = simd.add(lanes, T::load(simd, block));
        }
        if piece.len() == PIECE {
            sum += f64::from(simd.sum(lanes));
            lanes = simd.splat(0.0);
        }
    }
    sum + f64::from(simd.sum(simd.add(lanes, segment.tail(simd))))
}

/// The entropy of a row on its way, a block of 16 keys at a time.
#[derive(Clone, Copy)]
pub(crate) struct Entropy<S: Simd> {
    lanes: S::Floats,
    bits: f64,
}

impl<S: Simd> Entropy<S> {
    /// No key yet.
    #[inline(always)]
    pub fn new(simd: S) -> Self {
        Self { lanes: simd.splat(0.0), bits: 0.0 }
    }

    /// Takes a block; 0.0 adds nothing.
    #[inline(always)]
    pub fn add(&mut self, simd: S, weights: S::Floats) {
        // What is subnormal adds less than 1e-36, and slow arithmetic.
        let weights = simd.keep_at_least(weights, simd.splat(f32::MIN_POSITIVE));
        self.lanes = simd.mul_add(weights, log2(simd, weights), self.lanes);
    }

    /// Ends a piece; harmless where it has ended.
    #[inline(always)]
    pub fn end_piece(&mut self, simd: S) {
        self.bits += f64::from(simd.sum(self.lanes));
        self.lanes = simd.splat(0.0);
    }

    /// In nats.
    #[inline(always)]
    pub fn finish(mut self, simd: S) -> f32 {
        self.end_piece(simd);
        (-self.bits * std::f64::consts::LN_2) as f32 + 0.0
    }
}

/// log2 of normal weights within 4e-7 of their value, exactly 0 at 1; finite at 0.
///
/// log2 w = e + log2 m with m in [√½, √2), where log2 m = (m - 1) · P(m - 1): the factor keeps the
/// relative error small around 1. P minimises the largest relative error. It is evaluated by halves of
/// halves, whose operations do not wait for each other: 0.85 of the time of Horner's scheme.
///
/// Tried and left out: two to four blocks side by side (no faster, the registers run out); the bits as
/// a number, which are a logarithm nearly, and a polynomial in the mantissa for the rest (two operations
/// fewer for the same error).
#[inline(always)]
fn log2<S: Simd>(simd: S, weights: S::Floats) -> S::Floats {
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
    let (exponent, mantissa) = simd.split(weights);
    let x = simd.sub(mantissa, simd.splat(1.0));
    let x_2 = simd.mul(x, x);
    let p_01 = simd.mul_add(simd.splat(P[1]), x, simd.splat(P[0]));
    let p_23 = simd.mul_add(simd.splat(P[3]), x, simd.splat(P[2]));
    let p_45 = simd.mul_add(simd.splat(P[5]), x, simd.splat(P[4]));
    let p_67 = simd.mul_add(simd.splat(P[7]), x, simd.splat(P[6]));
    let p_0123 = simd.mul_add(p_23, x_2, p_01);
    let p_4567 = simd.mul_add(p_67, x_2, p_45);
    let p = simd.mul_add(p_4567, simd.mul(x_2, x_2), p_0123);
    simd.mul_add(x, p, exponent)
}

/// Exponent e and mantissa m in [√½, √2) with w = m · 2^e.
#[inline(always)]
fn split(weight: f32) -> (i32, f32) {
    let bits = weight.to_bits().cast_signed();
    let exponent = bits.wrapping_sub(SQRT_HALF) >> 23;
    (exponent, f32::from_bits(bits.wrapping_sub(exponent << 23).cast_unsigned()))
}

/// ln of a normal weight in float64, by 2 · atanh((m - 1) / (m + 1)): the same on every machine.
#[inline(always)]
fn ln(weight: f32) -> f64 {
    let (exponent, mantissa) = split(weight);
    let mantissa = f64::from(mantissa);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let mut series = 0.0;
    for n in (0..10).rev() {
        series = series * s * s + 1.0 / f64::from(2 * n + 1);
    }
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use std::array::from_fn;

    use super::*;
    use crate::simd::Plain;

    #[test]
    fn logarithms_are_within_their_bounds() {
        let of = |weight: f32| log2(Plain, [weight; LANES])[0];
        assert_eq!((of(1.0).to_bits(), ln(1.0).to_bits()), (0, 0));
        assert!(of(0.0).is_finite());
        for bits in (0x0080_0000..0x7f80_0000_u32 - 16 * 997).step_by(16 * 997) {
            let weights = from_fn(|lane| f32::from_bits(bits + 997 * lane as u32));
            for (weight, log) in weights.into_iter().zip(log2(Plain, weights)) {
                let wanted = f64::from(weight).ln();
                let base_two = f64::from(log) * std::f64::consts::LN_2;
                assert!((base_two - wanted).abs() <= 4e-7 * wanted.abs(), "log2 of {weight:e}");
                let error = (ln(weight) - wanted).abs();
                assert!(error <= 1e-15 * wanted.abs() + 1e-16, "ln of {weight:e}");
            }
        }
    }
}
