#include "eviction/loaded_model.h"

#include <algorithm>
#include <utility>

namespace coppice::eviction {
namespace {

// A right answer and a few tokens more, so that one that runs on counts as wrong.
constexpr int32_t kMoreTokens = 4;
// Markov: of each context, what is read before its prediction is judged.
constexpr double kMarkovRead = 0.75;

int64_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

}  // namespace

Expected<std::unique_ptr<LoadedModel>> LoadedModel::open(const EngineOptions& options,
                                                         const std::string& gate,
                                                         int32_t max_rows) {
  std::unique_ptr<LoadedModel> out(new LoadedModel());
  EngineOptions chosen = options;
  chosen.gate = gate;
  chosen.kv_tier.reset();
  // Every tier, whatever it was calibrated to: thresholds are the comparison's.
  chosen.gate_max_loss = 100;
  chosen.max_rows = std::max(chosen.max_rows, max_rows);
  chosen.slice = std::min(chosen.slice, chosen.max_rows);
  out->log_ = std::make_shared<QueryLog>();
  TRY(auto backend, engine::backend_for(chosen));
  TRY(out->loaded_,
      engine::load(chosen, logged(std::move(backend), out->log_), {}, engine::Purpose::kEvaluate));
  out->limits_.max_rows = chosen.max_rows;
  out->limits_.max_logit_rows = chosen.max_live;
  out->kv_type_ = out->loaded_.parts.cache->arena().layout.type;
  return out;
}

Expected<std::vector<Sample>> LoadedModel::samples(const Task& task, uint64_t seed, int samples,
                                                   int per_context) const {
  const text::Tokenizer& tokenizer = *loaded_.parts.tokenizer;
  families::TaskOptions options;
  options.tokens = task.length;
  options.hops = task.hops;
  options.split = families::Split::kHeldOut;
  const families::FamilyInfo& info = families::info(task.family);
  if (!info.fixed_haystack) options.haystack = task.haystack;
  std::vector<Sample> out;
  storefront::Random seeds(seed);
  for (int asked = 0; asked < samples;) {
    options.asks = std::min(per_context, samples - asked);
    const families::TaskSample drawn = families::make_task(task.family, seeds.next(), options);
    Sample sample;
    sample.context = tokenizer.encode(drawn.context, true);
    if (drawn.asks.empty()) {
      const auto read =
          static_cast<int64_t>(kMarkovRead * static_cast<double>(sample.context.size()));
      sample.following.assign(sample.context.begin() + read, sample.context.end());
      sample.context.resize(static_cast<size_t>(read));
      asked += per_context;
    }
    // What all prompts have in common is the context, wherever a tokenizer cuts.
    std::vector<std::vector<int32_t>> prompts;
    auto common = static_cast<int64_t>(sample.context.size());
    for (const families::Ask& ask : drawn.asks) {
      prompts.push_back(tokenizer.encode(drawn.context + ask.question, true));
      common = std::min(
          {common, common_prefix(sample.context, prompts.back()), std::ssize(prompts.back()) - 1});
    }
    sample.context.resize(static_cast<size_t>(common));
    for (size_t i = 0; i < prompts.size(); ++i) {
      const families::Ask& ask = drawn.asks[i];
      const auto answer = static_cast<int32_t>(tokenizer.encode(ask.answer, false).size());
      sample.questions.push_back(
          {{prompts[i].begin() + common, prompts[i].end()}, answer + kMoreTokens});
      sample.answers.push_back(ask.answer);
    }
    asked += static_cast<int>(drawn.asks.size());
    TRY_STATUS(check(task, sample));
    out.push_back(std::move(sample));
  }
  return out;
}

Status LoadedModel::check(const Task& task, const Sample& sample) const {
  int64_t after = std::ssize(sample.following);
  for (const Question& question : sample.questions) {
    const int64_t asked = std::ssize(question.tokens);
    after = std::max(after, asked + question.most);
    if (asked <= limits_.max_rows) continue;
    return fail(ErrorCode::kInvalidArgument,
                "--max-rows: " + task.name() + " has questions of " + std::to_string(asked) +
                    " tokens, which are read in one step of " + std::to_string(limits_.max_rows));
  }
  const int64_t longest = std::ssize(sample.context) + after;
  if (longest <= ctx()) return {};
  return fail(ErrorCode::kInvalidArgument,
              "--length: " + task.name() + " takes " + std::to_string(longest) +
                  " tokens with a question and its answer; --ctx is " + std::to_string(ctx()));
}

Expected<std::unique_ptr<KeptContext>> LoadedModel::context_for(
    const std::vector<Sample>& samples) {
  Room room{.questions = 1, .tail = 1};
  for (const Sample& sample : samples) {
    const auto tokens = static_cast<int32_t>(sample.context.size());
    room.context = std::max(room.context, tokens);
    room.tail = std::max(room.tail, static_cast<int32_t>(sample.following.size()));
    room.questions = std::max(room.questions, static_cast<int32_t>(sample.questions.size()));
    for (const Question& question : sample.questions) {
      const auto asked = static_cast<int32_t>(question.tokens.size());
      room.beyond = std::max(room.beyond, asked);
      room.tail = std::max(room.tail, asked + question.most);
    }
  }
  room.beyond = std::max(room.beyond, room.context + static_cast<int32_t>(marker().size()));
  room.questions = std::min(room.questions, limits_.max_logit_rows);
  return KeptContext::create(*loaded_.parts.model, *loaded_.parts.backend, log_, kv_type_, limits_,
                             room);
}

}  // namespace coppice::eviction
