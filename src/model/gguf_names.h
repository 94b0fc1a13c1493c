// What:    GGUF's names of tensors and Hugging Face's, and the order of rotary rows.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never; a name that neither side knows stays as it is.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "model/config.h"

namespace coppice::model {

std::string gguf_to_hf(std::string_view name);  // "blk.0.attn_q.weight" -> "model.layers.0...."
std::string hf_to_gguf(std::string_view name);

// llama.cpp's converter interleaves the two rotary halves of each head: within a head of D rows,
// row 2i + s of the file is row s * D/2 + i of the checkpoint. Copies rows of `row_bytes` bytes
// from `from` to `to`, back into the checkpoint's order. heads * head_dim rows each.
void restore_rotary_rows(const std::byte* from, std::byte* to, int64_t heads, int64_t head_dim,
                         int64_t row_bytes);

// The heads of a projection whose rows are interleaved in the file: q and k of Llama; else 0.
int64_t interleaved_heads(const ModelConfig& config, std::string_view name);
// The row of the file that row n of the checkpoint becomes.
int64_t interleaved_row(int64_t n, int64_t head_dim);

}  // namespace coppice::model
