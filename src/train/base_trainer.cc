#include "train/base_trainer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "train/evaluate.h"
#include "train/gradients.h"

namespace coppice::train {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

constexpr uint64_t kExamSeed = 0x5f0f;
constexpr int kRestOneIn = 4;
constexpr int kReportEvery = 20;
constexpr size_t kBatchTokens = 768;  // of one thread's work, where a step has several batches
constexpr const char* kCheckpoint = "checkpoint.safetensors";

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string percent(double part) {
  if (std::isnan(part)) return "not asked yet";
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %%", 100 * part);
  return text;
}

// A seed for item n of a named stream of a run.
uint64_t stream(uint64_t run_seed, uint64_t name, uint64_t n) {
  return storefront::Random(storefront::Random(run_seed * 0x9e37u + name).next() + n).next();
}

Expected<Bpe> tokenizer_of(const BaseOptions& options) {
  if (options.resume) return Bpe::load(options.out);
  if (!options.init.empty()) return Bpe::load(options.init);
  return train_tokenizer(options.vocab_size);
}

// Runs train with unrounded frequencies, fresh, from other weights and resumed alike: a run that is
// cut in two must end as one that was not. (What it writes are plain Llamas: save() sees to that.)
// A resumed run's shape is in its directory; its weights are read with the checkpoint.
Expected<Twin> twin_of(const BaseOptions& options, const Bpe& bpe) {
  if (!options.init.empty() && !options.resume) {
    TRY(const Twin from, Twin::load(options.init));
    if (from.config().vocab_size != bpe.vocab_size()) {
      return fail(ErrorCode::kCorrupt, options.init.string() + ": model and tokenizer disagree");
    }
    TwinConfig config = from.config();
    config.rope_inv_freq.clear();
    Twin twin(config, options.seed);
    torch::NoGradGuard no_grad;
    for (size_t i = 0; i < twin.parameters().size(); ++i) {
      twin.parameters()[i].second.data().copy_(from.parameters()[i].second);
    }
    return twin;
  }
  TwinConfig config;
  if (options.resume) {
    TRY(config, TwinConfig::load(options.out / "config.json"));
    config.rope_inv_freq.clear();
  }
  config.vocab_size = bpe.vocab_size();
  return Twin(config, options.seed);
}

}  // namespace

const std::vector<Stage>& curriculum() {
  static const std::vector<Stage> stages = {
      {3, 6, 6}, {6, 12, 12}, {8, 24, 24}, {12, 40, 32}, {16, 64, 40}};
  return stages;
}

Expected<Bpe> train_tokenizer(int vocab_size) {
  constexpr int kShops = 4000;
  std::string text;
  for (int i = 0; i < kShops; ++i) {
    const auto shop = storefront::make_shop(stream(0, 0, static_cast<uint64_t>(i)), 16,
                                            storefront::Split::kTrain);
    text += shop.prompt();
    for (const auto& question : shop.questions()) text += question.text + question.answer + "\n";
  }
  return Bpe::train(text, vocab_size);
}

BaseTrainer::BaseTrainer(const BaseOptions& options, Bpe bpe, Twin twin)
    : options_(options),
      bpe_(std::move(bpe)),
      twin_(std::move(twin)),
      adam_(twin_.parameters(), AdamWOptions{}),
      stage_(options.start_stage) {}

Expected<BaseTrainer> BaseTrainer::open(const BaseOptions& options) {
  std::error_code error;
  std::filesystem::create_directories(options.out, error);
  if (error) return fail(ErrorCode::kInternal, options.out.string() + ": " + error.message());
  const bool exists = std::filesystem::exists(options.out / kCheckpoint);
  if (exists != options.resume) {
    return fail(ErrorCode::kInvalidArgument,
                (options.out / kCheckpoint).string() +
                    (exists ? ": exists; give --resume or another --out" : ": nothing to resume"));
  }
  // Threads share a step's batches where it has several, else each operation.
  const bool shared = options.data == BaseData::kFamilies;
  at::set_num_threads(shared ? 1 : options.threads);
  TRY(Bpe bpe, tokenizer_of(options));
  TRY(Twin twin, twin_of(options, bpe));
  BaseTrainer trainer(options, std::move(bpe), std::move(twin));
  if (options.resume) {
    TRY_STATUS(trainer.restore());
  } else {
    TRY_STATUS(trainer.bpe_.save(options.out));
  }
  return trainer;
}

double BaseTrainer::learning_rate(int64_t step) const {
  const auto& o = options_;
  const double warm = std::min(1.0, static_cast<double>(step) / static_cast<double>(o.warmup));
  const auto into = static_cast<double>(step - (o.steps - o.decay_steps));
  const double part =
      std::clamp(into / static_cast<double>(std::max<int64_t>(1, o.decay_steps)), 0.0, 1.0);
  return o.learning_rate * warm * (0.1 + 0.9 * 0.5 * (1.0 + std::cos(M_PI * part)));
}

int BaseTrainer::stages() const {
  return static_cast<int>(options_.data == BaseData::kFamilies ? family_stages().size()
                                                               : curriculum().size());
}

Expected<std::vector<Batch>> BaseTrainer::next_batches() {
  if (options_.data == BaseData::kFamilies) return next_families();
  TRY(Batch batch, next_shops());
  return std::vector<Batch>{std::move(batch)};
}

Expected<std::vector<Batch>> BaseTrainer::next_families() {
  storefront::Random random(stream(options_.seed, 3, next_shop_));
  const int length = draw_length(random, family_stages()[static_cast<size_t>(stage_)].tokens);
  std::vector<Lesson> lessons;
  int64_t tokens = 0;
  while (tokens < options_.step_tokens) {
    TRY(Lesson lesson, family_lesson(bpe_, stream(options_.seed, 4, next_shop_++), stage_, length,
                                     options_.families));
    tokens += static_cast<int64_t>(lesson.ids.size());
    lessons.push_back(std::move(lesson));
  }
  // Of like lengths, so that little is padded.
  std::stable_sort(lessons.begin(), lessons.end(),
                   [](const Lesson& a, const Lesson& b) { return a.ids.size() < b.ids.size(); });
  std::vector<Batch> batches;
  for (size_t begin = 0; begin < lessons.size();) {
    size_t end = begin + 1;
    while (end < lessons.size() && (end + 1 - begin) * lessons[end].ids.size() <= kBatchTokens)
      ++end;
    const std::vector<Lesson> part(lessons.begin() + static_cast<std::ptrdiff_t>(begin),
                                   lessons.begin() + static_cast<std::ptrdiff_t>(end));
    batches.push_back(make_batch(part, options_.rest_weight, kRestOneIn, random.next()));
    begin = end;
  }
  return batches;
}

Expected<Batch> BaseTrainer::next_shops() {
  const Stage& stage = curriculum()[static_cast<size_t>(stage_)];
  storefront::Random random(stream(options_.seed, 1, next_shop_));
  const int spread = stage.facts_max - stage.facts_min + 1;
  const int facts = stage.facts_min + static_cast<int>(random.below(static_cast<uint32_t>(spread)));
  std::vector<Lesson> lessons;
  int64_t tokens = 0;
  while (tokens < options_.step_tokens) {
    const auto shop = storefront::make_shop(stream(options_.seed, 2, next_shop_++), facts,
                                            storefront::Split::kTrain);
    TRY(Lesson lesson, make_lesson(bpe_, shop, 0, stage.questions));
    tokens += static_cast<int64_t>(lesson.ids.size());
    lessons.push_back(std::move(lesson));
  }
  return make_batch(lessons, options_.rest_weight, kRestOneIn, random.next());
}

Expected<double> BaseTrainer::step() {
  TRY(const std::vector<Batch> batches, next_batches());
  const double value = add_gradients(twin_, batches, batches.size() > 1 ? options_.threads : 1);
  if (!std::isfinite(value)) {
    return fail(ErrorCode::kInternal,
                "step " + std::to_string(adam_.steps() + 1) +
                    ": the loss is not finite; resume from the last checkpoint with a lower --lr");
  }
  grad_norm_ = adam_.step(learning_rate(adam_.steps() + 1));
  for (const Batch& batch : batches) tokens_ += batch.tokens;
  return value;
}

Status BaseTrainer::evaluate() {
  return options_.data == BaseData::kFamilies ? evaluate_families() : evaluate_shops();
}

// A stage ends by the mean of its families once it has had its least steps, or by its most.
Status BaseTrainer::evaluate_families() {
  const FamilyStage& stage = family_stages()[static_cast<size_t>(stage_)];
  FamilyExam exam;
  exam.tokens = stage.tokens * 2 / 3;
  exam.budget = std::max(3072, 4 * exam.tokens);
  exam.seed = kExamSeed;
  std::printf("  stage %d: contexts of %d tokens, held out (nats a token):", stage_, exam.tokens);
  family_scores_.clear();
  double sum = 0;
  int asked = 0;
  for (const families::FamilyInfo& info : families::all_families()) {
    if (!is_taught(options_.families, info.family)) continue;
    TRY(const FamilyScore score, examine_family(twin_, bpe_, info.family, exam));
    std::printf(" %s ", std::string(info.name).c_str());
    if (score.asked > 0) {
      std::printf("%s ", percent(score.rate()).c_str());
      sum += score.rate();
      ++asked;
    }
    std::printf("(%.3f),", score.nats_per_token());
    family_scores_.push_back(score);
  }
  accuracy_ = sum / std::max(1, asked);
  const int64_t steps = adam_.steps() - stage_step_;
  const bool next =
      stage_ + 1 < stages() &&
      (steps >= stage.max_steps || (steps >= stage.min_steps && accuracy_ >= options_.advance_at));
  std::printf(" mean %s%s\n", percent(accuracy_).c_str(), next ? " -> next stage" : "");
  std::fflush(stdout);
  if (next) {
    ++stage_;
    stage_step_ = adam_.steps();
  }
  return {};
}

Status BaseTrainer::evaluate_shops() {
  const Stage& stage = curriculum()[static_cast<size_t>(stage_)];
  Exam exam;
  exam.facts = stage.facts_max;
  exam.per_shop = exam.per_sequence = std::min(stage.facts_max, stage.questions);
  exam.questions = 240;
  exam.seed = kExamSeed;
  TRY(const Score score, examine(twin_, bpe_, exam));
  accuracy_ = score.rate();
  std::printf("  stage %d: %d facts, held out: %s exact", stage_, exam.facts,
              percent(accuracy_).c_str());
  const bool last = stage_ + 1 == stages();
  if (accuracy_ >= options_.advance_at && !last) ++stage_;
  std::printf("%s\n", accuracy_ >= options_.advance_at && !last ? " -> next stage" : "");
  std::fflush(stdout);
  return {};
}

Status BaseTrainer::report(double loss, double seconds) {
  const double rate = kReportEvery / seconds;
  const double token_rate = static_cast<double>(tokens_ - reported_tokens_) / seconds;
  reported_tokens_ = tokens_;
  const double left = static_cast<double>(options_.steps - adam_.steps()) / rate;
  std::printf(
      "step %lld/%lld  loss %.4f  held-out %s  stage %d  %.2f M tokens  %.0f tokens/s  "
      "%.0f min left\n",
      static_cast<long long>(adam_.steps()), static_cast<long long>(options_.steps), loss,
      percent(accuracy_).c_str(), stage_, static_cast<double>(tokens_) * 1e-6, token_rate,
      left / 60);
  std::fflush(stdout);
  if (options_.log.empty()) return {};
  std::ofstream log(options_.log, std::ios::app);
  ordered_json line{{"step", adam_.steps()},   {"loss", loss},
                    {"accuracy", accuracy_},   {"stage", stage_},
                    {"tokens", tokens_},       {"lr", learning_rate(adam_.steps())},
                    {"grad_norm", grad_norm_}, {"tokens_per_second", token_rate}};
  for (const FamilyScore& score : family_scores_) {
    const std::string name(families::info(score.family).name);
    if (score.asked > 0) line["families"][name] = score.rate();
    line["nats"][name] = score.nats_per_token();
  }
  log << line.dump() << "\n";
  if (!log) return fail(ErrorCode::kInternal, options_.log + ": cannot write");
  return {};
}

Status BaseTrainer::run() {
  auto saved = Clock::now(), window = Clock::now();
  double sum = 0;
  while (adam_.steps() < options_.steps) {
    TRY(const double loss, step());
    sum += loss;
    if (adam_.steps() % kReportEvery == 0) {
      TRY_STATUS(report(sum / kReportEvery, seconds_since(window)));
      sum = 0;
      window = Clock::now();
    }
    if (adam_.steps() % options_.eval_every == 0) TRY_STATUS(evaluate());
    if (seconds_since(saved) > static_cast<double>(options_.save_seconds)) {
      TRY_STATUS(save());
      saved = Clock::now();
    }
  }
  return save();
}

Status BaseTrainer::save() {
  NamedTensors tensors = twin_.parameters();
  const NamedTensors moments = adam_.state();
  tensors.insert(tensors.end(), moments.begin(), moments.end());
  TRY_STATUS(write_tensors(options_.out / kCheckpoint, tensors,
                           {{"step", std::to_string(adam_.steps())},
                            {"seed", std::to_string(options_.seed)},
                            {"next_shop", std::to_string(next_shop_)},
                            {"tokens", std::to_string(tokens_)},
                            {"stage", std::to_string(stage_)},
                            {"stage_step", std::to_string(stage_step_)}}));
  return twin_.save(options_.out, torch::kFloat32);
}

Status BaseTrainer::restore() {
  const std::string path = (options_.out / kCheckpoint).string();
  TRY(TensorFile file, read_tensors(path));
  TRY_STATUS(copy_tensors(file, "", twin_.parameters(), path));
  TRY_STATUS(copy_tensors(file, "", adam_.state(), path));
  const auto read = [&](const char* key, auto number) -> Expected<decltype(number)> {
    const std::string& text = file.metadata[key];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || text[0] == '-') {
      return fail(ErrorCode::kCorrupt, path + ": metadata " + key + ": no number");
    }
    return number;
  };
  const auto number = [&](const char* key) { return read(key, int64_t{0}); };
  TRY(const int64_t step, number("step"));
  TRY(const uint64_t seed, read("seed", uint64_t{0}));
  TRY(const int64_t next_shop, number("next_shop"));
  TRY(tokens_, number("tokens"));
  reported_tokens_ = tokens_;
  TRY(const int64_t stage, number("stage"));
  if (seed != options_.seed) {
    return fail(ErrorCode::kInvalidArgument, path + ": made with --seed " + std::to_string(seed));
  }
  if (options_.data == BaseData::kFamilies) {
    TRY(stage_step_, number("stage_step"));
  }
  if (stage >= stages()) {
    return fail(ErrorCode::kCorrupt, path + ": metadata stage: beyond the curriculum");
  }
  adam_.set_steps(step);
  next_shop_ = static_cast<uint64_t>(next_shop);
  stage_ = std::max(static_cast<int>(stage), options_.start_stage);
  return {};
}

}  // namespace coppice::train
