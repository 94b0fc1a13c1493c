#include "eval/storefront_cases.h"

#include <algorithm>

#include "base/check.h"

namespace coppice::storefront {

std::vector<Case> cases(const CaseOptions& options) {
  CHECK(options.facts >= 1 && options.facts <= kMaxFacts && options.samples >= 0);
  CHECK(options.per_shop >= 1);
  const std::string nothing = make_shop(options.seed, 0, Split::kHeldOut).prompt();
  std::vector<Case> out;
  Random seeds(options.seed);
  while (out.size() < static_cast<size_t>(options.samples)) {
    const Shop shop = make_shop(seeds.next(), options.facts, Split::kHeldOut);
    const std::string text = options.closed_book ? nothing : shop.prompt();
    const std::vector<Question> questions = shop.questions();
    const size_t wanted = std::min({questions.size(), static_cast<size_t>(options.per_shop),
                                    static_cast<size_t>(options.samples) - out.size()});
    for (size_t i = 0; i < wanted; ++i) {
      const Question& q = questions[i];
      out.push_back({text + q.text, q.text, q.answer, attribute_name(q.attribute)});
    }
  }
  return out;
}

}  // namespace coppice::storefront
