#include "quantize.h"

#include <cctype>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include "arguments.h"
#include "base/file.h"
#include "coppice/options.h"
#include "exit_code.h"
#include "interrupt.h"
#include "model/checkpoint.h"
#include "model/gguf_export.h"
#include "model_flags.h"
#include "ops/cpu/thread_pool.h"
#include "progress.h"
#include "tensor/narrow.h"

namespace coppice::tools {
namespace {

struct Flags {
  std::string model, random_weights, type = "q8_0", out;
  int32_t threads = 0;
};

// What the file will hold, by type: "7 q4_k, 1 q8_0, 9 f32".
std::string text_of(const model::GgufContents& contents) {
  std::string out;
  for (const auto& [type, count] : contents.tensors) {
    out += (out.empty() ? "" : ", ") + std::to_string(count) + " " + std::string(dtype_name(type));
  }
  return out;
}

// Whether writing `path` would overwrite the model or a file of its directory, by whatever names
// and links. (A GGUF file there is none of the model's.)
bool is_of_model(const std::string& path, const std::string& model) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (fs::equivalent(path, model, ignored)) return true;
  for (const fs::directory_entry& entry : fs::directory_iterator(model, ignored)) {
    if (entry.path().extension() != ".gguf" && fs::equivalent(path, entry.path(), ignored)) {
      return true;
    }
  }
  return false;
}

// Before minutes of work are written to a disk that they do not fit.
Status check_space(const std::string& out, int64_t bytes) {
  std::error_code error;
  const auto kind = std::filesystem::status(out, error).type();
  if (kind != std::filesystem::file_type::regular &&
      kind != std::filesystem::file_type::not_found) {
    return {};
  }
  const std::filesystem::path folder = std::filesystem::path(followed(out)).parent_path();
  const auto space = std::filesystem::space(folder.empty() ? "." : folder, error);
  if (error || space.available >= static_cast<uintmax_t>(bytes)) return {};
  return fail(ErrorCode::kTooLarge, out + ": takes " + format_size(bytes) + ", but " +
                                        format_size(static_cast<int64_t>(space.available)) +
                                        " are free there");
}

Status quantize(const Flags& flags) {
  std::string name = flags.type;
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto type = dtype_from_name(name);
  if (!type || !can_narrow(*type)) {
    return fail(ErrorCode::kInvalidArgument,
                "--type is \"" + flags.type +
                    "\"; it takes Q8_0, Q4_0, Q4_K, Q5_K, Q6_K, BF16, F16 or F32");
  }
  std::string from = flags.model;
  if (!flags.random_weights.empty()) {
    TRY(from, random_model(flags.random_weights));
  }
  if (flags.out == "-") {
    return fail(ErrorCode::kInvalidArgument,
                "--out is -; it takes the name of a file (/dev/stdout for standard output)");
  }
  if (is_of_model(flags.out, from)) {
    return fail(ErrorCode::kInvalidArgument,
                "--out is " + flags.out + ", a file of the model itself; it takes another name");
  }
  TRY(const auto checkpoint, model::Checkpoint::open(from));
  TRY(const model::GgufContents contents, model::gguf_contents(*checkpoint, *type));
  TRY_STATUS(check_space(flags.out, contents.bytes));
  ProgressLine progress("quantizing");
  const Interrupt interrupt;
  const auto show = [&](int64_t done, int64_t total) -> Status {
    if (interrupt.came()) return fail(ErrorCode::kCancelled, flags.out + ": interrupted");
    progress.show(done, total, format_size(done) + " of " + format_size(total));
    return {};
  };
  const int threads = flags.threads == 0 ? ops::cpu::physical_cores() : flags.threads;
  TRY_STATUS(model::export_gguf(*checkpoint, flags.out,
                                {.type = *type, .threads = threads, .progress = show}));
  progress.clear();
  // Not where the file itself may be going.
  std::fprintf(stderr, "%s: %s of tensors: %s\n", flags.out.c_str(),
               format_size(contents.bytes).c_str(), text_of(contents).c_str());
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
      ->add_option(
          "--type", flags->type,
          "Q8_0, Q4_0, Q4_K, Q5_K, Q6_K, BF16, F16 or F32 (default Q8_0). Norms stay F32; "
          "embeddings of the 4 and 5-bit types are Q8_0; rows that are no whole blocks of 256 make "
          "a Q4_K, Q5_K or Q6_K matrix Q8_0, rows that are none of 32 any matrix BF16. The summary "
          "counts them")
      ->type_name("TYPE");
  command->add_option("--out", flags->out, "the file to write")
      ->type_name("FILE")
      ->required()
      ->check(not_empty());
  add_whole(*command, "-t,--threads", flags->threads, Bounds<int32_t>{0, kMostThreads},
            kThreadsHelp);
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
