#include <ATen/Parallel.h>

#include <memory>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "tools/train_commands.h"
#include "train/evaluate.h"

namespace coppice::tools {
namespace {

struct EvalOptions {
  std::string model;
  std::vector<int> facts = {16, 32, 64};
  int questions = 500;
  uint64_t seed = 2026;
  int threads = 2;
  bool json = false;
};

void print(const EvalOptions& options, int facts, const train::Score& open, double closed) {
  if (options.json) {
    nlohmann::ordered_json by_type;
    for (size_t k = 0; k < open.asked_of.size(); ++k) {
      by_type[std::string(attribute_name(static_cast<storefront::Attribute>(k)))] = {
          {"asked", open.asked_of[k]}, {"exact", open.exact_of[k]}};
    }
    const nlohmann::ordered_json line = {{"task", "storefront"},      {"facts", facts},
                                         {"samples", open.asked},     {"exact", open.exact},
                                         {"exact_rate", open.rate()}, {"closed_book_rate", closed},
                                         {"by_type", by_type}};
    std::printf("%s\n", line.dump().c_str());
    return;
  }
  std::printf("%3d facts: %d of %d exact (%.1f %%), facts removed: %.1f %%; by kind:", facts,
              open.exact, open.asked, 100 * open.rate(), 100 * closed);
  for (size_t k = 0; k < open.asked_of.size(); ++k) {
    const auto name = attribute_name(static_cast<storefront::Attribute>(k));
    std::printf(" %.*s %d/%d", static_cast<int>(name.size()), name.data(), open.exact_of[k],
                open.asked_of[k]);
  }
  std::printf("\n");
}

Status run_eval(const EvalOptions& options) {
  at::set_num_threads(options.threads);
  TRY(const auto twin, train::Twin::load(options.model));
  TRY(const auto bpe, train::Bpe::load(options.model));
  for (int facts : options.facts) {
    train::Exam exam;
    exam.facts = facts;
    exam.questions = options.questions;
    exam.seed = options.seed;
    TRY(const auto open, examine(twin, bpe, exam));
    exam.closed_book = true;
    TRY(const auto closed, examine(twin, bpe, exam));
    print(options, facts, open, closed.rate());
    std::fflush(stdout);
  }
  return {};
}

Status run_logits(const std::string& model, const std::vector<int64_t>& tokens,
                  const std::string& out) {
  torch::NoGradGuard no_grad;
  TRY(const auto twin, train::Twin::load(model));
  for (int64_t token : tokens) {
    if (token < 0 || token >= twin.config().vocab_size) {
      return fail(ErrorCode::kInvalidArgument, "--tokens: " + std::to_string(token) +
                                                   ": outside the vocabulary of " +
                                                   std::to_string(twin.config().vocab_size));
    }
  }
  const auto inputs = torch::tensor(tokens, torch::kInt64).unsqueeze(0);
  const auto logits = twin.logits(twin.hidden(inputs)).squeeze(0).contiguous();
  return write_file(out,
                    std::string_view(static_cast<const char*>(logits.data_ptr()), logits.nbytes()));
}

Status run_export(const std::string& model, const std::string& out, bool f32) {
  TRY(const auto twin, train::Twin::load(model));
  TRY(const auto bpe, train::Bpe::load(model));
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error) return fail(ErrorCode::kInternal, out + ": " + error.message());
  TRY_STATUS(bpe.save(out));
  return twin.save(out, f32 ? torch::kFloat32 : torch::kBFloat16);
}

}  // namespace

void add_eval(CLI::App& app, Status& result) {
  auto* sub = app.add_subcommand("eval", "share of held-out questions answered exactly");
  auto o = std::make_shared<EvalOptions>();
  sub->add_option("-m,--model", o->model, "model directory")->required();
  sub->add_option("--facts", o->facts, "facts a shop, several allowed")
      ->delimiter(',')
      ->check(CLI::Range(1, storefront::kMaxFacts))
      ->capture_default_str();
  sub->add_option("--samples", o->questions, "questions for each")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--seed", o->seed)->capture_default_str();
  sub->add_option("--threads", o->threads)->check(CLI::Range(1, 1024))->capture_default_str();
  sub->add_flag("--json", o->json, "one JSON object for each fact count");
  sub->callback([=, &result] { result = run_eval(*o); });
}

void add_logits(CLI::App& app, Status& result) {
  auto* sub = app.add_subcommand("logits", "write the twin's logits, raw f32 [tokens, vocabulary]");
  auto model = std::make_shared<std::string>(), out = std::make_shared<std::string>();
  auto tokens = std::make_shared<std::vector<int64_t>>();
  sub->add_option("-m,--model", *model, "model directory")->required();
  sub->add_option("--tokens", *tokens, "ids, separated by commas")->required()->delimiter(',');
  sub->add_option("--out", *out)->required();
  sub->callback([=, &result] { result = run_logits(*model, *tokens, *out); });
}

void add_export(CLI::App& app, Status& result) {
  auto* sub = app.add_subcommand("export", "write a run's weights as a model directory, in bf16");
  auto model = std::make_shared<std::string>(), out = std::make_shared<std::string>();
  auto f32 = std::make_shared<bool>(false);
  sub->add_option("-m,--model", *model, "directory of the run")->required();
  sub->add_option("--out", *out)->required();
  sub->add_flag("--f32", *f32, "keep full precision");
  sub->callback([=, &result] { result = run_export(*model, *out, *f32); });
}

}  // namespace coppice::tools
