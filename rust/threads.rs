//! Work that a thread does together with others.
//!
//! 1. The thread that called works too, because for small tasks the others hardly wake in time. So there is
//!    one helper fewer than there are threads: one too many looked for work on a core where others did it.
//! 2. Waking a thread takes as long as a small call. Where calls come in a row, who waits stays awake: the
//!    thread that called until its helpers have ended, and helpers until the next call. They leave the core
//!    to any other that wants it.
//! 3. Elsewhere the threads of others hold the cores for a while after their work, as torch's do. A thread
//!    that sleeps leaves its core to a helper that has none.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::{Scope, ThreadPool, ThreadPoolBuilder};

/// How long to stay awake, and how soon after the last a call comes in a row.
const PATIENCE: Duration = Duration::from_micros(200);

/// How many times threads worked together.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Times are counted from here.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// When the last call ended, in nanoseconds.
static ENDED: AtomicU64 = AtomicU64::new(0);

static HELPERS: LazyLock<Option<Helpers>> = LazyLock::new(Helpers::new);

/// The helpers of threads that belong to no pool.
struct Helpers {
    pool: ThreadPool,
    /// The process whose threads they are: a fork of it has none.
    process: u32,
}

impl Helpers {
    /// As many as `RAYON_NUM_THREADS` says, or cores, but one; none where that is none, or there can be no more
    /// threads.
    fn new() -> Option<Self> {
        let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|asked| asked.parse().ok());
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let helpers = asked.filter(|&threads| threads > 0).unwrap_or_else(cores) - 1;
        if helpers == 0 {
            return None;
        }
        let name = |number| format!("hallutrace {number}");
        let pool = ThreadPoolBuilder::new().num_threads(helpers).thread_name(name).build().ok()?;
        Some(Self { pool, process: std::process::id() })
    }
}

/// Whether another call has only just ended.
pub(crate) fn in_a_row() -> bool {
    nanoseconds().saturating_sub(ENDED.load(Ordering::Relaxed)) < PATIENCE.as_nanos() as u64
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
pub(crate) fn together(most: usize, awake: bool, work: impl Fn() + Sync) {
    if most < 2 {
        work();
    } else if rayon::current_thread_index().is_some() {
        let working = AtomicUsize::new((rayon::current_num_threads() - 1).min(most - 1));
        rayon::in_place_scope(|scope| help(scope, &working, awake, &work));
    } else if let Some(Helpers { pool, process }) = &*HELPERS
        && *process == std::process::id()
    {
        let working = AtomicUsize::new(pool.current_num_threads().min(most - 1));
        pool.in_place_scope(|scope| help(scope, &working, awake, &work));
    } else {
        work();
    }
}

/// Works beside so many helpers.
fn help<'a>(
    scope: &Scope<'a>,
    working: &'a AtomicUsize,
    awake: bool,
    work: &'a (impl Fn() + Sync),
) {
    let call = 1 + CALLS.fetch_add(1, Ordering::Relaxed);
    for _ in 0..working.load(Ordering::Relaxed) {
        scope.spawn(move |_| {
            work();
            if awake {
                rayon::spawn(move || stay_awake_while(|| CALLS.load(Ordering::Relaxed) == call));
            }
            working.fetch_sub(1, Ordering::Release);
        });
    }
    work();
    if awake {
        stay_awake_while(|| working.load(Ordering::Acquire) > 0);
    }
}

/// Waits while something holds, for a while at most.
fn stay_awake_while(holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while holds() && begin.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_returned_and_are_no_more_than_asked_for() {
        for threads in [1, 2, 5] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            for (most, awake) in [(1, true), (2, true), (3, false), (9, true)] {
                let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
                let work = || {
                    begun.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(2 * PATIENCE);
                    ended.fetch_add(1, Ordering::Relaxed);
                };
                pool.install(|| together(most, awake, work));
                assert_eq!(begun.into_inner(), threads.min(most));
                assert_eq!(ended.into_inner(), threads.min(most));
            }
        }
    }
}
