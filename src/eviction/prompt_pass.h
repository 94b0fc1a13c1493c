// What:    a context that is read in one step under a gate, so that a decision may depend on what
//          follows: how a gate is judged that cannot be served.
// Owns:    the lists, tables and decisions of the step; pages are its caller's.
// Threads: one.
// Fails:   CHECKs sizes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eviction/keep_mask.h"
#include "model/model.h"

namespace coppice::eviction {

class PromptPass {
 public:
  // stock [lists][each]: pages of each list, enough for all its tokens kept and all dropped.
  PromptPass(const model::ModelConfig& config, int32_t page_slots, std::vector<ops::PageId> stock);

  // tokens: as many as the model's max_rows at most.
  void run(model::Model& model, model::Gate& gate, const ops::GateRule& rule,
           std::span<const int32_t> tokens, const ops::KvArena& arena);

  const KeepMask& mask() const { return mask_; }  // what was kept
  // Of a list: its kept tokens' pages in order, then dropped ones' of which slots [first, last)
  // hold what the first row after the context still sees.
  std::span<const ops::PageId> kept_pages(int32_t list) const { return row_of(kept_, list); }
  std::span<const ops::PageId> dropped_pages(int32_t list) const { return row_of(dropped_, list); }
  int32_t kept(int32_t list) const { return lists_[static_cast<size_t>(list)].kept_end; }
  int32_t first_seen(int32_t list) const { return first_seen_[static_cast<size_t>(list)]; }
  int32_t last_seen(int32_t list) const { return lists_[static_cast<size_t>(list)].dropped_end; }

 private:
  std::span<const ops::PageId> row_of(const std::vector<ops::PageId>& all, int32_t list) const {
    return std::span(all).subspan(static_cast<size_t>(list) * each_, each_);
  }
  int32_t layers_, heads_, page_slots_;
  size_t each_;                                      // pages of a list
  std::vector<ops::PageId> stock_, kept_, dropped_;  // [lists][each]
  std::vector<ops::GateList> lists_;
  std::vector<int32_t> first_seen_;  // [lists]
  KeepMask mask_;
};

}  // namespace coppice::eviction
