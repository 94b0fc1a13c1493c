// A context's choices of keys and values against plain loops of double, and served gates beside.
#include "eviction/kept_context.h"

#include <cmath>
#include <map>

#include "eviction/served_context.h"
#include "eviction/test_model.h"

namespace coppice::eviction {
namespace {

using testing::TestModel;
using testing::token_noise;

constexpr double kNear = 2e-4;  // of nats, f32 against double
constexpr Room kRoom{.context = 150, .beyond = 160, .questions = 4, .tail = 40};

KeepMask random_mask(uint32_t seed, int32_t lists, int32_t tokens, double share) {
  std::mt19937 random(seed);
  KeepMask mask(lists, tokens, 0);
  for (uint8_t& flag : mask.keep) flag = random() < share * 4294967296.0 ? 1 : 0;
  return mask;
}

TEST(KeptContext, PredictsAsIfTheRestWereNotThere) {
  TestModel model;
  const auto context = model.context(kRoom);
  const auto tokens = token_noise(1, 131), following = token_noise(2, 23);
  const int32_t heads = model.config().num_key_value_heads;
  context->read(tokens);
  for (const double share : {1.0, 0.5, 0.1, 0.0}) {
    SCOPED_TRACE(share);
    const KeepMask mask = random_mask(3, model.lists(), 131, share);
    context->keep(mask);
    const double expected = model.naive_nats(
        tokens, following, [&](int32_t layer, size_t head, size_t query, size_t key) {
          if (key > query) return false;
          if (query < tokens.size() || key >= tokens.size()) return true;
          return mask.list(layer * heads + static_cast<int32_t>(head))[key] != 0;
        });
    EXPECT_NEAR(context->nats(following), expected, kNear);
    // Asking changes nothing.
    EXPECT_NEAR(context->nats(following), expected, kNear);
  }
}

TEST(KeptContext, AnswersAreWhatEachQuestionAloneWouldGet) {
  TestModel model;
  const auto context = model.context(kRoom);
  const auto tokens = token_noise(1, 120);
  context->read(tokens);
  context->keep(random_mask(5, model.lists(), 120, 0.3));
  std::vector<Question> questions;
  for (uint32_t i = 0; i < 11; ++i) {
    questions.push_back({token_noise(20 + i, 3 + i), static_cast<int32_t>(1 + i)});
  }
  const auto together = context->answer(questions, {});
  for (size_t i = 0; i < questions.size(); ++i) {
    EXPECT_EQ(together[i].size(), static_cast<size_t>(questions[i].most));
    EXPECT_EQ(context->answer({&questions[i], 1}, {}).front(), together[i]) << i;
  }
  // A stop token ends an answer and is no part of it.
  const std::vector<int32_t> stops{together[10][2]};
  const auto stopped = context->answer({&questions[10], 1}, stops).front();
  EXPECT_LE(stopped.size(), 2u);
  EXPECT_TRUE(std::equal(stopped.begin(), stopped.end(), together[10].begin()));
}

TEST(KeptContext, ReadingBeyondChangesNoAnswer) {
  TestModel model;
  const auto context = model.context(kRoom);
  const auto tokens = token_noise(1, 120), following = token_noise(2, 9);
  context->read(tokens);
  const double before = context->nats(following);
  context->read_beyond(token_noise(7, 140));
  EXPECT_EQ(context->tokens_read(), 260);
  EXPECT_EQ(context->log().rows(), 260);
  EXPECT_EQ(context->nats(following), before);
  context->read_beyond({});
  EXPECT_EQ(context->tokens_read(), 120);
  EXPECT_EQ(context->log().rows(), 120);
}

// What the served kinds and the single pass decide and answer is one thing.
class Gated : public ::testing::TestWithParam<model::GateKind> {};

TEST_P(Gated, OnePassAndTheTreeAnswerAsThePlainLoops) {
  TestModel model(GetParam());
  const auto context = model.context(kRoom);
  const auto tokens = token_noise(4, 141), following = token_noise(5, 17);
  const ops::GateRule rule = model.rule();
  const int32_t heads = model.config().num_key_value_heads;
  const KeepMask mask = context->read_gated(tokens, *model.parts().gate, rule);
  EXPECT_GT(mask.kept_share(), 0.05);
  EXPECT_LT(mask.kept_share(), 0.6);
  // After the context a row goes on seeing what the first one there sees.
  const double passed = model.naive_nats(
      tokens, following, [&](int32_t layer, size_t head, size_t query, size_t key) {
        const int32_t list = layer * heads + static_cast<int32_t>(head);
        const size_t last = std::min(query, tokens.size());
        if (query >= tokens.size() && key >= tokens.size()) return key <= query;
        return TestModel::gated_sees(mask, rule, list, last, key);
      });
  EXPECT_NEAR(context->nats(following), passed, kNear);
  if (GetParam() == model::GateKind::kGlobal) return;

  ServedContext served(*model.parts().model, *model.parts().gate, *model.parts().cache,
                       model.limits());
  const auto held = served.read(tokens, rule);
  ASSERT_TRUE(held) << held.error().message;
  double kept = 0;
  for (const double ratio : held->keep_ratio) {
    kept += ratio / static_cast<double>(held->keep_ratio.size());
  }
  EXPECT_NEAR(kept, mask.kept_share(), 1e-9);
  const int64_t page = context->page_bytes();
  EXPECT_GE(held->bytes, mask.pages(context->page_slots()) * page);
  // An overlay page for every list where the question will begin, a byte for every token, and the
  // gate's memory there.
  const int64_t memory =
      model.parts().gate->memory_floats() * 4 * model.parts().model->config().num_hidden_layers;
  EXPECT_LE(held->bytes, (mask.pages(context->page_slots()) + model.lists()) * page +
                             model.lists() * std::ssize(tokens) + memory + 2 * page);
  const double expected = model.naive_nats(
      tokens, following, [&](int32_t layer, size_t head, size_t query, size_t key) {
        return TestModel::gated_sees(mask, rule, layer * heads + static_cast<int32_t>(head), query,
                                     key);
      });
  const auto nats = served.nats(following);
  ASSERT_TRUE(nats) << nats.error().message;
  EXPECT_NEAR(*nats, expected, kNear);
  // Again, after another context: nothing of that is left.
  ASSERT_TRUE(served.read(token_noise(9, 60), rule));
  ASSERT_TRUE(served.read(tokens, rule));
  EXPECT_EQ(served.nats(following).value(), *nats);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Gated,
                         ::testing::Values(model::GateKind::kPoint, model::GateKind::kCausal,
                                           model::GateKind::kGlobal),
                         [](const auto& param) {
                           return std::string(model::gate_kind_name(param.param));
                         });

// z = Wo' a + Ws u + b with a over the whole prompt, both ways, without positions.
TEST(GlobalGate, DecidesByTheWholePrompt) {
  TestModel model(model::GateKind::kGlobal);
  const auto context = model.context(kRoom);
  const auto tokens = token_noise(4, 90), following = token_noise(5, 2);
  const ops::GateRule rule = model.rule();
  const KeepMask mask = context->read_gated(tokens, *model.parts().gate, rule);
  const model::GateHeader& header = model.header();
  const int32_t width = header.width(), dim = header.head_dim, kv = header.num_key_value_heads;
  const auto fill = model::testing::random_gate(header, 1);
  const auto described = model::gate_tensors(header);
  std::map<std::string, std::vector<float>> weights;
  for (size_t i = 0; i < described.size(); ++i) {
    auto& values = weights[described[i].name];
    values.resize(static_cast<size_t>(described[i].shape.elements()));
    fill(i, values);
  }
  int close = 0, wrong = 0;
  model.naive_nats(
      tokens, following,
      [&](int32_t layer, size_t head, size_t query, size_t key) {
        const size_t last = std::min(query, tokens.size());
        if (query >= tokens.size() && key >= tokens.size()) return key <= query;
        return TestModel::gated_sees(mask, rule, layer * kv + static_cast<int32_t>(head), last,
                                     key);
      },
      [&](int32_t layer, const model::testing::NaiveMatrix& u) {
        const std::string name = "layers." + std::to_string(layer) + ".";
        const auto product = [&](const char* which, size_t row, size_t out) {
          double sum = 0;
          for (size_t e = 0; e < u.cols; ++e) {
            sum += double{weights[name + which][out * u.cols + e]} * u.at(row, e);
          }
          return sum;
        };
        const size_t rows = tokens.size();
        const auto inner = static_cast<size_t>(width);
        std::vector<double> q(rows * inner), k(q), v(q);
        for (size_t t = 0; t < rows; ++t) {
          for (size_t i = 0; i < inner; ++i) {
            q[t * inner + i] = product("wq", t, i);
            k[t * inner + i] = product("wk", t, i);
            v[t * inner + i] = product("wv", t, i);
          }
        }
        for (size_t t = 0; t < rows; ++t) {
          std::vector<double> a(inner);
          for (size_t head = 0; head < inner; head += static_cast<size_t>(dim)) {
            double total = 0;
            std::vector<double> share(rows);
            for (size_t j = 0; j < rows; ++j) {
              double score = 0;
              for (size_t d = 0; d < static_cast<size_t>(dim); ++d) {
                score += q[t * inner + head + d] * k[j * inner + head + d];
              }
              total += share[j] = std::exp(score / std::sqrt(double{static_cast<double>(dim)}));
            }
            for (size_t j = 0; j < rows; ++j) {
              for (size_t d = 0; d < static_cast<size_t>(dim); ++d) {
                a[head + d] += share[j] / total * v[j * inner + head + d];
              }
            }
          }
          for (int32_t head = 0; head < kv; ++head) {
            const auto h = static_cast<size_t>(head);
            double z = product("ws", t, h) + double{weights[name + "b"][h]};
            for (size_t i = 0; i < inner; ++i)
              z += double{weights[name + "wo"][h * inner + i]} * a[i];
            if (std::abs(z - double{rule.threshold}) < 1e-3) {
              ++close;
              continue;
            }
            const bool keep = z >= double{rule.threshold} || t < static_cast<size_t>(rule.sinks);
            wrong += keep != (mask.list(layer * kv + head)[t] != 0) ? 1 : 0;
          }
        }
      });
  EXPECT_EQ(wrong, 0);
  EXPECT_LT(close, 20);
}

}  // namespace
}  // namespace coppice::eviction
