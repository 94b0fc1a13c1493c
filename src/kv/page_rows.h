// What:    lists of page ids of different lengths, as rows of one matrix that kernels read.
// Owns:    the ids, not the pages; how many of a row count is the owner's knowledge.
// Threads: one.
// Fails:   never.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "ops/attention_plan.h"

namespace coppice::kv {

class PageRows {
 public:
  explicit PageRows(int32_t lists) : lists_(lists) {}

  int32_t stride() const { return stride_; }
  const ops::PageId* data() const { return ids_.data(); }  // [lists][stride]
  ops::PageId* row(int32_t list) { return ids_.data() + int64_t{list} * stride_; }
  const ops::PageId* row(int32_t list) const { return ids_.data() + int64_t{list} * stride_; }

  // Makes every row at least so long; what stands in the rows stays.
  void widen(int32_t columns) {
    if (columns <= stride_) return;
    const int32_t stride = std::max({2 * stride_, columns, 4});
    std::vector<ops::PageId> ids(static_cast<size_t>(int64_t{lists_} * stride), -1);
    for (int32_t list = 0; list < lists_; ++list) {
      std::copy_n(row(list), stride_, ids.data() + int64_t{list} * stride);
    }
    ids_ = std::move(ids);
    stride_ = stride;
  }
  // Row `list` without its first `count` of `size` entries.
  void drop_front(int32_t list, int32_t count, int32_t size) {
    std::copy(row(list) + count, row(list) + size, row(list));
  }

 private:
  int32_t lists_;
  int32_t stride_ = 0;
  std::vector<ops::PageId> ids_;
};

}  // namespace coppice::kv
