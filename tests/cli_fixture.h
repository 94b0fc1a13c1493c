// What:    the command as users run it, for tests: arguments in, exit code and both streams out.
// Owns:    a directory of its own under the system's temporary one, while a test runs.
// Threads: one.
// Fails:   never; a command that cannot be run has exit code -1.
#pragma once

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace coppice {

struct Outcome {
  int code = -1;
  std::string out, err;
  double seconds_after_signal = 0;
  std::vector<nlohmann::json> lines() const {
    std::vector<nlohmann::json> parsed;
    std::istringstream text(out);
    for (std::string line; std::getline(text, line);) parsed.push_back(nlohmann::json::parse(line));
    return parsed;
  }
};

class Cli : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = "coppice-cli-";
    name += std::to_string(::getpid());
    dir_ = std::filesystem::temp_directory_path() / name;
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }

  std::string file(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ / name, std::ios::binary) << text;
    return (dir_ / name).string();
  }

  // arguments in the shell's words.
  Outcome coppice(const std::string& arguments, const std::string& input = "/dev/null") const {
    const std::string out = (dir_ / "out").string(), err = (dir_ / "err").string();
    const std::string command =
        std::string(COPPICE_BINARY) + " " + arguments + " <" + input + " >" + out + " 2>" + err;
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, *read_file(out), *read_file(err)};
  }

  // Runs it and sends the signal once it has printed `least` bytes.
  Outcome interrupted(const std::string& arguments, size_t least, int signal,
                      int after_ms = 0) const {
    const std::string out = (dir_ / "out").string(), err = (dir_ / "err").string();
    const std::string command = std::string("exec ") + COPPICE_BINARY + " " + arguments +
                                " </dev/null >" + out + " 2>" + err;
    std::filesystem::remove(out);  // of an earlier run
    const pid_t child = ::fork();
    if (child == 0) {
      ::signal(signal, SIG_DFL);  // whatever started the tests may ignore it
      ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      ::_exit(127);
    }
    using Clock = std::chrono::steady_clock;
    Clock::time_point sent = Clock::now();
    int status = 0;
    std::error_code missing;
    while (::waitpid(child, &status, WNOHANG) == 0) {
      const auto size = std::filesystem::file_size(out, missing);
      if (!missing && size >= least) {
        ::usleep(static_cast<useconds_t>(after_ms) * 1000);
        ::kill(child, signal);
        sent = Clock::now();
        ::waitpid(child, &status, 0);
        break;
      }
      ::usleep(2000);
    }
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, *read_file(out), *read_file(err),
            std::chrono::duration<double>(Clock::now() - sent).count()};
  }

  // As long as it has not come to asking, the signal just ends it: then later.
  Outcome interrupted_when_it_listens(const std::string& arguments) const {
    Outcome run;
    for (int after_ms = 500; run.code == -1 && after_ms < 100'000; after_ms *= 2) {
      run = interrupted(arguments, 0, SIGINT, after_ms);
    }
    return run;
  }

  Outcome generate(const std::string& arguments, const std::string& input = "/dev/null") const {
    return coppice(
        "generate -m " COPPICE_TEST_DATA "/models/llama --kv-budget 64M -t 1 " + arguments, input);
  }

  std::filesystem::path dir_;
};

}  // namespace coppice
