// What is written is read back: by this build's reader here, by llama.cpp's own readers through
// scripts/goldens/gguf.py, which judges what they share.
#include "model/gguf_export.h"

#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "model/model.h"
#include "model/random_checkpoint.h"
#include "model/test_config.h"
#include "model/test_files.h"
#include "ops/backends.h"
#include "tensor/widen.h"
#include "text/tokenizer.h"

namespace coppice::model {
namespace {

const std::string kModels = COPPICE_TEST_DATA "/models/";

std::vector<float> values(const TensorView& view) {
  const int64_t cols = view.shape()[view.shape().rank() - 1];
  const TensorView rows = view.reshaped({view.elements() / cols, cols});
  std::vector<float> out(static_cast<size_t>(view.elements()));
  for (int64_t n = 0; n < rows.shape()[0]; ++n) widen_row(rows, n, out.data() + n * cols);
  return out;
}

double relative_error(const std::vector<float>& want, const std::vector<float>& got) {
  double error = 0, size = 1e-30;
  for (size_t i = 0; i < want.size(); ++i) {
    error += std::pow(double{want[i]} - double{got[i]}, 2);
    size += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(error / size);
}

std::unique_ptr<Checkpoint> exported(const Checkpoint& from, const std::string& path, DType type) {
  const Status status = export_gguf(from, path, {.type = type, .threads = 2, .progress = {}});
  EXPECT_TRUE(status) << status.error().message;
  auto read = Checkpoint::open(path);
  EXPECT_TRUE(read) << read.error().message;
  return std::move(*read);
}

// Every golden: F32 is the same to the last bit, each type within its rounding.
TEST(GgufExport, WhatIsWrittenIsReadBack) {
  const TemporaryDirectory dir;
  for (const char* model : {"llama", "llama3", "qwen2", "qwen3"}) {
    const auto from = Checkpoint::open(kModels + model);
    ASSERT_TRUE(from) << from.error().message;
    for (const auto& [type, bound] : {std::pair{DType::kF32, 0.0},
                                      {DType::kBF16, 0.004},
                                      {DType::kQ8_0, 0.01},
                                      {DType::kQ4_0, 0.12}}) {
      const auto read = exported(**from, dir.path() + "/x.gguf", type);
      const ModelConfig& config = (*from)->config();
      expect_same_config(config, read->config());
      EXPECT_EQ(read->config().rope_inv_freq, config.rope_inv_freq) << model;
      EXPECT_EQ(config.bos_token_id, read->config().bos_token_id);
      EXPECT_EQ(config.eos_token_ids, read->config().eos_token_ids);
      int matrices = 0;
      for (const std::string& name : (*from)->names()) {
        if (!read->has(name)) {
          EXPECT_EQ(name, "lm_head.weight");  // tied
          continue;
        }
        const Shape shape = *(*from)->shape(name);
        const auto want = (*from)->tensor(name, shape), got = read->tensor(name, shape);
        ASSERT_TRUE(want && got) << name;
        matrices += shape.rank() == 2 && got->view.type() == type ? 1 : 0;
        EXPECT_LE(relative_error(values(want->view), values(got->view)), bound)
            << model << " " << name << " as " << dtype_name(type);
      }
      EXPECT_GE(matrices, 7) << model << " as " << dtype_name(type);
    }
  }
}

TEST(GgufExport, RowsThatAreNoWholeBlocksTakeTheNextType) {
  const TemporaryDirectory dir;
  const auto from = *open_random("256,1,4,2,10,96,300");  // K = 256, 40, 96
  for (const auto& [to, vocabulary] : {std::pair{DType::kQ4_K, DType::kQ8_0},
                                       {DType::kQ5_K, DType::kQ8_0},
                                       {DType::kQ6_K, DType::kQ6_K}}) {
    const auto read = exported(*from, dir.path() + "/x.gguf", to);
    const auto type = [&](const std::string& name) {
      return read->check(name, *from->shape(name))->type;
    };
    EXPECT_EQ(type("model.embed_tokens.weight"), vocabulary);
    EXPECT_EQ(type("model.layers.0.self_attn.q_proj.weight"), to);
    EXPECT_EQ(type("model.layers.0.self_attn.o_proj.weight"), DType::kBF16);
    EXPECT_EQ(type("model.layers.0.mlp.down_proj.weight"), DType::kQ8_0);
    EXPECT_EQ(type("model.norm.weight"), DType::kF32);
  }
}

TEST(GgufExport, TheTokenizerSurvives) {
  const TemporaryDirectory dir;
  const auto from = Checkpoint::open(kModels + "llama");
  ASSERT_TRUE(from);
  const auto read = exported(**from, dir.path() + "/x.gguf", DType::kQ8_0);
  const auto first = read->tokenizer_json();
  ASSERT_TRUE(first) << first.error().message;
  const auto again = exported(*read, dir.path() + "/y.gguf", DType::kQ8_0);
  EXPECT_EQ(*first, *again->tokenizer_json());
}

using nlohmann::json;
using Edit = std::function<void(json& document)>;

// The llama golden with another config.json and tokenizer.json.
class Edited {
 public:
  Edited(const Edit& config, const Edit& tokenizer) {
    for (const auto& [name, edit] :
         {std::pair{"config.json", config}, {"tokenizer.json", tokenizer}}) {
      json document = json::parse(read_file(kModels + "llama/" + name).value());
      if (edit) edit(document);
      dir_.write(name, document.dump());
    }
    std::filesystem::copy_file(kModels + "llama/model.safetensors",
                               dir_.path() + "/model.safetensors");
    checkpoint_ = Checkpoint::open(dir_.path()).value();
  }
  const Checkpoint& operator*() const { return *checkpoint_; }
  std::string refusal() const {
    const Status status = export_gguf(*checkpoint_, dir_.path() + "/x.gguf", {});
    EXPECT_FALSE(status);
    EXPECT_FALSE(std::filesystem::exists(dir_.path() + "/x.gguf"));
    return status ? "" : status.error().message;
  }
  std::unique_ptr<Checkpoint> exported_again() const {
    return exported(*checkpoint_, dir_.path() + "/x.gguf", DType::kQ8_0);
  }

 private:
  TemporaryDirectory dir_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST(GgufExport, ALinearFactorComesBackToTheLastBitOfEveryFrequency) {
  for (const double factor : {1.0, 2.0, 3.5, 3.9, 6.5, 49.0, 0.3}) {
    const Edited from(
        [&](json& config) {
          config["rope_parameters"] = {
              {"rope_type", "linear"}, {"factor", factor}, {"rope_theta", 31234.0}};
        },
        {});
    const auto read = from.exported_again();
    EXPECT_FALSE(read->has("rope_freqs.weight")) << factor;
    EXPECT_EQ((*from).config().rope_inv_freq, read->config().rope_inv_freq) << factor;
  }
}

std::vector<int32_t> encoded(const Checkpoint& checkpoint) {
  return text::Tokenizer::load(checkpoint.tokenizer_json().value(), "tokenizer.json")
      .value()
      ->encode("the shop", true);
}

// A template of these tokens' ids and the text.
Edit framing(const std::vector<int32_t>& before, const std::vector<int32_t>& behind) {
  return [=](json& document) {
    json single = json::array(), specials = json::object();
    const auto put = [&](int32_t id) {
      const std::string name = std::to_string(id);
      single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
      specials[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
    };
    for (const int32_t id : before) put(id);
    single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    for (const int32_t id : behind) put(id);
    document["post_processor"] = {{"type", "TemplateProcessing"},
                                  {"single", single},
                                  {"pair", single},
                                  {"special_tokens", specials}};
  };
}

Edit ends(const json& bos, const json& eos) {
  return [=](json& config) {
    config["bos_token_id"] = bos;
    config["eos_token_id"] = eos;
  };
}

// Whatever the config calls them, a text is framed by the tokens of the tokenizer.
TEST(GgufExport, WhatFramesATextSurvives) {
  struct Case {
    json bos, eos;
    std::vector<int32_t> before, behind, ends;
  };
  const Case cases[] = {{0, 1, {0}, {}, {1}},
                        {nullptr, 1, {0}, {}, {1}},
                        {0, 1, {5}, {}, {1}},
                        {0, 1, {}, {}, {1}},
                        {0, 1, {0}, {1}, {1}},
                        {0, {3, 1}, {0}, {1}, {1, 3}},
                        {0, {3, 1, 2}, {}, {}, {3, 1, 2}}};
  for (const Case& c : cases) {
    const Edited from(ends(c.bos, c.eos), framing(c.before, c.behind));
    const auto ids = encoded(*from);
    EXPECT_EQ(ids.size(),
              encoded(*Edited({}, framing({}, {}))).size() + c.before.size() + c.behind.size());
    const auto read = from.exported_again();
    EXPECT_EQ(encoded(*read), ids);
    EXPECT_EQ(read->config().eos_token_ids, c.ends);
  }
}

// A file would be made that is not this model, or cannot be read: rows beyond a matrix, layers too
// few, biases that a reader would take to be left out on purpose.
TEST(GgufExport, TensorsThatAreNotThoseOfTheConfigAreRefused) {
  const auto refusal = [](const char* key, const json& value) {
    return Edited([&](json& config) { config[key] = value; }, {}).refusal();
  };
  EXPECT_TRUE(contains(refusal("head_dim", 24), "but the config asks for"));
  EXPECT_TRUE(contains(refusal("vocab_size", 5000), "but the config asks for"));
  EXPECT_TRUE(contains(refusal("num_hidden_layers", 1), "does not use"));
  EXPECT_TRUE(contains(refusal("attention_bias", true), "has no tensor"));
}

// A file that would read the same text as other tokens, or not stop where the model does.
TEST(GgufExport, WhatGgufCannotSayIsRefused) {
  const auto refusal = [](const Edit& config, const Edit& tokenizer) {
    return Edited(config, tokenizer).refusal();
  };
  EXPECT_TRUE(contains(refusal(ends(0, {1, 2, 3, 4}), {}), "4 tokens end generation"));
  EXPECT_TRUE(contains(refusal({}, framing({0, 2}, {})), "2 tokens before a text"));
  EXPECT_TRUE(contains(refusal({}, framing({}, {1, 2})), "2 behind it"));
  EXPECT_TRUE(contains(refusal({}, framing({}, {2})), "puts token 2 behind a text"));
  const auto with = [](const char* key, const json& value) {
    return [=](json& document) { document[key] = value; };
  };
  const json nfc = {{"type", "NFC"}};
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", "\\p{N}"}}},
                      {"behavior", "Removed"},
                      {"invert", false}};
  const json prefixed = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", true}};
  const json words = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const json removing = {{"type", "Sequence"}, {"pretokenizers", {split, words}}};
  const json sequence = {{"type", "Sequence"}, {"normalizers", {nfc}}};
  for (const Edit& edit :
       {Edit(with("normalizer", {{"type", "NFKC"}})), Edit(with("normalizer", nfc)),
        Edit(with("normalizer", sequence)), Edit(with("pre_tokenizer", prefixed)),
        Edit(with("pre_tokenizer", removing))}) {
    EXPECT_TRUE(contains(refusal({}, edit), "GGUF has no name"));
  }
}

// A file of other hands: the type of output_norm.weight says blocks.
TEST(GgufExport, ANormInBlocksIsRefused) {
  const TemporaryDirectory dir;
  const auto from = Checkpoint::open(kModels + "llama").value();
  exported(*from, dir.path() + "/x.gguf", DType::kF32);
  std::string bytes = *read_file(dir.path() + "/x.gguf");
  const std::string name = "output_norm.weight";
  const size_t type = bytes.find(name) + name.size() + 4 + 8;  // behind the rank and one extent
  ASSERT_EQ(bytes.substr(type, 4), little(0, 4));
  bytes.replace(type, 4, little(8, 4));
  const auto read = Checkpoint::open(dir.write("y.gguf", bytes));
  ASSERT_TRUE(read) << read.error().message;
  const std::string reason =
      (*read)->path() + ": model.norm.weight is q8_0; a norm or bias must be f32, f16 or bf16";
  const auto backend = ops::make_backend("ref", {}).value();
  EXPECT_EQ(Model::load(**read, *backend, {}).error().message, reason);
  const Status status = export_gguf(**read, dir.path() + "/z.gguf", {});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(status.error().message, reason);
  EXPECT_FALSE(std::filesystem::exists(dir.path() + "/z.gguf"));
}

// The least that a config may say is read back from the file's 32 bits.
TEST(GgufExport, TheSmallestEpsilonComesBack) {
  const Edited from([](json& config) { config["rms_norm_eps"] = 1e-12; }, {});
  EXPECT_EQ(from.exported_again()->config().rms_norm_eps, double{1e-12f});
}

TEST(GgufExport, ThreadsChangeNoByte) {
  const TemporaryDirectory dir;
  const auto from = *open_random("tiny");
  std::vector<std::string> files;
  int64_t total = 0;
  for (const int threads : {1, 3}) {
    const std::string path = dir.path() + "/" + std::to_string(threads);
    const auto note = [&](int64_t, int64_t all) -> Status {
      total = all;
      return {};
    };
    ASSERT_TRUE(
        export_gguf(*from, path, {.type = DType::kQ4_K, .threads = threads, .progress = note}));
    files.push_back(*read_file(path));
  }
  EXPECT_EQ(files[0], files[1]);
  EXPECT_EQ(gguf_contents(*from, DType::kQ4_K)->bytes, total);
}

// With divisors of the rotary frequencies and without.
TEST(GgufExport, ContentsAreWhatIsWritten) {
  for (const char* model : {"llama", "llama3"}) {
    const TemporaryDirectory dir;
    const auto from = Checkpoint::open(kModels + model).value();
    const auto contents = gguf_contents(*from, DType::kQ4_0);
    ASSERT_TRUE(contents);
    const auto read = exported(*from, dir.path() + "/x.gguf", DType::kQ4_0);
    EXPECT_EQ(read->has("rope_freqs.weight"), std::string_view(model) == "llama3");
    GgufContents written;
    for (const std::string& name : read->names()) {
      const Shape shape = *read->shape(name);
      const DType type = read->check(name, shape)->type;
      ++written.tensors[type];
      written.bytes += dtype_bytes(type, shape.elements());
    }
    EXPECT_EQ(contents->bytes, written.bytes);
    EXPECT_EQ(contents->tensors, written.tensors);
  }
}

// Progress is told between pieces of a matrix; here the embedding and the FFN have several.
TEST(GgufExport, EveryPieceOfAMatrixIsInItsPlace) {
  const TemporaryDirectory dir;
  const auto from = *open_random("32,1,2,1,768,1100,2500");  // rotated heads across pieces
  const auto read = exported(*from, dir.path() + "/x.gguf", DType::kF32);
  for (const std::string& name : from->names()) {
    const Shape shape = *from->shape(name);
    const auto want = from->tensor(name, shape), got = read->tensor(name, shape);
    ASSERT_TRUE(want && got) << name;
    EXPECT_EQ(values(want->view), values(got->view)) << name;
  }
}

TEST(GgufExport, RefusesAndLeavesNothingBehind) {
  const TemporaryDirectory dir;
  const auto from = *open_random("tiny");
  const auto refused = export_gguf(*from, dir.path() + "/x.gguf",
                                   {.type = DType::kI8, .threads = 2, .progress = {}});
  ASSERT_FALSE(refused);
  EXPECT_TRUE(contains(refused.error().message, "f32, f16, bf16, q8_0, q4_0, q4_k, q5_k and q6_k"));
  const auto nowhere = export_gguf(*from, dir.path() + "/no/x.gguf", {});
  ASSERT_FALSE(nowhere);
  EXPECT_TRUE(contains(nowhere.error().message, "cannot create"));
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(GgufExportProgress, AnErrorEndsTheExportAndLeavesNoFile) {
  const TemporaryDirectory dir;
  const auto from = *open_random("tiny");
  int64_t calls = 0, last = 0, all = 0;
  const auto count = [&](int64_t done, int64_t total) -> Status {
    EXPECT_GE(done, last);
    ++calls;
    last = done;
    all = total;
    return {};
  };
  ASSERT_TRUE(export_gguf(*from, dir.path() + "/x",
                          {.type = DType::kF32, .threads = 2, .progress = count}));
  EXPECT_EQ(last, all);
  EXPECT_GT(calls, 5);
  const auto give_up = [](int64_t done, int64_t) -> Status {
    if (done < 1000) return {};
    return fail(ErrorCode::kCancelled, "enough");
  };
  const Status status = export_gguf(*from, dir.path() + "/y",
                                    {.type = DType::kF32, .threads = 2, .progress = give_up});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "enough");
  EXPECT_FALSE(std::filesystem::exists(dir.path() + "/y"));
  EXPECT_FALSE(std::filesystem::exists(dir.path() + "/y.partial"));
}

}  // namespace
}  // namespace coppice::model
