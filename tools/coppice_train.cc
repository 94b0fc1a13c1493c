// What:    the command `coppice-train`: one subcommand a task, flags in, exit code out.
// Owns:    nothing that outlives main.
// Threads: one; torch's own below.
// Fails:   2 for unknown or invalid flags, 1 for everything else, one line on stderr.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>

#include <CLI/CLI.hpp>

#include "tools/train_commands.h"
#include "tools/train_config.h"

namespace {

int report(const coppice::Error& error) {
  std::fprintf(stderr, "coppice-train: %s\n", error.message.c_str());
  return error.code == coppice::ErrorCode::kInvalidArgument ? 2 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  // A limit of file sizes is the error of a write, as a full disk is.
  std::signal(SIGXFSZ, SIG_IGN);
  auto arguments = coppice::tools::expand_config({argv + 1, argv + argc});
  if (!arguments) return report(arguments.error());
  std::reverse(arguments->begin(), arguments->end());  // the order CLI11 takes a vector in
  CLI::App app{"Train and examine Coppice's own model."};
  app.name("coppice-train");
  app.require_subcommand(1);
  coppice::Status result;
  coppice::tools::add_tokenizer(app, result);
  coppice::tools::add_base(app, result);
  coppice::tools::add_gate(app, result);
  coppice::tools::add_eval(app, result);
  coppice::tools::add_examine(app, result);
  coppice::tools::add_logits(app, result);
  coppice::tools::add_export(app, result);
  try {
    app.parse(*arguments);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  } catch (const std::exception& error) {
    return report({coppice::ErrorCode::kInternal, error.what()});
  }
  return result ? 0 : report(result.error());
}
