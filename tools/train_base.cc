#include <map>
#include <memory>

#include "tools/train_commands.h"
#include "tools/train_config.h"
#include "train/base_trainer.h"

namespace coppice::tools {
namespace {

Status run_base(train::BaseOptions options, const std::string& families) {
  TRY(options.families, parse_families(families));
  if (options.families.empty()) {
    return fail(ErrorCode::kInvalidArgument, "--families: none leaves nothing to teach");
  }
  TRY(auto trainer, train::BaseTrainer::open(options));
  return trainer.run();
}

Status run_tokenizer(const std::string& out, int vocab_size) {
  TRY(const auto bpe, train::train_tokenizer(vocab_size));
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error) return fail(ErrorCode::kInternal, out + ": " + error.message());
  TRY_STATUS(bpe.save(out));
  std::printf("%d tokens, %d of them merges\n", bpe.vocab_size(), bpe.merges());
  return {};
}

}  // namespace

void add_tokenizer(CLI::App& app, Status& result) {
  auto* sub = app.add_subcommand("tokenizer", "train the storefront's byte-level BPE");
  auto out = std::make_shared<std::string>();
  auto vocab = std::make_shared<int>(1024);
  sub->add_option("--out", *out, "directory for tokenizer.json")->required();
  sub->add_option("--vocab-size", *vocab)->check(CLI::Range(259, 65536));
  sub->callback([=, &result] { result = run_tokenizer(*out, *vocab); });
}

void add_base(CLI::App& app, Status& result) {
  auto* sub = app.add_subcommand("base", "train the model from scratch, or go on with --resume");
  auto o = std::make_shared<train::BaseOptions>();
  auto out = std::make_shared<std::string>(), init = std::make_shared<std::string>();
  auto families = std::make_shared<std::string>("all");
  sub->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  sub->footer("--config FILE: read flags from a JSON object; flags after it override it.");
  sub->add_option("--out", *out, "directory of the run")->required();
  const std::map<std::string, train::BaseData> data = {{"storefront", train::BaseData::kStorefront},
                                                       {"families", train::BaseData::kFamilies}};
  sub->add_option("--data", o->data, "what is taught: storefront (default) or families")
      ->transform(CLI::CheckedTransformer(data));
  sub->add_option("--families", *families, "of --data families: those that are taught, with commas")
      ->capture_default_str();
  sub->add_option("--init", *init, "start from the weights and tokenizer of this model directory");
  sub->add_option("--log", o->log, "append progress to this file, one JSON object a line");
  sub->add_flag("--resume", o->resume, "go on from the checkpoint in --out");
  sub->add_option("--seed", o->seed, "of weights and data")->capture_default_str();
  sub->add_option("--steps", o->steps, "optimiser steps in all")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  sub->add_option("--decay-steps", o->decay_steps, "the last of them, down to a tenth of --lr")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--warmup", o->warmup)->check(CLI::PositiveNumber)->capture_default_str();
  sub->add_option("--lr", o->learning_rate)->check(CLI::Range(1e-8, 1.0))->capture_default_str();
  sub->add_option("--step-tokens", o->step_tokens, "tokens a step, about")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  sub->add_option("--rest-weight", o->rest_weight, "loss weight outside answers")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--advance-at", o->advance_at, "held-out accuracy that ends a stage")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--eval-every", o->eval_every)->check(CLI::PositiveNumber)->capture_default_str();
  sub->add_option("--save-seconds", o->save_seconds)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--start-stage", o->start_stage, "skip the stages before")
      ->check(CLI::Range(0, static_cast<int>(train::curriculum().size()) - 1))
      ->capture_default_str();
  sub->add_option("--threads", o->threads)->check(CLI::Range(1, 1024))->capture_default_str();
  sub->callback([=, &result] {
    o->out = *out;
    o->init = *init;
    result = run_base(*o, *families);
  });
}

}  // namespace coppice::tools
