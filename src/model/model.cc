#include "model/model.h"

#include <string>

#include "model/architectures.h"

namespace coppice::model {

Status Model::check(const Checkpoint& checkpoint) {
  return architecture_entry(checkpoint.config().architecture).check(checkpoint);
}

Expected<std::unique_ptr<Model>> Model::load(const Checkpoint& checkpoint, ops::Backend& backend,
                                             const ModelOptions& options,
                                             const LoadProgress& progress) {
  if (options.max_rows < 1 || options.max_logit_rows < 1) {
    return fail(ErrorCode::kInvalidArgument,
                "a model needs room for at least one row and one row of logits, not " +
                    std::to_string(options.max_rows) + " and " +
                    std::to_string(options.max_logit_rows));
  }
  const ArchitectureEntry& entry = architecture_entry(checkpoint.config().architecture);
  return entry.load(checkpoint, backend, options, progress);
}

}  // namespace coppice::model
