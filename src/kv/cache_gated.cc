// Sequences of gated scopes: where they start, what they may take, how their runs end.
#include <algorithm>
#include <limits>

#include "base/check.h"
#include "kv/cache.h"

namespace coppice::kv {
namespace {

// A boundary is left at every multiple, for whoever parts anywhere.
constexpr int64_t kBoundaryGrid = 512;

}  // namespace

// ---- starting

// What may come from others: of generated tokens that no gate drops, nothing.
std::span<const TokenId> Cache::joinable(const Sequence& s, int64_t shareable) {
  const int64_t end = s.tier->decode_gate ? shareable : std::min(shareable, s.prompt);
  return std::span(s.tokens).first(static_cast<size_t>(end));
}

void Cache::place_gated(const Scope& scope, SequenceId id, Sequence& s) {
  CHECK(s.tier->rule.window >= 1 && s.tier->rule.window <= ops::kFoldRange);
  Node* root = tree_.make_root(scope);
  if (root->children.empty()) root->tier = s.tier;
  CHECK(root->tier != nullptr && *root->tier == *s.tier);
  s.tier = root->tier;
  const std::span<const TokenId> tokens(s.tokens);
  Node* branch = tree_.cut(
      tree_.last_start(root, joinable(s, std::ssize(tokens) - 1), PrefixTree::Count::kPlanned),
      clock_);
  const auto rest = tokens.subspan(static_cast<size_t>(branch->end()));
  for (const int64_t at : tree_.partings(branch, rest)) s.boundaries.push_back(at);
  // A request that repeats the prompt evaluates its last token alone.
  const auto total = std::ssize(s.tokens);
  s.boundaries.push_back(s.prompt - 1);
  if (!s.tier->decode_gate) s.boundaries.push_back(s.prompt);
  std::erase_if(s.boundaries, [&](int64_t at) { return at <= 0 || at > total; });
  std::ranges::sort(s.boundaries);
  s.boundaries.erase(std::unique(s.boundaries.begin(), s.boundaries.end()), s.boundaries.end());
  s.tail = tree_.add_tail(branch, rest, id, s.tier->decode_gate ? INT64_MAX : s.prompt);
}

void Cache::fork_gated(const Sequence& original, SequenceId fork_id, Sequence& fork) {
  fork.tier = original.tier;
  fork.boundaries = original.boundaries;
  fork.prompt = original.prompt;
  Node* branch = original.tail->parent;
  if (fork.shareable == std::ssize(fork.tokens)) {
    if (original.tail->size() > 0) branch = tree_.graft_twins(tree_.seal(original.tail, clock_));
  } else {
    Node* root = original.tail;
    while (!root->is_root()) root = root->parent;
    branch = tree_.cut(
        tree_.last_start(root, joinable(fork, fork.shareable), PrefixTree::Count::kPlanned),
        clock_);
  }
  fork.tail =
      tree_.add_tail(branch, std::span(fork.tokens).subspan(static_cast<size_t>(branch->end())),
                     fork_id, fork.tier->decode_gate ? INT64_MAX : fork.prompt);
}

// ---- boundaries

bool Cache::is_boundary(const Sequence& s, int64_t position) const {
  if (std::ranges::binary_search(s.boundaries, position)) return true;
  return position % kBoundaryGrid == 0 && (s.tier->decode_gate || position < s.prompt);
}

int64_t Cache::next_boundary(const Sequence& s, int64_t position) const {
  const auto hint = std::ranges::upper_bound(s.boundaries, position);
  int64_t next = (position / kBoundaryGrid + 1) * kBoundaryGrid;
  if (hint != s.boundaries.end()) next = std::min(next, *hint);
  return next;
}

// ---- room

// Every list: what is kept, at worst all of it; the dropped that a window still sees, once where a
// run ends and once where the next begins; and a page that the next run cannot share, per boundary.
int64_t Cache::gated_pages(const Tier& tier, int64_t tokens, int64_t boundaries) const {
  if (tokens <= 0) return 0;
  const int64_t runs = boundaries + tokens / kBoundaryGrid + 1;
  const int64_t tail = columns_for(tier.rule.window - 1, page_slots_) + 1;
  const int64_t bytes = tokens * lists_ + (runs + 1) * tier.memory_floats * int64_t{sizeof(float)};
  return lists_ * (columns_for(tokens, page_slots_) + 2 + 2 * tail + runs) +
         pool_.pages_for(bytes) + 2;
}

int64_t Cache::owed_gated(const Sequence& s, const Node* node, int64_t end) const {
  const int64_t from = node->computed_end();
  if (end <= from) return 0;
  const GatedRun* run = node->gated.get();
  const int64_t stock = run != nullptr ? std::ssize(run->stock) : 0;
  const auto ahead =
      std::ranges::upper_bound(s.boundaries, end) - std::ranges::upper_bound(s.boundaries, from);
  int64_t pages = gated_pages(*s.tier, end - from, ahead);
  // Inside a run that goes on no boundary costs anything.
  if (run != nullptr && stock == 0 && next_boundary(s, from) >= end) {
    pages = tree_.runs().pages_for(run, nullptr, static_cast<int32_t>(end - from)) +
            pool_.pages_for((end - from) * lists_) + 1;
  }
  return std::max<int64_t>(0, pages - stock);
}

int64_t Cache::pages_for(const Node* node, int32_t rows) const {
  const GatedRun* run = node->gated.get();
  const GatedRun* parent = node->parent->gated.get();
  int64_t bytes = int64_t{rows} * lists_;
  if (run == nullptr) bytes += node->tier->memory_floats * int64_t{sizeof(float)};
  return (run == nullptr ? tree_.runs().pages_to_start(parent) : 0) +
         tree_.runs().pages_for(run, parent, rows) + pool_.pages_for(bytes) + 1;
}

// ---- a step

std::optional<int32_t> Cache::reserve_gated(SequenceId id, Sequence& s, const Frontier& f,
                                            int32_t n) {
  Node* node = f.node;
  const int64_t limit = std::min(node->end(), next_boundary(s, f.reach));
  int32_t rows = static_cast<int32_t>(std::min<int64_t>(n, limit - f.reach));
  int64_t promised = 0;
  if (s.promised > 0) {
    for (const Node* on = s.tail; on != node->parent; on = on->parent) promised += owed_for(s, on);
  }
  for (; rows > 0; rows /= 2) {
    const int64_t pages = pages_for(node, rows);
    if (!leaves_promises(pages, std::min(pages, promised))) continue;
    CHECK(tree_.make_room(pages));
    break;
  }
  if (rows == 0) return std::nullopt;
  if (node->gated == nullptr) tree_.start_run(node);
  tree_.runs().stock_up(*node->gated, rows);
  tree_.refresh_gated(node);
  s.position = f.reach;
  s.rows = rows;
  reserved_.push_back(id);
  return rows;
}

Node* Cache::written_node(const Sequence& s) const {
  Node* node = s.tail;
  while (node->start >= s.position + s.rows) node = node->parent;
  return node;
}

// Completes the plan's gated rows: their lists, and where the decisions go.
void Cache::describe_gate() {
  ops::GatePlan& gate = step_.gate;
  if (gate.empty()) return;
  gate.page_slots = page_slots_;
  const auto lists = static_cast<size_t>(lists_);
  const auto rows = static_cast<size_t>(step_.plan.rows);
  gate_lists_.resize(gate.rows.size() * lists);
  counts_before_.resize(gate_lists_.size());
  dropped_before_.resize(gate_lists_.size());
  keep_.resize(rows * lists);
  exact_.assign(rows, 0);
  for (size_t i = 0; i < gate.rows.size(); ++i) {
    ops::GateRows& slice = gate.rows[i];
    GatedRun& run = *planner_.gated_nodes()[i]->gated;
    const int32_t n = slice.row_end - slice.row_begin;
    slice.kept_counts = run.counts.data();
    slice.dropped_counts = run.dropped_counts.data();
    slice.lists = gate_lists_.data() + i * lists;
    slice.exact = exact_.data() + slice.row_begin;
    slice.memory = run.memory.empty() ? nullptr : run.memory.data();
    std::ranges::copy(run.counts, counts_before_.begin() + static_cast<ptrdiff_t>(i * lists));
    std::ranges::copy(run.dropped_counts,
                      dropped_before_.begin() + static_cast<ptrdiff_t>(i * lists));
    tree_.runs().describe(run, n, {slice.lists, lists},
                          keep_.data() + static_cast<size_t>(slice.row_begin) * lists);
  }
  for (const Slice& slice : step_.slices) {
    const Sequence& s = at(slice.sequence);
    if (s.tier == nullptr) continue;
    for (int32_t row = slice.row_begin; row < slice.row_end; ++row) {
      const auto position = static_cast<size_t>(slice.position + (row - slice.row_begin));
      exact_[static_cast<size_t>(row)] = (s.tokens[position] & kExactToken) != 0 ? 1 : 0;
    }
    if (s.tier->decode_gate || slice.position < s.prompt) continue;
    const auto rows_of = [&](const ops::GateRows& r) { return r.row_begin == slice.row_begin; };
    std::ranges::find_if(gate.rows, rows_of)->rule.threshold =
        -std::numeric_limits<float>::infinity();
  }
}

void Cache::commit_gated() {
  const auto lists = static_cast<size_t>(lists_);
  for (size_t i = 0; i < step_.gate.rows.size(); ++i) {
    const ops::GateRows& slice = step_.gate.rows[i];
    Node* node = planner_.gated_nodes()[i];
    const int32_t rows = slice.row_end - slice.row_begin;
    tree_.runs().commit(*node->gated, rows, {slice.lists, lists});
    tree_.advance(node, rows);
  }
  for (SequenceId id : reserved_) {
    Sequence& s = at(id);
    if (s.tier != nullptr) seal_gated(s, written_node(s));
  }
  step_.gate.rows.clear();
}

void Cache::seal_gated(Sequence& s, Node* node) {
  // Another's, sealed just before, may have become this one's too.
  if (node->gated->tail != GatedRun::Tail::kWorking) return;
  const bool inner = node != s.tail && node->complete();
  if (!inner && !is_boundary(s, node->computed_end())) return;
  tree_.graft_twins(tree_.seal(node, clock_));
}

Cache::Counts Cache::counts_before(const Node* node) const {
  if (!planned_ || node->gated->reserved == 0) {
    return {node->gated->counts, node->gated->dropped_counts};
  }
  const auto lists = static_cast<size_t>(lists_);
  const auto nodes = planner_.gated_nodes();
  const auto at = static_cast<size_t>(std::ranges::find(nodes, node) - nodes.begin()) * lists;
  return {std::span(counts_before_).subspan(at, lists),
          std::span(dropped_before_).subspan(at, lists)};
}

void Cache::abandon_gated(Sequence& s) {
  Node* node = written_node(s);
  const Counts counts = counts_before(node);
  tree_.runs().abandon(*node->gated, s.rows, counts.kept, counts.dropped);
  tree_.refresh_gated(node);
  s.rows = 0;
}

// ---- look

KvCache::Footprint Cache::footprint(SequenceId id) const {
  const Sequence& s = at(id);
  Footprint out;
  out.keep_ratio.assign(static_cast<size_t>(options_.layers), 1.0);
  int64_t tokens = 0, pages = 0;
  const Node* last = nullptr;  // the deepest run: its lists count the whole path's slots
  for (const Node* node = s.tail; !node->is_root(); node = node->parent) {
    pages += node->held_pages();
    tokens += node->computed;
    if (node->gated == nullptr) continue;
    if (node->epoch > 0) out.thinned.push_back({node->start, node->end(), node->epoch});
    out.bytes += node->gated->charged;
    if (last == nullptr) last = node;
  }
  std::ranges::reverse(out.thinned);
  out.bytes += pages * pool_.page_bytes();
  if (last == nullptr || tokens == 0) return out;
  const double all = static_cast<double>(tokens) * options_.kv_heads;
  for (int32_t layer = 0; layer < options_.layers; ++layer) {
    int64_t kept = 0;
    for (int32_t head = 0; head < options_.kv_heads; ++head) {
      kept += last->gated->kept_end(layer * options_.kv_heads + head);
    }
    out.keep_ratio[static_cast<size_t>(layer)] = static_cast<double>(kept) / all;
  }
  return out;
}

}  // namespace coppice::kv
