// What:    one shape of `coppice bench attention`, built through the cache as an engine would: a
//          tree of sequences about to decode one token each, and every way to attend over it.
// Owns:    the backend, two caches (pages shared; pages copied per sequence), inputs and outputs.
// Threads: one; the backend's workers below.
// Fails:   create: kTooLarge, kUnsupported, kInvalidArgument.
#pragma once

#include <memory>
#include <vector>

#include "coppice/error.h"
#include "kv/kv_cache.h"
#include "ops/backends.h"

namespace coppice::tools {

struct AttentionShape {
  // A sequence of its own length under one of several prefixes.
  struct Ragged {
    int32_t prefix = 0;
    int32_t own = 0;
  };

  int32_t heads = 32, kv_heads = 32, head_dim = 128;
  DType kv_type = DType::kBF16;
  // Level by level from the root: how many nodes in all, and how many tokens in each. The last
  // level's nodes are the sequences.
  std::vector<int32_t> nodes, tokens;
  // Instead, where not empty: tokens of each prefix, and the sequences in the prefixes' order.
  std::vector<int32_t> prefixes;
  std::vector<Ragged> ragged;

  int32_t sequences() const;
  int64_t node_count() const;
  int64_t context(int32_t sequence) const;  // its tokens
  int64_t all_tokens() const;               // of all sequences, as if each were alone
  int64_t unique_tokens() const;            // in the tree
  int64_t bytes_per_token() const;
};

// What the plan must at least read and compute, one layer.
struct PlanCost {
  double flops = 0, bytes = 0, exps = 0;
};

class AttentionCase {
 public:
  static Expected<std::unique_ptr<AttentionCase>> create(const AttentionShape& shape,
                                                         const ops::BackendOptions& options);

  // The ways, each one layer and step. Calls go round the layers, so that keys and values are not
  // found in the caches of the machine more than in a model.
  void two_phase() { attend(shared_->two_phase, *shared_); }
  void per_sequence() { attend(shared_->per_sequence, *shared_); }
  void per_sequence_outer();
  void per_sequence_unshared() { attend(unshared_->per_sequence, *unshared_); }
  bool has_unshared() const { return unshared_ != nullptr; }
  void plan() { shared_->cache->plan(kv::Partition::kTwoPhase); }

  // Whether both partitions are one and the same plan: where nothing is shared.
  bool plans_equal() const { return shared_->two_phase == shared_->per_sequence; }
  // Costs of the two-phase plan's segments.
  std::vector<PlanCost> segment_costs() const;
  int64_t unique_kv_bytes() const;
  int32_t layers() const { return layers_; }
  // ||out - ref|| / ||ref|| of two-phase over a sample of rows, against float64 over the keys and
  // values as they were given: rounded to bf16 for bf16 pages, not yet to bytes for int8 ones.
  double relative_error();
  // Whether all ways give the same bits.
  bool ways_agree();

 private:
  struct Pages {
    std::unique_ptr<kv::KvCache> cache;
    ops::AttentionPlan two_phase, per_sequence;
    std::vector<ops::AttentionPlan> alone;  // per row: the per-sequence plan of that row only
    std::vector<int32_t> sequence_of;       // [rows]
  };

  AttentionCase(const AttentionShape& shape, std::unique_ptr<ops::Backend> backend);
  Status build(bool shared, std::unique_ptr<Pages>& out);
  Status fill(kv::KvCache& cache, const std::vector<kv::SequenceId>& ids);
  void write(const kv::Step& step, const ops::KvArena& arena);
  void attend(const ops::AttentionPlan& plan, const Pages& pages);
  std::vector<kv::TokenId> tokens_of(int32_t sequence) const;
  void sequences_of_rows(const kv::Step& step, const std::vector<kv::SequenceId>& ids,
                         Pages& pages) const;
  std::vector<double> reference(int32_t row, int32_t kv_head) const;
  // Where a row's query head begins in q and out.
  size_t query_at(int32_t row, int32_t head) const {
    return static_cast<size_t>((int64_t{row} * shape_.heads + head) * shape_.head_dim);
  }
  ops::AttentionParams next_params();

  AttentionShape shape_;
  std::unique_ptr<ops::Backend> backend_;
  int32_t layers_ = 1;
  int32_t layer_ = 0;
  std::vector<float> rows_;   // [kDataRows, Hkv * D]: what tokens' keys and values are drawn from
  std::vector<float> k_, v_;  // [T, Hkv, D]
  std::vector<float> q_;      // [S, Hq, D], rounded to bf16
  std::vector<float> out_;    // [S, Hq, D]
  std::unique_ptr<Pages> shared_, unshared_;
};

}  // namespace coppice::tools
