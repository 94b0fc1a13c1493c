#include "text/split_behavior.h"

#include <algorithm>

namespace coppice::text {
namespace {

// Joins each cut to the one before it where joins(previous, this) holds.
template <class Joins>
void join_backwards(std::vector<Cut>* cuts, Joins joins) {
  std::vector<Cut> out;
  bool previous_match = false;
  for (const Cut& cut : *cuts) {
    if (!out.empty() && joins(previous_match, cut.is_match)) {
      out.back().end = cut.end;
    } else {
      out.push_back(cut);
    }
    previous_match = cut.is_match;
  }
  *cuts = std::move(out);
}

void merge_with_next(std::vector<Cut>* cuts) {
  std::vector<Cut> out;  // last first
  bool next_match = false;
  for (auto cut = cuts->rbegin(); cut != cuts->rend(); ++cut) {
    if (!out.empty() && cut->is_match && !next_match) {
      out.back().begin = cut->begin;
    } else {
      out.push_back(*cut);
    }
    next_match = cut->is_match;
  }
  std::reverse(out.begin(), out.end());
  *cuts = std::move(out);
}

}  // namespace

Expected<SplitBehavior> load_split_behavior(const JsonAt& config) {
  TRY(const std::string name, config.string());
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return config.corrupt("is " + in_quotes(name) +
                        "; it must be Removed, Isolated, MergedWithPrevious, MergedWithNext or "
                        "Contiguous");
}

void apply_behavior(SplitBehavior behavior, std::vector<Cut>* cuts) {
  switch (behavior) {
    case SplitBehavior::kIsolated:
      break;
    case SplitBehavior::kRemoved:
      std::erase_if(*cuts, [](const Cut& cut) { return cut.is_match; });
      break;
    case SplitBehavior::kContiguous:
      join_backwards(cuts, [](bool previous, bool now) { return previous == now; });
      break;
    case SplitBehavior::kMergedWithPrevious:
      join_backwards(cuts, [](bool previous, bool now) { return now && !previous; });
      break;
    case SplitBehavior::kMergedWithNext:
      merge_with_next(cuts);
      break;
  }
  std::erase_if(*cuts, [](const Cut& cut) { return cut.begin == cut.end; });
}

}  // namespace coppice::text
