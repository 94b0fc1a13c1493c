// What:    a node's pages: a matrix of page ids, one row per (layer, KV head) list, one column per
//          P slots of the node's run.
// Owns:    the ids, not the pages.
// Threads: one.
// Fails:   never; columns beyond the end are CHECKs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/attention_plan.h"

namespace coppice::kv {

using ops::PageId;

class PageTable {
 public:
  explicit PageTable(int32_t lists) : lists_(lists) {}

  int32_t columns() const { return columns_; }
  int64_t pages() const { return static_cast<int64_t>(lists_) * columns_; }
  int32_t stride() const { return stride_; }          // ids between the rows of two lists
  const PageId* data() const { return ids_.data(); }  // [lists][stride]
  PageId at(int32_t list, int32_t column) const { return ids_[index(list, column)]; }

  // Adds columns; ids [lists][new columns]: ids taken together lie together in memory, and a list
  // is what a kernel reads in a row.
  void append(std::span<const PageId> ids);
  // Moves all columns of `front` before its own.
  void prepend(PageTable& front);
  // Moves the columns [keep, columns()) to `out`, list by list.
  void cut_back(int32_t keep, std::vector<PageId>& out);
  // Moves the columns [0, count) to `out`, list by list.
  void cut_front(int32_t count, std::vector<PageId>& out);

 private:
  size_t index(int32_t list, int32_t column) const {
    return static_cast<size_t>(static_cast<int64_t>(list) * stride_ + column);
  }
  void widen(int32_t stride);

  int32_t lists_;
  int32_t columns_ = 0;
  int32_t stride_ = 0;
  std::vector<PageId> ids_;  // [lists][stride]
};

}  // namespace coppice::kv
