//! Rows of weights as kernels read them: blocks of 16 keys, widened on the way into registers.

use half::{bf16, f16};

use super::{LANES, Simd};

/// Bytes of a cache line.
const LINE: usize = 64;

/// A type that weights are stored in.
pub(crate) trait Stored: Copy + Default + Send + Sync {
    /// 16 weights, widened exactly.
    fn load<S: Simd>(simd: S, lanes: &[Self; LANES]) -> S::Floats;

    /// [`Simd::gather`], widened exactly.
    fn gather<S: Simd>(simd: S, memory: &[Self], at: &[i32; LANES], count: usize) -> S::Floats;

    /// One weight, widened exactly.
    fn widen(self) -> f32;

    /// The blocks themselves where they are float32, else what they were widened to.
    fn single<'a>(blocks: &'a [[Self; LANES]], widened: &'a [[f32; LANES]]) -> &'a [[f32; LANES]];

    /// Whether elements have to be widened.
    const IS_NARROW: bool = size_of::<Self>() < size_of::<f32>();
}

impl Stored for f32 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, lanes: &[Self; LANES]) -> S::Floats {
        simd.load(lanes)
    }

    #[inline(always)]
    fn gather<S: Simd>(simd: S, memory: &[Self], at: &[i32; LANES], count: usize) -> S::Floats {
        simd.gather(memory, at, count)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn single<'a>(blocks: &'a [[f32; LANES]], _: &'a [[f32; LANES]]) -> &'a [[f32; LANES]] {
        blocks
    }
}

impl Stored for f16 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, lanes: &[Self; LANES]) -> S::Floats {
        simd.load_f16(lanes)
    }

    #[inline(always)]
    fn gather<S: Simd>(simd: S, memory: &[Self], at: &[i32; LANES], count: usize) -> S::Floats {
        simd.gather_f16(memory, at, count)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        super::plain::widen_f16(self)
    }

    #[inline(always)]
    fn single<'a>(_: &'a [[f16; LANES]], widened: &'a [[f32; LANES]]) -> &'a [[f32; LANES]] {
        widened
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn load<S: Simd>(simd: S, lanes: &[Self; LANES]) -> S::Floats {
        simd.load_bf16(lanes)
    }

    #[inline(always)]
    fn gather<S: Simd>(simd: S, memory: &[Self], at: &[i32; LANES], count: usize) -> S::Floats {
        simd.gather_bf16(memory, at, count)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        super::plain::widen_bf16(self)
    }

    #[inline(always)]
    fn single<'a>(_: &'a [[bf16; LANES]], widened: &'a [[f32; LANES]]) -> &'a [[f32; LANES]] {
        widened
    }
}

/// Four blocks.
#[inline(always)]
pub(crate) fn load_four<S: Simd, T: Stored>(
    simd: S,
    [a, b, c, d]: &[[T; LANES]; 4],
) -> [S::Floats; 4] {
    [T::load(simd, a), T::load(simd, b), T::load(simd, c), T::load(simd, d)]
}

/// The readable weights of one row, and the memory that follows them.
///
/// Lanes that lie beyond the row are loaded where there is memory, and become 0.0 before anything
/// is made of them: 0.0 adds nothing to a sum, is no maximum and never an edge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a, T> {
    memory: &'a [T],
    keys: usize,
    ahead: usize,
}

impl<'a, T: Stored> Row<'a, T> {
    /// The first `keys` elements of some memory; the row read next lies `ahead` elements further.
    #[inline(always)]
    pub fn new(memory: &'a [T], keys: usize, ahead: usize) -> Self {
        assert!(keys <= memory.len());
        Self { memory, keys, ahead }
    }

    /// How many keys there are.
    #[inline(always)]
    pub fn keys(self) -> usize {
        self.keys
    }

    /// The weight on a key; 0.0 beyond the row. Adding 0.0 turns -0.0 into 0.0.
    #[inline(always)]
    pub fn get(self, key: usize) -> f32 {
        if key < self.keys { self.memory[key].widen() + 0.0 } else { 0.0 }
    }

    /// The keys, stored.
    #[inline(always)]
    pub fn elements(self) -> &'a [T] {
        &self.memory[..self.keys]
    }

    /// The blocks that lie wholly in the row.
    #[inline(always)]
    pub fn blocks(self) -> &'a [[T; LANES]] {
        self.elements().as_chunks().0
    }

    /// Asks for a block of a row that is read some rows later; a tenth less time for rows that memory has
    /// to bring.
    #[inline(always)]
    pub fn prefetch<S: Simd>(self, simd: S, rows: usize, block: usize) {
        simd.prefetch(self.memory, rows.wrapping_mul(self.ahead).wrapping_add(block * LANES));
    }

    /// The same of a cache line.
    #[inline(always)]
    pub fn prefetch_line<S: Simd>(self, simd: S, rows: usize, line: usize) {
        self.prefetch(simd, rows, line * (LINE / size_of::<[T; LANES]>()));
    }

    /// How many cache lines it fills.
    #[inline(always)]
    pub fn lines(self) -> usize {
        self.keys.div_ceil(LINE / size_of::<T>())
    }

    /// The first `count` of 16 keys, fewer where the row ends; 0.0 in the other lanes.
    #[inline(always)]
    pub fn load_first<S: Simd>(self, simd: S, key: usize, count: usize) -> S::Floats {
        let count = count.min(self.keys - key);
        let memory = &self.memory[key..];
        if let Some(lanes) = memory.first_chunk::<LANES>() {
            return simd.keep_first(T::load(simd, lanes), count);
        }
        let mut lanes = [T::default(); LANES];
        lanes[..count].copy_from_slice(&memory[..count]);
        T::load(simd, &lanes)
    }

    /// The four blocks from a key on, of which the row has at most 64 from there; 0.0 in the lanes beyond it.
    #[inline(always)]
    pub fn load_four<S: Simd>(self, simd: S, key: usize) -> [S::Floats; 4] {
        let count = self.keys - key;
        let end;
        let four = if let Some(four) = self.memory[key..].first_chunk::<{ 4 * LANES }>() {
            four
        } else {
            end = self.end(key);
            &end
        };
        let four = four.as_chunks().0.first_chunk().expect("four blocks");
        simd.keep_first_of_four(load_four(simd, four), count)
    }

    /// The keys from one on, and zeros, where the memory ends.
    #[cold]
    fn end(self, key: usize) -> [T; 4 * LANES] {
        let mut lanes = [T::default(); 4 * LANES];
        lanes[..self.keys - key].copy_from_slice(&self.memory[key..self.keys]);
        lanes
    }

    /// What is left after the whole blocks; 0.0 in the other lanes, which may be all.
    #[inline(always)]
    pub fn tail<S: Simd>(self, simd: S) -> S::Floats {
        self.load_first(simd, self.keys / LANES * LANES, LANES)
    }

    /// The sum, in float64.
    #[inline(always)]
    pub fn sum<S: Simd>(self, simd: S) -> f64 {
        let mut sums = simd.no_doubles();
        for block in self.blocks() {
            sums = simd.add_doubles(sums, T::load(simd, block));
        }
        simd.sum_doubles(simd.add_doubles(sums, self.tail(simd)))
    }

    /// The first key whose weight is NaN, infinite or negative.
    #[cold]
    pub fn find_unsound(self) -> Option<(usize, f32)> {
        let weights = self.elements().iter().map(|weight| weight.widen()).enumerate();
        weights.into_iter().find(|(_, weight)| !(0.0..f32::INFINITY).contains(weight))
    }

    /// The row as float32, -0.0 as 0.0.
    #[cold]
    pub fn normalised(self) -> Vec<f32> {
        self.elements().iter().map(|weight| weight.widen() + 0.0).collect()
    }
}

/// Consecutive rows of one head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    memory: &'a [T],
    count: usize,
    stride: usize,
    /// Keys of the first row, and how many more each of the others has.
    keys: (usize, usize),
    ahead: usize,
}

impl<'a, T: Stored> Rows<'a, T> {
    /// `count` rows that begin `stride` elements after each other; the first has `keys.0` keys, each of the
    /// others `keys.1` more than the one before; what is read after each lies `ahead` elements further.
    #[inline(always)]
    pub fn new(
        memory: &'a [T],
        count: usize,
        stride: usize,
        keys: (usize, usize),
        ahead: usize,
    ) -> Self {
        Self { memory, count, stride, keys, ahead }
    }

    /// How many there are.
    #[inline(always)]
    pub fn count(self) -> usize {
        self.count
    }

    /// The rows from a number on, at most so many.
    #[inline(always)]
    pub fn part(self, begin: usize, most: usize) -> Self {
        let memory = &self.memory[begin * self.stride..];
        let (keys, more) = self.keys;
        let count = most.min(self.count - begin);
        Self { memory, count, keys: (keys + begin * more, more), ..self }
    }

    /// One of them.
    #[inline(always)]
    pub fn get(self, number: usize) -> Row<'a, T> {
        let keys = self.keys.0 + number * self.keys.1;
        Row::new(&self.memory[number * self.stride..], keys, self.ahead)
    }
}

impl<'a, T> From<Row<'a, T>> for Rows<'a, T> {
    #[inline(always)]
    fn from(row: Row<'a, T>) -> Self {
        Self { memory: row.memory, count: 1, stride: 0, keys: (row.keys, 0), ahead: row.ahead }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{InstructionSet, Kernel};

    struct Gather<'a, T>(&'a [T], [i32; LANES], usize);

    impl<T: Stored> Kernel for Gather<'_, T> {
        type Output = [f32; LANES];

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let mut lanes = [0.0; LANES];
            simd.store(T::gather(simd, self.0, &self.1, self.2), &mut lanes);
            lanes
        }
    }

    #[test]
    fn every_set_gathers_what_lies_within_the_memory() {
        fn check<T: Stored>(of: impl Fn(f32) -> T) {
            for length in 0..20_i32 {
                let memory: Vec<T> = (1..=length).map(|number| of(number as f32)).collect();
                let last = length - 1;
                let at =
                    [0, last, 1, last + 1, -1, i32::MAX, i32::MIN, 2, 3, 0, 5, 7, 11, 18, 19, last];
                for count in 0..=LANES {
                    let wanted = std::array::from_fn(|lane| {
                        let within = lane < count && (0..=last).contains(&at[lane]);
                        if within { ((at[lane] + 1) as f32).to_bits() } else { 0 }
                    });
                    for set in InstructionSet::available() {
                        let found: [f32; LANES] = set.run(Gather(&memory, at, count));
                        assert_eq!(
                            found.map(f32::to_bits),
                            wanted,
                            "{} of {length}, {count}",
                            set.name()
                        );
                    }
                }
            }
        }
        check(|value| value);
        check(f16::from_f32);
        check(bf16::from_f32);
    }
}
