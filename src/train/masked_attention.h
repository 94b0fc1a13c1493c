// What:    attention in which keys count by a keep coefficient, with the gradient a gate learns
// from. Owns:    nothing. Threads: one caller; torch's own threads inside. Fails:   as torch does
// on wrong shapes.
//
// Row t sees key j <= t of its KV head with c = 1 where it is protected (j < sinks or
// t - j < window), else with c = keep[j]:
//   e_tj = exp(s_tj) c_tj,   o_t = sum_j e_tj v_j / sum_j e_tj.
// B sequences, T tokens, Hq and Hkv heads (G query heads a KV head), D head_dim.
#pragma once

#include <torch/types.h>

namespace coppice::train {

// What a row sees whatever the gate says.
struct Visibility {
  int64_t window = 16;  // its last positions, itself included; at least 1
  int64_t sinks = 4;    // the first ones of the sequence
};

// q [B, Hq, T, D], k and v [B, Hkv, T, D], keep [B, Hkv, T] or undefined (all kept) -> [B, Hq, T,
// D].
//
// Coefficients in (0, 1] have the exact gradient. One that is 0 (dropped, decided hard) has as its
// gradient what letting this key in again, alone, would change: for row t,
//   e_tj / (Z_t + e_tj) * (v_j - o_t),   with Z_t the sum over what it sees and e_tj with c = 1.
// That is finite and not zero, so dropped tokens can come back; and unlike the slope at c = 0,
// e_tj / Z_t, it is bounded when the row needs the missing key above all.
//
// Scores are recomputed in the backward pass, by blocks of rows: nothing of size T^2 is held.
torch::Tensor masked_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, const torch::Tensor& keep,
                               const Visibility& visibility);

// The value of `hard`, the gradient of `soft`; shapes alike.
torch::Tensor straight_through(const torch::Tensor& soft, const torch::Tensor& hard);

}  // namespace coppice::train
