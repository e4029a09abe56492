//! Pass 2: the candidates, a superset of the k largest weights that reach the floor.

use super::candidates::Candidates;
use super::chunks::{CHUNK, Chunks};
use crate::simd::{Kernel, LANES, Row, Simd, Stored};

/// Hits of a chunk up to which they are taken one by one: four blocks of which a few keys are hits.
const FEW: u32 = 8;

/// Collects what reaches a threshold from the chunks that were listed.
pub(super) struct Collect<'a, T> {
    pub row: Row<'a, T>,
    pub chunks: &'a Chunks,
    /// How many were listed.
    pub hits: usize,
    pub threshold: f32,
    /// So many that no more are needed.
    pub enough: usize,
    pub found: &'a mut Candidates,
}

impl<T: Stored> Kernel for Collect<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let threshold = simd.splat(self.threshold);
        let mut found = self.found.begin();
        for &number in self.chunks.listed(self.hits) {
            let blocks = self.chunks.load(simd, self.row, number as usize);
            let hits = simd.at_least_of_four(blocks, threshold);
            let begin = number as usize * CHUNK * LANES;
            if hits.count_ones() <= FEW {
                found.push_each(self.row, hits, begin);
            } else {
                for (at, &block) in blocks.iter().enumerate() {
                    let hits = (hits >> (at * LANES)) as u32 & 0xffff;
                    if hits != 0 {
                        found.push(simd, block, hits, begin + at * LANES);
                    }
                }
            }
            if found.count >= self.enough {
                break;
            }
        }
        let count = found.count;
        self.found.end(count);
    }
}
