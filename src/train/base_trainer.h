// What:    `coppice-train base`: the loop that teaches the twin to answer from a shop's facts, or
// the
//          families of tasks.
// Owns:    the run's directory: tokenizer, checkpoint, f32 model.
// Threads: one caller; torch's own threads inside.
// Fails:   files, a loss that is not finite, a checkpoint of another run.
#pragma once

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "coppice/error.h"
#include "train/adamw.h"
#include "train/bpe.h"
#include "train/family_data.h"
#include "train/lesson.h"
#include "train/twin.h"

namespace coppice::train {

// One stage of the curriculum: shops of facts_min..facts_max facts, questions at most per shop.
struct Stage {
  int facts_min, facts_max, questions;
};
const std::vector<Stage>& curriculum();

enum class BaseData { kStorefront, kFamilies };

struct BaseOptions {
  std::filesystem::path out;
  std::filesystem::path init;  // weights and tokenizer to start from; empty: from nothing
  BaseData data = BaseData::kStorefront;
  std::vector<families::Family> families;  // of kFamilies: those that are taught; empty: all
  std::string log;                         // JSONL, appended to; empty: none
  bool resume = false;
  uint64_t seed = 1;
  int64_t steps = 1200;       // where the learning rate has come down to a tenth
  int64_t decay_steps = 400;  // the last of them, cosine
  int64_t warmup = 20;
  double learning_rate = 7e-4;
  int64_t step_tokens = 2000;  // about; a step takes whole sequences
  double rest_weight = 0.1;
  double advance_at = 0.95;  // held-out accuracy that ends a stage
  int64_t eval_every = 40;
  int64_t save_seconds = 240;
  int start_stage = 0;
  int vocab_size = 1024;
  int threads = 2;
};

class BaseTrainer {
 public:
  // A fresh run, or with options.resume the one whose checkpoint lies in options.out.
  static Expected<BaseTrainer> open(const BaseOptions& options);

  // Until options.steps; prints progress.
  Status run();
  // One optimiser step on generated data; its loss (weighted mean).
  Expected<double> step();
  Status save();

  int64_t steps_done() const { return adam_.steps(); }
  const Twin& twin() const { return twin_; }

 private:
  BaseTrainer(const BaseOptions& options, Bpe bpe, Twin twin);

  // One step's data: shops in one batch, families in several of like lengths.
  Expected<std::vector<Batch>> next_batches();
  Expected<Batch> next_shops();
  Expected<std::vector<Batch>> next_families();
  Status restore();
  Status evaluate();
  Status evaluate_shops();
  Status evaluate_families();
  int stages() const;
  Status report(double loss, double seconds);
  double learning_rate(int64_t step) const;

  BaseOptions options_;
  Bpe bpe_;
  Twin twin_;
  AdamW adam_;
  uint64_t next_shop_ = 0;  // data position: shops (or lessons of families) drawn so far
  int64_t tokens_ = 0;      // positions trained on so far
  int64_t reported_tokens_ = 0;
  int stage_ = 0;
  int64_t stage_step_ = 0;                  // the step that began the stage
  std::vector<FamilyScore> family_scores_;  // this sitting's last
  double accuracy_ = std::nan("");          // held out, at this sitting's last evaluation
  double grad_norm_ = 0;
};

// The tokenizer of the storefront's language.
Expected<Bpe> train_tokenizer(int vocab_size);

}  // namespace coppice::train
