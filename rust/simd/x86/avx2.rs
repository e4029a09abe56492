//! Two registers of eight lanes.

use std::arch::asm;
use std::arch::x86_64::*;

use half::{bf16, f16};

use crate::simd::{LANES, Simd};

super::token!(
    /// AVX2, with the fused, half-precision and bit instructions that came with it.
    Avx2,
    ["avx2", "fma", "f16c", "bmi1", "bmi2", "lzcnt", "popcnt"]
);

/// For each mask of eight lanes, the lanes in it, in order.
static LANES_OF: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut to) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask][to] = lane;
                to += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

type Pair = [__m256; 2];

impl Simd for Avx2 {
    type Floats = Pair;
    type Doubles = [__m256d; 4];
    type Ints = [__m256i; 2];
    type Column = __m256;
    const COLUMN: usize = 8;
    const MASKS: bool = false;
    const ONE_LOOP: bool = false;

    super::run!("avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt");

    super::lanewise! {
        splat(value: f32) -> Pair = [_mm256_set1_ps(value); 2];
        constant(value: f32) -> Pair = [hidden(_mm256_set1_ps(value)); 2];
        add(a: Pair, b: Pair) -> Pair = [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])];
        sub(a: Pair, b: Pair) -> Pair = [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])];
        mul_add(a: Pair, b: Pair, c: Pair) -> Pair =
            [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])];
        div(a: Pair, b: Pair) -> Pair = [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])];
        max(a: Pair, b: Pair) -> Pair = [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])];
        max_bits(a: Pair, b: Pair) -> Pair = [
            _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(a[0]), _mm256_castps_si256(b[0]))),
            _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(a[1]), _mm256_castps_si256(b[1]))),
        ];
        or_bits(a: Pair, b: Pair) -> Pair = [_mm256_or_ps(a[0], b[0]), _mm256_or_ps(a[1], b[1])];
        order(a: __m256, b: __m256) -> (__m256, __m256) = {
            let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
            let (larger, smaller) = (_mm256_max_epu32(a, b), _mm256_min_epu32(a, b));
            (_mm256_castsi256_ps(larger), _mm256_castsi256_ps(smaller))
        };
        first(column: __m256) -> f32 = _mm256_cvtss_f32(column);
        at_least(a: Pair, b: Pair) -> u32 = {
            let [low, high] = at_least(a, b).map(|mask| _mm256_movemask_ps(mask));
            // Clearing what is clear keeps the compiler from making it one mask of 16 lanes, which takes
            // twice as many instructions.
            _bzhi_u32(low.cast_unsigned(), 8) | high.cast_unsigned() << 8
        };
        at_least_of_four(four: [Pair; 4], least: Pair) -> u64 = {
            let low = at_least_of_two([four[0], four[1]], least);
            let high = at_least_of_two([four[2], four[3]], least);
            u64::from(low) | u64::from(high) << 32
        };
        shift_one(before: Pair, values: Pair) -> Pair =
            [shift_half::<12>(before[1], values[0]), shift_half::<12>(values[0], values[1])];
        shift_two(before: Pair, values: Pair) -> Pair =
            [shift_half::<8>(before[1], values[0]), shift_half::<8>(values[0], values[1])];
        keep_first(values: Pair, count: usize) -> Pair = {
            let count = _mm256_set1_epi32((count as u32).cast_signed());
            let low = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
            let high = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15));
            [
                _mm256_and_ps(values[0], _mm256_castsi256_ps(low)),
                _mm256_and_ps(values[1], _mm256_castsi256_ps(high)),
            ]
        };
        keep_at_least(a: Pair, b: Pair) -> Pair = {
            let [low, high] = is_below(a, b);
            [_mm256_andnot_ps(low, a[0]), _mm256_andnot_ps(high, a[1])]
        };
        split(weights: Pair, constants: [Pair; 2]) -> (Pair, Pair) = {
            let constants = constants.map(|[half, _]| _mm256_castps_si256(half));
            let low = split_half(weights[0], constants);
            let high = split_half(weights[1], constants);
            ([low.0, high.0], [low.1, high.1])
        };
        sum(values: Pair) -> f32 = {
            let eight = _mm256_add_ps(values[0], values[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        };
        largest_bits(values: Pair) -> u32 = {
            let (low, high) = (_mm256_castps_si256(values[0]), _mm256_castps_si256(values[1]));
            let eight = _mm256_max_epu32(low, high);
            let upper = _mm256_extracti128_si256::<1>(eight);
            let four = _mm_max_epu32(_mm256_castsi256_si128(eight), upper);
            let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0b00_00_11_10>(four));
            let one = _mm_max_epu32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two));
            _mm_cvtsi128_si32(one).cast_unsigned()
        };
        no_doubles() -> [__m256d; 4] = [_mm256_setzero_pd(); 4];
        add_doubles(sums: [__m256d; 4], values: Pair) -> [__m256d; 4] = [
            _mm256_add_pd(sums[0], _mm256_cvtps_pd(_mm256_castps256_ps128(values[0]))),
            _mm256_add_pd(sums[1], _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(values[0]))),
            _mm256_add_pd(sums[2], _mm256_cvtps_pd(_mm256_castps256_ps128(values[1]))),
            _mm256_add_pd(sums[3], _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(values[1]))),
        ];
        sum_doubles(values: [__m256d; 4]) -> f64 = {
            let low = _mm256_add_pd(values[0], values[2]);
            let high = _mm256_add_pd(values[1], values[3]);
            let four = _mm256_add_pd(low, high);
            let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        };
        count_from(first: i32) -> [__m256i; 2] = {
            let first = _mm256_set1_epi32(first);
            [
                _mm256_add_epi32(first, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
                _mm256_add_epi32(first, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)),
            ]
        };
        count_on(counts: [__m256i; 2]) -> [__m256i; 2] = {
            let more = _mm256_set1_epi32(16);
            [_mm256_add_epi32(counts[0], more), _mm256_add_epi32(counts[1], more)]
        };
        count_above(counts: [__m256i; 2], a: Pair, b: Pair) -> [__m256i; 2] = {
            // All bits set are -1.
            let low = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0]));
            let high = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(a[1], b[1]));
            [_mm256_sub_epi32(counts[0], low), _mm256_sub_epi32(counts[1], high)]
        };
        below(counts: [__m256i; 2], limit: i32) -> u32 = {
            let limit = _mm256_set1_epi32(limit);
            let low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, counts[0]));
            let high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, counts[1]));
            (_mm256_movemask_ps(low) | _mm256_movemask_ps(high) << 8).cast_unsigned()
        };
        least_below(values: Pair, counts: [__m256i; 2], limit: i32) -> f32 = {
            let (limit, none) = (_mm256_set1_epi32(limit), _mm256_set1_ps(f32::INFINITY));
            let low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, counts[0]));
            let high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, counts[1]));
            let low = _mm256_blendv_ps(none, values[0], low);
            let high = _mm256_blendv_ps(none, values[1], high);
            let eight = _mm256_min_ps(low, high);
            let four = _mm_min_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)))
        };
    }

    #[inline(always)]
    fn sum_each<const ROWS: usize>(self, values: &[Pair; ROWS]) -> [f32; ROWS] {
        let Some(four) = values.first_chunk::<4>().filter(|_| ROWS == 4) else {
            return std::array::from_fn(|row| self.sum(values[row]));
        };
        let mut sums = [0.0; 4];
        // SAFETY: as in `lanewise`; four elements are writable.
        unsafe { _mm_storeu_ps(sums.as_mut_ptr(), sum_four(four)) };
        std::array::from_fn(|row| sums[row])
    }

    #[inline(always)]
    fn swap(self, column: __m256, distance: usize) -> __m256 {
        // SAFETY: as in `lanewise`.
        unsafe {
            match distance {
                4 => _mm256_permute2f128_ps::<1>(column, column),
                2 => _mm256_permute_ps::<0b01_00_11_10>(column),
                _ => _mm256_permute_ps::<0b10_11_00_01>(column),
            }
        }
    }

    #[inline(always)]
    fn load_column(self, lanes: &[f32]) -> __m256 {
        let lanes: &[f32; 8] = lanes.first_chunk().expect("eight lanes");
        // SAFETY: as in `load`.
        unsafe { _mm256_loadu_ps(lanes.as_ptr()) }
    }

    #[inline(always)]
    fn load(self, lanes: &[f32; LANES]) -> Pair {
        let from = lanes.as_ptr();
        // SAFETY: 16 elements are readable from `from`; the loads need no alignment.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    fn load_f16(self, lanes: &[f16; LANES]) -> Pair {
        let from = lanes.as_ptr();
        // SAFETY: as in `load`; eight elements of f16 are 16 bytes.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())),
            ]
        }
    }

    #[inline(always)]
    fn load_bf16(self, lanes: &[bf16; LANES]) -> Pair {
        let from = lanes.as_ptr();
        // SAFETY: as in `load`; eight elements of bf16 are 16 bytes.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        }
    }

    #[inline(always)]
    fn store(self, values: Pair, lanes: &mut [f32; LANES]) {
        let to = lanes.as_mut_ptr();
        // SAFETY: 16 elements are writable from `to`; the stores need no alignment.
        unsafe {
            _mm256_storeu_ps(to, values[0]);
            _mm256_storeu_ps(to.add(8), values[1]);
        }
    }

    #[inline(always)]
    fn load_ints(self, lanes: &[i32; LANES]) -> [__m256i; 2] {
        let from = lanes.as_ptr();
        // SAFETY: as in `load`.
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())] }
    }

    #[inline(always)]
    fn compress(self, values: Pair, mask: u32, to: &mut [f32; LANES]) {
        let (first, second, at) = halves_of(mask);
        let to = to.as_mut_ptr();
        // SAFETY: 16 elements are writable from `to`, and `at` is at most 8.
        unsafe {
            _mm256_storeu_ps(to, _mm256_permutevar8x32_ps(values[0], lanes_of(first)));
            _mm256_storeu_ps(to.add(at), _mm256_permutevar8x32_ps(values[1], lanes_of(second)));
        }
    }

    #[inline(always)]
    fn compress_ints(self, values: [__m256i; 2], mask: u32, to: &mut [i32; LANES]) {
        let (first, second, at) = halves_of(mask);
        let to = to.as_mut_ptr();
        // SAFETY: as in `compress`.
        unsafe {
            let first = _mm256_permutevar8x32_epi32(values[0], lanes_of(first));
            let second = _mm256_permutevar8x32_epi32(values[1], lanes_of(second));
            _mm256_storeu_si256(to.cast(), first);
            _mm256_storeu_si256(to.add(at).cast(), second);
        }
    }

    #[inline(always)]
    fn lanes_of(self, mask: u32, begin: i32, to: &mut [i32; LANES]) {
        let (first, second, at) = halves_of(mask);
        let to = to.as_mut_ptr();
        // SAFETY: as in `compress`.
        unsafe {
            let first = _mm256_add_epi32(lanes_of(first), _mm256_set1_epi32(begin));
            let second = _mm256_add_epi32(lanes_of(second), _mm256_set1_epi32(begin + 8));
            _mm256_storeu_si256(to.cast(), first);
            _mm256_storeu_si256(to.add(at).cast(), second);
        }
    }

    // Halves apart from each other, whose masks need not be joined.
    #[inline(always)]
    fn take_at_least(
        self,
        values: Pair,
        least: Pair,
        begin: i32,
        weights: &mut [f32; LANES],
        lanes: &mut [i32; LANES],
    ) -> usize {
        let (weights, lanes) = (weights.as_mut_ptr(), lanes.as_mut_ptr());
        // SAFETY: as in `compress`.
        unsafe {
            let masks = at_least(values, least).map(|mask| _mm256_movemask_ps(mask));
            let [first, second] = masks.map(i32::cast_unsigned);
            let at = first.count_ones() as usize;
            let (from, next) = (lanes_of(first as usize), lanes_of(second as usize));
            _mm256_storeu_ps(weights, _mm256_permutevar8x32_ps(values[0], from));
            _mm256_storeu_ps(weights.add(at), _mm256_permutevar8x32_ps(values[1], next));
            let begin = _mm256_set1_epi32(begin);
            let from = _mm256_add_epi32(from, begin);
            let next = _mm256_add_epi32(next, _mm256_add_epi32(begin, _mm256_set1_epi32(8)));
            _mm256_storeu_si256(lanes.cast(), from);
            _mm256_storeu_si256(lanes.add(at).cast(), next);
            at + second.count_ones() as usize
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, memory: &[T], index: usize) {
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(memory.as_ptr().wrapping_add(index).cast()) }
    }
}

/// A value of which the compiler does not know that it is a constant.
#[inline]
#[target_feature(enable = "avx2")]
fn hidden(mut value: __m256) -> __m256 {
    // SAFETY: no instruction at all.
    unsafe {
        asm!("/* {0} */", inout(ymm_reg) value, options(pure, nomem, nostack, preserves_flags));
    }
    value
}

/// The sums of the lanes of four, halves onto halves, two and then four of them in a register.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_four([a, b, c, d]: &[Pair; 4]) -> __m128 {
    let (a, b) = (_mm256_add_ps(a[0], a[1]), _mm256_add_ps(b[0], b[1]));
    let (c, d) = (_mm256_add_ps(c[0], c[1]), _mm256_add_ps(d[0], d[1]));
    let fours = |a, b| {
        _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
    };
    // Lanes of a and b, and of c and d.
    let (ab, cd) = (_mm256_castps_pd(fours(a, b)), _mm256_castps_pd(fours(c, d)));
    let lower = _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd));
    let upper = _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd));
    // Two lanes of a, c, b, d.
    let twos = _mm256_add_ps(lower, upper);
    let ones = _mm256_add_ps(twos, _mm256_movehdup_ps(twos));
    let (ac, bd) = (_mm256_castps256_ps128(ones), _mm256_extractf128_ps::<1>(ones));
    _mm_unpacklo_ps(
        _mm_shuffle_ps::<0b00_00_10_00>(ac, ac),
        _mm_shuffle_ps::<0b00_00_10_00>(bd, bd),
    )
}

/// Eight lanes moved up by one (12 bytes stay) or two (8 stay), with the last of those before in front.
#[inline]
#[target_feature(enable = "avx2")]
fn shift_half<const STAY: i32>(before: __m256, values: __m256) -> __m256 {
    let middle = _mm256_castps_si256(_mm256_permute2f128_ps::<0x21>(before, values));
    _mm256_castsi256_ps(_mm256_alignr_epi8::<STAY>(_mm256_castps_si256(values), middle))
}

/// Where a >= b, of weights: where a exceeds what is just below b, which in loops is made once.
#[inline]
#[target_feature(enable = "avx2")]
fn at_least(a: Pair, b: Pair) -> Pair {
    let one = _mm256_set1_epi32(1);
    let before = b.map(|b| _mm256_sub_epi32(_mm256_castps_si256(b), one));
    let is_above = |a, b| _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_castps_si256(a), b));
    [is_above(a[0], before[0]), is_above(a[1], before[1])]
}

/// Where a >= b does not hold, of weights. This way round, `a` may come from memory without a load of its own.
#[inline]
#[target_feature(enable = "avx2")]
fn is_below(a: Pair, b: Pair) -> Pair {
    let below = |a, b| _mm256_cmpgt_epi32(_mm256_castps_si256(b), _mm256_castps_si256(a));
    [_mm256_castsi256_ps(below(a[0], b[0])), _mm256_castsi256_ps(below(a[1], b[1]))]
}

/// Where the lanes of two are >= `least`: masks of lanes are packed into masks of bytes, four of the lower
/// half and four of the upper next to each other.
#[inline]
#[target_feature(enable = "avx2")]
fn at_least_of_two(two: [Pair; 2], least: Pair) -> u32 {
    let [one, other] = two.map(|values| {
        let [low, high] = is_below(values, least);
        _mm256_packs_epi32(_mm256_castps_si256(low), _mm256_castps_si256(high))
    });
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let packed = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(one, other), order);
    !_mm256_movemask_epi8(packed).cast_unsigned()
}

/// The masks of both halves, and how many lanes the first has.
#[inline(always)]
fn halves_of(mask: u32) -> (usize, usize, usize) {
    let (first, second) = (mask & 0xff, mask >> 8 & 0xff);
    (first as usize, second as usize, first.count_ones() as usize)
}

/// The numbers of the lanes of a mask, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes_of(mask: usize) -> __m256i {
    // SAFETY: a row of the table is eight bytes, which is what is loaded.
    unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(LANES_OF[mask].as_ptr().cast())) }
}

/// Exponent and mantissa of eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn split_half(weights: __m256, [sqrt_half, exponent]: [__m256i; 2]) -> (__m256, __m256) {
    let bits = _mm256_castps_si256(weights);
    let exponent = _mm256_and_si256(_mm256_sub_epi32(bits, sqrt_half), exponent);
    let mantissa = _mm256_sub_epi32(bits, exponent);
    (_mm256_cvtepi32_ps(exponent), _mm256_castsi256_ps(mantissa))
}
