// What:    (tests) the golden models of tests/data/models and what transformers answers with them.
//          Made by scripts/goldens/models.py.
// Owns:    plain values.
// Threads: any.
// Fails:   CHECKs.
#pragma once

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/file.h"
#include "model/model.h"
#include "ops/backends.h"

namespace coppice::model::testing {

inline constexpr const char* kGoldenModels[] = {"llama", "llama3", "qwen2", "qwen3"};
inline constexpr const char* kBackends[] = {"ref", "cpu"};

inline std::string golden_path(const std::string& model) {
  std::string path(COPPICE_TEST_DATA);
  return path.append("/models/").append(model);
}

inline std::vector<int32_t> golden_ids(const std::string& model, const char* key) {
  const std::string text = read_file(golden_path(model) + "/golden.json").value();
  return nlohmann::json::parse(text).at(key).get<std::vector<int32_t>>();
}

// Logits [rows, V] of golden.f32 (float) or golden.f16 (f16).
template <class T>
std::vector<float> golden_logits(const std::string& model, const char* file) {
  const std::string bytes = read_file(golden_path(model) + "/" + file).value();
  std::vector<T> stored(bytes.size() / sizeof(T));
  std::memcpy(stored.data(), bytes.data(), stored.size() * sizeof(T));
  std::vector<float> logits;
  for (const T& x : stored) {
    if constexpr (std::is_same_v<T, float>) {
      logits.push_back(x);
    } else {
      logits.push_back(to_float(x));
    }
  }
  return logits;
}

inline std::unique_ptr<ops::Backend> make_backend(const std::string& name, DType weights,
                                                  int threads = 1) {
  ops::BackendOptions options;
  options.threads = threads;
  options.weights = weights;
  return ops::make_backend(name, options).value();
}

inline std::unique_ptr<Checkpoint> open_golden(const std::string& model) {
  return Checkpoint::open(golden_path(model)).value();
}

// Row `row` of logits [R, V], copied.
inline std::vector<float> row_of(const TensorView& logits, int64_t row) {
  const TensorView one = logits.rows(row, row + 1);
  return {one.f32(), one.f32() + one.elements()};
}

inline int32_t argmax(std::span<const float> row) {
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

}  // namespace coppice::model::testing
