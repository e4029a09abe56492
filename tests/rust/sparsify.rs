//! `sparsify` against the naive oracle, on every number of threads.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "tests of small shapes")]

mod naive;

use hallutrace::attention::{AttentionView, Elements, Layout};
use hallutrace::edges::EdgeList;
use hallutrace::error::InputError;
use hallutrace::reduce::sparsify;
use hallutrace::sparsify::{Combine, Rules};
use naive::{Matrix, Random, Wanted};
use proptest::prelude::*;

fn view(matrix: &Matrix) -> AttentionView<'_> {
    let layout = Layout::contiguous(matrix.heads, matrix.queries, matrix.keys);
    let first_query = Some(matrix.first_query as i64);
    AttentionView::new(Elements::F32(&matrix.weights), layout, matrix.causal, first_query).unwrap()
}

fn run(matrix: &Matrix, wanted: Wanted) -> EdgeList {
    let Wanted { top_k, min_weight, top_mass, combine } = wanted;
    let rules = Rules::new(top_k, f64::from(min_weight), top_mass).unwrap();
    sparsify(&view(matrix), rules, combine).unwrap()
}

fn tuples(list: &EdgeList) -> Vec<(usize, usize, i32, u32)> {
    let [heads, queries, _] = list.shape();
    let mut edges = Vec::with_capacity(list.len());
    for row in 0..heads * queries {
        for edge in list.indptr()[row] as usize..list.indptr()[row + 1] as usize {
            let weight = list.weights()[edge].to_bits();
            edges.push((row / queries, row % queries, list.keys()[edge], weight));
        }
    }
    edges
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn edges_are_those_of_the_oracle(matrix in naive::matrices(150), wanted in naive::rules()) {
        let list = run(&matrix, wanted);
        prop_assert_eq!(tuples(&list), matrix.edges(wanted));
        prop_assert!(list.retained().iter().all(|share| (0.0..=1.0).contains(share)));
    }

    #[test]
    fn long_rows_are_those_of_the_oracle(seed: u64, keys in 500..2100_usize, wanted in naive::rules()) {
        let weights = Random(seed).row(keys);
        let matrix = Matrix { heads: 1, queries: 1, keys, first_query: 0, causal: false, weights };
        prop_assert_eq!(tuples(&run(&matrix, wanted)), matrix.edges(wanted));
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (heads, keys) = (8, 300);
    let mut random = Random(7);
    let weights = (0..heads * keys).flat_map(|_| random.row(keys)).collect();
    let matrix = Matrix { heads, queries: keys, keys, first_query: 0, causal: true, weights };
    for combine in [Combine::Mean, Combine::Max, Combine::Each] {
        let wanted = Wanted { top_k: Some(16), min_weight: 0.0, top_mass: Some(0.9), combine };
        let alone = run(&matrix, wanted);
        for threads in [1, 2, 3, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| run(&matrix, wanted)), alone);
        }
    }
}

#[test]
fn the_first_bad_weight_is_told_whatever_the_threads() {
    let (heads, keys) = (4, 400);
    let mut weights = vec![1.0 / keys as f32; heads * keys * keys];
    for (head, query, key) in [(3, 390, 5), (2, 100, 7), (1, 399, 0)] {
        weights[(head * keys + query) * keys + key] = f32::NAN;
    }
    let matrix = Matrix { heads, queries: keys, keys, first_query: 0, causal: true, weights };
    let rules = Rules::new(Some(3), 0.0, None).unwrap();
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let error = pool.install(|| sparsify(&view(&matrix), rules, Combine::Mean)).unwrap_err();
        assert!(error.to_string().contains("got NaN at head 2, query 100, key 7 "), "{error}");
    }
}

#[test]
fn views_check_that_the_slice_holds_the_matrix() {
    let weights = [0.0; 11];
    let new = |layout| AttentionView::new(Elements::F32(&weights), layout, false, None);
    let layout = Layout { heads: 2, queries: 2, keys: 2, head_stride: 6, query_stride: 3 };
    assert!(new(layout).is_ok());
    let error = new(Layout { head_stride: 7, ..layout }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Expected at least 12 elements for [heads 2, queries 2, keys 2], got 11 - check shape and strides"
    );
    assert!(new(Layout { head_stride: usize::MAX, query_stride: usize::MAX, ..layout }).is_err());
    assert!(new(Layout { queries: 0, head_stride: usize::MAX, ..layout }).is_ok());
    let keys = 1 << 31;
    assert_eq!(new(Layout { keys, ..layout }).unwrap_err(), InputError::Keys { keys });
}
