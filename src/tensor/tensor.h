// What:    shapes, views of dense row-major arrays, and the buffers behind them.
// Owns:    Buffer owns its bytes; TensorView never owns.
// Threads: plain values; the owner decides who may write.
// Fails:   Buffer::allocate: kTooLarge when the system has no such memory. Wrong types are CHECKs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include "base/check.h"
#include "coppice/error.h"
#include "tensor/dtype.h"

namespace coppice {

// Up to four extents, outermost first. Row-major and dense: the last one is contiguous.
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> extents);
  static Shape of(std::span<const int64_t> extents);

  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return extents_[static_cast<size_t>(axis)]; }
  int64_t elements() const;  // 1 for rank 0
  bool operator==(const Shape& other) const = default;
  std::string text() const;  // "[2, 64]"

 private:
  std::array<int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

class TensorView {
 public:
  TensorView() = default;
  TensorView(void* data, DType type, Shape shape) : data_(data), type_(type), shape_(shape) {}
  TensorView(const void* data, DType type, Shape shape)  // read-only by agreement of the callee
      : TensorView(const_cast<void*>(data), type, shape) {}

  DType type() const { return type_; }
  const Shape& shape() const { return shape_; }
  int64_t elements() const { return shape_.elements(); }
  int64_t bytes() const { return dtype_bytes(type_, elements()); }
  bool empty() const { return data_ == nullptr; }
  void* raw() const { return data_; }

  float* f32() const { return typed<float>(DType::kF32); }
  bf16* as_bf16() const { return typed<bf16>(DType::kBF16); }
  f16* as_f16() const { return typed<f16>(DType::kF16); }
  int32_t* i32() const { return typed<int32_t>(DType::kI32); }

  // Rows [begin, end) of the outermost axis.
  TensorView rows(int64_t begin, int64_t end) const;
  // The same elements under another shape.
  TensorView reshaped(Shape shape) const;

 private:
  template <class T>
  T* typed(DType type) const {
    CHECK(type_ == type);
    return static_cast<T*>(data_);
  }
  void* data_ = nullptr;
  DType type_ = DType::kF32;
  Shape shape_;
};

// 64-byte aligned, zeroed bytes; device memory when a backend made it.
class Buffer {
 public:
  using Deleter = std::function<void(std::byte*)>;
  static Expected<Buffer> allocate(int64_t bytes);
  Buffer() = default;
  Buffer(std::byte* data, int64_t bytes, Deleter deleter)
      : data_(data, std::move(deleter)), bytes_(bytes) {}

  std::byte* data() const { return data_.get(); }
  int64_t bytes() const { return bytes_; }
  // A view of the first elements of the buffer; they must fit.
  TensorView view(DType type, Shape shape) const;

 private:
  std::unique_ptr<std::byte, Deleter> data_{nullptr, [](std::byte*) {}};
  int64_t bytes_ = 0;
};

}  // namespace coppice
