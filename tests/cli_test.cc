// The command as users run it: flags, streams, exit codes.
#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace coppice {
namespace {

using nlohmann::json;

struct Outcome {
  int code = -1;
  std::string out, err;
  std::vector<json> lines() const {
    std::vector<json> parsed;
    std::istringstream text(out);
    for (std::string line; std::getline(text, line);) parsed.push_back(json::parse(line));
    return parsed;
  }
};

std::string numbered(int i) {
  std::string id(1, 'r');
  id += std::to_string(i);
  return id;
}

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

  Outcome generate(const std::string& arguments, const std::string& input = "/dev/null") const {
    return coppice(
        "generate -m " COPPICE_TEST_DATA "/models/llama --kv-budget 64M -t 1 " + arguments, input);
  }

  std::filesystem::path dir_;
};

TEST_F(Cli, ASinglePromptStreamsText) {
  const Outcome run = generate("-p 'Hello there' -n 8");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_GT(run.out.size(), 1u);
  EXPECT_EQ(run.out.back(), '\n');
  EXPECT_EQ(run.err, "");
  const json line = generate("-p 'Hello there' -n 8 --json").lines().at(0);
  EXPECT_EQ(run.out, line["text"].get<std::string>() + "\n");
}

TEST_F(Cli, OutputThatCannotBeWrittenIsAFailure) {
  const int status = std::system(COPPICE_BINARY " generate -m " COPPICE_TEST_DATA
                                                "/models/llama --kv-budget 64M -t 1 -p Hello -n 4"
                                                " --json > /dev/full 2> /dev/null");
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

TEST_F(Cli, ADirectoryIsNotAPrompt) {
  for (const char* flag : {"--prompt-file ", "--batch "}) {
    const Outcome run = generate(flag + dir_.string());
    EXPECT_EQ(run.code, 1);
    EXPECT_NE(run.err.find("cannot be read; name a readable file"), std::string::npos) << run.err;
  }
}

TEST_F(Cli, AModelWhoseLogitsAreNotFiniteSaysSo) {
  namespace fs = std::filesystem;
  const fs::path model = dir_ / "broken";
  fs::copy(COPPICE_TEST_DATA "/models/llama", model);
  const std::string weights = (model / "model.safetensors").string();
  std::string bytes = *read_file(weights);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const json norm = json::parse(bytes.substr(8, header))["model.norm.weight"];
  const size_t begin = 8 + header + norm["data_offsets"][0].get<size_t>();
  const size_t end = 8 + header + norm["data_offsets"][1].get<size_t>();
  std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(begin),
            bytes.begin() + static_cast<std::ptrdiff_t>(end), '\xff');  // NaN in every float type
  ASSERT_TRUE(write_file(weights, bytes));
  const Outcome run = coppice("generate -m " + model.string() + " -p Hello -n 4 --json");
  EXPECT_EQ(run.code, 1);
  const json line = run.lines().at(0);
  EXPECT_EQ(line["finish_reason"], "error");
  EXPECT_EQ(line["usage"]["completion_tokens"], 0);
  EXPECT_NE(line["error"].dump().find("logits are not finite"), std::string::npos) << line;
}

TEST_F(Cli, JsonHasEverySettledKey) {
  const Outcome run = generate("-p 'Hello there' --max-tokens 8 --json");
  ASSERT_EQ(run.code, 0) << run.err;
  ASSERT_EQ(run.lines().size(), 1u);
  const json line = run.lines()[0];
  for (const char* key :
       {"id", "index", "text", "tokens", "finish_reason", "usage", "timings", "kv"}) {
    EXPECT_TRUE(line.contains(key)) << key;
  }
  EXPECT_EQ(line["tokens"].size(), 8u);
  EXPECT_EQ(line["finish_reason"], "length");
  EXPECT_EQ(line["usage"]["completion_tokens"], 8);
  EXPECT_EQ(line["usage"]["cached_tokens"], 0);
  for (const char* key : {"ttft", "prefill", "decode", "tokens_per_second"}) {
    EXPECT_TRUE(line["timings"].contains(key)) << key;
  }
  for (const char* key : {"bytes_held", "bytes_unshared", "sharing_factor"}) {
    EXPECT_TRUE(line["kv"].contains(key)) << key;
  }
  EXPECT_FALSE(line.contains("error"));
}

TEST_F(Cli, FamiliarSpellingsMeanTheSame) {
  const std::string prompt = file("prompt.txt", "Hello there");
  const Outcome a = generate("--prompt 'Hello there' --max-tokens 6 --temperature 0.7 --seed 3");
  const Outcome b = generate("-f " + prompt + " -n 6 --temp 0.7 -s 3 -c 512");
  const Outcome c =
      generate("--prompt-file - --max_tokens=6 --temp 0.7 --seed 3 --ctx 512", prompt);
  EXPECT_EQ(a.code, 0) << a.err;
  EXPECT_EQ(a.out, b.out) << b.err;
  EXPECT_EQ(a.out, c.out) << c.err;
}

TEST_F(Cli, ABatchComesBackInOrderWithASummary) {
  const std::string shared(300, 'x');
  std::string batch;
  for (int i = 0; i < 6; ++i) {
    batch += json{{"id", numbered(i)},
                  {"prompt", shared + " question " + std::to_string(i)},
                  {"max_tokens", 12 - i},
                  {"ignore_eos", true}}
                 .dump() +
             "\n";
  }
  const Outcome run = generate("--batch " + file("b.jsonl", batch));
  ASSERT_EQ(run.code, 0) << run.err;
  const std::vector<json> lines = run.lines();
  ASSERT_EQ(lines.size(), 7u);
  int64_t cached = 0;
  for (int i = 0; i < 6; ++i) {
    const json& line = lines[static_cast<size_t>(i)];
    EXPECT_EQ(line["id"], numbered(i));
    EXPECT_EQ(line["index"], i);
    EXPECT_EQ(line["tokens"].size(), static_cast<size_t>(12 - i));
    cached += line["usage"]["cached_tokens"].get<int64_t>();
  }
  const json& summary = lines[6]["summary"];
  EXPECT_EQ(summary["requests"], 6);
  EXPECT_EQ(summary["usage"]["completion_tokens"], 12 + 11 + 10 + 9 + 8 + 7);
  EXPECT_EQ(summary["usage"]["cached_tokens"], cached);
  EXPECT_GT(cached, 0);
  EXPECT_GT(summary["timings"]["wall_ms"].get<double>(), 0.0);
  // Pages hold whole tokens, so without sharing it could not pass 1.
  EXPECT_GT(summary["kv"]["sharing_factor"].get<double>(), 1.0);
}

// Two requests in company and the same two alone: the same tokens, whatever the partition.
TEST_F(Cli, ABatchAnswersAsEachAloneDoes) {
  const std::string one = R"({"prompt": [5, 6, 7, 8, 9, 10, 11, 12], "max_tokens": 9})";
  const std::string two = R"({"prompt": [5, 6, 7, 8, 9, 10, 99, 12], "max_tokens": 9})";
  const auto tokens = [&](const std::string& text, const std::string& more) {
    std::vector<json> out;
    for (const json& line : generate("--batch " + file("b.jsonl", text) + more).lines()) {
      if (line.contains("tokens")) out.push_back(line["tokens"]);
    }
    return out;
  };
  const auto both = tokens(one + "\n" + two, "");
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(tokens(one, "").at(0), both[0]);
  EXPECT_EQ(tokens(two, " --slice 1").at(0), both[1]);
  EXPECT_EQ(tokens(one + "\n" + two, " --attention per-sequence"), both);
}

TEST_F(Cli, ABadLineIsAnErrorInItsPlace) {
  const std::string batch = file("b.jsonl",
                                 "{\"prompt\": \"a\", \"max_tokens\": 2}\n"
                                 "{\"id\": 7, \"prompt\": \"b\", \"top_p\": \"x\"}\n"
                                 "\n"
                                 "{\"prompt\": [999999]}\n"
                                 "{\"messages\": []}\n"
                                 "{\"prompt\": \"c\", \"max_tokens\": 2}\n");
  const Outcome run = generate("--batch " + batch);
  EXPECT_EQ(run.code, 1);
  EXPECT_NE(run.err.find("3 answers are errors"), std::string::npos) << run.err;
  const std::vector<json> lines = run.lines();
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[0]["finish_reason"], "length");
  EXPECT_EQ(lines[1]["id"], 7);
  EXPECT_EQ(lines[1]["finish_reason"], "error");
  EXPECT_EQ(lines[1]["error"]["message"].get<std::string>().find("line 2: top_p"), 0u);
  EXPECT_EQ(lines[2]["error"]["message"].get<std::string>().find("line 4: prompt[0]"), 0u);
  EXPECT_EQ(lines[3]["error"]["code"], "unsupported");
  EXPECT_EQ(lines[4]["finish_reason"], "length");
  EXPECT_EQ(lines[5]["summary"]["errors"], 3);
}

TEST_F(Cli, ChoicesAndLogprobs) {
  const Outcome run =
      generate("-p hello -n 3 --n 2 --temp 1 --seed 5 --logprobs --top-logprobs 2 --json");
  ASSERT_EQ(run.code, 0) << run.err;
  const std::vector<json> lines = run.lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1]["index"], 1);
  EXPECT_EQ(lines[1]["logprobs"].size(), lines[1]["tokens"].size());
  EXPECT_EQ(lines[1]["logprobs"][0]["top"].size(), 2u);
}

TEST_F(Cli, WrongFlagsExitWith2AndSayWhatIsAccepted) {
  const std::pair<const char*, const char*> cases[] = {
      {"generate -p x --frobnicate", "--frobnicate"},
      {"generate", "--prompt-file FILE"},
      {"generate -p x --batch y", "one of"},
      {"generate -p x --ctx many", "--ctx"},
      {"generate -p x --dtype f16", "bf16 or f32"},
      {"generate -p x --kv-type q4", "bf16, f32 or int8"},
      {"generate -p x --kv-budget 3Q", "K, M or G"},
      {"generate -p x --memory -1", "--memory"},
      {"generate -p x --attention both", "two-phase or per-sequence"},
      {"generate -p x --isa sse", "avx2"},
      {"generate -p x --kv-tier soft", "off, mild, normal or hard"},
      {"generate -p x --device tpu", "cpu or cuda"},
      {"generate -p x --log-format xml", "text or json"},
      {"generate -p x --top-p 3", "--top-p is 3"},
      {"generate -p x --max_tokens 0", "--max-tokens is 0"},
      {"frobnicate", "\"frobnicate\" is not a command; coppice takes generate"},
      {"", "names no command; coppice takes generate"},
      {"bench", "names no command; bench takes attention"},
  };
  for (const auto& [arguments, named] : cases) {
    const Outcome run = coppice(arguments);
    EXPECT_EQ(run.code, 2) << arguments;
    EXPECT_EQ(run.out, "") << arguments;
    EXPECT_NE(run.err.find(named), std::string::npos) << arguments << ": " << run.err;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
  }
}

TEST_F(Cli, WhatCannotWorkExitsWith1AndOneLine) {
  const std::pair<std::string, const char*> cases[] = {
      {"generate -m /nowhere -p x", "/nowhere"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama --batch /nowhere.jsonl", "/nowhere.jsonl"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama --batch " + file("e.jsonl", "\n"),
       "holds no request"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama -p x --kv-type int8", "bf16 and f32"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama -p x --chat", "--chat"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama -p x --device cuda", "cpu"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama -p x --gate g", "--gate"},
      {"generate -m " COPPICE_TEST_DATA "/models/llama -p x --kv-budget 64K", "--kv-budget"},
  };
  for (const auto& [arguments, named] : cases) {
    const Outcome run = coppice(arguments);
    EXPECT_EQ(run.code, 1) << arguments << run.err;
    EXPECT_NE(run.err.find(named), std::string::npos) << arguments << ": " << run.err;
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
  }
}

TEST_F(Cli, HelpAndVersionExitWith0) {
  EXPECT_EQ(coppice("--version").out.find("coppice "), 0u);
  const Outcome help = coppice("generate --help");
  EXPECT_EQ(help.code, 0);
  for (const char* flag : {"--kv-budget", "--attention", "--batch", "--min-p", "default 256"}) {
    EXPECT_NE(help.out.find(flag), std::string::npos) << flag;
  }
}

TEST_F(Cli, VerboseSaysWhatWasChosen) {
  const Outcome run = generate("-p hi -n 1 -v --log-format json");
  EXPECT_EQ(run.code, 0);
  bool weights = false;
  std::istringstream text(run.err);
  for (std::string line; std::getline(text, line);) {
    weights |= json::parse(line)["message"].get<std::string>().find("weights") != std::string::npos;
  }
  EXPECT_TRUE(weights);
}

}  // namespace
}  // namespace coppice
