#include "model/weight_loader.h"

#include <algorithm>
#include <utility>

#include "model/stored_type.h"
#include "tensor/narrow.h"
#include "tensor/quant_block.h"
#include "tensor/widen.h"

namespace coppice::model {

void WeightLoader::add(const std::string& name, const Shape& shape, Destination into) {
  known_.insert(name);
  if (!first_error_) return;
  Expected<TensorForm> found = checkpoint_.check(name, shape);
  if (!found) {
    first_error_ = fail(std::move(found).error());
    return;
  }
  if (shape.rank() == 1 && is_quantised(found->type)) {
    first_error_ = fail(ErrorCode::kUnsupported, checkpoint_.path() + ": " + name + " is " +
                                                     std::string(dtype_name(found->type)) +
                                                     "; a norm or bias must be f32, f16 or bf16");
    return;
  }
  const bool restored = weights_ && shape.rank() == 2 && !is_quantised(found->type);
  const DType type = restored ? stored_type(*weights_, name, shape) : found->type;
  wanted_.push_back({name, shape, *found, type, into});
}

void WeightLoader::want(const std::string& name, int64_t rows, int64_t cols,
                        std::unique_ptr<ops::Weight>& into) {
  add(name, {rows, cols}, &into);
}

void WeightLoader::want(const std::string& name, int64_t size, Vector& into) {
  add(name, {size}, &into);
}

void WeightLoader::want(const std::string& name, int64_t rows, int64_t cols, bool bias,
                        Linear& into) {
  want(name + ".weight", rows, cols, into.weight);
  if (bias) want(name + ".bias", rows, into.bias);
}

Status WeightLoader::check() const {
  TRY_STATUS(first_error_);
  for (const std::string& name : checkpoint_.names()) {
    if (known_.contains(name) || is_in_config(name)) continue;
    return fail(ErrorCode::kUnsupported,
                checkpoint_.path() + ": has a tensor \"" + name +
                    "\" that its architecture does not use; its answers would be wrong without it");
  }
  return {};
}

int64_t WeightLoader::least_bytes(const ops::Backend& backend, const Wanted& wanted) {
  if (wanted.is_matrix()) return backend.least_weight_bytes(wanted.type, wanted.shape);
  return dtype_bytes(DType::kF32, wanted.shape.elements());
}

int64_t WeightLoader::passing_bytes(const ops::Backend& backend, const Wanted& wanted) {
  if (!wanted.is_matrix()) return wanted.form.copy_bytes;
  const int64_t own = wanted.form.copy_bytes + backend.loading_bytes(wanted.type, wanted.shape);
  if (!wanted.is_converted()) return own;
  return own + dtype_bytes(wanted.type, wanted.shape.elements()) +
         dtype_bytes(DType::kF32, wanted.shape[1]);
}

Status WeightLoader::check_room(const ops::Backend& backend, const MemoryRoom& room, size_t first,
                                int64_t held) const {
  if (room.limit == 0) return {};
  const Wanted* widest = nullptr;
  int64_t most = 0;
  for (size_t i = first; i < wanted_.size(); ++i) {
    held += least_bytes(backend, wanted_[i]);
    if (const int64_t now = room.now + held + passing_bytes(backend, wanted_[i]); now > most) {
      widest = &wanted_[i];
      most = now;
    }
  }
  const int64_t loaded = held + room.now + room.later, needed = std::max(most, loaded);
  if (needed <= room.limit) return {};
  std::string message = "--memory " + std::to_string(room.limit) + " cannot hold the model; ";
  if (most > loaded) {
    message += "loading " + widest->name + " needs at least " + std::to_string(needed) +
               " bytes, " + std::to_string(passing_bytes(backend, *widest)) +
               " of them only while it is read";
  } else {
    message += "it needs at least " + std::to_string(needed) + " bytes: " + std::to_string(held) +
               " for weights as packed, " + std::to_string(room.now + room.later) +
               " for activations, scratch and pages (--kv-budget, kv_budget_limit)";
  }
  return fail(ErrorCode::kTooLarge, std::move(message));
}

// The source lives no longer than this: where it is a copy, only one is held at a time.
Expected<int64_t> WeightLoader::load_tensor(ops::Backend& backend, const Wanted& wanted) const {
  TRY(const TensorData source, checkpoint_.tensor(wanted.name, wanted.shape));
  if (auto* const* weight = std::get_if<std::unique_ptr<ops::Weight>*>(&wanted.into)) {
    return load_matrix(backend, wanted, source.view, **weight);
  }
  return load_vector(backend, source.view, *std::get<Vector*>(wanted.into));
}

Expected<int64_t> WeightLoader::load_matrix(ops::Backend& backend, const Wanted& wanted,
                                            const TensorView& source,
                                            std::unique_ptr<ops::Weight>& into) {
  if (!wanted.is_converted()) {
    TRY(into, backend.load_weight(source));
    return into->bytes();
  }
  const int64_t rows = wanted.shape[0], cols = wanted.shape[1];
  const int64_t row_bytes = dtype_bytes(wanted.type, cols);
  TRY(const Buffer stored, Buffer::allocate(rows * row_bytes));
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t n = 0; n < rows; ++n) {
    widen_row(source, n, row.data());
    narrow_row(wanted.type, row.data(), cols, stored.data() + n * row_bytes);
  }
  TRY(into, backend.load_weight(stored.view(wanted.type, wanted.shape)));
  return into->bytes();
}

Expected<int64_t> WeightLoader::load_vector(ops::Backend& backend, const TensorView& source,
                                            Vector& into) {
  const int64_t bytes = dtype_bytes(DType::kF32, source.elements());
  TRY(into.data, backend.allocate(bytes));
  into.view = into.data.view(DType::kF32, source.shape());
  widen_row(source.reshaped({1, source.elements()}), 0, into.view.f32());
  return bytes;
}

Expected<int64_t> WeightLoader::load(ops::Backend& backend, const MemoryRoom& room,
                                     const LoadProgress& progress) {
  TRY_STATUS(check());
  const int64_t scratch = backend.scratch_bytes();
  TRY_STATUS(check_room(backend, room, 0, 0));
  int64_t total = 0, done = 0, held = 0;
  for (const Wanted& wanted : wanted_) total += wanted.file_bytes();
  for (size_t i = 0; i < wanted_.size(); ++i) {
    TRY(const int64_t bytes, load_tensor(backend, wanted_[i]));
    held += bytes;
    done += wanted_[i].file_bytes();
    // A library's scratch may grow with the first weights that it packs.
    const MemoryRoom now{room.limit, room.now + backend.scratch_bytes() - scratch, room.later};
    TRY_STATUS(check_room(backend, now, i + 1, held));
    if (progress) progress(done, total);
  }
  return held;
}

}  // namespace coppice::model
