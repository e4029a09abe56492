//! Pass 2: the candidates, a superset of the k largest weights that reach the floor.

use super::candidates::{Candidates, Collector};
use super::chunks::{CHUNK, CHUNK_KEYS, Chunks, WORD};
use crate::simd::{Kernel, LANES, Row, Simd, Stored, load_four};

/// Hits of a chunk up to which they are taken one by one: four blocks of which a few keys are hits.
const FEW: u32 = 8;

/// Collects what reaches a threshold from the chunks that were listed, and from the rest of the row.
pub(super) struct Collect<'a, T> {
    pub row: Row<'a, T>,
    pub chunks: &'a Chunks,
    pub threshold: f32,
    /// So many that no more are needed.
    pub enough: usize,
    /// Whether k is small, so that few reach it.
    pub small_k: bool,
    pub found: &'a mut Candidates,
}

impl<T: Stored> Kernel for Collect<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { row, chunks, enough, .. } = self;
        let with_weights = !(S::MASKS && self.small_k);
        let threshold = simd.splat(self.threshold);
        let mut found = self.found.begin();
        let whole = row.blocks().as_chunks::<CHUNK>().0;
        for (word, &listed) in chunks.listed().iter().enumerate() {
            let mut listed = listed;
            while listed != 0 && found.count < enough {
                let number = word * WORD + listed.trailing_zeros() as usize;
                listed &= listed - 1;
                let blocks = load_four(simd, &whole[number]);
                let key = number * CHUNK_KEYS;
                collect(simd, row, (key, blocks), threshold, with_weights, &mut found);
            }
        }
        if found.count < enough {
            collect(simd, row, chunks.rest(simd), threshold, with_weights, &mut found);
        }
        let count = found.count;
        if with_weights {
            self.found.end(count);
        } else {
            self.found.end_keys(simd, row.elements(), count);
        }
    }
}

/// Collects the hits of a chunk that begins at `key`.
#[inline(always)]
fn collect<S: Simd, T: Stored>(
    simd: S,
    row: Row<'_, T>,
    (key, blocks): (usize, [S::Floats; CHUNK]),
    threshold: S::Floats,
    with_weights: bool,
    found: &mut Collector<'_>,
) {
    if S::MASKS {
        return found.push_four(simd, blocks, threshold, key, with_weights);
    }
    let hits = simd.at_least_of_four(blocks, threshold);
    if hits.count_ones() <= FEW {
        return found.push_each(row, hits, key);
    }
    for (at, &block) in blocks.iter().enumerate() {
        let hits = (hits >> (at * LANES)) as u32 & 0xffff;
        if hits != 0 {
            found.push(simd, block, hits, key + at * LANES);
        }
    }
}
