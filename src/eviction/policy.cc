#include "eviction/policy.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/file.h"
#include "base/splitmix.h"

namespace coppice::eviction {
namespace {

constexpr int32_t kObserved = 32;  // SnapKV's rows

Scores snapkv_hidden(const ContextView& view) {
  return snapkv_scores(view, view.tokens() - kObserved, view.tokens());
}
Scores snapkv_visible(const ContextView& view) {
  return snapkv_scores(view, view.tokens(), view.rows());
}

constexpr std::array<ScoredPolicy, 7> kScored{{
    {"h2o", Sight::kContext, false, h2o_scores},
    {"tova", Sight::kContext, false, tova_scores},
    {"snapkv", Sight::kContext, false, snapkv_hidden},
    {"snapkv-visible", Sight::kQuestion, false, snapkv_visible},
    {"keydiff", Sight::kContext, false, keydiff_scores},
    {"expected", Sight::kContext, false, expected_attention_scores},
    {"kvzip", Sight::kReplay, true, kvzip_scores},
}};

constexpr std::string_view kHeads = "+heads";

// A policy of the tree's own whose threshold the comparison sets.
std::string served_spec(const std::string& name, const Protection& protection) {
  const std::string rule =
      ",window=" + std::to_string(protection.window) + ",sinks=" + std::to_string(protection.sinks);
  return "policy:" + name + (name == "random" ? ",keep=0.5" : ",threshold=1") + rule;
}

bool is_built_in(const std::string& text) {
  constexpr std::array<std::string_view, 6> kOthers{"full",         "window", "streaming",
                                                    "static-heads", "random", "key-norm"};
  const std::string name =
      text.ends_with(kHeads) ? text.substr(0, text.size() - kHeads.size()) : text;
  return std::ranges::count(kOthers, name) > 0 ||
         std::ranges::count(kScored, name, &ScoredPolicy::name) > 0;
}

}  // namespace

std::string policy_names() {
  std::string names = "full, window, streaming, static-heads, random, key-norm";
  for (const ScoredPolicy& policy : kScored) names += ", " + std::string(policy.name);
  return names +
         "; h2o, tova, snapkv, keydiff and expected also with +heads; [NAME=]FILE of a gate";
}

Expected<PolicyPlan> find_policy(const std::string& text, const Protection& protection) {
  using Kind = PolicyPlan::Kind;
  PolicyPlan plan{.name = text};
  if (text == "full") return plan;
  if (text == "window" || text == "streaming") {
    plan.kind = Kind::kRecent;
    plan.sinks = text == "streaming";
    return plan;
  }
  if (text == "static-heads") {
    plan.kind = Kind::kStatic;
    return plan;
  }
  if (text == "random" || text == "key-norm") {
    plan.kind = Kind::kGate;
    plan.gate = served_spec(text, protection);
    return plan;
  }
  const bool heads = text.ends_with(kHeads);
  const std::string name = heads ? text.substr(0, text.size() - kHeads.size()) : text;
  const auto scored = std::ranges::find(kScored, name, &ScoredPolicy::name);
  if (scored != kScored.end() && !(heads && scored->pooled)) {
    plan.kind = Kind::kScored;
    plan.scored = &*scored;
    plan.heads = heads;
    return plan;
  }
  const size_t equals = text.find('=');
  const std::string file = equals == std::string::npos ? text : text.substr(equals + 1);
  std::error_code error;
  if (std::filesystem::is_regular_file(file, error)) {
    plan.kind = Kind::kGate;
    plan.gate = file;
    plan.name = equals == std::string::npos ? std::filesystem::path(file).stem().string()
                                            : text.substr(0, equals);
    if (is_built_in(plan.name)) {
      return fail(ErrorCode::kInvalidArgument, "--policies: " + file + " would be reported as " +
                                                   plan.name +
                                                   ", a policy of its own; give it as NAME=FILE");
    }
    TRY(const MappedFile bytes, MappedFile::open(file));
    for (const uint8_t byte : bytes.bytes()) {
      plan.identity = splitmix((plan.identity ^ byte) + kGoldenGamma);
    }
    return plan;
  }
  return fail(ErrorCode::kInvalidArgument,
              "--policies: no policy or gate file " + text + " (" + policy_names() + ")");
}

}  // namespace coppice::eviction
