#include "kv/page_table.h"

#include <algorithm>

#include "base/check.h"

namespace coppice::kv {

void PageTable::widen(int32_t stride) {
  std::vector<PageId> ids(static_cast<size_t>(static_cast<int64_t>(lists_) * stride));
  for (int32_t list = 0; list < lists_; ++list) {
    std::copy_n(ids_.begin() + static_cast<int64_t>(list) * stride_, columns_,
                ids.begin() + static_cast<int64_t>(list) * stride);
  }
  ids_ = std::move(ids);
  stride_ = stride;
}

void PageTable::append(std::span<const PageId> ids) {
  CHECK(ids.size() % static_cast<size_t>(lists_) == 0);
  const int32_t added = static_cast<int32_t>(ids.size() / static_cast<size_t>(lists_));
  if (columns_ + added > stride_) widen(std::max({2 * stride_, columns_ + added, 4}));
  for (int32_t c = 0; c < added; ++c) {
    for (int32_t list = 0; list < lists_; ++list) {
      ids_[index(list, columns_ + c)] =
          ids[static_cast<size_t>(static_cast<int64_t>(c) * lists_ + list)];
    }
  }
  columns_ += added;
}

void PageTable::cut_back(int32_t keep, std::vector<PageId>& out) {
  CHECK(keep >= 0 && keep <= columns_);
  for (int32_t c = keep; c < columns_; ++c) {
    for (int32_t list = 0; list < lists_; ++list) out.push_back(at(list, c));
  }
  columns_ = keep;
}

void PageTable::cut_front(int32_t count, std::vector<PageId>& out) {
  CHECK(count >= 0 && count <= columns_);
  for (int32_t c = 0; c < count; ++c) {
    for (int32_t list = 0; list < lists_; ++list) out.push_back(at(list, c));
  }
  for (int32_t list = 0; list < lists_; ++list) {
    PageId* row = ids_.data() + index(list, 0);
    std::copy(row + count, row + columns_, row);
  }
  columns_ -= count;
}

}  // namespace coppice::kv
