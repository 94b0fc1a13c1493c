#include "tensor/tensor.h"

#include <cstdlib>
#include <cstring>

namespace coppice {

Shape::Shape(std::initializer_list<int64_t> extents)
    : Shape(of({extents.begin(), extents.size()})) {}

Shape Shape::of(std::span<const int64_t> extents) {
  CHECK(extents.size() <= kMaxRank);
  Shape shape;
  for (const int64_t extent : extents) {
    CHECK(extent >= 0);
    shape.extents_[static_cast<size_t>(shape.rank_++)] = extent;
  }
  return shape;
}

int64_t Shape::elements() const {
  int64_t product = 1;
  for (int axis = 0; axis < rank_; ++axis) product *= (*this)[axis];
  return product;
}

std::string Shape::text() const {
  std::string out = "[";
  for (int axis = 0; axis < rank_; ++axis) {
    if (axis > 0) out += ", ";
    out += std::to_string((*this)[axis]);
  }
  return out + "]";
}

TensorView TensorView::rows(int64_t begin, int64_t end) const {
  CHECK(shape_.rank() >= 1 && begin >= 0 && begin <= end && end <= shape_[0]);
  std::array<int64_t, Shape::kMaxRank> extents{end - begin};
  int64_t per_row = 1;
  for (int axis = 1; axis < shape_.rank(); ++axis) {
    extents[static_cast<size_t>(axis)] = shape_[axis];
    per_row *= shape_[axis];
  }
  auto* data = static_cast<std::byte*>(data_) + dtype_bytes(type_, per_row) * begin;
  return {data, type_, Shape::of({extents.data(), static_cast<size_t>(shape_.rank())})};
}

TensorView TensorView::reshaped(Shape shape) const {
  CHECK(shape.elements() == shape_.elements());
  return {data_, type_, shape};
}

Expected<Buffer> Buffer::allocate(int64_t bytes) {
  CHECK(bytes >= 0);
  const size_t rounded = (static_cast<size_t>(bytes) + 63) / 64 * 64;
  auto* data = static_cast<std::byte*>(std::aligned_alloc(64, rounded == 0 ? 64 : rounded));
  if (data == nullptr) {
    return fail(ErrorCode::kTooLarge, "cannot allocate " + std::to_string(bytes) + " bytes");
  }
  std::memset(data, 0, rounded);
  return Buffer(data, bytes, [](std::byte* p) { std::free(p); });
}

TensorView Buffer::view(DType type, Shape shape) const {
  CHECK(dtype_bytes(type, shape.elements()) <= bytes_);
  return {static_cast<void*>(data_.get()), type, shape};
}

}  // namespace coppice
