//! Top-8 of each head, and everything in one pass, at 112, 512 and 2048 tokens of 32 heads, beside a plain
//! sum of the same weights where they lie.

mod common;

use std::hint::black_box;

use common::{all_in_one, attention};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::{bf16, f16};
use hallutrace::attention::{AttentionView, Elements, Layout};
use hallutrace::reduce::sparsify;
use hallutrace::sparsify::{Combine, Rules};
use rayon::prelude::*;

const HEADS: usize = 32;

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reduce");
    for tokens in [112, 512, 2048] {
        let single = attention(HEADS, tokens);
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
            bencher.iter(|| plain_sum(black_box(&single), tokens, |weight| weight));
        });
        group.bench_function(BenchmarkId::new("plain sum, bf16", tokens), |bencher| {
            let widen = |weight: bf16| f32::from_bits(u32::from(weight.to_bits()) << 16);
            bencher.iter(|| plain_sum(black_box(&brain), tokens, widen));
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
                    bencher
                        .iter(|| all_in_one(black_box(elements), layout).expect("sound weights"));
                },
            );
        }
    }
}

/// The sum of all weights that a causal row can have, on all threads.
fn plain_sum<T: Copy + Sync>(weights: &[T], tokens: usize, widen: impl Fn(T) -> f32 + Sync) -> f32 {
    let sum_of_row = |(number, row): (usize, &[T])| {
        let mut lanes = [0.0; 32];
        let (blocks, rest) = row[..=number % tokens].as_chunks::<32>();
        for block in blocks {
            for (lane, &weight) in lanes.iter_mut().zip(block) {
                *lane += widen(weight);
            }
        }
        lanes.iter().sum::<f32>() + rest.iter().map(|&weight| widen(weight)).sum::<f32>()
    };
    weights.par_chunks_exact(tokens).enumerate().with_min_len(64).map(sum_of_row).sum()
}

criterion_group!(benches, bench);
criterion_main!(benches);
