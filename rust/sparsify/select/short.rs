//! The edges of a short row where k is small: question answering, head by head.
//!
//! ```text
//! pass 1 has kept every block, widened, as a chunk of its own
//! last = the k-th largest of all, by a network
//! collect what reaches it; of those equal to it, keep the first
//! ```

use super::cut::Cut;
use super::network::{EIGHT, eight_largest};
use super::{LANES, Selector, Simd};

/// Keys of the longest row of the kind: finding its largest weights costs less than looking at less.
pub(super) const SHORT: usize = 512;

impl Selector {
    /// Finds the edges, and gives how many weights are positive; more than there are if that is not
    /// known.
    #[inline(always)]
    pub(super) fn find_few<S: Simd>(&mut self, simd: S, k: usize, keys: usize) -> usize {
        let blocks = keys.div_ceil(LANES);
        let largest = eight_largest(simd, &self.chunks[..blocks]);
        let (last, floor) = (largest[k - 1], self.rules.floor());
        // Where all that reach it are equal, the first k do.
        let enough = if last < largest[0] { usize::MAX } else { k };
        let reaching = self.collect_blocks(simd, blocks, floor.max(last), enough);
        if reaching > k {
            let exceeding = largest[..k].iter().filter(|&&weight| weight > last).count();
            let cut = Cut { from: last.next_up(), tie: last, ties: k - exceeding };
            self.found.keep(simd, cut);
        }
        if last < floor && floor.to_bits() == 1 { reaching } else { usize::MAX }
    }

    /// Collects what reaches a threshold until there is enough, and gives how many that is.
    #[inline(always)]
    fn collect_blocks<S: Simd>(
        &mut self,
        simd: S,
        blocks: usize,
        threshold: f32,
        enough: usize,
    ) -> usize {
        let from = simd.splat(threshold);
        let blocks = &self.chunks[..blocks];
        // One bit for each block that has some; of few blocks nearly all have.
        let mut hits = ((1_u64 << blocks.len()) - 1) as u32;
        if blocks.len() > EIGHT {
            hits = 0;
            for block in blocks.iter().rev() {
                hits = 2 * hits + u32::from(simd.at_least(simd.load(block), from) != 0);
            }
        }
        let mut found = self.found.begin();
        while hits != 0 && found.count < enough {
            let number = hits.trailing_zeros() as usize;
            hits &= hits - 1;
            let weights = simd.load(&blocks[number]);
            found.push(simd, weights, simd.at_least(weights, from), number * LANES);
        }
        let count = found.count;
        self.found.end(count);
        count
    }
}
