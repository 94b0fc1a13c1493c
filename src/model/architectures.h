// What:    the table of networks: which body runs a checkpoint's architecture.
// Owns:    nothing.
// Threads: any.
// Fails:   never; read_config refuses an architecture that has no line here.
#pragma once

#include <string_view>

#include "model/model.h"

namespace coppice::model {

struct ArchitectureEntry {
  Architecture architecture;
  std::string_view name;  // for people: `coppice inspect`, the log
  Status (*check)(const Checkpoint& checkpoint);
  Expected<std::unique_ptr<Model>> (*load)(const Checkpoint& checkpoint, ops::Backend& backend,
                                           const ModelOptions& options,
                                           const LoadProgress& progress);
};

const ArchitectureEntry& architecture_entry(Architecture architecture);

}  // namespace coppice::model
