//! Sums along a row, and logarithms that are the same on every machine.
//!
//! Sums run in 16 lanes of float32 over pieces of 1024 keys, counted from key 0, are joined by one tree, and
//! from there on in float64. The logarithm is a polynomial, because a library call per weight would cost
//! more than all the rest, and libraries differ in the last bit.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2};

use crate::simd::{EXPONENT, Kernel, LANES, MANTISSA, SQRT_HALF, Simd};

/// Blocks of 16 keys that are summed in float32 before float64 takes over.
pub(crate) const PIECE: usize = 64;

/// Mean of ln(max(x, 2^-126)) in float64; 0 for none.
///
/// The logarithm of a product: that of each piece is within 2^±512, and off by less than 1024 roundings.
pub(crate) struct MeanLog<'a>(pub &'a [f32]);

impl Kernel for MeanLog<'_> {
    type Output = f32;

    /// Nothing here is written for a set; the compiler makes vectors of the factors.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f32 {
        let mut sum = 0.0;
        for piece in self.0.chunks(PIECE * LANES) {
            let (mut exponents, mut factors) = ([0; LANES], [1.0; LANES]);
            for values in piece.chunks(LANES) {
                // A factor of 1.0 changes nothing.
                let mut block = [1.0; LANES];
                block[..values.len()].copy_from_slice(values);
                for (lane, value) in block.into_iter().enumerate() {
                    let (exponent, mantissa) = split(value.max(f32::MIN_POSITIVE).into());
                    exponents[lane] += exponent;
                    factors[lane] *= mantissa;
                }
            }
            sum += exponents.iter().sum::<i64>() as f64 * LN_2;
            sum += ln(factors.iter().product());
        }
        if self.0.is_empty() { 0.0 } else { (sum / self.0.len() as f64) as f32 }
    }
}

/// Sums along a few rows on their way.
///
/// An array for each field: structs of a vector and a number are copied through memory, which takes longer
/// than the sum of a short row.
pub(crate) struct RowSums<S: Simd, const ROWS: usize> {
    pub lanes: [S::Floats; ROWS],
    pieces: [f64; ROWS],
}

impl<S: Simd, const ROWS: usize> RowSums<S, ROWS> {
    /// No key yet.
    #[inline(always)]
    pub fn new(simd: S) -> Self {
        Self { lanes: [simd.splat(0.0); ROWS], pieces: [0.0; ROWS] }
    }

    /// Ends a piece; harmless where it has ended.
    #[inline(always)]
    pub fn end_piece(&mut self, simd: S) {
        for (piece, sum) in self.pieces.iter_mut().zip(simd.sum_each(&self.lanes)) {
            *piece += f64::from(sum);
        }
        self.lanes = [simd.splat(0.0); ROWS];
    }

    /// Ends the sums; the next begin at zero.
    #[inline(always)]
    pub fn finish(&mut self, simd: S) -> [f64; ROWS] {
        self.end_piece(simd);
        std::mem::replace(&mut self.pieces, [0.0; ROWS])
    }
}

/// Entropies in nats, of sums by [`Logarithm::add_w_log_w`].
#[inline(always)]
pub(crate) fn entropies<const ROWS: usize>(sums: [f64; ROWS]) -> [f32; ROWS] {
    // Adding 0.0 turns -0.0 into 0.0.
    sums.map(|sum| (-sum * (LN_2 / SCALE)) as f32 + 0.0)
}

/// The sum, and the squares of weights.
#[inline(always)]
pub(crate) fn add_square<S: Simd>(simd: S, sum: S::Floats, weights: S::Floats) -> S::Floats {
    simd.mul_add(weights, weights, sum)
}

/// The sum, and the squared second differences w[j - 2] - 2 w[j - 1] + w[j] of 16 keys j.
#[inline(always)]
pub(crate) fn add_squared_differences<S: Simd>(
    simd: S,
    sum: S::Floats,
    [two_before, one_before, weights]: [S::Floats; 3],
) -> S::Floats {
    let ends = simd.add(two_before, weights);
    let differences = simd.mul_add(simd.splat(-2.0), one_before, ends);
    simd.mul_add(differences, differences, sum)
}

/// A block, and the same moved up by two lanes and by one, with the last lanes of the block before in front.
#[inline(always)]
pub(crate) fn shifted<S: Simd>(simd: S, before: S::Floats, weights: S::Floats) -> [S::Floats; 3] {
    [simd.shift_two(before, weights), simd.shift_one(before, weights), weights]
}

/// The entropy of weights of which some exceed 1: their terms are negative, and what is left of a sum with
/// terms of both signs has the errors of them all, so these are float64.
#[cold]
pub(crate) fn exact_entropy(weights: impl Iterator<Item = f32>) -> f32 {
    let term = |weight: f64| if weight > 0.0 { -weight * ln(weight) } else { 0.0 };
    weights.map(|weight| term(weight.into())).sum::<f64>() as f32 + 0.0
}

/// What logarithms are multiplied by, so that exponents need not be shifted.
const SCALE: f64 = (1 << MANTISSA) as f64;

/// The constants of logarithms.
pub(crate) struct Logarithm<S: Simd> {
    split: [S::Floats; 2],
    minus_one: S::Floats,
    terms: [S::Floats; 7],
}

/// [`SCALE`] · log2 of normal weights within 1.4e-6 of their value, exactly 0 at 1; finite at 0.
///
/// log2 w = e + log2 m with m in [√½, √2), where log2 m = (m - 1) · P(m - 1): the factor keeps the
/// relative error small around 1. P minimises the largest relative error, 1.1e-6, within the tolerance of
/// entropies; an eighth term would make it 2e-7.
///
/// Tried with AVX2, none faster than Horner's scheme: halves of halves of P, or odd and even powers apart,
/// whose operations do not wait for each other; a table of eight logarithms and four terms;
/// (m - 1) / (m + 1) and three terms, as fast here, but not where division is slow; two to four blocks side
/// by side (the registers run out); the bits as a number, which are a logarithm nearly, and a polynomial in
/// the mantissa for the rest.
impl<S: Simd> Logarithm<S> {
    const P: [f32; 7] = [
        1.442_696_5,
        -0.721_363_6,
        0.480_626_76,
        -0.359_371_63,
        0.295_699_5,
        -0.269_320_22,
        0.171_624_57,
    ];

    /// The constants, for a pass over a few rows.
    #[inline(always)]
    pub fn new(simd: S) -> Self {
        Self {
            split: [SQRT_HALF, EXPONENT]
                .map(|bits| simd.constant(f32::from_bits(bits.cast_unsigned()))),
            minus_one: simd.constant(-1.0),
            terms: Self::P.map(|term| simd.constant(term * SCALE as f32)),
        }
    }

    /// A sum, and w · log2 w, scaled; 0.0 adds nothing, and what is subnormal less than 1e-35.
    #[inline(always)]
    pub fn add_w_log_w(&self, simd: S, sum: S::Floats, weights: S::Floats) -> S::Floats {
        simd.mul_add(weights, self.scaled_log2(simd, weights), sum)
    }

    #[inline(always)]
    fn scaled_log2(&self, simd: S, weights: S::Floats) -> S::Floats {
        let (exponent, mantissa) = simd.split(weights, self.split);
        let x = simd.add(mantissa, self.minus_one);
        let [lower @ .., mut p] = self.terms;
        for term in lower.into_iter().rev() {
            p = simd.mul_add(p, x, term);
        }
        simd.mul_add(x, p, exponent)
    }
}

/// Exponent e and mantissa m in [√½, √2) with x = m · 2^e, for normal x.
#[inline(always)]
fn split(number: f64) -> (i64, f64) {
    const SQRT_HALF: i64 = FRAC_1_SQRT_2.to_bits().cast_signed();
    let bits = number.to_bits().cast_signed();
    let exponent = bits.wrapping_sub(SQRT_HALF) >> (f64::MANTISSA_DIGITS - 1);
    let mantissa = bits.wrapping_sub(exponent << (f64::MANTISSA_DIGITS - 1));
    (exponent, f64::from_bits(mantissa.cast_unsigned()))
}

/// ln of a normal number by 2 · atanh((m - 1) / (m + 1)): the same on every machine.
fn ln(number: f64) -> f64 {
    let (exponent, mantissa) = split(number);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let (mut series, square) = (0.0, s * s);
    for n in (0..10).rev() {
        series = series * square + 1.0 / f64::from(2 * n + 1);
    }
    exponent as f64 * LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use std::array::from_fn;

    use super::*;
    use crate::simd::Plain;

    #[test]
    fn a_mean_of_logarithms_is_that_of_the_library() {
        let weights: Vec<f32> =
            (0..5000_u16).map(|n| (f32::from(n) * 0.731).sin().abs().powi(9)).collect();
        for count in [0, 1, 15, 16, 17, 1023, 1024, 1025, 5000] {
            let weights = &weights[..count];
            let log = |&weight: &f32| f64::from(weight.max(f32::MIN_POSITIVE)).ln();
            let wanted = weights.iter().map(log).sum::<f64>() / count.max(1) as f64;
            let found = f64::from(MeanLog(weights).run(Plain));
            assert!((found - wanted).abs() <= 6e-8 * wanted.abs(), "{found} {wanted} of {count}");
        }
        for (extreme, wanted) in [(0.0, -126.0 * LN_2), (f32::MAX, 128.0 * LN_2)] {
            let found = f64::from(MeanLog(&[extreme; 3000]).run(Plain));
            assert!((found - wanted).abs() <= 1e-5, "{found} {wanted}");
        }
    }

    #[test]
    fn logarithms_are_within_their_bounds() {
        let logarithm = Logarithm::new(Plain);
        let of = |weight: f32| logarithm.scaled_log2(Plain, [weight; LANES])[0];
        assert_eq!((of(1.0).to_bits(), ln(1.0).to_bits()), (0, 0));
        assert!(of(0.0).is_finite());
        for bits in (0x0080_0000..0x7f80_0000_u32 - 16 * 997).step_by(16 * 997) {
            let weights = from_fn(|lane| f32::from_bits(bits + 997 * lane as u32));
            for (weight, log) in weights.into_iter().zip(logarithm.scaled_log2(Plain, weights)) {
                let wanted = f64::from(weight).ln();
                let found = f64::from(log) / SCALE * LN_2;
                assert!((found - wanted).abs() <= 1.4e-6 * wanted.abs(), "log2 of {weight:e}");
                let error = (ln(weight.into()) - wanted).abs();
                assert!(error <= 1e-15 * wanted.abs() + 1e-16, "ln of {weight:e}");
            }
        }
    }
}
