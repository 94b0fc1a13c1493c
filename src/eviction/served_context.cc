#include "eviction/served_context.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace coppice::eviction {

// A sequence under way.
struct ServedContext::Live {
  kv::SequenceId id = 0;
  int64_t tokens = 0;         // planned
  int32_t logits_begin = -1;  // its logit rows of the step; -1: none
  int32_t logits_end = -1;
};

void ServedContext::forget() {
  if (held_ == 0) return;
  cache_.close(held_);
  held_ = 0;
  cache_.flush();
}

kv::SequenceId ServedContext::open(std::span<const int32_t> after) {
  std::vector<kv::TokenId> tokens(context_.begin(), context_.end());
  for (const int32_t token : after) tokens.push_back(token | kv::kExactToken);
  const int64_t boundary = std::ssize(context_);
  // The context is no whole prompt: a question follows, so that nobody starts at its last token.
  const int64_t prompt = std::max(std::ssize(tokens), boundary + 1);
  return cache_.open("comparison", tokens,
                     {.tier = &tier_, .boundaries = {&boundary, 1}, .prompt = prompt});
}

Expected<TensorView> ServedContext::step(std::span<Live* const> going, bool every_row) {
  int32_t room = limits_.max_rows;
  for (Live* live : going) {
    live->logits_begin = live->logits_end = -1;
    if (room == 0 || cache_.progress(live->id).blocked) continue;
    const int32_t most = every_row ? std::min(room, limits_.max_logit_rows) : room;
    if (const auto took = cache_.reserve(live->id, most)) room -= *took;
  }
  if (room == limits_.max_rows) {
    return fail(ErrorCode::kTooLarge,
                "the cache has no room for a context and its questions; --kv-budget raises it");
  }
  kv::Step& step = cache_.plan(kv::Partition::kTwoPhase);
  std::vector<int32_t> logit_rows;
  for (const kv::Slice& slice : step.slices) {
    const auto live = std::ranges::find(going, slice.sequence, [](Live* l) { return l->id; });
    CHECK(live != going.end());
    const bool ends = slice.position + slice.row_end - slice.row_begin == (*live)->tokens;
    if (!ends && !every_row) continue;
    (*live)->logits_begin = static_cast<int32_t>(logit_rows.size());
    for (int32_t row = every_row ? slice.row_begin : slice.row_end - 1; row < slice.row_end;
         ++row) {
      logit_rows.push_back(row);
    }
    (*live)->logits_end = static_cast<int32_t>(logit_rows.size());
  }
  const TensorView logits = model_.forward({.tokens = step.tokens,
                                            .positions = step.positions,
                                            .owners = {},
                                            .evaluated = {},
                                            .logit_rows = logit_rows,
                                            .plan = step.plan,
                                            .arena = cache_.arena(),
                                            .gate = &gate_,
                                            .gated = &step.gate});
  cache_.commit();
  return logits;
}

Expected<ServedContext::Held> ServedContext::read(std::span<const int32_t> tokens,
                                                  const ops::GateRule& rule) {
  CHECK(!tokens.empty());
  forget();
  context_.assign(tokens.begin(), tokens.end());
  const int64_t layers = model_.config().num_hidden_layers;
  tier_ = {.rule = rule, .decode_gate = false, .memory_floats = gate_.memory_floats() * layers};
  held_ = open({});
  Live live{.id = held_, .tokens = std::ssize(tokens)};
  Live* const going[] = {&live};
  while (cache_.progress(held_).computed < live.tokens) TRY_STATUS(step(going, false));
  const auto footprint = cache_.footprint(held_);
  return Held{footprint.bytes, footprint.keep_ratio};
}

Expected<std::vector<std::vector<int32_t>>> ServedContext::answer(
    std::span<const Question> questions, std::span<const int32_t> stops) {
  std::vector<std::vector<int32_t>> answers(questions.size());
  const auto most = static_cast<size_t>(limits_.max_logit_rows);
  for (size_t begin = 0; begin < questions.size(); begin += most) {
    const size_t n = std::min(most, questions.size() - begin);
    TRY_STATUS(
        answer_group(questions.subspan(begin, n), stops, std::span(answers).subspan(begin, n)));
  }
  return answers;
}

Status ServedContext::answer_group(std::span<const Question> questions,
                                   std::span<const int32_t> stops,
                                   std::span<std::vector<int32_t>> answers) {
  std::vector<Live> all(questions.size());
  std::vector<size_t> open_ones;
  for (size_t i = 0; i < questions.size(); ++i) {
    CHECK(!questions[i].tokens.empty());
    if (questions[i].most == 0) continue;
    all[i] = {.id = open(questions[i].tokens),
              .tokens = std::ssize(context_) + std::ssize(questions[i].tokens)};
    open_ones.push_back(i);
  }
  Status status;
  while (!open_ones.empty()) {
    std::vector<Live*> going;
    for (const size_t i : open_ones) going.push_back(&all[i]);
    const auto logits = step(going, false);
    if (!logits) {
      status = fail(logits.error());
      break;
    }
    std::vector<size_t> still;
    for (const size_t i : open_ones) {
      Live& live = all[i];
      if (live.logits_begin < 0) {
        still.push_back(i);
        continue;
      }
      const int64_t vocab = model_.config().vocab_size;
      const float* row = logits->f32() + live.logits_begin * vocab;
      const auto token = static_cast<int32_t>(std::max_element(row, row + vocab) - row);
      const bool stop = std::ranges::find(stops, token) != stops.end();
      if (!stop) answers[i].push_back(token);
      if (stop || std::ssize(answers[i]) >= questions[i].most) {
        cache_.close(live.id);
        continue;
      }
      cache_.append(live.id, token);
      ++live.tokens;
      still.push_back(i);
    }
    open_ones = std::move(still);
  }
  for (const size_t i : open_ones) cache_.close(all[i].id);
  return status;
}

Expected<double> ServedContext::nats(std::span<const int32_t> tokens) {
  CHECK(tokens.size() >= 2);
  Live live{.id = open(tokens), .tokens = std::ssize(context_) + std::ssize(tokens)};
  Live* const going[] = {&live};
  const int64_t vocab = model_.config().vocab_size;
  double sum = 0;
  Status status;
  while (status && cache_.progress(live.id).computed < live.tokens) {
    const int64_t first = cache_.progress(live.id).computed;
    const auto logits = step(going, true);
    if (!logits) {
      status = fail(logits.error());
      break;
    }
    for (int32_t i = live.logits_begin; i < live.logits_end; ++i) {
      // The row at `place` of tokens says what comes next; rows of the context say nothing here.
      const int64_t place = first + (i - live.logits_begin) - std::ssize(context_);
      if (place < 0 || place + 1 >= std::ssize(tokens)) continue;
      const std::span<const float> row(logits->f32() + i * vocab, static_cast<size_t>(vocab));
      sum += nats_of(row, tokens[static_cast<size_t>(place + 1)]);
    }
  }
  cache_.close(live.id);
  if (!status) return fail(status.error());
  return sum / static_cast<double>(tokens.size() - 1);
}

}  // namespace coppice::eviction
