//! The 8 largest weights by a sorting network: the same steps whatever the weights.
//!
//! ```text
//! 8 blocks of 16 lanes      sort the column of each lane                       19 comparators
//! the next 8 blocks         8 largest of two columns: max(a[j], b[7 - j])       8 maxima
//!                           which rise and fall, so that they are sorted by    12 comparators
//! lanes i and i ^ 8         the same, of the columns of two lanes
//! lanes i and i ^ 4, 2, 1   the same; then every lane has the 8 largest of all
//! ```
//!
//! 1. Of 4 blocks the columns of 4 are sorted by 5 comparators, and two of them are 8 that fall and rise.

use crate::simd::{Kernel, LANES, Simd};

/// Weights that it finds, and blocks that it takes at once.
pub(super) const EIGHT: usize = 8;

/// Blocks of which it takes fewer steps.
const FOUR: usize = 4;

/// The 8 largest in descending order; 0.0 where there are fewer.
#[inline(always)]
pub(super) fn eight_largest<S: Simd>(simd: S, blocks: &[[f32; LANES]]) -> [f32; EIGHT] {
    if blocks.len() <= FOUR { simd.run(OfFour(blocks)) } else { simd.run(OfAll(blocks)) }
}

/// The network of at most 4 blocks.
struct OfFour<'a>(&'a [[f32; LANES]]);

impl Kernel for OfFour<'_> {
    type Output = [f32; EIGHT];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let mut columns = load::<S, FOUR>(simd, self.0);
        sort_four(simd, &mut columns);
        let [a, b, c, d] = columns;
        let mut columns = [a, b, c, d, d, c, b, a];
        for column in &mut columns[FOUR..] {
            *column = simd.swap::<8>(*column);
        }
        merge(simd, &mut columns);
        joined(simd, columns)
    }
}

/// The network of any number of blocks.
struct OfAll<'a>(&'a [[f32; LANES]]);

impl Kernel for OfAll<'_> {
    type Output = [f32; EIGHT];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let mut groups = self.0.chunks(EIGHT);
        let mut columns = load::<S, EIGHT>(simd, groups.next().unwrap_or_default());
        sort_eight(simd, &mut columns);
        for group in groups {
            let mut others = load::<S, EIGHT>(simd, group);
            sort_eight(simd, &mut others);
            join(simd, &mut columns, others);
        }
        join_lanes::<S, 8>(simd, &mut columns);
        joined(simd, columns)
    }
}

#[inline(always)]
fn load<S: Simd, const N: usize>(simd: S, blocks: &[[f32; LANES]]) -> [S::Floats; N] {
    let mut columns = [simd.splat(0.0); N];
    for (column, block) in columns.iter_mut().zip(blocks) {
        *column = simd.load(block);
    }
    columns
}

/// The 8 largest, where those of lanes i and i ^ 8 are joined.
#[inline(always)]
fn joined<S: Simd>(simd: S, mut columns: [S::Floats; EIGHT]) -> [f32; EIGHT] {
    join_lanes::<S, 4>(simd, &mut columns);
    join_lanes::<S, 2>(simd, &mut columns);
    join_lanes::<S, 1>(simd, &mut columns);
    let mut largest = [0.0; EIGHT];
    for (largest, &column) in largest.iter_mut().zip(&columns) {
        let mut lanes = [0.0; LANES];
        simd.store(column, &mut lanes);
        *largest = lanes[0];
    }
    largest
}

/// Makes of each sorted column the 8 largest of it and of that of another lane, sorted.
#[inline(always)]
fn join_lanes<S: Simd, const DISTANCE: usize>(simd: S, columns: &mut [S::Floats; EIGHT]) {
    let mut others = *columns;
    for other in &mut others {
        *other = simd.swap::<DISTANCE>(*other);
    }
    join(simd, columns, others);
}

/// Makes of each two sorted columns the 8 largest of both, sorted.
#[inline(always)]
fn join<S: Simd>(simd: S, columns: &mut [S::Floats; EIGHT], mut others: [S::Floats; EIGHT]) {
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
fn sort_four<S: Simd>(simd: S, columns: &mut [S::Floats; FOUR]) {
    order!(simd, columns: (0, 1) (2, 3));
    order!(simd, columns: (0, 2) (1, 3));
    order!(simd, columns: (1, 2));
}

/// Batcher's merge sort.
#[inline(always)]
fn sort_eight<S: Simd>(simd: S, columns: &mut [S::Floats; EIGHT]) {
    order!(simd, columns: (0, 1) (2, 3) (4, 5) (6, 7));
    order!(simd, columns: (0, 2) (1, 3) (4, 6) (5, 7));
    order!(simd, columns: (1, 2) (5, 6));
    order!(simd, columns: (0, 4) (1, 5) (2, 6) (3, 7));
    order!(simd, columns: (2, 4) (3, 5));
    order!(simd, columns: (1, 2) (3, 4) (5, 6));
}

/// Sorts columns that rise and fall, or fall and rise.
#[inline(always)]
fn merge<S: Simd>(simd: S, columns: &mut [S::Floats; EIGHT]) {
    order!(simd, columns: (0, 4) (1, 5) (2, 6) (3, 7));
    order!(simd, columns: (0, 2) (1, 3) (4, 6) (5, 7));
    order!(simd, columns: (0, 1) (2, 3) (4, 5) (6, 7));
}
