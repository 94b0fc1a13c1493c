// What:    opens the engine for a command: a progress line while loading, facts in the debug log.
// Owns:    nothing.
// Threads: one.
// Fails:   as Engine::open.
#pragma once

#include <memory>

#include "coppice/engine.h"

namespace coppice::tools {

Expected<std::unique_ptr<Engine>> open_engine(const EngineOptions& options);

}  // namespace coppice::tools
