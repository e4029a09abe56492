//! The floating-point environment that results are defined in.
//!
//! Rounding to the nearest, and subnormals kept: so that results are the same whatever the caller's thread
//! has. `torch.set_flush_denormal(True)` sets flush-to-zero and denormals-are-zero, and so does any library
//! that was built with fast-math, when it is loaded; a new thread inherits them.
//!
//! Rust itself assumes this environment. So it is set before other functions are called, and the one of
//! the caller is set again when they have returned, also by a panic.

/// Runs `work` in the environment that results are defined in; after that the caller's is as it was.
///
/// Some 20 ns: for calls and for what a helper takes of them, not for rows.
pub(crate) fn with_ours<R>(work: impl FnOnce() -> R) -> R {
    let _restored = Restored::set();
    apart(work)
}

/// A function of its own, so that no operation of `work` moves to where the environment is the caller's.
#[inline(never)]
fn apart<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// The caller's environment, set again at the end.
struct Restored(Option<control::Word>);

impl Restored {
    fn set() -> Self {
        let word = control::get();
        let is_ours = control::is_ours(word);
        if !is_ours {
            control::set(control::OURS);
        }
        Self((!is_ours).then_some(word))
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(word) = self.0 {
            control::set(word);
        }
    }
}

/// MXCSR.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[allow(unsafe_code)]
mod control {
    use std::arch::asm;

    pub type Word = u32;

    /// All exceptions masked, to the nearest, subnormals kept.
    pub const OURS: Word = 0x1f80;

    /// The same, rounding upwards, with subnormals taken for zero, read and written.
    pub const FLUSHED: Word = OURS | 0x8040 | 0x4000;

    /// But for the flags that tell what has happened.
    pub fn is_ours(word: Word) -> bool {
        word & !0x3f == OURS
    }

    pub fn get() -> Word {
        let mut word = 0;
        // SAFETY: the instruction writes four bytes to where it is told.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack)) };
        word
    }

    pub fn set(word: Word) {
        // SAFETY: the instruction reads four bytes, which are a word of the register's before, or `OURS`.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack)) };
    }
}

/// FPCR.
#[cfg(all(target_arch = "aarch64", not(miri)))]
#[allow(unsafe_code)]
mod control {
    use std::arch::asm;

    pub type Word = u64;

    /// No exception is trapped, to the nearest, subnormals kept.
    pub const OURS: Word = 0;

    /// The same, rounding upwards, with subnormals taken for zero.
    pub const FLUSHED: Word = 1 << 24 | 1 << 22;

    pub fn is_ours(word: Word) -> bool {
        word == OURS
    }

    pub fn get() -> Word {
        let word;
        // SAFETY: reading the register changes nothing.
        unsafe { asm!("mrs {}, fpcr", out(reg) word, options(nostack)) };
        word
    }

    pub fn set(word: Word) {
        // SAFETY: a word of the register's before, or `OURS`.
        unsafe { asm!("msr fpcr, {}", in(reg) word, options(nostack)) };
    }
}

/// Other processors, and Miri, which runs no assembly: the environment is taken as it is.
#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod control {
    pub type Word = ();

    pub const OURS: Word = ();
    pub const FLUSHED: Word = ();

    pub fn is_ours((): Word) -> bool {
        true
    }

    pub fn get() -> Word {}

    pub fn set((): Word) {}
}

/// Subnormals flushed and rounding upwards on this thread, for tests, until it is dropped.
#[doc(hidden)]
#[derive(Debug)]
pub struct Flushed(control::Word);

impl Flushed {
    /// Begins.
    #[must_use]
    pub fn begin() -> Self {
        let word = control::get();
        control::set(control::FLUSHED);
        Self(word)
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        control::set(self.0);
    }
}

#[cfg(all(test, target_arch = "x86_64", not(miri)))]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn ours_holds_within_and_the_callers_after_also_after_a_panic() {
        let flushed = Flushed::begin();
        let halved = || black_box(f32::MIN_POSITIVE) / black_box(2.0);
        let within = with_ours(|| (control::get() & !0x3f, halved().to_bits()));
        let after = control::get() & !0x3f;
        let panicked = std::panic::catch_unwind(|| with_ours(|| panic!("expected by the test")));
        let at_last = control::get() & !0x3f;
        drop(flushed);
        assert_eq!(within, (0x1f80, 0x0040_0000));
        assert!(panicked.is_err());
        assert_eq!((after, at_last), (control::FLUSHED, control::FLUSHED));
    }
}
