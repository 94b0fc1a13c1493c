#include "train/gate_data.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "train/family_data.h"

namespace coppice::train {
namespace {

using families::Family;
using families::Haystack;
using storefront::Random;

constexpr size_t kLeastText = 640;  // tokens of a file
constexpr int kTrainedHops = 2;     // longer chains are held out
constexpr int kHeldOutHops = 4;
constexpr const char* kLongChains = "variables-4";

// Families that gates never train on: what a gate makes of them tells how it generalises.
bool is_held_out(Family family) { return family == Family::kMultiValue; }

// Much of a context is hay, of the facts' own words for the most part: with needles alone there is
// nothing to forget, and with hay of other words nothing to learn.
Haystack draw_haystack(Random& random) {
  const uint32_t roll = random.below(20);
  if (roll < 9) return Haystack::kH1;
  if (roll < 15) return Haystack::kH2;
  return roll < 18 ? Haystack::kH3 : Haystack::kH0;
}

}  // namespace

GateData::GateData(const GateDataOptions& options, std::unique_ptr<text::Tokenizer> tokenizer,
                   int32_t eos)
    : options_(options), tokenizer_(std::move(tokenizer)), eos_(eos) {
  marker_ = tokenizer_->encode(options.copy_marker, false);
  for (const Family family : options.families) {
    if (!is_held_out(family)) trained_.push_back(family);
    cases_.push_back({std::string(families::info(family).name), is_held_out(family)});
    exam_families_.push_back(family);
    if (family != Family::kVariables) continue;
    cases_.push_back({kLongChains, true});
    exam_families_.push_back(family);
  }
}

Expected<GateData> GateData::open(const GateDataOptions& options, const std::string& tokenizer_json,
                                  const std::string& where, int32_t vocab_size, int32_t eos) {
  TRY(auto tokenizer, text::Tokenizer::load(tokenizer_json, where));
  if (tokenizer->vocab_size() > vocab_size) {
    return fail(ErrorCode::kUnsupported, where + ": has " +
                                             std::to_string(tokenizer->vocab_size()) +
                                             " tokens, the model " + std::to_string(vocab_size));
  }
  GateData data(options, std::move(tokenizer), eos);
  for (const std::string& file : options.texts) TRY_STATUS(data.read_text(file));
  if (data.trained_.empty() && data.texts_.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "--families: nothing to train on; give a family that is not held out, or --text");
  }
  return data;
}

Status GateData::read_text(const std::string& file) {
  TRY(const std::string bytes, read_file(file));
  Text text{"text:" + std::filesystem::path(file).filename().string(),
            tokenizer_->encode(bytes, false), 0};
  if (text.ids.size() < kLeastText) {
    return fail(ErrorCode::kInvalidArgument, "--text: " + file + ": " +
                                                 std::to_string(text.ids.size()) +
                                                 " tokens; at least " + std::to_string(kLeastText));
  }
  text.held_out = text.ids.size() - text.ids.size() / 10;
  cases_.push_back({text.name, false});
  texts_.push_back(std::move(text));
  return {};
}

// A run of a file's training part, or of the part that is held out.
std::vector<int32_t> GateData::window_of(const Text& text, bool held_out, Random& random,
                                         int tokens) const {
  const size_t first = held_out ? text.held_out : 0;
  const size_t last = held_out ? text.ids.size() : text.held_out;
  const size_t n = std::min(static_cast<size_t>(tokens), last - first);
  const size_t begin = first + random.below(static_cast<uint32_t>(last - first - n + 1));
  std::vector<int32_t> ids = tokenizer_->encode("", true);  // bos, where the model has one
  ids.insert(ids.end(), text.ids.begin() + static_cast<int64_t>(begin),
             text.ids.begin() + static_cast<int64_t>(begin + n));
  return ids;
}

bool GateData::draws_text(Random& random) const {
  if (texts_.empty() || trained_.empty()) return trained_.empty();
  return random.below(2) == 0;
}

// Its context takes about `length` tokens less what its asks may take.
families::TaskSample GateData::draw_task(Random& random, int length) const {
  const Family family = trained_[random.below(static_cast<uint32_t>(trained_.size()))];
  families::TaskOptions options;
  options.haystack = draw_haystack(random);
  const families::FamilyInfo& info = families::info(family);
  if (!families::has_level(info, *options.haystack)) options.haystack = info.haystack;
  options.hops = 1 + static_cast<int>(random.below(kTrainedHops));
  options.asks = 4 << random.below(4);
  const double part = family == Family::kMarkov ? 1.0 : 0.6 + 0.25 * random.uniform();
  options.tokens =
      std::clamp(static_cast<int>(length * part), families::kMinTokens, families::kMaxTokens);
  const double facts = std::exp2(-5 * random.uniform()) * options.tokens;
  options.facts = std::max(1, static_cast<int>(facts) / fact_tokens(family, options));
  if (family == Family::kNeedle) options.facts = 1;
  // With nothing between them the facts alone make the length.
  if (options.haystack == Haystack::kH3) options.facts = 0;
  if (family == Family::kCopy || family == Family::kSystemPrompt) options.facts = 0;
  return families::make_task(family, random.next(), options);
}

// The context and its asks, as many as the length has room for; the first always.
GateSample GateData::with_asks(const families::TaskSample& task, int length) const {
  GateSample sample;
  sample.ids = tokenizer_->encode(task.context, true);
  if (task.asks.empty()) return continued(std::move(sample.ids));
  sample.prompt = static_cast<int>(sample.ids.size());
  for (const families::Ask& ask : task.asks) {
    const auto question = tokenizer_->encode(ask.question, false);
    const auto answer = tokenizer_->encode(ask.answer, false);
    const size_t end = sample.ids.size() + question.size() + answer.size() + (eos_ >= 0 ? 1 : 0);
    if (!sample.answers.empty() && end > static_cast<size_t>(length)) break;
    sample.ids.insert(sample.ids.end(), question.begin(), question.end());
    const auto begin = static_cast<int>(sample.ids.size());
    sample.ids.insert(sample.ids.end(), answer.begin(), answer.end());
    if (eos_ >= 0) sample.ids.push_back(eos_);
    sample.answers.emplace_back(begin, static_cast<int>(sample.ids.size()));
  }
  return sample;
}

// A text: its first half is the prompt, its second what is predicted.
GateSample GateData::continued(std::vector<int32_t> ids) const {
  GateSample sample;
  sample.ids = std::move(ids);
  sample.prompt = static_cast<int>(sample.ids.size()) / 2;
  sample.answers = {{sample.prompt, static_cast<int>(sample.ids.size())}};
  sample.dense = true;
  return sample;
}

std::vector<int32_t> GateData::draw_context(Random& random, int tokens) const {
  std::vector<int32_t> ids;
  if (draws_text(random)) {
    const Text& text = texts_[random.below(static_cast<uint32_t>(texts_.size()))];
    ids = window_of(text, false, random, tokens);
  } else {
    ids = tokenizer_->encode(draw_task(random, tokens * 5 / 4).context, true);
  }
  ids.resize(std::min(ids.size(), static_cast<size_t>(tokens)));
  return ids;
}

GateSample GateData::draw_copy(uint64_t seed, int length) const {
  Random random(seed);
  const int room = std::max(2, (length - static_cast<int>(marker_.size())) / 2);
  GateSample sample;
  sample.ids = draw_context(random, room);
  const std::vector<int32_t> context = sample.ids;
  sample.prompt = static_cast<int>(context.size());
  sample.ids.insert(sample.ids.end(), marker_.begin(), marker_.end());
  const auto begin = static_cast<int>(sample.ids.size());
  // Without what opens every text (bos).
  const auto opening = static_cast<int64_t>(tokenizer_->encode("", true).size());
  sample.ids.insert(sample.ids.end(), context.begin() + opening, context.end());
  sample.answers = {{begin, static_cast<int>(sample.ids.size())}};
  sample.dense = true;
  return sample;
}

GateSample GateData::draw(uint64_t seed, int length) const {
  Random random(seed);
  if (random.uniform() < options_.copy_share) return draw_copy(random.next(), length);
  if (draws_text(random)) {
    const Text& text = texts_[random.below(static_cast<uint32_t>(texts_.size()))];
    return continued(window_of(text, false, random, length));
  }
  return with_asks(draw_task(random, length), length);
}

GateSample GateData::exam(size_t which, uint64_t number, int length, int asks) const {
  Random random(0x9a7e + number * 0x10001 + which);
  if (which >= exam_families_.size()) {
    const Text& text = texts_[which - exam_families_.size()];
    return continued(window_of(text, true, random, 2 * length));
  }
  const Family family = exam_families_[which];
  families::TaskOptions options;
  options.tokens = std::clamp(length, families::kMinTokens, families::kMaxTokens);
  if (family == Family::kMarkov)
    options.tokens = std::min(2 * options.tokens, families::kMaxTokens);
  options.hops = cases_[which].name == kLongChains ? kHeldOutHops : kTrainedHops;
  options.asks = asks;
  options.split = families::Split::kHeldOut;
  return with_asks(families::make_task(family, random.next(), options), 4 * length);
}

}  // namespace coppice::train
