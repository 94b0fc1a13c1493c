#include "model/gate_policies.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "base/splitmix.h"
#include "model/tensor_entry.h"

namespace coppice::model {
namespace {

struct Setting {
  std::string_view key;
  double least, most;
  bool whole;              // integers only
  double otherwise = NAN;  // NAN: must be given
};
constexpr Setting kWindow{"window", 1, GateLimits::kWindow, true, 64};
constexpr Setting kSinks{"sinks", 0, GateLimits::kSinks, true, 4};
constexpr Setting kKeep{"keep", 0, 1, false};
constexpr Setting kSeed{"seed", 0, 4294967295.0, true, 1};
constexpr Setting kThreshold{"threshold", 0, 1e9, false};

using Settings = std::map<std::string_view, double>;

class Policy : public Gate {
 public:
  Policy(std::string name, const ops::GateRule& rule) : name_(std::move(name)), rule_(rule) {}
  std::string describe() const override { return std::string(kPolicyPrefix) + name_; }
  uint64_t hash() const override {
    uint64_t state = 0;
    for (const char c : describe()) {
      state = splitmix((state ^ static_cast<unsigned char>(c)) + kGoldenGamma);
    }
    return state;
  }
  ops::GateRule rule(GateTier) const override { return rule_; }

 private:
  std::string name_;  // with every setting, so that it tells what is decided
  ops::GateRule rule_;
};

class KeepNothing : public Policy {
 public:
  using Policy::Policy;

 protected:
  void fill_logits(int32_t, const GateInput& input, const ops::GateRows& rows) override {
    const TensorView logits = input.logits.rows(rows.row_begin, rows.row_end);
    std::fill_n(logits.f32(), logits.elements(), -INFINITY);
  }
};

class KeepByChance : public Policy {
 public:
  KeepByChance(std::string name, const ops::GateRule& rule, uint64_t seed)
      : Policy(std::move(name), rule), seed_(seed) {}

  // The logit that a keep probability is: with `keep` as the threshold's probability, a token whose
  // uniform number is at most `keep` reaches it.
  static float logit(double p) { return static_cast<float>(std::log(p) - std::log1p(-p)); }

 protected:
  void fill_logits(int32_t layer, const GateInput& input, const ops::GateRows& rows) override {
    const int64_t heads = input.logits.shape()[1];
    for (int32_t row = rows.row_begin; row < rows.row_end; ++row) {
      const auto position = static_cast<uint64_t>(rows.position + row - rows.row_begin);
      const auto token = static_cast<uint64_t>(input.tokens[static_cast<size_t>(row)]);
      for (int64_t head = 0; head < heads; ++head) {
        uint64_t state = seed_;
        for (const uint64_t part :
             {static_cast<uint64_t>(layer), static_cast<uint64_t>(head), position, token}) {
          state = splitmix((state ^ part) + kGoldenGamma);
        }
        const double uniform = (static_cast<double>(state >> 12) + 0.5) * 0x1p-52;
        input.logits.f32()[row * heads + head] = logit(1 - uniform);
      }
    }
  }

 private:
  uint64_t seed_;
};

class KeepShortKeys : public Policy {
 public:
  KeepShortKeys(std::string name, const ops::GateRule& rule, int32_t head_dim)
      : Policy(std::move(name), rule), head_dim_(head_dim) {}
  GateNeeds needs() const override { return {.keys = true}; }

 protected:
  // Rotating a key, as is done before it is stored, leaves its norm.
  void fill_logits(int32_t, const GateInput& input, const ops::GateRows& rows) override {
    const int64_t heads = input.logits.shape()[1];
    for (int64_t i = rows.row_begin * heads; i < rows.row_end * heads; ++i) {
      const float* key = input.keys.f32() + i * head_dim_;
      double squares = 0;
      for (int32_t d = 0; d < head_dim_; ++d) squares += double{key[d]} * double{key[d]};
      input.logits.f32()[i] = static_cast<float>(-std::sqrt(squares));
    }
  }

 private:
  int32_t head_dim_;
};

ops::GateRule rule_of(const Settings& settings, float threshold) {
  const auto sinks = settings.find(kSinks.key);
  return {.threshold = threshold,
          .window = static_cast<int32_t>(settings.at(kWindow.key)),
          .sinks = sinks == settings.end() ? 0 : static_cast<int32_t>(sinks->second)};
}

using Make = std::unique_ptr<Gate> (*)(std::string name, const Settings& settings,
                                       const ModelConfig& config);
struct PolicyRow {
  std::string_view name;
  std::array<const Setting*, 4> settings;  // null: no more
  Make make;
};

std::unique_ptr<Gate> make_keep_nothing(std::string name, const Settings& settings,
                                        const ModelConfig&) {
  return std::make_unique<KeepNothing>(std::move(name), rule_of(settings, 0));
}

std::unique_ptr<Gate> make_random(std::string name, const Settings& settings, const ModelConfig&) {
  return std::make_unique<KeepByChance>(
      std::move(name), rule_of(settings, KeepByChance::logit(1 - settings.at(kKeep.key))),
      static_cast<uint64_t>(settings.at(kSeed.key)));
}

std::unique_ptr<Gate> make_key_norm(std::string name, const Settings& settings,
                                    const ModelConfig& config) {
  const auto threshold = static_cast<float>(-settings.at(kThreshold.key));
  return std::make_unique<KeepShortKeys>(std::move(name), rule_of(settings, threshold),
                                         config.head_dim);
}

constexpr std::array<PolicyRow, 4> kPolicies{{
    {"window", {&kWindow}, make_keep_nothing},
    {"streaming", {&kWindow, &kSinks}, make_keep_nothing},
    {"random", {&kKeep, &kSeed, &kWindow, &kSinks}, make_random},
    {"key-norm", {&kThreshold, &kWindow, &kSinks}, make_key_norm},
}};

// The shortest text that reads as this number.
std::string text_of(double number) {
  std::array<char, 32> text;
  return {text.data(), std::to_chars(text.begin(), text.end(), number).ptr};
}

tl::unexpected<Error> wrong(const std::string& spec, const std::string& problem) {
  return fail(ErrorCode::kInvalidArgument,
              "gate " + quote_name(std::string(kPolicyPrefix) + spec) + ": " + problem);
}

std::string settings_of(const PolicyRow& row) {
  std::string text;
  for (const Setting* setting : row.settings) {
    if (setting == nullptr) break;
    text += (text.empty() ? "" : ", ") + std::string(setting->key);
  }
  return text;
}

Expected<const PolicyRow*> find_policy(const std::string& spec, std::string_view name) {
  std::string names;
  for (const PolicyRow& row : kPolicies) {
    if (row.name == name) return &row;
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  return wrong(spec, "no such policy; there are " + names);
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size(); begin += parts.back().size() + 1) {
    parts.push_back(text.substr(begin, text.find(',', begin) - begin));
  }
  return parts;
}

// One "key=value" into settings.
Status read_setting(const std::string& spec, const PolicyRow& row, std::string_view text,
                    Settings& settings) {
  const std::string_view key = text.substr(0, text.find('='));
  for (const Setting* setting : row.settings) {
    if (setting == nullptr) break;
    if (setting->key != key) continue;
    const std::string_view digits = text.substr(std::min(text.size(), key.size() + 1));
    double number = NAN;
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), number);
    const bool whole = !setting->whole || number == std::floor(number);
    if (error != std::errc() || end != digits.end() || !whole ||
        !(number >= setting->least && number <= setting->most)) {
      return wrong(spec, std::string(key) + " must be " +
                             (setting->whole ? "an integer" : "a number") + " from " +
                             text_of(setting->least) + " to " + text_of(setting->most));
    }
    if (!settings.emplace(setting->key, number).second) {
      return wrong(spec, std::string(key) + " is given twice");
    }
    return {};
  }
  return wrong(spec, "no setting " + quote_name(key) + "; " + std::string(row.name) + " has " +
                         settings_of(row));
}

}  // namespace

Expected<std::unique_ptr<Gate>> make_policy(const std::string& spec, const ModelConfig& config) {
  const std::vector<std::string_view> parts = split(spec);
  TRY(const PolicyRow* row, find_policy(spec, parts.front()));
  Settings settings;
  for (size_t i = 1; i < parts.size(); ++i) {
    TRY_STATUS(read_setting(spec, *row, parts[i], settings));
  }
  std::string name(row->name);
  for (const Setting* setting : row->settings) {
    if (setting == nullptr) break;
    if (std::isnan(setting->otherwise) && !settings.contains(setting->key)) {
      return wrong(spec, std::string(setting->key) + " must be given");
    }
    const double value = settings.emplace(setting->key, setting->otherwise).first->second;
    name.append(",").append(setting->key).append("=").append(text_of(value));
  }
  return row->make(std::move(name), settings, config);
}

}  // namespace coppice::model
