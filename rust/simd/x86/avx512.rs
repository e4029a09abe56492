//! One register of sixteen lanes.

use std::arch::asm;
use std::arch::x86_64::*;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::simd::{LANES, Simd};

super::token!(
    /// AVX-512 F and what every processor that has it for servers has.
    Avx512,
    ["avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "bmi1", "bmi2", "lzcnt", "popcnt"]
);

impl Simd for Avx512 {
    type Floats = __m512;
    type Doubles = [__m512d; 2];
    type Ints = __m512i;
    type Column = __m512;
    const COLUMN: usize = LANES;
    // Minima and maxima of integers have one port of the processor, and a network nothing else.
    const MASKS: bool = true;
    const ONE_LOOP: bool = true;

    super::run!("avx512f,avx512dq,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt,popcnt");

    super::lanewise! {
        splat(value: f32) -> __m512 = _mm512_set1_ps(value);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul_add(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        max_bits(a: __m512, b: __m512) -> __m512 =
            _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
        or_bits(a: __m512, b: __m512) -> __m512 = _mm512_or_ps(a, b);
        order(a: __m512, b: __m512) -> (__m512, __m512) = {
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            let (larger, smaller) = (_mm512_max_epu32(a, b), _mm512_min_epu32(a, b));
            (_mm512_castsi512_ps(larger), _mm512_castsi512_ps(smaller))
        };
        first(column: __m512) -> f32 = _mm512_cvtss_f32(column);
        at_least(a: __m512, b: __m512) -> u32 =
            u32::from(at_least(a, b));
        shift_one(before: __m512, values: __m512) -> __m512 = _mm512_castsi512_ps(
            _mm512_alignr_epi32::<15>(_mm512_castps_si512(values), _mm512_castps_si512(before)),
        );
        shift_two(before: __m512, values: __m512) -> __m512 = _mm512_castsi512_ps(
            _mm512_alignr_epi32::<14>(_mm512_castps_si512(values), _mm512_castps_si512(before)),
        );
        keep_first(values: __m512, count: usize) -> __m512 =
            _mm512_maskz_mov_ps(((1_u32 << count.min(LANES)) - 1) as u16, values);
        keep_first_of_four(four: [__m512; 4], count: usize) -> [__m512; 4] = {
            let kept = _bzhi_u64(u64::MAX, count.min(64) as u32);
            [
                _mm512_maskz_mov_ps(kept as u16, four[0]),
                _mm512_maskz_mov_ps((kept >> 16) as u16, four[1]),
                _mm512_maskz_mov_ps((kept >> 32) as u16, four[2]),
                _mm512_maskz_mov_ps((kept >> 48) as u16, four[3]),
            ]
        };
        keep_at_least(a: __m512, b: __m512) -> __m512 =
            _mm512_maskz_mov_ps(at_least(a, b), a);
        split(weights: __m512, constants: [__m512; 2]) -> (__m512, __m512) = {
            let bits = _mm512_castps_si512(weights);
            let [sqrt_half, exponent] = constants.map(|constant| _mm512_castps_si512(constant));
            let exponent = _mm512_and_si512(_mm512_sub_epi32(bits, sqrt_half), exponent);
            let mantissa = _mm512_sub_epi32(bits, exponent);
            (_mm512_cvtepi32_ps(exponent), _mm512_castsi512_ps(mantissa))
        };
        sum(values: __m512) -> f32 = {
            let (low, high) = halves(values);
            let eight = _mm256_add_ps(low, high);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        };
        largest_bits(values: __m512) -> u32 = _mm512_reduce_max_epu32(_mm512_castps_si512(values));
        no_doubles() -> [__m512d; 2] = [_mm512_setzero_pd(); 2];
        add_doubles(sums: [__m512d; 2], values: __m512) -> [__m512d; 2] = {
            let (low, high) = halves(values);
            [
                _mm512_add_pd(sums[0], _mm512_cvtps_pd(low)),
                _mm512_add_pd(sums[1], _mm512_cvtps_pd(high)),
            ]
        };
        sum_doubles(values: [__m512d; 2]) -> f64 = {
            let eight = _mm512_add_pd(values[0], values[1]);
            let upper = _mm512_extractf64x4_pd::<1>(eight);
            let four = _mm256_add_pd(_mm512_castpd512_pd256(eight), upper);
            let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        };
        count_from(first: i32) -> __m512i = _mm512_add_epi32(
            _mm512_set1_epi32(first),
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        );
        count_on(counts: __m512i) -> __m512i =
            _mm512_add_epi32(counts, _mm512_set1_epi32(16));
        count_above(counts: __m512i, a: __m512, b: __m512) -> __m512i =
            count_up(counts, _mm512_cmpgt_epi32_mask(_mm512_castps_si512(a), _mm512_castps_si512(b)));
        below(counts: __m512i, limit: i32) -> u32 =
            u32::from(_mm512_cmplt_epi32_mask(counts, _mm512_set1_epi32(limit)));
        least_below(values: __m512, counts: __m512i, limit: i32) -> f32 = {
            let below = _mm512_cmplt_epi32_mask(counts, _mm512_set1_epi32(limit));
            let none = _mm512_set1_ps(f32::INFINITY);
            _mm512_reduce_min_ps(_mm512_mask_mov_ps(none, below, values))
        };
    }

    #[inline(always)]
    fn swap(self, column: __m512, distance: usize) -> __m512 {
        // SAFETY: as in `lanewise`.
        unsafe {
            match distance {
                8 => _mm512_shuffle_f32x4::<0b01_00_11_10>(column, column),
                4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(column, column),
                2 => _mm512_permute_ps::<0b01_00_11_10>(column),
                _ => _mm512_permute_ps::<0b10_11_00_01>(column),
            }
        }
    }

    #[inline(always)]
    fn load(self, lanes: &[f32; LANES]) -> __m512 {
        // SAFETY: 64 bytes are readable; the load needs no alignment.
        unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
    }

    #[inline(always)]
    fn load_column(self, lanes: &[f32]) -> __m512 {
        self.load(lanes.first_chunk().expect("sixteen lanes"))
    }

    #[inline(always)]
    fn load_f16(self, lanes: &[f16; LANES]) -> __m512 {
        // SAFETY: 32 bytes are readable; the load needs no alignment.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(lanes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, lanes: &[bf16; LANES]) -> __m512 {
        // SAFETY: 32 bytes are readable; the load needs no alignment.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(lanes.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    fn store(self, values: __m512, lanes: &mut [f32; LANES]) {
        // SAFETY: 64 bytes are writable; the store needs no alignment.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), values) }
    }

    #[inline(always)]
    fn load_ints(self, lanes: &[i32; LANES]) -> __m512i {
        // SAFETY: 64 bytes are readable; the load needs no alignment.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    }

    // Storing all lanes: storing those of the mask alone is slow on some processors.
    #[inline(always)]
    fn compress(self, values: __m512, mask: u32, to: &mut [f32; LANES]) {
        // SAFETY: 64 bytes are writable; the store needs no alignment.
        unsafe {
            _mm512_storeu_ps(to.as_mut_ptr(), _mm512_maskz_compress_ps(mask as u16, values));
        }
    }

    #[inline(always)]
    fn compress_ints(self, values: __m512i, mask: u32, to: &mut [i32; LANES]) {
        // SAFETY: as in `compress`.
        unsafe {
            let front = _mm512_maskz_compress_epi32(mask as u16, values);
            _mm512_storeu_si512(to.as_mut_ptr().cast(), front);
        }
    }

    #[inline(always)]
    fn lanes_of(self, mask: u32, first: i32, to: &mut [i32; LANES]) {
        self.compress_ints(self.count_from(first), mask, to);
    }

    #[inline(always)]
    fn gather(self, memory: &[f32], at: &[i32; LANES], count: usize) -> __m512 {
        let at = self.load_ints(at);
        // SAFETY: what the mask keeps lies within the memory.
        unsafe {
            let (none, within) = (_mm512_setzero_ps(), within(at, memory.len(), count));
            _mm512_mask_i32gather_ps::<4>(none, within, at, memory.as_ptr())
        }
    }

    #[inline(always)]
    fn gather_f16(self, memory: &[f16], at: &[i32; LANES], count: usize) -> __m512 {
        // SAFETY: as in `lanewise`.
        unsafe {
            let upper = gather_halves(memory.reinterpret_cast(), self.load_ints(at), count);
            _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(upper)))
        }
    }

    #[inline(always)]
    fn gather_bf16(self, memory: &[bf16], at: &[i32; LANES], count: usize) -> __m512 {
        // SAFETY: as in `lanewise`.
        unsafe {
            let upper = gather_halves(memory.reinterpret_cast(), self.load_ints(at), count);
            _mm512_castsi512_ps(_mm512_and_si512(upper, _mm512_set1_epi32(!0xffff)))
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, memory: &[T], index: usize) {
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(memory.as_ptr().wrapping_add(index).cast()) }
    }
}

/// Which of the first `count` indices are below a length.
#[inline]
#[target_feature(enable = "avx512f,bmi2")]
fn within(at: __m512i, length: usize, count: usize) -> __mmask16 {
    let length = i32::try_from(length).unwrap_or(i32::MAX);
    let first = _bzhi_u32(0xffff, count.min(LANES) as u32) as u16;
    _mm512_mask_cmplt_epu32_mask(first, at, _mm512_set1_epi32(length))
}

/// Elements of two bytes by their indices, in the upper halves of the lanes: each is loaded with the one
/// before it, the first with the one after it. Lanes from `count` on are 0.
#[inline]
#[target_feature(enable = "avx512f,bmi2")]
fn gather_halves(memory: &[u16], at: __m512i, count: usize) -> __m512i {
    let within = within(at, memory.len(), count);
    if memory.len() < 2 {
        let only = memory.first().map_or(0, |&bits| i32::from(bits) << 16);
        return _mm512_maskz_set1_epi32(within, only);
    }
    let one = _mm512_set1_epi32(1);
    let before = _mm512_sub_epi32(_mm512_max_epu32(at, one), one);
    let (none, from) = (_mm512_setzero_si512(), memory.as_ptr().cast());
    // SAFETY: what the mask keeps lies within the memory, and so does the element before it or, where that
    // is the first, the one after it.
    let two = unsafe { _mm512_mask_i32gather_epi32::<2>(none, within, before, from) };
    _mm512_mask_slli_epi32::<16>(two, _mm512_testn_epi32_mask(at, at), two)
}

/// Adds 1 to the lanes of a mask; of the intrinsic the compiler makes two instructions.
#[inline]
#[target_feature(enable = "avx512f")]
fn count_up(counts: __m512i, mask: __mmask16) -> __m512i {
    let sum;
    // SAFETY: arithmetic of registers.
    unsafe {
        asm!(
            "vpaddd {counts} {{{mask}}}, {counts}, {one}",
            counts = inout(zmm_reg) counts => sum,
            mask = in(kreg) mask,
            one = in(zmm_reg) _mm512_set1_epi32(1),
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Where a >= b, of weights.
#[inline]
#[target_feature(enable = "avx512f")]
fn at_least(a: __m512, b: __m512) -> __mmask16 {
    _mm512_cmpge_epi32_mask(_mm512_castps_si512(a), _mm512_castps_si512(b))
}

/// Lanes 0 to 7, and 8 to 15.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn halves(values: __m512) -> (__m256, __m256) {
    (_mm512_castps512_ps256(values), _mm512_extractf32x8_ps::<1>(values))
}
