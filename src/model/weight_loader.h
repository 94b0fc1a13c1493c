// What:    takes a network's tensors out of a checkpoint: first every name and shape is checked,
//          then every tensor is converted, so a wrong file fails at once and not after minutes.
// Owns:    the list of what is wanted; results go where the caller says, which must stay in place.
// Threads: one.
// Fails:   check, load: the checkpoint's error for the first tensor that is missing or misshapen;
//          kUnsupported for tensors nobody wants and for norms and biases in blocks. load:
//          kTooLarge with the bytes needed and allowed.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "model/model.h"

namespace coppice::model {

// A norm's scale or a bias, f32 whatever the file has. view is empty where the model has none.
struct Vector {
  Buffer data;
  TensorView view;  // [N]
};

// y = W x + b.
struct Linear {
  std::unique_ptr<ops::Weight> weight;  // [N, K]
  Vector bias;                          // [N] or empty
};

// Bytes, 0: no limit. What lies beside the weights while they are loaded, and what joins it then.
struct MemoryRoom {
  int64_t limit = 0, now = 0, later = 0;
};

class WeightLoader {
 public:
  // weights: as ModelOptions has it.
  explicit WeightLoader(const Checkpoint& checkpoint, std::optional<DType> weights = {})
      : checkpoint_(checkpoint), weights_(weights) {}

  // into = tensor `name` [rows, cols].
  void want(const std::string& name, int64_t rows, int64_t cols,
            std::unique_ptr<ops::Weight>& into);
  // into = tensor `name` [size].
  void want(const std::string& name, int64_t size, Vector& into);
  // into = `name`.weight [rows, cols] and, where the model has it, `name`.bias [rows].
  void want(const std::string& name, int64_t rows, int64_t cols, bool bias, Linear& into);
  // The checkpoint may have this tensor; it is not used.
  void ignore(const std::string& name) { known_.insert(name); }

  // Whether the checkpoint has everything wanted and nothing else.
  Status check() const;
  // Loads everything wanted, in that order; returns the bytes it takes in the backend's layout.
  // What a tensor needs only while it is converted counts then.
  Expected<int64_t> load(ops::Backend& backend, const MemoryRoom& room,
                         const LoadProgress& progress);

 private:
  using Destination = std::variant<std::unique_ptr<ops::Weight>*, Vector*>;
  struct Wanted {
    std::string name;
    Shape shape;
    TensorForm form;
    DType type;  // that the backend is given
    Destination into;
    int64_t file_bytes() const { return dtype_bytes(form.type, shape.elements()); }
    bool is_matrix() const { return shape.rank() == 2; }
    bool is_converted() const { return is_matrix() && type != form.type; }
  };
  void add(const std::string& name, const Shape& shape, Destination into);
  static int64_t least_bytes(const ops::Backend& backend, const Wanted& wanted);
  // What is held beside the tensor while it is loaded: the file's bytes where they are copied, the
  // converted ones and the row in hand, and the backend's own.
  static int64_t passing_bytes(const ops::Backend& backend, const Wanted& wanted);
  // Whether there is room for wanted_ from `first` on, when weights of `held` bytes lie before it.
  Status check_room(const ops::Backend& backend, const MemoryRoom& room, size_t first,
                    int64_t held) const;
  Expected<int64_t> load_tensor(ops::Backend& backend, const Wanted& wanted) const;
  static Expected<int64_t> load_matrix(ops::Backend& backend, const Wanted& wanted,
                                       const TensorView& source,
                                       std::unique_ptr<ops::Weight>& into);
  static Expected<int64_t> load_vector(ops::Backend& backend, const TensorView& source,
                                       Vector& into);

  const Checkpoint& checkpoint_;
  std::optional<DType> weights_;
  std::vector<Wanted> wanted_;
  std::set<std::string, std::less<>> known_;
  Status first_error_;
};

}  // namespace coppice::model
