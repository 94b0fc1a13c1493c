#include "eval/family_cases.h"

#include <algorithm>

#include "base/check.h"

namespace coppice::families {

std::vector<storefront::Case> cases(const CaseOptions& options) {
  CHECK(options.samples >= 0 && options.per_context >= 1);
  CHECK(options.family != Family::kMarkov);
  TaskOptions task = options.task;
  task.split = Split::kHeldOut;
  std::vector<storefront::Case> out;
  storefront::Random seeds(options.seed);
  while (out.size() < static_cast<size_t>(options.samples)) {
    const int missing = options.samples - static_cast<int>(out.size());
    task.asks = std::min(options.per_context, missing);
    TaskSample sample = make_task(options.family, seeds.next(), task);
    for (Ask& ask : sample.asks) {
      out.push_back({sample.context + ask.question, std::move(ask.question), std::move(ask.answer),
                     info(options.family).name});
    }
  }
  return out;
}

}  // namespace coppice::families
