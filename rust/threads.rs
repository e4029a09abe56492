//! Work that a thread and its helpers do in parallel.
//!
//! 1. The thread that called works too, because for small tasks the others hardly wake in time. So there is
//!    one helper fewer than there are threads: one too many looked for work on a core where others did it.
//! 2. A call takes helpers that are idle, and no others: what waited for one at work would wait for the
//!    work of another call. Where none is idle it works alone.
//! 3. Waking a thread takes as long as a small call. Where calls come in a row, who waits stays awake: the
//!    thread that called until its helpers have ended, and helpers until the next call. They offer the core
//!    to any other thread all the time; once one has taken it, nobody stays awake for a while.
//! 4. Elsewhere the threads of others hold the cores for a while after their work, as torch's do. A thread
//!    that sleeps leaves its core to a helper that has none.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, RwLock};
use std::time::{Duration, Instant};

use rayon::{Scope, ThreadPool, ThreadPoolBuilder};

use crate::float_environment::with_ours;

/// How long to stay awake, and how soon after the last a call comes in a row.
const PATIENCE: Duration = Duration::from_micros(200);

/// A yield that takes longer gave the core to another thread: else it takes a microsecond, and what takes
/// the core keeps it for some hundred at least.
const TAKEN: Duration = Duration::from_micros(50);

/// How long nobody stays awake after another thread has taken a core.
const CALM: Duration = Duration::from_millis(100);

/// How many times threads worked in parallel.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Times are counted from here.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// When the last call ended, in nanoseconds.
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Until when nobody stays awake, in nanoseconds.
static CALM_UNTIL: AtomicU64 = AtomicU64::new(0);

/// Threads of a call, as [`set_threads`] has it; 0 for [`DEFAULT`].
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// As many as `RAYON_NUM_THREADS` says, or cores.
static DEFAULT: LazyLock<usize> = LazyLock::new(|| {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|asked| asked.parse().ok());
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    asked.filter(|&threads| threads > 0).unwrap_or_else(cores)
});

/// The helpers of threads that belong to no pool.
///
/// Never waited for: a fork may find it locked by a thread that it does not have.
static HELPERS: RwLock<Option<Arc<Helpers>>> = RwLock::new(None);

struct Helpers {
    pool: ThreadPool,
    /// How many have no work.
    idle: AtomicUsize,
    /// The process whose threads they are: a fork of it has none.
    process: u32,
}

/// Sets how many threads a call works on at most; `None` for as many as `RAYON_NUM_THREADS` says, or cores.
///
/// Results do not depend on it. Calls that are at work keep their threads.
pub fn set_threads(threads: Option<NonZeroUsize>) {
    THREADS.store(threads.map_or(0, NonZeroUsize::get), Ordering::Relaxed);
}

/// How many threads a call works on at most.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => *DEFAULT,
        threads => threads,
    }
}

impl Helpers {
    /// Those of the process, as many as are wanted; none where that is none, where there can be no more
    /// threads, or in a fork.
    fn current() -> Option<Arc<Self>> {
        let count = threads() - 1;
        if count == 0 {
            return None;
        }
        let fits = |helpers: &&Arc<Self>| helpers.pool.current_num_threads() == count;
        if let Some(helpers) = HELPERS.try_read().ok()?.as_ref().filter(fits) {
            return helpers.are_here().then(|| Arc::clone(helpers));
        }
        let mut current = HELPERS.try_write().ok()?;
        if current.as_ref().is_some_and(|helpers| !helpers.are_here()) {
            return None;
        }
        let helpers = Arc::new(Self::new(count)?);
        // Those that were there end when their last call has.
        *current = Some(Arc::clone(&helpers));
        Some(helpers)
    }

    fn new(count: usize) -> Option<Self> {
        let name = |number| format!("hallutrace {number}");
        let pool = ThreadPoolBuilder::new().num_threads(count).thread_name(name).build().ok()?;
        Some(Self { pool, idle: AtomicUsize::new(count), process: std::process::id() })
    }

    fn are_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// Takes idle helpers, so many at most; gives how many.
    fn take(&self, most: usize) -> usize {
        let left = |idle: usize| Some(idle - idle.min(most));
        let idle = self.idle.fetch_update(Ordering::Acquire, Ordering::Relaxed, left);
        idle.map_or(0, |idle| idle.min(most))
    }
}

/// Whether another call has only just ended, and no other thread wants the cores.
pub(crate) fn in_a_row() -> bool {
    let now = nanoseconds();
    now.saturating_sub(ENDED.load(Ordering::Relaxed)) < PATIENCE.as_nanos() as u64
        && now >= CALM_UNTIL.load(Ordering::Relaxed)
}

/// Tells that a call has ended.
pub(crate) fn end_call() {
    ENDED.store(nanoseconds(), Ordering::Relaxed);
}

fn nanoseconds() -> u64 {
    START.elapsed().as_nanos() as u64
}

/// Runs `work` on `most` threads at most, of which this is one, until all have returned; who waits may stay
/// awake.
///
/// The others belong to the pool that this thread belongs to, if any.
pub(crate) fn run_in_parallel(most: usize, awake: bool, work: impl Fn() + Sync) {
    if rayon::current_thread_index().is_some() {
        let count = (rayon::current_num_threads() - 1).min(most.saturating_sub(1));
        let working = AtomicUsize::new(count);
        return rayon::in_place_scope(|scope| help(scope, &working, None, awake, &work));
    }
    let most = most.min(threads());
    let helpers = if most < 2 { None } else { Helpers::current() };
    let taken = helpers.as_ref().map_or(0, |helpers| helpers.take(most - 1));
    match helpers.as_deref() {
        Some(Helpers { pool, idle, .. }) if taken > 0 => {
            let working = AtomicUsize::new(taken);
            pool.in_place_scope(|scope| help(scope, &working, Some(idle), awake, &work));
        }
        _ => work(),
    }
}

/// Works beside so many helpers, who are idle once they have ended.
fn help<'a>(
    scope: &Scope<'a>,
    working: &'a AtomicUsize,
    idle: Option<&'a AtomicUsize>,
    awake: bool,
    work: &'a (impl Fn() + Sync),
) {
    let call = 1 + CALLS.fetch_add(1, Ordering::Relaxed);
    for _ in 0..working.load(Ordering::Relaxed) {
        scope.spawn(move |_| {
            let _ended = Ended { working, idle };
            // A thread has the environment of the one that made it.
            with_ours(work);
            if awake {
                let is_last = move || CALLS.load(Ordering::Relaxed) == call;
                rayon::spawn(move || stay_awake_while(is_last, std::thread::yield_now));
            }
        });
    }
    work();
    if awake {
        stay_awake_while(|| working.load(Ordering::Acquire) > 0, std::thread::yield_now);
    }
}

/// Tells that a helper has ended, also by a panic.
struct Ended<'a> {
    working: &'a AtomicUsize,
    idle: Option<&'a AtomicUsize>,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if let Some(idle) = self.idle {
            idle.fetch_add(1, Ordering::Release);
        }
        self.working.fetch_sub(1, Ordering::Release);
    }
}

/// Waits while something holds, for a while at most, and no longer than no other thread wants the core.
fn stay_awake_while(holds: impl Fn() -> bool, offer_core: impl Fn()) {
    let begin = Instant::now();
    let mut waited = Duration::ZERO;
    while holds() && waited < PATIENCE {
        offer_core();
        let now = begin.elapsed();
        if now.saturating_sub(waited) > TAKEN {
            CALM_UNTIL.store(nanoseconds() + CALM.as_nanos() as u64, Ordering::Relaxed);
            return;
        }
        waited = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// The number of threads is one for all tests.
    static ALONE: Mutex<()> = Mutex::new(());

    /// How many threads have begun and ended a piece of work.
    fn counted(most: usize, awake: bool) -> (usize, usize) {
        let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        run_in_parallel(most, awake, || {
            begun.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(2 * PATIENCE);
            ended.fetch_add(1, Ordering::Relaxed);
        });
        (begun.into_inner(), ended.into_inner())
    }

    fn with_threads(threads: usize, act: impl FnOnce()) {
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        set_threads(NonZeroUsize::new(threads));
        act();
        set_threads(None);
    }

    #[test]
    fn all_have_returned_and_are_no_more_than_asked_for() {
        for threads in [1, 2, 5] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            for (most, awake) in [(1, true), (2, true), (3, false), (9, true)] {
                let wanted = threads.min(most);
                assert_eq!(pool.install(|| counted(most, awake)), (wanted, wanted));
            }
        }
    }

    #[test]
    fn threads_are_as_many_as_were_set() {
        for threads in [1, 3, 2, 5] {
            with_threads(threads, || {
                for (most, awake) in [(1, true), (2, false), (9, true), (9, false)] {
                    let wanted = threads.min(most);
                    assert_eq!(counted(most, awake), (wanted, wanted));
                }
            });
        }
        assert_eq!(threads(), *DEFAULT);
    }

    #[test]
    fn a_call_does_not_wait_for_the_work_of_another() {
        with_threads(2, || {
            let is_over = AtomicBool::new(false);
            let (working, at_work) = mpsc::channel();
            let (end, ended) = mpsc::channel();
            let long = || {
                working.clone().send(()).expect("somebody waits");
                while !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(PATIENCE);
                }
            };
            let small = || {
                assert_eq!(counted(2, true), (1, 1));
                end.clone().send(()).expect("somebody waits");
            };
            std::thread::scope(|scope| {
                scope.spawn(|| run_in_parallel(2, true, long));
                // Both threads of the pool are at it.
                at_work.recv().expect("work");
                at_work.recv().expect("work");
                scope.spawn(small);
                let has_ended = ended.recv_timeout(Duration::from_secs(20)).is_ok();
                is_over.store(true, Ordering::Relaxed);
                assert!(has_ended);
            });
            assert_eq!(counted(2, false), (2, 2));
        });
    }

    #[test]
    fn helpers_are_idle_again_after_a_panic() {
        with_threads(3, || {
            for _ in 0..3 {
                let panic = || panic!("expected by the test");
                assert!(std::panic::catch_unwind(|| run_in_parallel(3, true, panic)).is_err());
            }
            assert_eq!(counted(3, false), (3, 3));
        });
    }

    #[test]
    fn nobody_stays_awake_where_another_thread_takes_the_core() {
        with_threads(2, || {
            let offers = AtomicUsize::new(0);
            stay_awake_while(
                || true,
                || {
                    offers.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(2 * TAKEN);
                },
            );
            assert_eq!(offers.into_inner(), 1);
            end_call();
            assert!(!in_a_row());
        });
    }

    #[test]
    fn helpers_have_the_environment_that_results_are_defined_in() {
        // Threads that are made anew, by one that flushes subnormals.
        let flushed = crate::float_environment::Flushed::begin();
        with_threads(4, || {
            let is_halved = AtomicUsize::new(0);
            let halve = || {
                let halved = std::hint::black_box(f32::MIN_POSITIVE) / std::hint::black_box(2.0);
                is_halved.fetch_add(usize::from(halved.to_bits() == 1 << 22), Ordering::Relaxed);
                std::thread::sleep(2 * PATIENCE);
            };
            run_in_parallel(4, false, || ());
            with_ours(|| run_in_parallel(4, false, halve));
            assert_eq!(is_halved.into_inner(), 4);
        });
        drop(flushed);
    }
}
