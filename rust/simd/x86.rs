//! AVX2, AVX-512, and fused multiply-add for plain Rust: the one module of the crate with SIMD intrinsics.
//!
//! A token of the types here can only be had from `detect`, which asks the processor. So every method
//! of a token may use the instructions it stands for.
#![allow(unsafe_code)]
#![allow(clippy::wildcard_imports, reason = "intrinsics")]

mod avx2;
mod avx512;

use super::{Kernel, Plain};
pub(crate) use avx2::Avx2;
pub(crate) use avx512::Avx512;

/// Makes the token of an instruction set, with `detect`.
macro_rules! token {
    ($(#[$docs:meta])* $name:ident, [$($feature:tt),+]) => {
        $(#[$docs])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) struct $name(());

        impl $name {
            /// The token, where the processor and the system have all features.
            pub fn detect() -> Option<Self> {
                ($(std::arch::is_x86_feature_detected!($feature))&&+).then_some(Self(()))
            }
        }
    };
}

/// `Simd::run` of a token, for which `#[target_feature]` turns its features on.
macro_rules! run {
    ($features:literal) => {
        fn run<K: $crate::simd::Kernel>(self, kernel: K) -> K::Output {
            #[target_feature(enable = $features)]
            fn run<S: $crate::simd::Simd, K: $crate::simd::Kernel>(
                simd: S,
                kernel: K,
            ) -> K::Output {
                kernel.run(simd)
            }
            // SAFETY: the token proves that the processor has the features.
            unsafe { run(self, kernel) }
        }
    };
}

/// Runs plain Rust, compiled with AVX2 and fused multiply-add where the processor has them: without the
/// latter each is a call of a library.
///
/// Not for all of plain Rust, because with longer vectors selection took twice as long.
pub(crate) fn run_plain_fused<K: Kernel>(kernel: K) -> K::Output {
    #[target_feature(enable = "avx2,fma")]
    fn run<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Plain)
    }
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the processor has both.
        unsafe { run(kernel) }
    } else {
        kernel.run(Plain)
    }
}

/// Methods whose bodies are intrinsics of values, which touch no memory.
macro_rules! lanewise {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty = $body:expr;)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($argument: $type),*) -> $result {
                // SAFETY: the token proves that the processor has the instructions; they touch no
                // memory.
                unsafe { $body }
            }
        )*
    };
}
use {lanewise, run, token};
