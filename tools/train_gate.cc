#include <memory>

#include "tools/interrupt.h"
#include "tools/train_commands.h"
#include "train/gate_trainer.h"

namespace coppice::tools {
namespace {

// What CLI11 writes to, before it is what the trainer is told.
struct GateFlags {
  train::GateOptions options;
  std::string model, out, init, lora_out, families = "all", method = "learned", kind = "point";
};

Status run_gate(GateFlags& flags) {
  train::GateOptions& o = flags.options;
  o.model = flags.model;
  o.out = flags.out;
  o.init = flags.init;
  o.lora_out = flags.lora_out;
  TRY(o.data.families, parse_families(flags.families));
  o.method = flags.method == "kvzap" ? train::GateMethod::kKvzap : train::GateMethod::kLearned;
  o.kind = flags.kind == "causal"   ? train::GateKind::kCausal
           : flags.kind == "global" ? train::GateKind::kGlobal
                                    : train::GateKind::kPoint;
  if (o.keep_least > o.keep_most) {
    return fail(ErrorCode::kInvalidArgument, "--keep-least: more than --keep-most");
  }
  const Interrupt interrupt;
  o.interrupted = Interrupt::came;
  TRY(auto trainer, train::GateTrainer::open(o));
  return trainer.run();
}

void add_gate_shape(CLI::App& sub, GateFlags& flags) {
  train::GateOptions& o = flags.options;
  sub.add_option("--method", flags.method,
                 "learned: by what answers lose under the gate; kvzap: by what a replay of the "
                 "context attends to")
      ->check(CLI::IsMember({"learned", "kvzap"}))
      ->capture_default_str();
  sub.add_option("--kind", flags.kind,
                 "what a decision reads beside its token: point nothing, causal the last --reach "
                 "tokens, global the whole prompt (for comparison; it cannot be served)")
      ->check(CLI::IsMember({"point", "causal", "global"}))
      ->capture_default_str();
  sub.add_option("--heads", o.heads, "causal, global: heads of the gate's own attention")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  sub.add_option("--head-dim", o.head_dim, "and their width, even")
      ->check(CLI::Range(2, 128))
      ->capture_default_str();
  sub.add_option("--reach", o.reach, "causal: tokens a decision reads, its own included")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  sub.add_option("--window", o.window, "last positions that a row sees whatever the gate says")
      ->check(CLI::Range(1, 512))
      ->capture_default_str();
  sub.add_option("--sinks", o.sinks, "first positions that are always kept")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
}

void add_gate_data(CLI::App& sub, GateFlags& flags) {
  train::GateOptions& o = flags.options;
  sub.add_option("--families", flags.families,
                 "task families, separated by commas; all or none. multi-value and chains of more "
                 "than 2 hops are reported on but not trained on")
      ->capture_default_str();
  sub.add_option("--text", o.data.texts,
                 "text file whose prediction is trained on; may be given again. Its last tenth is "
                 "held out")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  sub.add_option("--copy-share", o.data.copy_share,
                 "of the samples, a context that is repeated after --copy-marker")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub.add_option("--copy-marker", o.data.copy_marker)->default_str("a newline");
  sub.add_option("--length", o.length, "tokens of a sample, at most")
      ->check(CLI::Range(families::kMinTokens, families::kMaxTokens))
      ->capture_default_str();
  sub.add_option("--shortest", o.shortest, "and at least (0: a quarter of --length)")
      ->check(CLI::Range(0, families::kMaxTokens))
      ->capture_default_str();
  sub.add_option("--step-tokens", o.step_tokens, "tokens a step, about")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  sub.add_option("--rows", o.most_rows, "predictions of a sample that are learned from, at most")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
}

void add_gate_loss(CLI::App& sub, train::GateOptions& o) {
  const auto number = [&](const char* name, double& value, double most, const char* help) {
    sub.add_option(name, value, help)->check(CLI::Range(0.0, most))->capture_default_str();
  };
  const auto share = [&](const char* name, double& value, const char* help) {
    sub.add_option(name, value, help)->check(CLI::Range(0.001, 1.0))->capture_default_str();
  };
  share("--keep-most", o.keep_most, "share kept by the mildest tier that is trained");
  share("--keep-least", o.keep_least, "and by the hardest; each sequence draws between them");
  number("--shift", o.shift, 100, "logits between the normal tier's threshold and these two");
  number("--ramp", o.ramp, 1, "share of the steps over which these targets are come down to");
  number("--kd", o.kd, 1e3, "weight of KL(ungated base || gated) at the answers");
  number("--alpha", o.alpha, 1e3, "weight of what is kept above the target");
  number("--gamma", o.gamma, 1e3, "weight of p (1 - p), for decisions that are clear");
  number("--noise", o.noise, 10, "logistic noise on logits; gone in the last tenth of the steps");
  sub.add_flag("--soft", o.soft,
               "attend by keep probabilities while training instead of by hard decisions");
  number("--soft-floor", o.soft_floor, 1, "with --soft: what a dropped key still counts");
  sub.add_flag("--value-norms", o.value_norms, "kvzap: count attention by |Wo v| / |x|");
}

void add_gate_run(CLI::App& sub, GateFlags& flags) {
  train::GateOptions& o = flags.options;
  sub.add_option("--seed", o.seed, "of weights, data and noise")->capture_default_str();
  sub.add_option("--steps", o.steps, "optimiser steps in all")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  sub.add_option("--lr", o.learning_rate, "up over a tenth of the steps, then down to a tenth")
      ->check(CLI::Range(1e-8, 1.0))
      ->capture_default_str();
  sub.add_option("--lora", o.lora,
                 "rank of adapters on q, k, v and o that learn with the gate; the base with them "
                 "merged is written too (0: the base stays as it is)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  sub.add_option("--lora-out", flags.lora_out, "directory for that base")
      ->default_str("--out and .base");
  sub.add_option(
         "--exam-contexts", o.exam_contexts,
         "contexts of each case in the report, at least; more until 48 questions were asked")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  sub.add_option("--exam-asks", o.exam_asks, "questions to each, at most")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  sub.add_option("--exam-length", o.exam_length, "tokens of each (0: --length)")
      ->check(CLI::Range(0, families::kMaxTokens))
      ->capture_default_str();
  sub.add_option("--page-slots", o.page_slots, "slots of a page of the cache, for what tiers hold")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  sub.add_option("--report-every", o.report_every, "steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub.add_option("--save-seconds", o.save_seconds)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub.add_option("--threads", o.threads)->check(CLI::Range(1, 1024))->capture_default_str();
}

}  // namespace

void add_gate(CLI::App& app, Status& result) {
  auto* sub = app.add_subcommand(
      "gate", "train a gate for a model: which keys and values it can do without");
  auto flags = std::make_shared<GateFlags>();
  sub->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  sub->footer(
      "Ctrl-C saves a checkpoint beside --out; --resume goes on from it.\n"
      "--config FILE: read flags from a JSON object; flags after it override it.");
  sub->add_option("-m,--model", flags->model, "model that the engine loads")->required();
  sub->add_option("--out", flags->out, "gate file to write")->required();
  sub->add_option("--init", flags->init, "start from this gate file; its normal tier becomes 0");
  sub->add_option("--log", flags->options.log,
                  "append progress to this file, one JSON object a line");
  sub->add_flag("--resume", flags->options.resume, "go on from the checkpoint beside --out");
  add_gate_shape(*sub, *flags);
  add_gate_data(*sub, *flags);
  add_gate_loss(*sub, flags->options);
  add_gate_run(*sub, *flags);
  sub->callback([=, &result] { result = run_gate(*flags); });
}

}  // namespace coppice::tools
