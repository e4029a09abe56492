//! The reducer: a layer in blocks of a padded batch is the layer whole and alone.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "tests of small shapes")]

mod naive;

use hallutrace::attention::{AttentionView, BatchView, Elements, Layout};
use hallutrace::marginals::Segments;
use hallutrace::reduce::{LayerReducer, LayerReduction, SequenceShape, marginals, sparsify};
use hallutrace::sparsify::{Combine, Rules};
use naive::Random;
use proptest::prelude::*;

const HEADS: usize = 3;

/// Causal `[HEADS, tokens, tokens]`.
fn attention(tokens: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let row = |number: usize| {
        let mut row = random.row(number % tokens + 1);
        row.resize(tokens, f32::NAN);
        row
    };
    (0..HEADS * tokens).flat_map(row).collect()
}

fn shape(tokens: usize) -> SequenceShape {
    let prompt = (tokens / 2).max(1);
    SequenceShape { tokens, prompt, segments: vec![1, prompt] }
}

/// Reduces a batch of sequences in blocks of so many rows.
fn reduce(matrices: &[(usize, Vec<f32>)], rows: usize, combine: Combine) -> Vec<LayerReduction> {
    reduce_detail(matrices, rows, combine, true)
}

/// The same with detail of all rows, or of the answer rows alone.
fn reduce_detail(
    matrices: &[(usize, Vec<f32>)],
    rows: usize,
    combine: Combine,
    all: bool,
) -> Vec<LayerReduction> {
    let longest = matrices.iter().map(|(tokens, _)| *tokens).max().unwrap();
    let shapes = matrices.iter().map(|(tokens, _)| shape(*tokens)).collect();
    let rules = Rules::new(Some(5), 0.0, None).unwrap();
    let mut reducer = LayerReducer::new(HEADS, shapes, (rules, combine), false, all).unwrap();
    for first in (0..longest).step_by(rows) {
        let rows = rows.min(longest - first);
        let keys = first + rows;
        let mut block = vec![-1.0; matrices.len() * HEADS * rows * keys];
        for (number, target) in block.chunks_exact_mut(keys).enumerate() {
            let (row, head) = (first + number % rows, number / rows % HEADS);
            let (tokens, weights) = &matrices[number / rows / HEADS];
            if row < *tokens {
                let begin = (head * tokens + row) * tokens;
                let real = keys.min(*tokens);
                target[..real].copy_from_slice(&weights[begin..begin + real]);
            }
        }
        let layout = Layout::contiguous(HEADS, rows, keys);
        let stride = HEADS * rows * keys;
        let batch = BatchView::new(Elements::F32(&block), layout, matrices.len(), stride).unwrap();
        reducer.push(&batch, first).unwrap();
    }
    reducer.finish().unwrap()
}

#[test]
fn received_is_the_mean_over_later_rows_but_the_last() {
    for (tokens, seed) in [(2, 1), (3, 2), (17, 3), (70, 4)] {
        let weights = attention(tokens, seed);
        let made = reduce(&[(tokens, weights.clone())], 16, Combine::Each).remove(0);
        for (at, &found) in made.received_mean.iter().enumerate() {
            let (head, key) = (at / tokens, at % tokens);
            let of_row = |row| f64::from(weights[(head * tokens + row) * tokens + key]);
            let later = key + 1..tokens - 1;
            let count = later.len().max(1) as f64;
            let wanted = later.map(of_row).sum::<f64>() / count;
            let is_close = (f64::from(found) - wanted).abs() <= 1e-6 + 1e-5 * wanted;
            assert!(is_close, "{found} {wanted}, head {head}, key {key} of {tokens}");
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it() {
    // Weights a little above 1 are summed in float32, those of rows far above 1 in float64.
    let tokens = 8;
    let weights = |beside: f32| {
        let mut weights = vec![0.0; tokens * tokens];
        for row in 0..tokens {
            let own = &mut weights[row * tokens..=row * tokens + row];
            own.fill(if row == 5 { 1.02 / 6.0 } else { beside });
            own[0] += if row == 5 { 1e-3 } else { 0.0 };
        }
        weights
    };
    let of = |beside: f32| {
        let weights = weights(beside);
        let layout = Layout::contiguous(1, tokens, tokens);
        let view = AttentionView::new(Elements::F32(&weights), layout, true, None).unwrap();
        marginals(&view, Segments::new(vec![2], tokens).unwrap()).unwrap()
    };
    let (alone, beside) = (of(0.0), of(3.0));
    assert_eq!(alone.rough[10..12], beside.rough[10..12]);
    assert_eq!(alone.entropy[5..6], beside.entropy[5..6]);
    assert_ne!(alone.entropy[6..7], beside.entropy[6..7]);
}

#[test]
fn mean_logarithms_are_of_all_rows_whichever_have_detail() {
    for (tokens, seed) in [(2, 1), (17, 3), (150, 4)] {
        let prompt = shape(tokens).prompt;
        let matrices = [(tokens, attention(tokens, seed))];
        let [all, answer] = [true, false].map(|all| {
            naive::on_every_set(|| reduce_detail(&matrices, 40, Combine::Mean, all)).remove(0)
        });
        assert_eq!(all.log_square, answer.log_square);
        assert_eq!(all.log_diagonal, answer.log_diagonal);
        let of_all = all.square.chunks_exact(tokens);
        for (head, (of_all, of_answer)) in
            of_all.zip(answer.square.chunks_exact(tokens - prompt + 1)).enumerate()
        {
            assert_eq!(&of_all[prompt - 1..], of_answer);
            let log = |&square: &f32| f64::from(square.max(f32::MIN_POSITIVE)).ln();
            let parts = [&of_all[..prompt], &of_all[prompt..]];
            for (part, found) in parts.into_iter().zip(&all.log_square[2 * head..]) {
                let wanted = part.iter().map(log).sum::<f64>() / part.len() as f64;
                let error = (f64::from(*found) - wanted).abs();
                assert!(error <= 1e-6 + 1e-5 * wanted.abs(), "{found} {wanted} of {tokens}");
            }
        }
    }
}

proptest! {
    #![proptest_config(naive::config(100))]

    #[test]
    fn blocks_of_a_batch_are_the_whole_alone(
        lengths in prop::collection::vec(2..80_usize, 1..4),
        rows in 1..100_usize,
        seed: u64,
        combine in prop::sample::select(vec![Combine::Mean, Combine::Max, Combine::Each]),
    ) {
        let matrices: Vec<_> = lengths.iter().map(|&n| (n, attention(n, seed ^ n as u64))).collect();
        let all = naive::on_every_set(|| reduce(&matrices, rows, combine));
        for (mut made, matrix) in all.into_iter().zip(matrices) {
            let tokens = matrix.0;
            let layout = Layout::contiguous(HEADS, tokens, tokens);
            let view = AttentionView::new(Elements::F32(&matrix.1), layout, true, None).unwrap();
            let rules = Rules::new(Some(5), 0.0, None).unwrap();
            let edges = sparsify(&view, rules, combine).unwrap();
            prop_assert_eq!(&made.keys, edges.keys());
            prop_assert_eq!(&made.weights, edges.weights());
            let segments = Segments::new(shape(tokens).segments, tokens).unwrap();
            let whole = marginals(&view, segments).unwrap();
            prop_assert_eq!(&made.diagonal, &whole.diagonal);
            prop_assert_eq!(&made.entropy, &whole.entropy);
            prop_assert_eq!(&made.square, &whole.square);
            prop_assert_eq!(&made.mass, &whole.mass);
            prop_assert_eq!(&made.rough, &whole.rough);
            // Where the blocks are cut moves `received` by rounding alone.
            let alone = reduce(&[matrix], tokens, combine).remove(0);
            for (one, other) in made.received_mean.iter().zip(&alone.received_mean) {
                prop_assert!((one - other).abs() <= 1e-6 + 1e-5 * other.abs());
            }
            made.received_mean.clone_from(&alone.received_mean);
            prop_assert_eq!(made, alone);
        }
    }
}
