//! Vectors whose memory is used again.
//!
//! What bands of rows gather is thrown away when the bands are joined. Fresh memory for it comes from
//! the system page by page, which took up to a third of the time of a call, and more where all weights
//! are kept; so it goes to a pool instead, up to 64 vectors of 1 MiB each for each type.
//!
//! A vector is given to those alone who need a good part of it: edges of a few rows once sat in the
//! large ones that sums of columns had left, until their layer was joined, 200 MB a layer at 8,192 tokens.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// Vectors that a pool holds.
const VECTORS: usize = 64;

/// Bytes of the largest vector that is worth keeping.
const BYTES: usize = 1 << 20;

/// How many times what was asked for a vector may have room for.
const ROOMY: usize = 4;

type Pool<T> = Mutex<Vec<Vec<T>>>;

/// Elements that have a pool.
pub(crate) trait Pooled: Sized + Copy + Default + 'static {
    /// The pool of the process.
    fn pool() -> &'static Pool<Self>;
}

impl Pooled for f32 {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<f32> = Mutex::new(Vec::new());
        &POOL
    }
}

impl Pooled for i32 {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<i32> = Mutex::new(Vec::new());
        &POOL
    }
}

/// A vector that goes back to the pool.
#[derive(Debug, Default)]
pub(crate) struct PooledVec<T: Pooled>(Vec<T>);

impl<T: Pooled> PooledVec<T> {
    /// So many zeros.
    pub fn zeros(length: usize) -> Self {
        let Some(mut vector) = pooled(length) else { return Self(vec![T::default(); length]) };
        vector.clear();
        vector.resize(length, T::default());
        Self(vector)
    }

    /// So many elements or more, of any value.
    pub fn any(length: usize) -> Self {
        let Some(mut vector) = pooled(length) else { return Self(vec![T::default(); length]) };
        if vector.len() < length {
            vector.resize(length, T::default());
        }
        Self(vector)
    }
}

/// The smallest vector of the pool with room for so many elements, and what it had; of the smallest,
/// the one that came last, which may be in a cache.
fn pooled<T: Pooled>(length: usize) -> Option<Vec<T>> {
    // A pool that another thread holds is not waited for, and a forked process never could.
    let mut pool = T::pool().try_lock().ok()?;
    let good = length..=length.saturating_mul(ROOMY);
    let fits =
        pool.iter().enumerate().rev().filter(|(_, vector)| good.contains(&vector.capacity()));
    let (smallest, _) = fits.min_by_key(|(_, vector)| vector.capacity())?;
    Some(pool.swap_remove(smallest))
}

impl<T: Pooled> Drop for PooledVec<T> {
    fn drop(&mut self) {
        let vector = std::mem::take(&mut self.0);
        let is_worth_it = (1..=BYTES).contains(&(vector.capacity() * size_of::<T>()));
        if let Ok(mut pool) = T::pool().try_lock()
            && is_worth_it
        {
            if pool.len() == VECTORS {
                pool.remove(0);
            }
            pool.push(vector);
        }
    }
}

impl<T: Pooled> Deref for PooledVec<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: Pooled> DerefMut for PooledVec<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}
