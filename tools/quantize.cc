#include "quantize.h"

#include <cctype>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include "coppice/options.h"
#include "exit_code.h"
#include "model/checkpoint.h"
#include "model/gguf_export.h"
#include "model_flags.h"
#include "progress.h"
#include "tensor/narrow.h"

namespace coppice::tools {
namespace {

struct Flags {
  std::string model, random_weights, type = "q8_0", out;
};

Status quantize(const Flags& flags) {
  std::string name = flags.type;
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto type = dtype_from_name(name);
  if (!type || !can_narrow(*type)) {
    return fail(ErrorCode::kInvalidArgument,
                "--type is \"" + flags.type + "\"; it takes Q8_0, Q4_0, Q4_K, BF16, F16 or F32");
  }
  std::string from = flags.model;
  if (!flags.random_weights.empty()) {
    TRY(from, random_model(flags.random_weights));
  }
  std::error_code ignored;
  if (std::filesystem::equivalent(from, flags.out, ignored)) {
    return fail(ErrorCode::kInvalidArgument, "--out is the model itself; name another file");
  }
  TRY(const auto checkpoint, model::Checkpoint::open(from));
  ProgressLine progress("quantizing");
  int64_t bytes = 0;
  TRY_STATUS(model::export_gguf(*checkpoint, flags.out,
                                {.type = *type, .progress = [&](int64_t done, int64_t total) {
                                   bytes = total;
                                   progress.show(done, total,
                                                 format_size(done) + " of " + format_size(total));
                                 }}));
  progress.clear();
  // Not where the file itself may be going.
  std::fprintf(stderr, "%s: %s of tensors\n", flags.out.c_str(), format_size(bytes).c_str());
  return {};
}

}  // namespace

void add_quantize(CLI::App& app, std::function<int()>* run) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("quantize", "write a model as a GGUF file of one weight type");
  auto* model = command->add_option("model", flags->model, "Hugging Face directory or .gguf file");
  command
      ->add_option("--random-weights", flags->random_weights,
                   "random weights instead of a model: tiny, L1B (the shape of Llama 3.2 1B) or "
                   "E,L,Hq,Hkv,D,F,V (hidden, layers, query heads, KV heads, head_dim, FFN, "
                   "vocabulary)")
      ->type_name("SHAPE")
      ->excludes(model);
  command
      ->add_option("--type", flags->type,
                   "Q8_0, Q4_0, Q4_K, BF16, F16 or F32 (default Q8_0); norms stay F32, embeddings "
                   "of the 4-bit types are Q8_0")
      ->type_name("TYPE");
  command->add_option("--out", flags->out, "the file to write")->type_name("FILE")->required();
  command->callback([flags, run] {
    if (flags->model.empty() && flags->random_weights.empty()) {
      throw CLI::ValidationError("quantize takes a model or --random-weights SHAPE");
    }
    *run = [flags] {
      const Status status = quantize(*flags);
      return status ? static_cast<int>(kExitOk) : report(status.error());
    };
  });
}

}  // namespace coppice::tools
