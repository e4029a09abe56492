//! Sixteen lanes of whatever the machine has.
//!
//! ```text
//! InstructionSet::current()     chosen once: the best the machine has, or HALLUTRACE_SIMD
//!   └─ run(kernel)              a function compiled for that set, in which
//!        └─ kernel.run(simd)    everything generic over `Simd` is inlined
//! ```
//!
//! Algorithms are written once, over [`Simd`]: 16 virtual lanes of float32. Every implementation rounds
//! each operation once, `mul_add` too, and joins lanes by the same tree, so the result has the same bits on
//! every machine.
//!
//! What kernels call must be `#[inline(always)]` all the way down: a function of its own would not be
//! compiled for the set.

mod memory;
mod plain;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::error::InputError;
pub(crate) use memory::{Row, Rows, Stored, load_four};
pub(crate) use plain::Plain;
#[cfg(target_arch = "x86_64")]
use x86::{Avx2, Avx512};

/// Lanes of everything.
pub(crate) const LANES: usize = 16;

/// Bits of the largest finite float32: what is above them, unsigned, is infinite, NaN or negative.
pub(crate) const LARGEST: u32 = f32::MAX.to_bits();

/// Bits of √½, where mantissas begin.
pub(crate) const SQRT_HALF: i32 = std::f32::consts::FRAC_1_SQRT_2.to_bits().cast_signed();

/// Bits of the mantissa that float32 stores.
pub(crate) const MANTISSA: u32 = f32::MANTISSA_DIGITS - 1;

/// The bits before those of the mantissa.
pub(crate) const EXPONENT: i32 = -1 << MANTISSA;

/// The environment variable that forces an instruction set.
const VARIABLE: &str = "HALLUTRACE_SIMD";

/// Sixteen virtual lanes. A value of the type is the proof that the machine has the instructions.
///
/// Masks have one bit for each lane, the first lane in the lowest.
pub(crate) trait Simd: Copy + Send + Sync {
    /// 16 float32.
    type Floats: Copy;
    /// 16 float64.
    type Doubles: Copy;
    /// 16 int32.
    type Ints: Copy;
    /// `COLUMN` float32, as many as a register has.
    type Column: Copy;
    /// Lanes of a column: 8 or 16.
    const COLUMN: usize;
    /// Whether masks have registers of their own: ranking 16 lanes, twice, then takes less than sorting
    /// columns, collecting from all blocks less than asking which of them have anything, and gathering the
    /// weights of 16 keys less than collecting both.
    const MASKS: bool;
    /// Whether there are registers for everything that the weights of a tile are added to.
    const ONE_LOOP: bool;

    /// One value in all lanes.
    fn splat(self, value: f32) -> Self::Floats;
    /// The same for loops with more constants than registers: the compiler keeps it in memory as it is, and
    /// operations read it from there, instead of loading the constant and copying it into all lanes for each.
    #[inline(always)]
    fn constant(self, value: f32) -> Self::Floats {
        self.splat(value)
    }
    fn load(self, lanes: &[f32; LANES]) -> Self::Floats;
    fn load_f16(self, lanes: &[half::f16; LANES]) -> Self::Floats;
    fn load_bf16(self, lanes: &[half::bf16; LANES]) -> Self::Floats;
    fn store(self, values: Self::Floats, lanes: &mut [f32; LANES]);

    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// a · b + c, rounded once.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a` where it is greater, else `b`; so `b` where both are zero.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The larger of the bits as unsigned integers: the larger weight, or what no weight may be.
    fn max_bits(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The bits of both: as integers no less than either.
    fn or_bits(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// Where a >= b, both weights: by their bits, because what flushes subnormals takes the least for zero.
    fn at_least(self, a: Self::Floats, b: Self::Floats) -> u32;
    /// Where the lanes of four are >= `least`, those of the first in the lowest bits.
    #[inline(always)]
    fn at_least_of_four(self, four: [Self::Floats; 4], least: Self::Floats) -> u64 {
        let mut mask = 0;
        for (at, &values) in four.iter().enumerate() {
            mask |= u64::from(self.at_least(values, least)) << (at * LANES);
        }
        mask
    }
    /// The lanes one before: `values` moved up by one lane, with the last lane of `before` in front.
    fn shift_one(self, before: Self::Floats, values: Self::Floats) -> Self::Floats;
    /// The same by two lanes.
    fn shift_two(self, before: Self::Floats, values: Self::Floats) -> Self::Floats;
    /// The first `count` lanes, 0.0 in the others.
    fn keep_first(self, values: Self::Floats, count: usize) -> Self::Floats;
    /// The first `count` lanes of four, 0.0 in the others.
    #[inline(always)]
    fn keep_first_of_four(self, four: [Self::Floats; 4], count: usize) -> [Self::Floats; 4] {
        let [a, b, c, d] = four;
        [
            self.keep_first(a, count),
            self.keep_first(b, count.saturating_sub(LANES)),
            self.keep_first(c, count.saturating_sub(2 * LANES)),
            self.keep_first(d, count.saturating_sub(3 * LANES)),
        ]
    }
    /// 0.0 where a >= b does not hold, both weights, by their bits.
    fn keep_at_least(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// e · 2^23 and mantissa m in [√½, √2) with w = m · 2^e, for normal w; finite for 0. The constants are the
    /// bits of √½ and those before the mantissa's.
    fn split(
        self,
        weights: Self::Floats,
        constants: [Self::Floats; 2],
    ) -> (Self::Floats, Self::Floats);

    /// The first lanes of some memory, which has as many.
    fn load_column(self, lanes: &[f32]) -> Self::Column;
    /// The first lane.
    fn first(self, column: Self::Column) -> f32;
    /// The larger and the smaller of two weights; anything of what is no weight.
    fn order(self, a: Self::Column, b: Self::Column) -> (Self::Column, Self::Column);
    /// Exchanges lanes i and i ^ `distance`, a power of two below `COLUMN`.
    fn swap(self, column: Self::Column, distance: usize) -> Self::Column;

    /// The sum of the lanes, halves onto halves.
    fn sum(self, values: Self::Floats) -> f32;
    /// The same of a few.
    #[inline(always)]
    fn sum_each<const ROWS: usize>(self, values: &[Self::Floats; ROWS]) -> [f32; ROWS] {
        std::array::from_fn(|row| self.sum(values[row]))
    }
    /// The largest of the bits of all lanes, unsigned.
    fn largest_bits(self, values: Self::Floats) -> u32;

    fn no_doubles(self) -> Self::Doubles;
    /// Widens and adds, lane by lane.
    fn add_doubles(self, sums: Self::Doubles, values: Self::Floats) -> Self::Doubles;
    /// The sum of the lanes, halves onto halves.
    fn sum_doubles(self, values: Self::Doubles) -> f64;

    /// `first`, `first + 1`, ...
    fn count_from(self, first: i32) -> Self::Ints;
    /// 16 more in all lanes.
    fn count_on(self, counts: Self::Ints) -> Self::Ints;
    fn load_ints(self, lanes: &[i32; LANES]) -> Self::Ints;
    /// Counts up where a > b: an order among weights, which decides no zero.
    fn count_above(self, counts: Self::Ints, a: Self::Floats, b: Self::Floats) -> Self::Ints;
    /// Where a count is below a limit.
    fn below(self, counts: Self::Ints, limit: i32) -> u32;
    /// The least value whose count is below a limit; infinity where there is none.
    fn least_below(self, values: Self::Floats, counts: Self::Ints, limit: i32) -> f32;
    /// Moves the lanes of a mask to the front, in order; what follows them there is anything.
    fn compress(self, values: Self::Floats, mask: u32, to: &mut [f32; LANES]);
    /// The same of integers.
    fn compress_ints(self, values: Self::Ints, mask: u32, to: &mut [i32; LANES]);
    /// `first` and the number of each lane of a mask, in order; what follows them there is anything.
    fn lanes_of(self, mask: u32, first: i32, to: &mut [i32; LANES]);
    /// [`Self::compress`] and [`Self::lanes_of`] the lanes where `values` >= `least`; gives how many.
    #[inline(always)]
    fn take_at_least(
        self,
        values: Self::Floats,
        least: Self::Floats,
        first: i32,
        weights: &mut [f32; LANES],
        lanes: &mut [i32; LANES],
    ) -> usize {
        let mask = self.at_least(values, least);
        self.compress(values, mask, weights);
        self.lanes_of(mask, first, lanes);
        mask.count_ones() as usize
    }
    /// The first `count` of some indices, the elements there; 0.0 in the other lanes, and for what lies beyond
    /// the memory.
    #[inline(always)]
    fn gather(self, memory: &[f32], at: &[i32; LANES], count: usize) -> Self::Floats {
        gather_each(self, memory, at, count)
    }
    #[inline(always)]
    fn gather_f16(self, memory: &[half::f16], at: &[i32; LANES], count: usize) -> Self::Floats {
        gather_each(self, memory, at, count)
    }
    #[inline(always)]
    fn gather_bf16(self, memory: &[half::bf16], at: &[i32; LANES], count: usize) -> Self::Floats {
        gather_each(self, memory, at, count)
    }
    /// Runs another kernel in a function of its own.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;
    /// The same of a kernel that calls [`Self::mul_add`], for which plain Rust needs instructions that it is
    /// not compiled for.
    fn run_fused<K: Kernel>(self, kernel: K) -> K::Output {
        self.run(kernel)
    }
    /// Asks for the cache line of an element that is read soon, which may lie beyond the memory.
    fn prefetch<T>(self, memory: &[T], index: usize);
}

/// [`Simd::gather`], one by one.
#[inline(always)]
fn gather_each<S: Simd, T: Stored>(
    simd: S,
    memory: &[T],
    at: &[i32; LANES],
    count: usize,
) -> S::Floats {
    let mut lanes = [0.0; LANES];
    for (lane, &at) in lanes.iter_mut().zip(at).take(count) {
        *lane = memory.get(at.cast_unsigned() as usize).map_or(0.0, |weight| weight.widen());
    }
    simd.load(&lanes)
}

/// What runs on an instruction set.
pub(crate) trait Kernel {
    /// What it gives.
    type Output;

    /// Runs; must be `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set that this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstructionSet(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Plain,
}

thread_local! {
    static ON_THREAD: Cell<Option<InstructionSet>> = const { Cell::new(None) };
}

impl InstructionSet {
    /// What this machine has, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut kinds = Vec::new();
        #[cfg(target_arch = "x86_64")]
        kinds.extend(
            [Avx512::detect().map(Kind::Avx512), Avx2::detect().map(Kind::Avx2)]
                .into_iter()
                .flatten(),
        );
        kinds.push(Kind::Plain);
        kinds.into_iter().map(Self).collect()
    }

    /// The set in use: that of [`Self::use_on_thread`], else that of the environment variable
    /// `HALLUTRACE_SIMD`, else the fastest.
    ///
    /// # Errors
    /// [`InputError::InstructionSet`] where the variable names none that this machine has.
    pub fn current() -> Result<Self, InputError> {
        static CHOSEN: OnceLock<Result<InstructionSet, InputError>> = OnceLock::new();
        ON_THREAD.get().map_or_else(|| CHOSEN.get_or_init(Self::choose).clone(), Ok)
    }

    /// Makes a set the current one on this thread; `None` goes back to the choice of the process.
    pub fn use_on_thread(set: Option<Self>) {
        ON_THREAD.set(set);
    }

    /// `avx512`, `avx2` or `plain`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(_) => "avx2",
            Kind::Plain => "plain",
        }
    }

    fn choose() -> Result<Self, InputError> {
        match std::env::var_os(VARIABLE) {
            Some(name) if !name.is_empty() => name.to_string_lossy().parse(),
            _ => Ok(Self::available()[0]),
        }
    }

    /// Runs a kernel compiled for this set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2(simd) => simd.run(kernel),
            Kind::Plain => Plain.run(kernel),
        }
    }
}

impl FromStr for InstructionSet {
    type Err = InputError;

    fn from_str(name: &str) -> Result<Self, InputError> {
        let available = Self::available();
        let found = available.iter().copied().find(|set| set.name() == name);
        found.ok_or_else(|| InputError::InstructionSet {
            name: name.to_owned(),
            available: available.iter().map(|set| set.name()).collect::<Vec<_>>().join(", "),
        })
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
