#include "train/gate_calibration.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "train/gate_batch.h"
#include "train/gate_loss.h"
#include "train/gated_pass.h"

namespace coppice::train {
namespace {

constexpr double kKeepsAll = 1e6;      // a shift that no logit withstands
constexpr int kTries = 6;              // passes to find a threshold
constexpr double kCloseEnough = 0.02;  // of the share
constexpr double kWidest = 900;        // |threshold|; a file takes up to 1000
// Questions of a case in the report, at least: some contexts have but one.
constexpr int64_t kLeastAsked = 48;

Status check_interrupt(const GateOptions& options) {
  if (!options.interrupted || !options.interrupted()) return {};
  return fail(ErrorCode::kCancelled, "interrupted; --resume calibrates anew");
}

class Thresholds {
 public:
  Thresholds(const Twin& twin, const GateNet& net, const GateOptions& options,
             std::vector<GateSample> samples)
      : twin_(twin), net_(net), options_(options), samples_(std::move(samples)) {
    for (const GateSample& sample : samples_) logits_.push_back(logits(sample, kKeepsAll));
  }

  struct Found {
    double threshold = 0, share = 1;
    torch::Tensor lists;  // [L, Hkv]: what of the prompts' tokens each list keeps
  };
  // The guess is made on what the gate says where nothing is dropped yet, and put right by what
  // deeper layers make of it.
  Expected<Found> find(double share) const {
    Found best{0, 2, {}};
    double wanted = share;
    for (int i = 0; i < kTries; ++i) {
      TRY_STATUS(check_interrupt(options_));
      const double threshold = guess(wanted);
      const Found real = measured(threshold);
      if (std::abs(real.share - share) < std::abs(best.share - share)) best = real;
      if (std::abs(real.share - share) <= kCloseEnough * share) break;
      wanted = std::clamp(wanted * share / real.share, 1e-4, 1.0);
    }
    return best;
  }

 private:
  // [L, Hkv, prompt]
  torch::Tensor logits(const GateSample& sample, double shift) const {
    torch::NoGradGuard no_grad;
    const std::vector<int64_t> ids(sample.ids.begin(), sample.ids.begin() + sample.prompt);
    GateMask mask;
    mask.visibility = {options_.window, options_.sinks};
    GatedPass pass(net_, mask, torch::tensor({int64_t{sample.prompt}}),
                   torch::tensor({static_cast<float>(shift)}));
    twin_.hidden(torch::tensor(ids, torch::kInt64).unsqueeze(0), &pass);
    return pass.logits()[0];
  }

  double footprint(const torch::Tensor& z, double threshold) const {
    return page_footprint(z.ge(threshold), {options_.window, options_.sinks}, options_.page_slots);
  }

  Found measured(double threshold) const {
    const auto count = static_cast<double>(samples_.size());
    Found found{threshold, 0, torch::zeros({})};
    for (const GateSample& sample : samples_) {
      const auto z = logits(sample, -threshold);
      found.share += footprint(z, threshold) / count;
      found.lists = found.lists + z.ge(threshold).to(torch::kFloat32).mean(2) / count;
    }
    return found;
  }

  double guess(double share) const {
    double low = -kWidest, high = kWidest;
    for (int i = 0; i < 50; ++i) {
      const double middle = (low + high) / 2;
      double sum = 0;
      for (const auto& z : logits_) sum += footprint(z, middle);
      (sum / static_cast<double>(logits_.size()) > share ? low : high) = middle;
    }
    return high;
  }

  const Twin& twin_;
  const GateNet& net_;
  const GateOptions& options_;
  std::vector<GateSample> samples_;
  std::vector<torch::Tensor> logits_;  // [L, Hkv, prompt] each, nothing dropped
};

int exam_length(const GateOptions& options) {
  return static_cast<int>(options.exam_length > 0 ? options.exam_length : options.length);
}

std::vector<GateSample> threshold_samples(const GateData& data, const GateOptions& options) {
  constexpr uint64_t kEach = 2, kFirst = 1000;  // apart from the report's
  std::vector<GateSample> samples;
  for (size_t i = 0; i < data.cases().size(); ++i) {
    if (data.cases()[i].held_out) continue;
    for (uint64_t n = 0; n < kEach; ++n) {
      samples.push_back(data.exam(i, kFirst + n, exam_length(options), 1));
    }
  }
  return samples;
}

Status report_case(const Twin& twin, const GateNet& net, const GateData& data,
                   const GateOptions& options, size_t which, GateHeader& header) {
  const GateCase& one = data.cases()[which];
  std::array<GateScore, model::kGateTiers.size()> gated;
  std::array<double, model::kGateTiers.size()> keep{};
  GateScore full;
  const auto add = [](GateScore& to, const GateScore& score) {
    to.right += score.right;
    to.asked += score.asked;
  };
  int contexts = 0;
  for (; contexts < options.exam_contexts || full.asked < kLeastAsked; ++contexts) {
    TRY_STATUS(check_interrupt(options));
    const GateSample sample =
        data.exam(which, static_cast<uint64_t>(contexts), exam_length(options), options.exam_asks);
    add(full, grade_gate(twin, nullptr, 0, sample, options, nullptr));
    for (size_t tier = 0; tier < gated.size(); ++tier) {
      double share = 0;
      add(gated[tier],
          grade_gate(twin, &net, header.tiers[tier].threshold, sample, options, &share));
      keep[tier] += share;
    }
  }
  std::printf("  %-16s full %5.1f %%", one.name.c_str(), 100 * full.rate());
  for (size_t tier = 0; tier < gated.size(); ++tier) {
    keep[tier] /= contexts;
    header.calibration.push_back({one.name, model::kGateTiers[tier], keep[tier], full.rate(),
                                  gated[tier].rate(), static_cast<int32_t>(full.asked),
                                  one.held_out});
    std::printf("   %5.1f %% at %.3f", 100 * gated[tier].rate(), keep[tier]);
  }
  std::printf("%s\n", one.held_out ? "   held out" : "");
  std::fflush(stdout);
  return {};
}

}  // namespace

GateScore grade_gate(const Twin& twin, const GateNet* net, double threshold,
                     const GateSample& sample, const GateOptions& options, double* keep) {
  torch::NoGradGuard no_grad;
  const GateBatch batch = make_gate_batch({sample}, 1 << 24, 0);
  torch::Tensor hidden;
  if (net != nullptr) {
    GateMask mask;
    mask.visibility = {options.window, options.sinks};
    GatedPass pass(*net, mask, batch.prompts, torch::tensor({static_cast<float>(-threshold)}));
    hidden = twin.hidden(batch.inputs, &pass);
    const auto kept = pass.kept()[0].slice(2, 0, sample.prompt);
    if (keep != nullptr) *keep = page_footprint(kept, mask.visibility, options.page_slots);
  } else {
    UngatedPass pass;
    hidden = twin.hidden(batch.inputs, &pass);
  }
  const auto logits = twin.logits(hidden.flatten(0, 1).index_select(0, batch.rows));
  const auto right = logits.argmax(-1).eq(batch.targets).to(torch::kInt64).contiguous();
  const int64_t* next = right.data_ptr<int64_t>();
  GateScore score;
  for (const auto& [begin, end] : sample.answers) {
    const auto hits = std::count(next, next + (end - begin), 1);
    score.right += sample.dense ? hits : (hits == end - begin ? 1 : 0);
    score.asked += sample.dense ? end - begin : 1;
    next += end - begin;
  }
  return score;
}

Status calibrate(const Twin& twin, const GateNet& net, const GateData& data,
                 const GateOptions& options, GateHeader& header) {
  const Thresholds thresholds(twin, net, options, threshold_samples(data, options));
  header.calibration.clear();
  float least = -static_cast<float>(kWidest);
  for (size_t tier = 0; tier < header.tiers.size(); ++tier) {
    TRY(const auto found, thresholds.find(kTierShares[tier]));
    // What a tier keeps, the milder ones keep too.
    least = std::max(least, static_cast<float>(found.threshold));
    header.tiers[tier] = {least, found.share, 0};
    std::printf("  %s: threshold %.4f holds %.3f of the pages; of the tokens, by layer:",
                std::string(model::gate_tier_name(model::kGateTiers[tier])).c_str(),
                static_cast<double>(least), found.share);
    for (int64_t l = 0; l < found.lists.size(0); ++l) {
      for (int64_t h = 0; h < found.lists.size(1); ++h) {
        std::printf("%s %.2f", h == 0 && l > 0 ? "," : "", found.lists[l][h].item<double>());
      }
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  for (size_t i = 0; i < data.cases().size(); ++i) {
    TRY_STATUS(report_case(twin, net, data, options, i, header));
  }
  for (size_t tier = 0; tier < header.tiers.size(); ++tier) {
    double keep = 0, lost = 0, cases = 0;
    for (const auto& line : header.calibration) {
      if (line.tier != model::kGateTiers[tier]) continue;
      keep += line.keep;
      lost += 100 * (line.full - line.gated);
      ++cases;
    }
    header.tiers[tier].keep = std::clamp(keep / cases, 0.0, 1.0);
    header.tiers[tier].loss = lost / cases;
  }
  return {};
}

}  // namespace coppice::train
