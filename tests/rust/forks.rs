//! A process that was forked has none of the threads, and works without them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "the system call")]

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use hallutrace::attention::{AttentionView, Elements, Layout};
use hallutrace::edges::EdgeList;
use hallutrace::reduce::sparsify;
use hallutrace::sparsify::{Combine, Rules};
use hallutrace::threads::set_threads;

/// Large enough for several threads.
fn edges() -> EdgeList {
    let (heads, keys) = (8, 512);
    let weights = vec![1.0 / keys as f32; heads * keys * keys];
    let layout = Layout::contiguous(heads, keys, keys);
    let view = AttentionView::new(Elements::F32(&weights), layout, true, None).unwrap();
    sparsify(&view, Rules::new(Some(4), 0.0, None).unwrap(), Combine::Each).unwrap()
}

#[test]
fn a_fork_works_alone_and_ends() {
    set_threads(NonZeroUsize::new(3));
    let wanted = edges();
    // SAFETY: the child calls nothing that needs another thread, which is what is tested, and ends without
    // running what the parent has registered.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let is_right = edges() == wanted;
        // SAFETY: as above.
        unsafe { libc::_exit(if is_right { 7 } else { 1 }) };
    }
    let (mut status, began) = (0, Instant::now());
    loop {
        // SAFETY: a child of this process, and memory for its status.
        let ended = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if ended == child {
            break;
        }
        if began.elapsed() > Duration::from_secs(60) {
            // SAFETY: the child, which has not been waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            panic!("the fork waits for threads that it does not have");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(libc::WIFEXITED(status));
    assert_eq!(libc::WEXITSTATUS(status), 7);
}
