// What:    a backend that breaks promise 3 on purpose: every part of a plan is folded on its own
// and
//          merged afterwards, so a row's last bits depend on where the tree was cut.
// Owns:    the backend it wraps; everything but attention is passed on to it.
// Threads: as the wrapped one.
// Fails:   as the wrapped one.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace coppice {

std::unique_ptr<ops::Backend> fold_in_another_order(std::unique_ptr<ops::Backend> inner);

}  // namespace coppice
