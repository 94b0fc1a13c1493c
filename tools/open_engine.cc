#include "open_engine.h"

#include <string>

#include "base/log.h"
#include "progress.h"

namespace coppice::tools {

Expected<std::unique_ptr<Engine>> open_engine(const EngineOptions& options) {
  ProgressLine progress("loading");
  TRY(std::unique_ptr<Engine> engine, Engine::open(options, [&](int64_t done, int64_t total) {
        progress.show(done, total, format_size(done) + " of " + format_size(total));
      }));
  const EngineInfo& info = engine->info();
  log::debug(info.backend);
  log::debug(options.model + ": weights " + format_size(info.weight_bytes) + ", activations " +
             format_size(info.activation_bytes) + ", keys and values up to " +
             format_size(info.kv_budget) + ", context " + std::to_string(info.ctx) + " tokens");
  return engine;
}

}  // namespace coppice::tools
