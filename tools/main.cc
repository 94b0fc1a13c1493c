// `coppice`: one file per command; this one finds the command and turns flag errors into exit
// codes.
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "arguments.h"
#include "bench_attention.h"
#include "eval.h"
#include "exit_code.h"
#include "generate.h"

namespace coppice::tools {
namespace {

const CLI::App& deepest(const CLI::App& app) {
  const auto named = app.get_subcommands();
  return named.empty() ? app : deepest(*named.front());
}

// The help text of the flag that the parser complains about, or nothing.
std::string accepted(const CLI::App& command, const std::string& complaint) {
  for (const CLI::Option* option : command.get_options()) {
    const std::string name = option->get_name(false, true);
    if (name.empty() || complaint.find(option->get_name()) == std::string::npos) continue;
    return "; " + name + " " + option->get_type_name() + ": " + option->get_description();
  }
  return {};
}

// "coppice bench attention"
std::string path_of(const CLI::App& command) {
  if (command.get_parent() == nullptr) return command.get_name();
  std::string path = path_of(*command.get_parent());
  path += ' ';
  return path += command.get_name();
}

// What to say when a command was expected: first, the word in its place, or nothing.
std::string no_command(const CLI::App& app, const std::string& word) {
  std::string names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names += names.empty() ? "" : ", ";
    names += command->get_name();
  }
  const bool given = !word.empty() && word[0] != '-';
  return (given ? '"' + word + "\" is not a command" : "the line names no command") + "; " +
         app.get_name() + " takes " + names;
}

int usage_error(const CLI::App& app, const CLI::ParseError& error,
                const std::vector<std::string>& arguments) {
  const CLI::App& command = deepest(app);
  std::string complaint = error.what();
  if (!command.get_subcommands([](const CLI::App*) { return true; }).empty()) {
    const bool at_top = command.get_parent() == nullptr;
    const size_t place = at_top ? 0 : 1;
    complaint = no_command(command, arguments.size() > place ? arguments[place] : "");
  } else {
    complaint += accepted(command, complaint);
  }
  std::fprintf(stderr, "coppice: %s (%s --help lists what it accepts)\n", complaint.c_str(),
               path_of(command).c_str());
  return kExitUsage;
}

// A full disk or a closed pipe shows here at the latest.
int delivered(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  std::fprintf(stderr, "coppice: standard output cannot be written; some of it is lost\n");
  return kExitFailure;
}

int run(std::vector<std::string> arguments) {
  CLI::App app(
      "Coppice: a language model engine in which requests grow from one shared prefix tree",
      "coppice");
  app.require_subcommand(1);
  app.set_version_flag("--version", "coppice " COPPICE_VERSION);
  std::function<int()> command;
  add_generate(app, &command);
  add_eval(app, &command);
  CLI::App* bench = app.add_subcommand("bench", "measures, against this machine's ceilings");
  bench->require_subcommand(1);
  add_bench_attention(*bench, &command);
  try {
    arguments = spelled_with_dashes(std::move(arguments));
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);
    return usage_error(app, error, arguments);
  }
  return delivered(command());
}

}  // namespace
}  // namespace coppice::tools

int main(int argc, char** argv) {
  try {
    return coppice::tools::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "coppice: %s; this is a defect, please report it\n", error.what());
    return coppice::tools::kExitFailure;
  }
}
