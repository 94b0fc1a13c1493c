// What:    what the trainers' flags have in common: `--config FILE`, a JSON object of flags,
// spelled
//          out before the command line is parsed; lists of families.
// Owns:    nothing.
// Threads: any.
// Fails:   kInvalidArgument (file, key) for what is no flag's value; the file system's errors.
#pragma once

#include <string>
#include <vector>

#include "coppice/error.h"
#include "eval/families.h"

namespace coppice::tools {

// Replaces each "--config FILE" (or "--config=FILE") of the arguments, in order, by the file's
// flags:
// {"steps": 560, "resume": true} becomes --steps 560 --resume. They stand where --config stood, so
// that what follows on the command line overrides them.
Expected<std::vector<std::string>> expand_config(const std::vector<std::string>& arguments);

// --families LIST: names with commas, all or none. kInvalidArgument names those that there are.
Expected<std::vector<families::Family>> parse_families(const std::string& list);

}  // namespace coppice::tools
