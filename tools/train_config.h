// What:    `--config FILE`: a JSON object of flags, spelled out before the command line is parsed.
// Owns:    nothing.
// Threads: any.
// Fails:   kInvalidArgument (file, key) for what is no flag's value; the file system's errors.
#pragma once

#include <string>
#include <vector>

#include "coppice/error.h"

namespace coppice::tools {

// Replaces each "--config FILE" (or "--config=FILE") of the arguments, in order, by the file's
// flags:
// {"steps": 560, "resume": true} becomes --steps 560 --resume. They stand where --config stood, so
// that what follows on the command line overrides them.
Expected<std::vector<std::string>> expand_config(const std::vector<std::string>& arguments);

}  // namespace coppice::tools
