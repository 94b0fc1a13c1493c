#include "train/checkpoint_reader.h"

#include "model/checkpoint.h"
#include "model/model.h"
#include "tensor/widen.h"

namespace coppice::train {

CheckpointReader::CheckpointReader(std::unique_ptr<model::Checkpoint> checkpoint)
    : checkpoint_(std::move(checkpoint)) {}
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;
CheckpointReader::~CheckpointReader() = default;

Expected<CheckpointReader> CheckpointReader::open(const std::string& path) {
  TRY(auto checkpoint, model::Checkpoint::open(path));
  TRY_STATUS(model::Model::check(*checkpoint));
  return CheckpointReader(std::move(checkpoint));
}

const model::ModelConfig& CheckpointReader::config() const { return checkpoint_->config(); }

Status CheckpointReader::read(const std::string& name, const std::vector<int64_t>& shape,
                              float* out) const {
  TRY(const model::TensorData tensor, checkpoint_->tensor(name, Shape::of(shape)));
  const int64_t columns = shape.back();
  const int64_t rows = tensor.view.elements() / columns;
  const TensorView matrix = tensor.view.reshaped({rows, columns});
  for (int64_t row = 0; row < rows; ++row) widen_row(matrix, row, out + row * columns);
  return {};
}

Expected<std::string> CheckpointReader::tokenizer_json() const {
  return checkpoint_->tokenizer_json();
}
std::string CheckpointReader::tokenizer_path() const { return checkpoint_->tokenizer_path(); }

}  // namespace coppice::train
