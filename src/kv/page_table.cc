#include "kv/page_table.h"

#include <algorithm>
#include <utility>

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
  for (int32_t list = 0; list < lists_; ++list) {
    std::copy_n(ids.begin() + static_cast<int64_t>(list) * added, added,
                ids_.begin() + static_cast<int64_t>(index(list, columns_)));
  }
  columns_ += added;
}

void PageTable::prepend(PageTable& front) {
  CHECK(front.lists_ == lists_);
  const int32_t columns = front.columns_ + columns_;
  if (columns > stride_) widen(std::max(2 * stride_, columns));
  for (int32_t list = 0; list < lists_; ++list) {
    PageId* row = ids_.data() + index(list, 0);
    std::copy_backward(row, row + columns_, row + columns);
    std::copy_n(front.ids_.data() + front.index(list, 0), front.columns_, row);
  }
  columns_ = std::exchange(front.columns_, 0) + columns_;
}

void PageTable::cut_back(int32_t keep, std::vector<PageId>& out) {
  CHECK(keep >= 0 && keep <= columns_);
  for (int32_t list = 0; list < lists_; ++list) {
    for (int32_t c = keep; c < columns_; ++c) out.push_back(at(list, c));
  }
  columns_ = keep;
}

void PageTable::cut_front(int32_t count, std::vector<PageId>& out) {
  CHECK(count >= 0 && count <= columns_);
  for (int32_t list = 0; list < lists_; ++list) {
    for (int32_t c = 0; c < count; ++c) out.push_back(at(list, c));
    PageId* row = ids_.data() + index(list, 0);
    std::copy(row + count, row + columns_, row);
  }
  columns_ -= count;
}

}  // namespace coppice::kv
