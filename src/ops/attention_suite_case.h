// What:    a forest with its keys and values both in a subject's pages and as plain arrays, so that
//          what the subject answers can be held against float64.
// Owns:    the pages, the arrays and the queries.
// Threads: one.
// Fails:   running out of pages is a CHECK.
//
// Every byte of a page that no slot was written to holds a large finite number; every page that is
// in no list holds NaN.
#pragma once

#include <map>
#include <memory>
#include <random>
#include <vector>

#include "ops/attention_cases.h"
#include "ops/attention_subjects.h"

namespace coppice::ops {

struct Shape3 {
  int32_t layers = 1, kv_heads = 2, group = 4, dim = 64;
  DType type = DType::kBF16;
  int32_t lists() const { return layers * kv_heads; }
};

enum class Data { kOrdinary, kLargeKeys, kEqualScores };

class Case {
 public:
  Case(Subject& subject, const Shape3& shape, Data data, uint32_t seed, int32_t pages = 1200);

  Forest& forest() { return *forest_; }
  DType type() const { return shape_.type; }
  std::mt19937& random() { return random_; }
  int32_t uniform(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }

  int32_t add_node(int32_t parent, std::vector<int32_t> counts);
  int32_t add_dropped(std::vector<int32_t> starts, std::vector<int32_t> counts);
  // Writes NaN keys and infinite values over slot `slot` of a node, in every list. expected() does
  // not know it.
  void spoil(int32_t node, int32_t slot);
  // Queries are made when all sequences are known; rounded to bf16, the common ground of all ISAs.
  void make_queries();

  // [sequence][row, head, d], whatever the plan's order.
  using Output = std::vector<std::vector<float>>;
  Output run(Subject& subject, const CasePlan& made, const AttentionParams& params) const;
  Output run(const CasePlan& made, const AttentionParams& params) const {
    return run(subject_, made, params);
  }
  // The same in float64, from the values as the page type holds them, or from those written.
  enum class Values { kStored, kWritten };
  Output expected(const AttentionParams& params, Values values = Values::kStored) const;

 private:
  struct Slots {
    std::vector<float> k, v;  // [count, D]
  };
  using AllSlots = std::map<std::pair<int32_t, int32_t>, Slots>;  // by node and list

  struct Visible {
    std::vector<const float*> k, v;  // [D] of every slot
  };
  // Slots [first, last) of a node's list, as far as it holds them.
  void collect(const AllSlots& all, int32_t node, int32_t list, int32_t first, int32_t last,
               Visible& visible) const;
  Visible visible(const AllSlots& all, const ForestSequence& s, int32_t row, int32_t list,
                  int32_t window) const;
  void attend(const Visible& visible, const float* q, double scale, std::vector<float>& rows) const;
  // Fills a list's pages: what is copied through copy_slots, the rest through write_kv, as a plan
  // of one head whose rows are the slots.
  void write_list(int32_t node, int32_t list);
  void copy_list(int32_t node, int32_t list, int32_t slots);
  // Writes k, v [n, D] over n slots of a list from `slot` on, counted inside the node.
  void write_slots(int32_t node, int32_t list, int32_t slot, const std::vector<float>& k,
                   const std::vector<float>& v);
  void draw_slot(std::vector<float>& k, std::vector<float>& v);

  Subject& subject_;
  Shape3 shape_;
  Data data_;
  std::mt19937 random_;
  Buffer memory_;
  std::unique_ptr<Forest> forest_;
  AllSlots stored_, written_;
  std::vector<std::vector<float>> queries_;
};

// What stands where nothing was written: a large finite number.
void fill_unwritten(std::byte* page, const KvLayout& layout);
// What pages of a type hold of x [n, D], a row a slot's key or value of one head.
std::vector<float> as_stored(DType type, int32_t dim, const std::vector<float>& x);
AttentionParams params_for(const Shape3& shape, int32_t layer = 0, int32_t window = 0);
double relative_error(const Case::Output& got, const Case::Output& want);
bool same_bits(const Case::Output& a, const Case::Output& b);

}  // namespace coppice::ops
