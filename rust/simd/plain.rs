//! Sixteen lanes as arrays, which compilers turn into whatever vectors the target has.

use std::array::from_fn;

use half::{bf16, f16};

use super::{Kernel, LANES, Simd};

/// Every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plain;

/// Widens bfloat16: the upper half of a float32.
#[inline(always)]
pub(super) fn widen_bf16(stored: bf16) -> f32 {
    f32::from_bits(u32::from(stored.to_bits()) << 16)
}

/// Widens float16.
pub(super) fn widen_f16(stored: f16) -> f32 {
    widen_all_f16(&[stored; LANES])[0]
}

/// Widens float16 without a branch, and without arithmetic on subnormals, which is slow.
///
/// Exponent and mantissa move into place and the exponent is rebased; infinities and NaN are rebased
/// twice; subnormals become a normal number of the same mantissa, from which its leading one is
/// subtracted. One array after the other, because compilers make no vectors of all of it at once.
#[inline(always)]
fn widen_all_f16(stored: &[f16; LANES]) -> [f32; LANES] {
    const SPECIAL: i32 = 0x7c00 << 13;
    const NORMAL: i32 = 1 << 23;
    const REBASE: i32 = (127 - 15) << 23;
    const LEADING_ONE: f32 = f32::from_bits((127 - 14) << 23);
    let bits: [i32; LANES] = from_fn(|lane| i32::from(stored[lane].to_bits()));
    let moved: [i32; LANES] = from_fn(|lane| (bits[lane] & 0x7fff) << 13);
    let again: [i32; LANES] =
        from_fn(|lane| if moved[lane] >= SPECIAL { 2 * REBASE } else { REBASE });
    let rebased: [i32; LANES] = from_fn(|lane| moved[lane] + again[lane]);
    let with_one = |lane: usize| f32::from_bits(rebased[lane].wrapping_add(NORMAL).cast_unsigned());
    let subnormal: [f32; LANES] = from_fn(|lane| with_one(lane) - LEADING_ONE);
    let magnitude: [i32; LANES] = from_fn(|lane| {
        if moved[lane] < NORMAL { subnormal[lane].to_bits().cast_signed() } else { rebased[lane] }
    });
    let signs: [i32; LANES] = from_fn(|lane| (bits[lane] & 0x8000) << 16);
    from_fn(|lane| f32::from_bits((magnitude[lane] | signs[lane]).cast_unsigned()))
}

/// Joins the lanes of a sum: halves onto halves.
#[inline(always)]
fn tree_sum<T: Copy + std::ops::AddAssign>(mut lanes: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            let other = lanes[lane + width];
            lanes[lane] += other;
        }
        width /= 2;
    }
    lanes[0]
}

/// Lanes moved up, with the last of those before in front.
#[inline(always)]
fn shift<const BY: usize>(before: [f32; LANES], values: [f32; LANES]) -> [f32; LANES] {
    from_fn(|lane| if lane < BY { before[LANES + lane - BY] } else { values[lane - BY] })
}

/// A number in whose order weights are.
#[inline(always)]
fn order_of(weight: f32) -> i32 {
    weight.to_bits().cast_signed()
}

/// Calls with (how many came before, lane) for each lane of a mask.
#[inline(always)]
fn for_each_lane(mask: u32, mut take: impl FnMut(usize, usize)) {
    let mut rest = mask;
    let mut at = 0;
    while rest != 0 {
        take(at % LANES, rest.trailing_zeros() as usize % LANES);
        at += 1;
        rest &= rest - 1;
    }
}

impl Simd for Plain {
    type Floats = [f32; LANES];
    type Doubles = [f64; LANES];
    type Ints = [i32; LANES];
    type Column = [f32; 8];
    const COLUMN: usize = 8;
    const MASKS: bool = false;
    const ONE_LOOP: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, lanes: &[f32; LANES]) -> Self::Floats {
        *lanes
    }

    #[inline(always)]
    fn load_f16(self, lanes: &[f16; LANES]) -> Self::Floats {
        widen_all_f16(lanes)
    }

    #[inline(always)]
    fn load_bf16(self, lanes: &[bf16; LANES]) -> Self::Floats {
        from_fn(|lane| widen_bf16(lanes[lane]))
    }

    #[inline(always)]
    fn store(self, values: Self::Floats, lanes: &mut [f32; LANES]) {
        *lanes = values;
    }

    #[inline(always)]
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
    }

    #[inline(always)]
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| a[lane] / b[lane])
    }

    #[inline(always)]
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn max_bits(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| f32::from_bits(a[lane].to_bits().max(b[lane].to_bits())))
    }

    #[inline(always)]
    fn or_bits(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| f32::from_bits(a[lane].to_bits() | b[lane].to_bits()))
    }

    #[inline(always)]
    fn at_least(self, a: Self::Floats, b: Self::Floats) -> u32 {
        let below: [u32; LANES] =
            from_fn(|lane| if order_of(b[lane]) > order_of(a[lane]) { 1 << lane } else { 0 });
        0xffff ^ below.iter().fold(0, |mask, bit| mask | bit)
    }

    #[inline(always)]
    fn shift_one(self, before: Self::Floats, values: Self::Floats) -> Self::Floats {
        shift::<1>(before, values)
    }

    #[inline(always)]
    fn shift_two(self, before: Self::Floats, values: Self::Floats) -> Self::Floats {
        shift::<2>(before, values)
    }

    #[inline(always)]
    fn keep_first(self, values: Self::Floats, count: usize) -> Self::Floats {
        // The sign of `lane - count` as a mask; a condition would become a branch for each count.
        from_fn(|lane| {
            let kept = (lane as u32).wrapping_sub(count as u32).cast_signed() >> 31;
            f32::from_bits(values[lane].to_bits() & kept.cast_unsigned())
        })
    }

    #[inline(always)]
    fn keep_at_least(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|lane| if order_of(b[lane]) > order_of(a[lane]) { 0.0 } else { a[lane] })
    }

    #[inline(always)]
    fn split(
        self,
        weights: Self::Floats,
        [sqrt_half, exponent]: [Self::Floats; 2],
    ) -> (Self::Floats, Self::Floats) {
        let bits: [i32; LANES] = from_fn(|lane| weights[lane].to_bits().cast_signed());
        let (sqrt_half, exponent) = (sqrt_half.map(order_of), exponent.map(order_of));
        let exponents: [i32; LANES] =
            from_fn(|lane| bits[lane].wrapping_sub(sqrt_half[lane]) & exponent[lane]);
        let mantissa =
            |lane: usize| f32::from_bits(bits[lane].wrapping_sub(exponents[lane]).cast_unsigned());
        (from_fn(|lane| exponents[lane] as f32), from_fn(mantissa))
    }

    #[inline(always)]
    fn load_column(self, lanes: &[f32]) -> Self::Column {
        *lanes.first_chunk().expect("eight lanes")
    }

    #[inline(always)]
    fn first(self, column: Self::Column) -> f32 {
        column[0]
    }

    #[inline(always)]
    fn order(self, a: Self::Column, b: Self::Column) -> (Self::Column, Self::Column) {
        let larger = from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] });
        (larger, from_fn(|lane| if a[lane] > b[lane] { b[lane] } else { a[lane] }))
    }

    #[inline(always)]
    fn swap(self, column: Self::Column, distance: usize) -> Self::Column {
        from_fn(|lane| column[lane ^ distance])
    }

    #[inline(always)]
    fn sum(self, values: Self::Floats) -> f32 {
        tree_sum(values)
    }

    #[inline(always)]
    fn largest_bits(self, values: Self::Floats) -> u32 {
        values.iter().fold(0, |largest, value| largest.max(value.to_bits()))
    }

    #[inline(always)]
    fn no_doubles(self) -> Self::Doubles {
        [0.0; LANES]
    }

    #[inline(always)]
    fn add_doubles(self, sums: Self::Doubles, values: Self::Floats) -> Self::Doubles {
        from_fn(|lane| sums[lane] + f64::from(values[lane]))
    }

    #[inline(always)]
    fn sum_doubles(self, values: Self::Doubles) -> f64 {
        tree_sum(values)
    }

    #[inline(always)]
    fn count_from(self, first: i32) -> Self::Ints {
        from_fn(|lane| first.wrapping_add_unsigned(lane as u32))
    }

    #[inline(always)]
    fn count_on(self, counts: Self::Ints) -> Self::Ints {
        counts.map(|count| count + 16)
    }

    #[inline(always)]
    fn load_ints(self, lanes: &[i32; LANES]) -> Self::Ints {
        *lanes
    }

    #[inline(always)]
    fn count_above(self, counts: Self::Ints, a: Self::Floats, b: Self::Floats) -> Self::Ints {
        from_fn(|lane| counts[lane] + i32::from(order_of(a[lane]) > order_of(b[lane])))
    }

    #[inline(always)]
    fn below(self, counts: Self::Ints, limit: i32) -> u32 {
        let bits: [u32; LANES] = from_fn(|lane| u32::from(counts[lane] < limit) << lane);
        bits.iter().fold(0, |mask, bit| mask | bit)
    }

    #[inline(always)]
    fn least_below(self, values: Self::Floats, counts: Self::Ints, limit: i32) -> f32 {
        let mut least = f32::INFINITY;
        for lane in 0..LANES {
            let is_among = counts[lane] < limit;
            least = if is_among && values[lane] < least { values[lane] } else { least };
        }
        least
    }

    #[inline(always)]
    fn compress(self, values: Self::Floats, mask: u32, to: &mut [f32; LANES]) {
        for_each_lane(mask, |at, lane| to[at] = values[lane]);
    }

    #[inline(always)]
    fn compress_ints(self, values: Self::Ints, mask: u32, to: &mut [i32; LANES]) {
        for_each_lane(mask, |at, lane| to[at] = values[lane]);
    }

    #[inline(always)]
    fn lanes_of(self, mask: u32, first: i32, to: &mut [i32; LANES]) {
        for_each_lane(mask, |at, lane| to[at] = first.wrapping_add_unsigned(lane as u32));
    }

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[cfg(target_arch = "x86_64")]
    fn run_fused<K: Kernel>(self, kernel: K) -> K::Output {
        super::x86::run_plain_fused(kernel)
    }

    #[inline(always)]
    fn prefetch<T>(self, _: &[T], _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float16_widens_as_the_reference_does() {
        for stored in (0..=u16::MAX).map(f16::from_bits) {
            let (weight, wanted) = (widen_f16(stored), stored.to_f32());
            assert!(wanted.is_nan() && weight.is_nan() || wanted.to_bits() == weight.to_bits());
        }
    }

    #[test]
    fn every_bfloat16_widens_as_the_reference_does() {
        for stored in (0..=u16::MAX).map(bf16::from_bits) {
            let (weight, wanted) = (widen_bf16(stored), stored.to_f32());
            assert!(wanted.is_nan() && weight.is_nan() || wanted.to_bits() == weight.to_bits());
        }
    }
}
