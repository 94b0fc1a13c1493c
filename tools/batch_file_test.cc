#include "batch_file.h"

#include <gtest/gtest.h>

namespace coppice::tools {
namespace {

// The request of a single line, which the tests break for the eye.
Request only(std::string line, const Request& defaults = {}) {
  std::erase(line, '\n');
  BatchFile file = parse_batch(line, defaults);
  EXPECT_EQ(file.items.size(), 1u);
  EXPECT_TRUE(file.items[0].request) << file.items[0].request.error().message;
  return *file.items[0].request;
}

TEST(BatchFile, ReadsEveryField) {
  const Request r = only(
      R"({"id": "a", "prompt": "hi", "temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.1,
          "seed": 18446744073709551615, "max_tokens": 9, "min_tokens": 2, "stop": ["x", "y"],
          "stop_token_ids": [3, 4], "include_stop_str_in_output": true, "ignore_eos": true,
          "logprobs": true, "top_logprobs": 5, "n": 2, "cache_salt": "s", "kv_tier": "off",
          "kv_thinning": "allow"})");
  EXPECT_EQ(std::get<std::string>(r.prompt), "hi");
  const Sampling& s = r.sampling;
  EXPECT_EQ(s.temperature, 0.5);
  EXPECT_EQ(s.top_k, 7);
  EXPECT_EQ(s.top_p, 0.9);
  EXPECT_EQ(s.min_p, 0.1);
  EXPECT_EQ(s.seed, ~uint64_t{0});
  EXPECT_EQ(s.max_tokens, 9);
  EXPECT_EQ(s.min_tokens, 2);
  EXPECT_EQ(s.stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(s.stop_token_ids, (std::vector<TokenId>{3, 4}));
  EXPECT_TRUE(s.include_stop_str_in_output);
  EXPECT_TRUE(s.ignore_eos);
  EXPECT_TRUE(s.logprobs);
  EXPECT_EQ(s.top_logprobs, 5);
  EXPECT_EQ(s.n, 2);
  EXPECT_EQ(r.cache_salt, "s");
  EXPECT_EQ(r.kv_tier, KvTier::kOff);
  EXPECT_EQ(r.kv_thinning, KvThinning::kAllow);
}

TEST(BatchFile, TokenPromptsNullsAndDefaults) {
  Request defaults;
  defaults.sampling.max_tokens = 11;
  defaults.sampling.stop = {"d"};
  const Request r = only(R"({"prompt": [1, 2], "max_tokens": null, "stop": "one"})", defaults);
  EXPECT_EQ(std::get<std::vector<TokenId>>(r.prompt), (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(r.sampling.max_tokens, 11);
  EXPECT_EQ(r.sampling.stop, (std::vector<std::string>{"one"}));
  EXPECT_EQ(
      only(R"({"prompt": "x", "max_tokens": 3, "max_completion_tokens": 4})").sampling.max_tokens,
      4);
}

TEST(BatchFile, LinesAreCountedAndBlankOnesSkipped) {
  const BatchFile file =
      parse_batch("\n{\"prompt\": \"a\", \"id\": 5}\r\n  \n{\"prompt\": \"b\"}", {});
  ASSERT_EQ(file.items.size(), 2u);
  EXPECT_EQ(file.items[0].line, 2);
  EXPECT_EQ(file.items[0].id, 5);
  EXPECT_EQ(file.items[1].line, 4);
  EXPECT_TRUE(file.items[1].id.is_null());
}

TEST(BatchFile, ABadLineNamesLineAndFieldAndTheOthersStand) {
  struct Case {
    const char* line;
    const char* named;
  };
  const Case cases[] = {
      {"{oops", "is not JSON at byte 2"},
      {R"({"prompt": "a", "temperature": 1e999})", "number that is too large, ending at byte 36"},
      {R"({"prompt": "a", "prompt": "b"})", "has the key \"prompt\" twice"},
      {"[1]", "takes an object; it is array"},
      {"{}", "prompt is missing"},
      {R"({"prompt": null})", "prompt is missing"},
      {R"({"prompt": 5})", "prompt takes a string or an array of token ids; it is 5"},
      {R"({"prompt": [1, "x"]})", "prompt[1] takes a whole number; it is string"},
      {R"({"prompt": [1.5]})", "prompt[0] takes a whole number; it is 1.5"},
      {R"({"prompt": [4294967296]})", "prompt[0] is 4294967296; it takes whole numbers from"},
      {R"({"prompt": [18446744073709551615]})", "prompt[0] is 18446744073709551615; it takes"},
      {R"({"prompt": "a", "max_tokens": 2.0})", "max_tokens takes a whole number; it is 2.0"},
      {"{\"prompt\": \"a\xff\"}", "is not UTF-8 at byte 14"},
      {R"({"prompt": "a", "id": 123456789012345678901234})", "id holds a number beyond 64 bits"},
      {R"({"prompt": "a", "id": [{"n": -1e20}]})", "id holds a number beyond 64 bits"},
      {R"({"prompt": "a", "top_p": "high"})", "top_p takes a number; it is string"},
      {R"({"prompt": "a", "top_p": 7})", "top_p is 7"},
      {R"({"prompt": "a", "max_tokens": 1.5})", "max_tokens takes a whole number"},
      {R"({"prompt": "a", "stop": [1]})", "stop takes strings"},
      {R"({"prompt": "a", "stop": 1})", "stop takes a string or an array"},
      {R"({"prompt": "a", "seed": "x"})", "seed takes a whole number"},
      {R"({"prompt": "a", "ignore_eos": 1})", "ignore_eos takes true or false"},
      {R"({"prompt": "a", "cache_salt": 1})", "cache_salt takes a string"},
      {R"({"messages": []})", "messages need a chat template"},
      {R"({"prompt": "a", "kv_tier": "soft"})", "kv_tier is \"soft\"; it takes off, mild"},
      {R"({"prompt": "a", "kv_tier": 2})", "kv_tier takes off, mild"},
      {R"({"prompt": "a", "kv_thinning": "yes"})", "kv_thinning is \"yes\"; it takes allow or"},
      {R"({"prompt": "a", "kv_thinning": true})", "kv_thinning takes allow or refuse"},
      {R"({"prompt": "a", "exact": [[0, 1], [2]]})", "exact[1] takes a pair"},
      {R"({"prompt": "a", "exact": [["x", 1]]})", "exact[0][0] takes a whole number"},
      {R"({"prompt": "a", "boundaries": 7})", "boundaries takes an array"},
      {R"({"prompt": "a", "presence_penalty": 0.5})", "presence_penalty is not in this build"},
      {R"({"prompt": "a", "response_format": {"type": "json_object"}})", "response_format"},
  };
  for (const Case& c : cases) {
    const BatchFile file =
        parse_batch(std::string("{\"prompt\": \"good\"}\n") + c.line + "\n{\"prompt\": \"b\"}", {});
    ASSERT_EQ(file.items.size(), 3u);
    EXPECT_TRUE(file.items[0].request);
    EXPECT_TRUE(file.items[2].request);
    ASSERT_FALSE(file.items[1].request) << c.line;
    const std::string& message = file.items[1].request.error().message;
    EXPECT_EQ(message.find("line 2: "), 0u) << message;
    EXPECT_NE(message.find(c.named), std::string::npos) << message;
  }
}

TEST(BatchFile, DeepNestingIsRefusedAndNotFollowed) {
  const std::string open(200000, '['), close(200000, ']');
  const std::string line = R"({"prompt": "a", "id": )" + open + close + "}";
  const BatchFile file = parse_batch(line + "\n{\"prompt\": \"b\"}", {});
  ASSERT_EQ(file.items.size(), 2u);
  ASSERT_FALSE(file.items[0].request);
  EXPECT_EQ(file.items[0].request.error().message, "line 1: is nested more than 64 deep");
  EXPECT_TRUE(file.items[1].request);
}

TEST(BatchFile, NeutralValuesOfWhatIsNotThereYetPass) {
  only(R"({"prompt": "a", "presence_penalty": 0, "frequency_penalty": 0.0,
           "repetition_penalty": 1.0, "logit_bias": {}, "tools": null})");
}

TEST(BatchFile, UnknownFieldsAreIgnoredAndNamed) {
  const BatchFile file = parse_batch(
      "{\"prompt\": \"a\", \"temprature\": 1}\n\n"
      "{\"prompt\": \"a\", \"answer\": 5, \"temprature\": 1}",
      {});
  EXPECT_TRUE(file.items[0].request);
  EXPECT_EQ(file.unknown_fields,
            (std::map<std::string, int64_t>{{"answer", 3}, {"temprature", 1}}));
}

TEST(BatchFile, IdsComeBackAsTheyWere) {
  const BatchFile file =
      parse_batch(R"({"prompt": "a", "id": 18446744073709551615})"
                  "\n"
                  R"({"prompt": "a", "id": [-9223372036854775808, 0.5, "1e99"]})",
                  {});
  ASSERT_TRUE(file.items[0].request && file.items[1].request);
  EXPECT_EQ(file.items[0].id.dump(), "18446744073709551615");
  EXPECT_EQ(file.items[1].id.dump(), R"([-9223372036854775808,0.5,"1e99"])");
}

}  // namespace
}  // namespace coppice::tools
