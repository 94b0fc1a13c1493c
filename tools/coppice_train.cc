// What:    the command `coppice-train`: one subcommand a task, flags in, exit code out.
// Owns:    nothing that outlives main.
// Threads: one; torch's own below.
// Fails:   2 for unknown or invalid flags, 1 for everything else, one line on stderr.
#include <cstdio>
#include <exception>

#include <CLI/CLI.hpp>

#include "tools/train_commands.h"

int main(int argc, char** argv) {
  CLI::App app{"Train and examine Coppice's own model."};
  app.require_subcommand(1);
  coppice::Status result;
  coppice::tools::add_tokenizer(app, result);
  coppice::tools::add_base(app, result);
  coppice::tools::add_eval(app, result);
  coppice::tools::add_logits(app, result);
  coppice::tools::add_export(app, result);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "coppice-train: %s\n", error.what());
    return 1;
  }
  if (!result) {
    std::fprintf(stderr, "coppice-train: %s\n", result.error().message.c_str());
    return result.error().code == coppice::ErrorCode::kInvalidArgument ? 2 : 1;
  }
  return 0;
}
