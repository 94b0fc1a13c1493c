#include <ATen/Parallel.h>

#include <memory>

#include <nlohmann/json.hpp>

#include "tools/train_commands.h"
#include "train/family_data.h"

namespace coppice::tools {
namespace {

struct ExamineOptions {
  std::string model;
  std::vector<std::string> families;  // none: all
  std::vector<int> lengths = {512};
  std::string haystack;  // empty: each family's own
  train::FamilyExam exam;
  int threads = 2;
  bool json = false;
};

void print(const ExamineOptions& options, const train::FamilyExam& exam,
           const train::FamilyScore& score) {
  const auto& info = families::info(score.family);
  const std::string name(info.name);
  const std::string level(families::haystack_name(exam.haystack.value_or(info.haystack)));
  if (options.json) {
    const nlohmann::ordered_json line = {{"task", name},
                                         {"length", exam.tokens},
                                         {"haystack", level},
                                         {"hops", exam.hops},
                                         {"samples", score.asked},
                                         {"exact", score.exact},
                                         {"exact_rate", score.rate()},
                                         {"tokens", score.tokens},
                                         {"nats_per_token", score.nats_per_token()}};
    std::printf("%s\n", line.dump().c_str());
    return;
  }
  std::printf("%-14s %5d tokens, %s: %d of %d exact (%.1f %%), %.3f nats a token\n", name.c_str(),
              exam.tokens, level.c_str(), score.exact, score.asked, 100 * score.rate(),
              score.nats_per_token());
}

Status run_examine(const ExamineOptions& options) {
  at::set_num_threads(options.threads);
  TRY(const auto twin, train::Twin::load(options.model));
  TRY(const auto bpe, train::Bpe::load(options.model));
  train::FamilyExam exam = options.exam;
  std::vector<families::Family> wanted;
  for (const std::string& name : options.families) {
    const auto family = families::family_named(name);
    if (!family) return fail(ErrorCode::kInvalidArgument, "--families: no family " + name);
    wanted.push_back(*family);
  }
  if (wanted.empty()) {
    for (const auto& info : families::all_families()) wanted.push_back(info.family);
  }
  if (!options.haystack.empty()) {
    exam.haystack = families::haystack_named(options.haystack);
    if (!exam.haystack) {
      return fail(ErrorCode::kInvalidArgument, "--haystack: " + options.haystack + ": h0 to h3");
    }
  }
  for (const int length : options.lengths) {
    exam.tokens = length;
    for (const families::Family family : wanted) {
      train::FamilyExam one = exam;
      const auto& info = families::info(family);
      // One that has no such level is asked at its own.
      if (one.haystack && !families::has_level(info, *one.haystack)) one.haystack.reset();
      TRY(const auto score, train::examine_family(twin, bpe, family, one));
      print(options, one, score);
      std::fflush(stdout);
    }
  }
  return {};
}

}  // namespace

void add_examine(CLI::App& app, Status& result) {
  auto* sub = app.add_subcommand("examine", "the families of tasks on held-out facts, by the twin");
  auto o = std::make_shared<ExamineOptions>();
  sub->add_option("-m,--model", o->model, "model directory")->required();
  sub->add_option("--families", o->families, "needle, multi-key, ... (all)")->delimiter(',');
  sub->add_option("--length", o->lengths, "tokens of the contexts, several allowed")
      ->delimiter(',')
      ->check(CLI::Range(families::kMinTokens, families::kMaxTokens))
      ->capture_default_str();
  sub->add_option("--haystack", o->haystack, "h0 to h3; each family's own");
  sub->add_option("--hops", o->exam.hops, "of variables")
      ->check(CLI::Range(1, families::kMaxHops))
      ->capture_default_str();
  sub->add_option("--budget", o->exam.budget, "tokens of a family's contexts, about")
      ->check(CLI::Range(1, 1 << 28))
      ->capture_default_str();
  sub->add_option("--questions", o->exam.questions, "most to one context")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_flag("--apart", o->exam.apart, "each question directly after its context");
  sub->add_option("--seed", o->exam.seed)->capture_default_str();
  sub->add_option("--threads", o->threads)->check(CLI::Range(1, 1024))->capture_default_str();
  sub->add_flag("--json", o->json, "one JSON object for each family and length");
  sub->callback([=, &result] { result = run_examine(*o); });
}

}  // namespace coppice::tools
