// `coppice`: one file per command; this one finds the command and turns flag errors into exit
// codes.
#include <algorithm>
#include <cctype>
#include <csignal>
#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "arguments.h"
#include "bench_commands.h"
#include "eval.h"
#include "exit_code.h"
#include "generate.h"
#include "inspect.h"
#include "quantize.h"

namespace coppice::tools {
namespace {

const CLI::App& deepest(const CLI::App& app) {
  const auto named = app.get_subcommands();
  return named.empty() ? app : deepest(*named.front());
}

bool is_flag(const std::string& word) { return word.size() > 1 && word[0] == '-' && word != "--"; }

// Whether the text names this flag, and not one that begins like it.
bool mentions(const std::string& text, const std::string& flag) {
  for (size_t at = text.find(flag); at != std::string::npos; at = text.find(flag, at + 1)) {
    const char next = at + flag.size() < text.size() ? text[at + flag.size()] : ' ';
    if (next != '-' && std::isalnum(static_cast<unsigned char>(next)) == 0) return true;
  }
  return false;
}

// The help text of the flag that the parser complains about; nothing where that says it already.
std::string accepted(const CLI::App& command, const std::string& complaint) {
  if (complaint.find("it takes") != std::string::npos) return {};
  for (const CLI::Option* option : command.get_options()) {
    const std::string name = option->get_name(false, true);
    if (name.empty() || !mentions(complaint, option->get_name())) continue;
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

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

// What to say when a command was expected: first, the word in its place, or nothing.
std::string no_command(const CLI::App& app, const std::string& word) {
  std::string names;
  for (const CLI::App* command : commands_of(app)) {
    names += names.empty() ? "" : ", ";
    names += command->get_name();
  }
  return (word.empty() ? "the line names no command" : '"' + word + "\" is not a command") + "; " +
         app.get_name() + " takes " + names;
}

std::string unknown_flag(const CLI::App& command, std::string word) {
  word = word.substr(0, word.find('='));
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  const auto meant = nearest(word, names);
  return word + " is not a flag of " + path_of(command) +
         (meant ? "; did you mean " + *meant + "?" : "");
}

int usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* command = &app;  // the first that was given something it does not know
  while (command->remaining().empty() && !command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
  }
  const std::vector<std::string> strays = command->remaining();
  const auto flag = std::find_if(strays.begin(), strays.end(), is_flag);
  std::string complaint = error.what();
  const bool stray = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr;
  const bool no_name = !commands_of(deepest(app)).empty();
  if ((stray || no_name) && flag != strays.end()) {
    complaint = unknown_flag(*command, *flag);
  } else if (no_name) {
    complaint = no_command(*command, strays.empty() ? "" : strays.front());
  } else if (stray && !strays.empty()) {
    complaint = '"' + strays.front() + "\" belongs to no flag (a text with spaces needs quotes)";
  } else {
    command = &deepest(app);
    complaint += accepted(*command, complaint);
  }
  std::fprintf(stderr, "coppice: %s (%s --help lists what it accepts)\n", complaint.c_str(),
               path_of(*command).c_str());
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
  add_quantize(app, &command);
  add_inspect(app, &command);
  CLI::App* bench = app.add_subcommand("bench", "measures, against this machine's ceilings");
  bench->require_subcommand(1);
  add_bench_attention(*bench, &command);
  add_bench_gate(*bench, &command);
  add_bench_gemm(*bench, &command);
  add_bench_model(*bench, &command);
  add_bench_batched(*bench, &command);
  add_bench_tokenize(*bench, &command);
  add_bench_paper(*bench, &command);
  try {
    arguments = spelled_for_batched(spelled_with_dashes(std::move(arguments)));
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);
    return usage_error(app, error);
  }
  return delivered(command());
}

}  // namespace
}  // namespace coppice::tools

int main(int argc, char** argv) {
  // A limit of file sizes is the error of a write, as a full disk is.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return coppice::tools::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "coppice: %s; this is a defect, please report it\n", error.what());
    return coppice::tools::kExitFailure;
  }
}
