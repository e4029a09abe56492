//! The k-th largest weight, k at most 8, by a sorting network: the same steps whatever the weights.
//!
//! ```text
//! 8 columns, a register each        sort each lane                                     19 comparators
//! the next 8 columns                8 largest of two lanes: max(a[j], b[7 - j])         8 maxima
//!                                   which rise and fall, so that they are sorted by    12 comparators
//! lanes i and i ^ 8, 4, 2, 1,       the same, of two lanes; then every lane has the
//!   as many as a register has       8 largest of all
//! ```
//!
//! 1. Of 4 columns, lanes of 4 are sorted by 5 comparators, and two of them are 8 that fall and rise.
//! 2. The 8th largest is the least of the last maxima, which need not be sorted: a tenth of the time of
//!    112 tokens.

use crate::simd::{Kernel, LANES, Simd};

/// Weights that it finds, and columns that it takes at once.
pub(super) const EIGHT: usize = 8;

/// Columns of which it takes fewer steps.
const FOUR: usize = 4;

/// The k-th largest of some blocks, 0.0 where there are fewer; `blocks` are followed by zeros.
#[inline(always)]
pub(super) fn kth_largest<S: Simd>(simd: S, blocks: &[[f32; LANES]], keys: usize, k: usize) -> f32 {
    if keys <= FOUR * S::COLUMN {
        simd.run(OfFour { blocks, k })
    } else {
        simd.run(OfAll { blocks, keys, k })
    }
}

/// The network of at most 4 columns.
struct OfFour<'a> {
    blocks: &'a [[f32; LANES]],
    k: usize,
}

impl Kernel for OfFour<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut columns: [S::Column; FOUR] = load(simd, self.blocks.as_flattened());
        sort_four(simd, &mut columns);
        let [a, b, c, d] = columns;
        let mut columns = [a, b, c, d, d, c, b, a];
        for column in &mut columns[FOUR..] {
            *column = simd.swap(*column, S::COLUMN / 2);
        }
        merge(simd, &mut columns);
        kth(simd, columns, self.k, S::COLUMN / 2)
    }
}

/// The network of any number of columns.
struct OfAll<'a> {
    blocks: &'a [[f32; LANES]],
    keys: usize,
    k: usize,
}

impl Kernel for OfAll<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let weights = self.blocks.as_flattened();
        let mut columns: [S::Column; EIGHT] = load(simd, weights);
        sort_eight(simd, &mut columns);
        let mut begin = EIGHT * S::COLUMN;
        while begin < self.keys {
            let mut others: [S::Column; EIGHT] = load(simd, &weights[begin..]);
            sort_eight(simd, &mut others);
            join(simd, &mut columns, others);
            begin += EIGHT * S::COLUMN;
        }
        kth(simd, columns, self.k, S::COLUMN)
    }
}

#[inline(always)]
fn load<S: Simd, const N: usize>(simd: S, weights: &[f32]) -> [S::Column; N] {
    let weights = &weights[..N * S::COLUMN];
    let mut columns = [simd.load_column(weights); N];
    for (column, weights) in columns.iter_mut().zip(weights.chunks_exact(S::COLUMN)) {
        *column = simd.load_column(weights);
    }
    columns
}

/// The k-th largest, where lanes `apart` from each other are alike.
#[inline(always)]
fn kth<S: Simd>(simd: S, mut columns: [S::Column; EIGHT], k: usize, apart: usize) -> f32 {
    if apart > 8 {
        join_lanes(simd, &mut columns, 8);
    }
    if apart > 4 {
        join_lanes(simd, &mut columns, 4);
    }
    if apart > 2 {
        join_lanes(simd, &mut columns, 2);
    }
    let others = swapped(simd, columns, 1);
    if k == EIGHT {
        let mut least = simd.order(columns[0], others[EIGHT - 1]).0;
        for at in 1..EIGHT {
            let larger = simd.order(columns[at], others[EIGHT - 1 - at]).0;
            least = simd.order(least, larger).1;
        }
        return simd.first(least);
    }
    join(simd, &mut columns, others);
    let mut largest = [0.0; EIGHT];
    for (largest, &column) in largest.iter_mut().zip(&columns) {
        *largest = simd.first(column);
    }
    largest[k - 1]
}

/// Makes of each sorted lane the 8 largest of it and of another lane, sorted.
#[inline(always)]
fn join_lanes<S: Simd>(simd: S, columns: &mut [S::Column; EIGHT], distance: usize) {
    let others = swapped(simd, *columns, distance);
    join(simd, columns, others);
}

#[inline(always)]
fn swapped<S: Simd>(
    simd: S,
    mut columns: [S::Column; EIGHT],
    distance: usize,
) -> [S::Column; EIGHT] {
    for column in &mut columns {
        *column = simd.swap(*column, distance);
    }
    columns
}

/// Makes of each two sorted lanes the 8 largest of both, sorted.
#[inline(always)]
fn join<S: Simd>(simd: S, columns: &mut [S::Column; EIGHT], mut others: [S::Column; EIGHT]) {
    others.reverse();
    for (column, &other) in columns.iter_mut().zip(&others) {
        *column = simd.order(*column, other).0;
    }
    merge(simd, columns);
}

/// Puts the larger first in each pair. A loop over pairs in a table would not be unrolled.
macro_rules! order {
    ($simd:ident, $columns:ident: $(($first:literal, $second:literal))*) => {
        $(
            ($columns[$first], $columns[$second]) = $simd.order($columns[$first], $columns[$second]);
        )*
    };
}

#[inline(always)]
fn sort_four<S: Simd>(simd: S, columns: &mut [S::Column; FOUR]) {
    order!(simd, columns: (0, 1) (2, 3));
    order!(simd, columns: (0, 2) (1, 3));
    order!(simd, columns: (1, 2));
}

/// Batcher's merge sort.
#[inline(always)]
fn sort_eight<S: Simd>(simd: S, columns: &mut [S::Column; EIGHT]) {
    order!(simd, columns: (0, 1) (2, 3) (4, 5) (6, 7));
    order!(simd, columns: (0, 2) (1, 3) (4, 6) (5, 7));
    order!(simd, columns: (1, 2) (5, 6));
    order!(simd, columns: (0, 4) (1, 5) (2, 6) (3, 7));
    order!(simd, columns: (2, 4) (3, 5));
    order!(simd, columns: (1, 2) (3, 4) (5, 6));
}

/// Sorts lanes that rise and fall, or fall and rise.
#[inline(always)]
fn merge<S: Simd>(simd: S, columns: &mut [S::Column; EIGHT]) {
    order!(simd, columns: (0, 4) (1, 5) (2, 6) (3, 7));
    order!(simd, columns: (0, 2) (1, 3) (4, 6) (5, 7));
    order!(simd, columns: (0, 1) (2, 3) (4, 5) (6, 7));
}
