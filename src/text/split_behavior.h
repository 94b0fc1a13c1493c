// What:    what becomes of a pattern's matches when a text is split by it.
// Owns:    nothing.
// Threads: any.
// Fails:   parse: kCorrupt naming the key.
#pragma once

#include <vector>

#include "coppice/error.h"
#include "text/json.h"
#include "text/regex.h"

namespace coppice::text {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Expected<SplitBehavior> load_split_behavior(const JsonAt& config);

// cuts: of one text, in order. Joins neighbours as the behaviour says and, for kRemoved, leaves the
// matches out; is_match means nothing in the result. Empty cuts go too.
void apply_behavior(SplitBehavior behavior, std::vector<Cut>* cuts);

}  // namespace coppice::text
