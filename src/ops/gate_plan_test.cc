// Decisions held against a model of them: two vectors of positions, one kept and one dropped.
#include "ops/gate_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace coppice::ops {
namespace {

constexpr int32_t kSlots = 16;  // P
constexpr int32_t kLayers = 2, kHeads = 2, kLists = kLayers * kHeads;
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr KvTarget kUntouched{-1, -1};

int32_t pages_for(int32_t slots) { return (slots + kSlots - 1) / kSlots; }

// One gated sequence, slice after slice, and what must come of it. Its tables begin anew at any
// step: with the page that the kept list ends in, and the first dropped page that is still seen.
class Sequence {
 public:
  Sequence(std::mt19937& random, GateRule rule) : random_(random), rule_(rule), lists_(kLists) {}

  int32_t uniform(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }

  // Adds the next rows to the plan; the logits of all rows [layer][T][Hkv] are filled later.
  void reserve(int32_t rows, GatePlan& gate, AttentionPlan& plan) {
    const bool anew = uniform(0, 2) == 0;
    exact_.clear();
    for (int32_t i = 0; i < rows; ++i) exact_.push_back(uniform(0, 9) == 0 ? 1 : 0);
    const auto part = static_cast<int32_t>(plan.parts.size());
    rows_ = GateRows{.row_begin = plan.rows,
                     .row_end = plan.rows + rows,
                     .position = position_,
                     .rule = rule_,
                     .exact = uniform(0, 1) == 0 ? exact_.data() : nullptr,
                     .kept_part = part,
                     .dropped_part = part + 1,
                     .kept_counts = kept_.counts.data(),
                     .dropped_counts = dropped_.counts.data(),
                     .lists = states_.data()};
    for (int32_t i = 0; i < kLists; ++i) {
      if (anew) begin_anew(lists_[static_cast<size_t>(i)]);
      states_[static_cast<size_t>(i)] = stocked(lists_[static_cast<size_t>(i)], i, rows);
    }
    plan.parts.push_back(kept_.part());
    plan.parts.push_back(dropped_.part());
    plan.rows += rows;
    gate.rows.push_back(rows_);
  }

  // Decides this layer's rows in the model too and holds the plan against it.
  void judge(const AttentionPlan& plan, int32_t layer, const std::vector<float>& logits) {
    for (int32_t head = 0; head < kHeads; ++head) {
      const int32_t list = layer * kHeads + head;
      List& l = lists_[static_cast<size_t>(list)];
      for (int32_t row = rows_.row_begin; row < rows_.row_end; ++row) {
        SCOPED_TRACE("list " + std::to_string(list) + " row " + std::to_string(row));
        judge_row(plan, list, row, logits[static_cast<size_t>(row * kHeads + head)]);
      }
      judge_pages(l, list);
    }
  }

  // What is known after the step: the lists' states carry over.
  void commit() {
    for (int32_t i = 0; i < kLists; ++i) {
      lists_[static_cast<size_t>(i)].state = states_[static_cast<size_t>(i)];
    }
    position_ += rows_.row_end - rows_.row_begin;
  }

  int32_t fullest() const { return fullest_; }  // steps that took all the pages they might

 private:
  static constexpr int32_t kTable = 64;  // pages that a table has room for
  struct List {
    std::vector<int32_t> kept, dropped;  // positions: the model
    GateList state;
    int32_t kept_start = 0, dropped_start = 0;  // of the tables
    std::vector<PageId> kept_pages = std::vector<PageId>(kTable, -1);
    std::vector<PageId> dropped_pages = kept_pages;
    std::vector<int32_t> positions = std::vector<int32_t>(kTable * kSlots, -1);
    std::vector<PageId> stock;
    std::vector<uint8_t> keep;
    int32_t kept_held = 0, dropped_held = 0;  // pages before the step
  };
  // What the plan reads of a table: its rows lie apart, so that each list has one of its own.
  struct Table {
    std::vector<int32_t> starts = std::vector<int32_t>(kLists), counts = starts;
    KvPart part() const { return {.starts = starts.data(), .counts = counts.data()}; }
  };

  void begin_anew(List& l) {
    const auto cut = [](std::vector<PageId>& pages, int32_t n) {
      pages.erase(pages.begin(), pages.begin() + n);
      pages.resize(kTable, -1);
    };
    const int32_t kept = l.state.kept_end / kSlots * kSlots;
    cut(l.kept_pages, (kept - l.kept_start) / kSlots);
    l.kept_start = kept;
    const int32_t dropped = l.state.visible / kSlots * kSlots;
    cut(l.dropped_pages, (dropped - l.dropped_start) / kSlots);
    l.positions.erase(l.positions.begin(), l.positions.begin() + (dropped - l.dropped_start));
    l.positions.resize(kTable * kSlots, -1);
    l.dropped_start = dropped;
  }

  GateList stocked(List& l, int32_t list, int32_t rows) {
    const int32_t kept = l.state.kept_end - l.kept_start;
    const int32_t dropped = l.state.dropped_end - l.dropped_start;
    l.kept_held = pages_for(kept);
    l.dropped_held = pages_for(dropped);
    const int32_t most = gate_pages_needed(rows, l.kept_held * kSlots - kept,
                                           l.dropped_held * kSlots - dropped, kSlots);
    l.stock.clear();
    for (int32_t i = 0; i < most; ++i) l.stock.push_back(next_page_++);
    l.keep.assign(static_cast<size_t>(rows), 77);
    const auto at = static_cast<size_t>(list);
    kept_.starts[at] = l.kept_start;
    dropped_.starts[at] = l.dropped_start;
    kept_.counts[at] = kept;
    dropped_.counts[at] = dropped;
    GateList state = l.state;
    state.kept_pages = l.kept_pages.data();
    state.dropped_pages = l.dropped_pages.data();
    state.stock = l.stock.data();
    state.stock_used = 0;
    state.stock_size = most;
    state.positions = l.positions.data();
    state.keep = l.keep.data();
    return state;
  }

  void judge_row(const AttentionPlan& plan, int32_t list, int32_t row, float logit) {
    List& l = lists_[static_cast<size_t>(list)];
    const auto i = static_cast<size_t>(row - rows_.row_begin);
    const int32_t t = position_ + static_cast<int32_t>(i);
    const bool guarded = t < rule_.sinks || (rows_.exact != nullptr && exact_[i] != 0);
    const bool kept = guarded || std::isnan(logit) || logit >= rule_.threshold;
    std::vector<int32_t>& to = kept ? l.kept : l.dropped;
    const KvTarget target{kept ? rows_.kept_part : rows_.dropped_part,
                          static_cast<int32_t>(to.size())};
    ASSERT_EQ(plan.target(list, row), target);
    to.push_back(t);
    ASSERT_EQ(l.keep[i], guarded ? kProtectedByte : kept ? keep_byte(logit) : kDroppedByte);
    // Ranges of the two lists, as positions.
    ASSERT_EQ(plan.first(list, row), 0);
    std::vector<int32_t> seen(l.kept.begin(), l.kept.begin() + plan.last(list, row));
    ASSERT_LE(plan.first_dropped(list, row), plan.last_dropped(list, row));
    ASSERT_GE(plan.first_dropped(list, row), l.dropped_start);
    seen.insert(seen.end(), l.dropped.begin() + plan.first_dropped(list, row),
                l.dropped.begin() + plan.last_dropped(list, row));
    std::sort(seen.begin(), seen.end());
    std::vector<int32_t> want;
    const std::set<int32_t> keeps(l.kept.begin(), l.kept.end());
    for (int32_t j = 0; j <= t; ++j) {
      if (j < rule_.sinks || t - j < rule_.window || keeps.contains(j)) want.push_back(j);
    }
    ASSERT_EQ(seen, want);
  }

  // Pages are handed out in order, each once, and there are as many as the lists are long.
  void judge_pages(const List& l, int32_t list) {
    const auto at = static_cast<size_t>(list);
    const GateList& state = states_[at];
    const auto kept = static_cast<int32_t>(l.kept.size()) - l.kept_start;
    const auto dropped = static_cast<int32_t>(l.dropped.size()) - l.dropped_start;
    ASSERT_EQ(kept_.counts[at], kept);
    ASSERT_EQ(dropped_.counts[at], dropped);
    ASSERT_EQ(state.kept_end, l.kept_start + kept);
    ASSERT_EQ(state.dropped_end, l.dropped_start + dropped);
    std::vector<PageId> taken;
    const auto count = [&](const std::vector<PageId>& pages, int32_t held, int32_t slots) {
      for (int32_t p = 0; p < kTable; ++p) {
        ASSERT_EQ(pages[static_cast<size_t>(p)] >= 0, p < pages_for(slots)) << "page " << p;
        if (p >= held && p < pages_for(slots)) taken.push_back(pages[static_cast<size_t>(p)]);
      }
    };
    count(l.kept_pages, l.kept_held, kept);
    count(l.dropped_pages, l.dropped_held, dropped);
    std::sort(taken.begin(), taken.end());
    ASSERT_EQ(taken, std::vector<PageId>(l.stock.begin(), l.stock.begin() + state.stock_used));
    fullest_ += state.stock_used == state.stock_size ? 1 : 0;
    for (int32_t i = 0; i < dropped; ++i) {
      ASSERT_EQ(l.positions[static_cast<size_t>(i)],
                l.dropped[static_cast<size_t>(l.dropped_start + i)]);
    }
  }

  std::mt19937& random_;
  GateRule rule_;
  std::vector<List> lists_;
  int32_t position_ = 0;
  std::vector<uint8_t> exact_;
  GateRows rows_;
  Table kept_, dropped_;
  std::vector<GateList> states_ = std::vector<GateList>(kLists);
  PageId next_page_ = 0;
  int32_t fullest_ = 0;
};

// Plans of one step: gated sequences, a row of somebody else's between any two.
struct StepPlan {
  AttentionPlan plan;
  GatePlan gate;

  StepPlan() {
    plan.kv_heads = kHeads;
    gate.plan = &plan;
    gate.page_slots = kSlots;
  }
  void add_ungated() {
    others.push_back(plan.rows);
    ++plan.rows;
  }
  void finish() {
    const auto cells = static_cast<size_t>(kLists) * static_cast<size_t>(plan.rows);
    plan.targets.assign(cells, kUntouched);
    plan.target_stride = plan.row_stride = plan.rows;
    plan.row_first.assign(cells, 0);
    plan.row_last.assign(cells, -1);
    plan.dropped_first.assign(cells, -1);
    plan.dropped_last.assign(cells, -1);
  }
  bool untouched(int32_t list, int32_t row) const {
    return plan.target(list, row) == kUntouched && plan.last(list, row) == -1 &&
           plan.first_dropped(list, row) == -1 && plan.last_dropped(list, row) == -1;
  }
  std::vector<int32_t> others;
};

void resolve_and_judge(StepPlan& step, std::deque<Sequence>& sequences, std::mt19937& random,
                       float threshold) {
  std::normal_distribution<float> normal;
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    std::vector<float> logits(static_cast<size_t>(step.plan.rows) * kHeads);
    for (float& x : logits) {
      const float special[] = {kNan, kInf, -kInf, threshold};
      const auto pick = std::uniform_int_distribution<size_t>(0, 40)(random);
      x = pick < 4 ? special[pick] : normal(random);
    }
    resolve_gate(step.gate, layer, {logits.data(), DType::kF32, {step.plan.rows, kHeads}});
    for (Sequence& sequence : sequences) sequence.judge(step.plan, layer, logits);
    for (int32_t list = 0; list < kLists; ++list) {
      for (int32_t row = 0; row < step.plan.rows; ++row) {
        const bool other = std::count(step.others.begin(), step.others.end(), row) > 0;
        ASSERT_EQ(step.untouched(list, row), other || list >= (layer + 1) * kHeads);
      }
    }
  }
}

TEST(GatePlan, EveryRowSeesWhatTheRuleSays) {
  int32_t fullest = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto uniform = [&](int32_t low, int32_t high) {
      return std::uniform_int_distribution<int32_t>(low, high)(random);
    };
    const float thresholds[] = {-kInf, -1.5f, 0.0f, 1.5f, kInf};
    const float threshold = thresholds[seed % 5];
    std::deque<Sequence> sequences;
    for (int32_t i = uniform(1, 3); i > 0; --i) {
      const GateRule rule{.threshold = threshold,
                          .window = 1 + static_cast<int32_t>((seed + 23 * sequences.size()) % 64),
                          .sinks = uniform(0, 1) == 0 ? 0 : uniform(1, 20)};
      sequences.emplace_back(random, rule);
    }
    for (int32_t step_no = 0; step_no < 8; ++step_no) {
      StepPlan step;
      for (Sequence& sequence : sequences) {
        if (uniform(0, 1) == 0) step.add_ungated();
        sequence.reserve(uniform(0, 3) == 0 ? uniform(1, 70) : uniform(1, 3), step.gate, step.plan);
      }
      step.finish();
      resolve_and_judge(step, sequences, random, threshold);
      if (testing::Test::HasFatalFailure()) return;
      for (Sequence& sequence : sequences) sequence.commit();
    }
    for (const Sequence& sequence : sequences) fullest += sequence.fullest();
  }
  EXPECT_GT(fullest, 0) << "no decision took all the pages that were held ready for it";
}

TEST(GatePlan, PagesNeededAreThoseOfTheWorstDecision) {
  for (const int32_t slots : {1, 4, 16}) {
    for (int32_t rows = 0; rows <= 3 * slots + 3; ++rows) {
      for (int32_t kept_room = 0; kept_room < slots; ++kept_room) {
        for (int32_t dropped_room = 0; dropped_room < slots; ++dropped_room) {
          int32_t worst = 0;
          for (int32_t kept = 0; kept <= rows; ++kept) {
            const auto pages = [&](int32_t n, int32_t room) {
              return (std::max(0, n - room) + slots - 1) / slots;
            };
            worst = std::max(worst, pages(kept, kept_room) + pages(rows - kept, dropped_room));
          }
          ASSERT_EQ(gate_pages_needed(rows, kept_room, dropped_room, slots), worst)
              << rows << " rows, room for " << kept_room << " and " << dropped_room;
        }
      }
    }
  }
}

TEST(GatePlan, KeepBytesGrowWithTheProbability) {
  EXPECT_EQ(keep_byte(-kInf), 2);
  EXPECT_EQ(keep_byte(0.0f), 2 + 126);
  EXPECT_EQ(keep_byte(kInf), 254);
  EXPECT_EQ(keep_byte(kNan), 254);
  std::set<uint8_t> seen;
  uint8_t before = 2;
  for (float logit = -40.0f; logit <= 40.0f; logit += 0.004f) {
    const uint8_t byte = keep_byte(logit);
    ASSERT_GE(byte, before) << logit;
    seen.insert(before = byte);
  }
  EXPECT_EQ(seen.size(), 253u);
  EXPECT_FALSE(seen.contains(kDroppedByte) || seen.contains(kThinnedByte) ||
               seen.contains(kProtectedByte));
}

TEST(GatePlan, WithoutGatedRowsNothingIsAsked) {
  GatePlan none;
  resolve_gate(none, 0, {});
  EXPECT_TRUE(none.empty());
}

}  // namespace
}  // namespace coppice::ops
