// What:    a backend that breaks promise 3 on purpose: what a plan cuts apart is folded apart and
//          merged afterwards, so a row's last bits depend on where that was.
// Owns:    the backend it wraps; everything but attention is passed on to it.
// Threads: as the wrapped one.
// Fails:   as the wrapped one.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace coppice {

enum class FoldCut {
  kNodes,     // at the borders of the tree's nodes
  kStepsToo,  // and between what was held and what this step writes
};

std::unique_ptr<ops::Backend> fold_in_another_order(std::unique_ptr<ops::Backend> inner,
                                                    FoldCut cut);

}  // namespace coppice
