// What:    what a kernel is to the code around it: two functions over plain structs, one set per
//          instruction set, so that nothing but these files is compiled for more than one CPU.
// Owns:    nothing.
// Threads: items of one job run at the same time; each has rows of scratch of its own.
// Fails:   never.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string_view>

#include "ops/backend.h"

// Register tiles are arrays of vectors: they stay in registers only where every loop over them is
// unrolled.
#if defined(__clang__)
#define COPPICE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define COPPICE_UNROLL _Pragma("GCC unroll 16")
#endif

#define COPPICE_INLINE inline __attribute__((always_inline))

namespace coppice::ops::cpu {

// 2^f on [-0.5, 0.5] = 1 + f (t0 + f (t1 + ...)), minimax fit, relative error 9.2e-8 before
// rounding.
inline constexpr float kExp2Terms[5] = {0.693147004f, 0.240222424f, 0.0555073358f, 0.00967151299f,
                                        0.00132647261f};
inline constexpr float kExp2Rounder = 12582912.0f;  // 1.5 * 2^23
inline constexpr float kExp2Lowest = -125.0f;       // below it a power counts as zero
inline constexpr float kLowest = -std::numeric_limits<float>::infinity();

// One call. Packed row i of an item = (plan row, query head of the group), i = (row - row_begin) *
// G
// + g.
struct AttentionJob {
  const float* q = nullptr;  // [T, Hq, D]
  float* out = nullptr;      // [T, Hq, D]
  const AttentionPlan* plan = nullptr;
  KvArena arena;
  int32_t query_heads = 0;  // Hq
  int32_t group = 0;        // G
  int32_t dim = 0;          // D
  int32_t padded_dim = 0;   // Dp
  int32_t layer = 0;
  int32_t window = 0;
  float scale2 = 0;  // scale * log2(e): scores are kept in base 2

  // The first slot that a row sees, with the window applied.
  int32_t first(int32_t list, int32_t row) const {
    const int32_t first = plan->first(list, row);
    return window > 0 ? std::max(first, plan->last(list, row) - window) : first;
  }
};

// The states of closed ranges, where several items share one row block.
//   o [ranges][N][Dp], m and l [ranges][N]; an untouched range has m = -inf
struct AttentionPartials {
  float* o = nullptr;
  float* m = nullptr;
  float* l = nullptr;
  int32_t first_range = 0;  // ranges before it are seen by none of the rows
  int32_t ranges = 0;       // with the dropped slots' behind the others
};

// Rows [row_begin, row_end) of one KV head over slots [slot_begin, slot_end), cut at multiples of
// R. The last item of the rows takes their dropped slots too: of the fold's ranges the last one.
struct AttentionItem {
  int32_t kv_head = 0;
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t slot_begin = 0;
  int32_t slot_end = 0;
  int32_t dropped_range = -1;  // the dropped slots' range, -1: none are this item's
  int32_t split = -1;  // index of the row block's counter, -1: the item is alone on its rows
  AttentionPartials partials;
};

// A worker's scratch, N packed rows.
struct AttentionRows {
  float* q = nullptr;                // [N, Dp] in the kernel's element type, f32 or bf16
  float* o = nullptr;                // [N, Dp] state of the running range: sum of p v,
  float* l = nullptr;                // [N, 16] sum of p by slot mod 16,
  float* m = nullptr;                // [N]     running maximum
  float* total_o = nullptr;          // [N, Dp] the ranges before, merged
  float* total_l = nullptr;          // [N]
  float* total_m = nullptr;          // [N]
  int32_t* first = nullptr;          // [N] visible slots [first, last), window applied
  int32_t* last = nullptr;           // [N]
  int32_t* dropped_first = nullptr;  // [N] of the dropped list, where an item takes dropped slots
  int32_t* dropped_last = nullptr;   // [N]
  int32_t* range = nullptr;          // [N] the running range, -1: none yet
  // Of the tile being folded:
  float* weights = nullptr;  // [N, 64] p, in the kernel's element type
  float* factor = nullptr;   // [N, 4] of o, before each page
  int32_t* rises = nullptr;  // [N] bit k: factor k is to be applied
};

struct AttentionKernel {
  std::string_view name;  // "avx2", "avx512bf16", ...
  // Folds an item; writes its rows of `out`, or its ranges' partials when it is split.
  using Run = void (*)(const AttentionJob&, const AttentionItem&, const AttentionRows&);
  // Merges the partials of a row block, left to right, and writes its rows of `out`.
  using Merge = void (*)(const AttentionJob&, const AttentionItem&, const AttentionRows&);
  Run run_bf16 = nullptr;
  Run run_f32 = nullptr;
  Run run_int8 = nullptr;
  Merge merge = nullptr;
  // The ceilings: operations done in so many steps of products over bf16 or f32 pages (int8 pages
  // become what bf16 ones are multiplied as), and of exponentials.
  using Burn = double (*)(int64_t steps, float* sink);
  Burn burn_bf16 = nullptr;
  Burn burn_f32 = nullptr;
  Burn burn_exp = nullptr;
  bool rounds_q = false;  // queries and probabilities are rounded to bf16 over bf16 and int8 pages
};

// Runs only where choose_isa() found Isa::kAvx512Bf16.
const AttentionKernel& avx512bf16_attention_kernel();

}  // namespace coppice::ops::cpu
