//! Top-8 of each head, and everything in one pass, at 112, 512 and 2048 tokens of 32 heads, beside a plain
//! sum of the same weights where they lie.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};
use hallutrace::attention::{AttentionView, BatchView, Elements, Layout};
use hallutrace::reduce::{LayerReducer, SequenceShape, sparsify};
use hallutrace::sparsify::{Combine, Rules};
use rayon::prelude::*;

const HEADS: usize = 32;

/// Causal softmax rows over uniform logits in (-6, 6).
fn attention(tokens: usize) -> Vec<f32> {
    let mut state = 1_u64;
    let mut unit = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 * 2.0_f32.powi(-24)
    };
    let mut weights = vec![0.0; HEADS * tokens * tokens];
    for (number, row) in weights.chunks_exact_mut(tokens).enumerate() {
        let row = &mut row[..=number % tokens];
        for weight in &mut *row {
            *weight = (12.0 * unit() - 6.0).exp();
        }
        let sum: f32 = row.iter().sum();
        for weight in row {
            *weight /= sum;
        }
    }
    weights
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reduce");
    for tokens in [112, 512, 2048] {
        let single = attention(tokens);
        let half: Vec<f16> = single.iter().map(|&weight| f16::from_f32(weight)).collect();
        let brain: Vec<bf16> = single.iter().map(|&weight| bf16::from_f32(weight)).collect();
        let all = [
            ("f32", Elements::F32(&single)),
            ("f16", Elements::F16(&half)),
            ("bf16", Elements::Bf16(&brain)),
        ];
        group.throughput(Throughput::Elements((HEADS * tokens * (tokens + 1) / 2) as u64));
        group.sample_size(if tokens > 1000 { 10 } else { 50 });
        group.bench_function(BenchmarkId::new("plain sum, f32", tokens), |bencher| {
            bencher.iter(|| plain_sum(black_box(&single), tokens));
        });
        for (name, elements) in all {
            let layout = Layout::contiguous(HEADS, tokens, tokens);
            let view = AttentionView::new(elements, layout, true, None).expect("a whole matrix");
            let rules = Rules::new(Some(8), 0.0, None).expect("a rule");
            group.bench_function(
                BenchmarkId::new(format!("top-8 each, {name}"), tokens),
                |bencher| {
                    bencher.iter(|| sparsify(black_box(&view), rules, Combine::Each));
                },
            );
            group.bench_function(
                BenchmarkId::new(format!("all in one, {name}"), tokens),
                |bencher| {
                    bencher.iter(|| all_in_one(black_box(elements), layout));
                },
            );
        }
    }
}

/// The sum of all weights that a causal row can have, on all threads.
fn plain_sum(weights: &[f32], tokens: usize) -> f32 {
    let sum_of_row = |(number, row): (usize, &[f32])| {
        let mut lanes = [0.0; 32];
        let (blocks, rest) = row[..=number % tokens].as_chunks::<32>();
        for block in blocks {
            for (lane, weight) in lanes.iter_mut().zip(block) {
                *lane += weight;
            }
        }
        lanes.iter().chain(rest).sum::<f32>()
    };
    weights.par_chunks_exact(tokens).enumerate().with_min_len(64).map(sum_of_row).sum()
}

/// Head mean, top-16 and all marginals of all rows.
fn all_in_one(elements: Elements<'_>, layout: Layout) -> usize {
    let prompt = layout.keys / 2;
    let shape = SequenceShape { tokens: layout.keys, prompt, segments: vec![1, prompt] };
    let rules = Rules::new(Some(16), 0.0, None).expect("a rule");
    let selection = (rules, Combine::Mean);
    let mut reducer =
        LayerReducer::new(HEADS, vec![shape], selection, false, true).expect("a sequence");
    let batch = BatchView::new(elements, layout, 1, 0).expect("a whole matrix");
    reducer.push(&batch, 0).expect("sound weights");
    reducer.finish().expect("all rows")[0].keys.len()
}

criterion_group!(benches, bench);
criterion_main!(benches);
