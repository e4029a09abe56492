//! Loops over one row of weights: the seam where instruction sets come in.
//!
//! Every kernel takes slices and works in 16 fixed lanes whose results are joined by one fixed tree,
//! without fused multiply-add, so that the bits do not depend on the machine. Arrays of 16 are what the
//! compiler turns into vector instructions.

/// Lanes of every sum.
pub(crate) const LANES: usize = 16;

/// Whether all weights are finite and not negative; -0.0 makes it `false` too, see [`find_unsound`].
pub(crate) fn is_sound(weights: &[f32]) -> bool {
    // Adding one to the exponent carries into the sign exactly for infinities and NaN.
    let signs = |weight: f32| weight.to_bits() | weight.to_bits().wrapping_add(1 << 23);
    let (blocks, tail) = weights.as_chunks::<LANES>();
    let mut lanes = [0; LANES];
    for block in blocks {
        for (lane, &weight) in lanes.iter_mut().zip(block) {
            *lane |= signs(weight);
        }
    }
    let all = tail.iter().fold(0, |all, &weight| all | signs(weight));
    lanes.iter().fold(all, |all, lane| all | lane) >> 31 == 0
}

/// The first key whose weight is NaN, infinite or negative.
pub(crate) fn find_unsound(weights: &[f32]) -> Option<usize> {
    weights.iter().position(|&weight| !(0.0..f32::INFINITY).contains(&weight))
}

/// Adds a row to the running sum over heads.
pub(crate) fn add_into(sums: &mut [f32], weights: &[f32]) {
    for (sum, &weight) in sums.iter_mut().zip(weights) {
        *sum += weight;
    }
}

/// Takes a row into the running maximum over heads.
pub(crate) fn max_into(maxima: &mut [f32], weights: &[f32]) {
    for (maximum, &weight) in maxima.iter_mut().zip(weights) {
        *maximum = if weight > *maximum { weight } else { *maximum };
    }
}

/// Divides the sum over heads by their number.
pub(crate) fn divide(sums: &mut [f32], heads: f32) {
    for sum in sums {
        *sum /= heads;
    }
}

/// The sum of a row in float64.
pub(crate) fn total(weights: &[f32]) -> f64 {
    let (blocks, tail) = weights.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for block in blocks {
        for (lane, &weight) in lanes.iter_mut().zip(block) {
            *lane += f64::from(weight);
        }
    }
    for (lane, &weight) in lanes.iter_mut().zip(tail) {
        *lane += f64::from(weight);
    }
    tree_sum(lanes)
}

/// The maximum of every `N`-th weight: `N` weights, so the k-th largest is a safe threshold for the
/// k largest weights of the row.
pub(crate) fn lane_maxima<const N: usize>(weights: &[f32]) -> [f32; N] {
    let (blocks, tail) = weights.as_chunks::<N>();
    let mut lanes = [0.0; N];
    for block in blocks {
        max_into(&mut lanes, block);
    }
    max_into(&mut lanes, tail);
    lanes
}

/// One bit for each weight of a block that reaches a threshold, the first key in the lowest bit.
pub(crate) fn hits(block: &[f32; LANES], threshold: f32) -> u32 {
    let mut bits = [0; LANES];
    for (lane, bit) in bits.iter_mut().enumerate() {
        *bit = if block[lane] >= threshold { 1 << lane } else { 0 };
    }
    bits.iter().fold(0, |hits, bit| hits | bit)
}

/// The k-th largest of a few weights, 1 <= k <= N: the least of those that fewer than k exceed.
///
/// `N`² comparisons, but none of them is a branch: four times as fast as sorting 16.
pub(crate) fn nth_largest<const N: usize>(weights: &[f32; N], k: usize) -> f32 {
    let mut exceeding = [0_u32; N];
    for &weight in weights {
        for lane in 0..N {
            exceeding[lane] += u32::from(weight > weights[lane]);
        }
    }
    let mut least = f32::INFINITY;
    for lane in 0..N {
        let is_among = exceeding[lane] < k as u32;
        least = if is_among && weights[lane] < least { weights[lane] } else { least };
    }
    least
}

/// Joins the lanes of a sum: halves onto halves.
pub(crate) fn tree_sum<T: Copy + std::ops::AddAssign>(mut lanes: [T; LANES]) -> T {
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
