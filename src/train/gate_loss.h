// What:    what a gate is trained by besides the answers, and what its decisions cost in pages.
// Owns:    nothing.
// Threads: one caller; torch's own threads inside.
// Fails:   as torch does on wrong shapes.
//
// B sequences, T tokens, L layers, Hkv KV heads, R predictions, V vocabulary.
#pragma once

#include <torch/types.h>

#include "train/masked_attention.h"

namespace coppice::train {

// lengths [B] int64 -> [B, T]: what keeping token t of a sequence of n tokens costs beyond the
// window, 1 - min(1, window / (n - t)); 0 beyond its end.
torch::Tensor footprint_weights(const torch::Tensor& lengths, int64_t tokens, int64_t window);

// kept [B, L, Hkv, T], weights [B, T] -> [B]: the weighted share that stays. Sinks count as kept.
torch::Tensor keep_rate(const torch::Tensor& kept, const torch::Tensor& weights, int64_t sinks);

// probabilities [B, L, Hkv, T] -> []: mean p (1 - p) over the tokens within lengths [B].
torch::Tensor polarisation(const torch::Tensor& probabilities, const torch::Tensor& lengths);

// teacher and student logits [R, V] -> []: mean of KL(teacher || student).
torch::Tensor distillation(const torch::Tensor& teacher, const torch::Tensor& student);

// The share of a dense cache's pages that stay held behind a prompt of n tokens, by hard decisions
// kept [L, Hkv, n] (1: kept): per list whole pages of `page_slots` slots of the kept tokens (the
// gate's and the sinks), and of the dropped ones those pages that hold one of the last `window`
// positions, which the next tokens may still see. Dropped tokens lie on a grid of their own that
// starts with the first of them, as in the cache.
double page_footprint(const torch::Tensor& kept, const Visibility& visibility, int64_t page_slots);

}  // namespace coppice::train
