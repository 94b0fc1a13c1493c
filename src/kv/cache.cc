#include "kv/cache.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "base/check.h"

namespace coppice::kv {

Cache::Cache(PagePool pool, const KvCacheOptions& options, std::unique_ptr<ReclaimPolicy> policy)
    : lists_(options.layers * options.kv_heads),
      options_(options),
      pool_(std::move(pool)),
      page_slots_(pool_.page_slots()),
      tree_(pool_, lists_, std::move(policy)),
      planner_(lists_) {
  tree_.on_pin_moved = [this](PinId id, Node* node) { pins_.at(id).node = node; };
}

Expected<std::unique_ptr<KvCache>> KvCache::create(ops::Backend& backend,
                                                   const KvCacheOptions& options,
                                                   std::unique_ptr<ReclaimPolicy> policy) {
  CHECK(policy != nullptr);
  const auto invalid = [](const char* field, int64_t value) {
    return fail(ErrorCode::kInvalidArgument, std::string("kv cache: ") + field + " is " +
                                                 std::to_string(value) + ", must be positive");
  };
  if (options.layers <= 0) return invalid("layers", options.layers);
  if (options.kv_heads <= 0) return invalid("kv_heads", options.kv_heads);
  if (options.head_dim <= 0) return invalid("head_dim", options.head_dim);
  if (options.budget_bytes <= 0) return invalid("kv budget in bytes", options.budget_bytes);
  const int64_t lists = int64_t{options.layers} * options.kv_heads;
  if (lists > std::numeric_limits<int32_t>::max()) return invalid("layers * kv_heads", lists);
  const int64_t max_bytes = std::max(options.budget_bytes, options.max_budget_bytes);

  TRY(const ops::KvLayout layout, backend.kv_layout(options.kv_type, options.head_dim));
  if (layout.page_bytes <= 0) return invalid("page bytes of the backend", layout.page_bytes);
  const int64_t budget_pages = options.budget_bytes / layout.page_bytes;
  if (budget_pages < lists) {
    return fail(ErrorCode::kTooLarge,
                "kv budget: " + std::to_string(layout.page_slots) + " tokens need " +
                    std::to_string(lists) + " pages of " + std::to_string(layout.page_bytes) +
                    " bytes, the budget is " + std::to_string(options.budget_bytes) + " bytes");
  }
  TRY(PagePool pool,
      PagePool::create(backend, layout, budget_pages, max_bytes / layout.page_bytes));
  return std::make_unique<Cache>(std::move(pool), options, std::move(policy));
}

// ---- look

const Cache::Sequence& Cache::at(SequenceId id) const {
  const auto it = sequences_.find(id);
  CHECK(it != sequences_.end());
  return it->second;
}

Cache::Sequence& Cache::at(SequenceId id) {
  return const_cast<Sequence&>(std::as_const(*this).at(id));
}

MatchInfo Cache::match(const Scope& scope, std::span<const TokenId> tokens) const {
  Node* root = tree_.root(scope);
  if (root == nullptr) return {};
  if (root->tier != nullptr) {
    const PrefixTree::Start start = tree_.last_start(root, tokens, PrefixTree::Count::kHeld);
    int32_t epoch = 0;
    for (const Node* node = start.node; node != nullptr; node = node->parent) {
      epoch = std::max(epoch, node->epoch);
    }
    return {start.length, tree_.last_start(root, tokens, PrefixTree::Count::kPlanned).length,
            epoch};
  }
  return {tree_.longest(root, tokens, PrefixTree::Count::kHeld).length,
          tree_.longest(root, tokens, PrefixTree::Count::kPlanned).length};
}

Progress Cache::progress(SequenceId id) const {
  const Sequence& sequence = at(id);
  const Frontier f = frontier(id, sequence);
  return {static_cast<int64_t>(sequence.tokens.size()), f.reach, f.blocked};
}

KvStats Cache::stats() const {
  KvStats s;
  s.pages_total = pool_.budget();
  s.pages_free = std::max<int64_t>(0, pool_.room());
  s.page_bytes = pool_.page_bytes();
  s.bytes_held = pool_.held() * pool_.page_bytes();
  s.bytes_reclaimable = tree_.reclaimable() * pool_.page_bytes();
  s.bytes_per_token = lists_ * ops::kv_slot_bytes(options_.kv_type, options_.head_dim);
  s.nodes = tree_.nodes();
  s.live_sequences = static_cast<int64_t>(sequences_.size());
  s.pins = static_cast<int64_t>(pins_.size());
  s.expiring_pins = std::ranges::count_if(
      pins_, [](const auto& pin) { return std::isfinite(pin.second.expires); });
  for (const auto& [scope, root] : tree_.roots()) s.references += root->references();
  s.tokens_held = tree_.tokens_held();
  s.tokens_reclaimed = tree_.tokens_reclaimed();
  s.tokens_copied = tokens_copied_;
  s.overlays = static_cast<int64_t>(tree_.queued_overlays());
  s.overlays_freed = tree_.overlays_freed();
  s.tokens_thinned = tree_.tokens_thinned();
  s.pages_thinned = tree_.pages_thinned();
  return s;
}

// ---- live sequences

SequenceId Cache::open(const Scope& scope, std::span<const TokenId> tokens,
                       const OpenOptions& options) {
  CHECK(!planned_ && !tokens.empty());
  CHECK(tokens.size() < static_cast<size_t>(std::numeric_limits<int32_t>::max()));
  const SequenceId id = ++last_sequence_;
  Sequence& sequence = sequences_[id];
  sequence.tokens.assign(tokens.begin(), tokens.end());
  sequence.shareable = static_cast<int64_t>(tokens.size()) - 1;
  if (options.tier == nullptr) {
    sequence.tail = place(scope, tokens, id);
    return id;
  }
  sequence.tier = std::make_shared<const Tier>(*options.tier);
  sequence.boundaries.assign(options.boundaries.begin(), options.boundaries.end());
  sequence.prompt = options.prompt > 0 ? options.prompt : std::ssize(tokens);
  place_gated(scope, id, sequence);
  return id;
}

// The new tail: under the last full page in common, or an unowned leaf that ends inside `tokens`.
Node* Cache::place(const Scope& scope, std::span<const TokenId> tokens, SequenceId id) {
  Node* root = tree_.make_root(scope);
  const PrefixTree::Reach reach =
      tree_.longest(root, tokens.first(tokens.size() - 1), PrefixTree::Count::kPlanned);
  Node* branch = reach.node;
  Node* leaf = nullptr;
  if (!branch->is_root()) {
    const int64_t inside = reach.length - branch->start;
    const bool whole = inside == branch->size() && branch->owner == 0;
    if (whole && branch->children.empty()) {
      leaf = branch;
    } else if (!whole) {
      const int64_t at = inside / page_slots_ * page_slots_;
      branch = at > 0 ? tree_.split(branch, at) : branch->parent;
    }
  }
  if (leaf == nullptr && reach.length > branch->end()) {
    leaf = tree_.unowned_leaf(branch,
                              tokens.subspan(static_cast<size_t>(branch->end()),
                                             static_cast<size_t>(reach.length - branch->end())));
  }
  if (leaf == nullptr) {
    return tree_.add_child(branch, tokens.subspan(static_cast<size_t>(branch->end())), id);
  }
  tree_.own(leaf, id);
  for (size_t i = static_cast<size_t>(leaf->end()); i < tokens.size(); ++i) {
    tree_.append(leaf, tokens[i]);
  }
  return leaf;
}

SequenceId Cache::fork(SequenceId id) {
  CHECK(!planned_);
  const Sequence& original = at(id);
  const Frontier from = frontier(id, original);
  const SequenceId fork_id = ++last_sequence_;
  Sequence& fork = sequences_[fork_id];
  fork.tokens = original.tokens;
  fork.shareable =
      from.node == nullptr ? static_cast<int64_t>(fork.tokens.size()) : original.shareable;
  if (original.tier != nullptr) {
    fork_gated(original, fork_id, fork);
    return fork_id;
  }

  Node* branch = original.tail;
  while (!branch->is_root() && branch->start > fork.shareable) branch = branch->parent;
  const int64_t at = (fork.shareable - branch->start) / page_slots_ * page_slots_;
  branch = at > 0 ? tree_.split(branch, at) : branch->parent;
  fork.tail = tree_.add_child(
      branch, std::span(fork.tokens).subspan(static_cast<size_t>(branch->end())), fork_id);

  // The partial page is copied now if there is room, or when the fork first reserves.
  if (from.node == nullptr && fork.tail->size() > 0) copy_first_page(fork_id, fork);
  return fork_id;
}

void Cache::append(SequenceId id, TokenId token) {
  Sequence& sequence = at(id);
  CHECK(sequence.tokens.size() < static_cast<size_t>(std::numeric_limits<int32_t>::max()) - 1);
  sequence.shareable = static_cast<int64_t>(sequence.tokens.size());
  sequence.tokens.push_back(token);
  tree_.append(sequence.tail, token);
}

void Cache::close(SequenceId id) {
  CHECK(!planned_);
  Sequence& sequence = at(id);
  if (sequence.rows > 0) {
    release_rows(sequence);
    std::erase(reserved_, id);
  }
  Node* tail = sequence.tail;
  sequences_.erase(id);
  tree_.release(tail, clock_);
  tree_.make_room(0);  // a shrunken budget takes what this freed
}

// ---- room

int64_t Cache::worst_case_bytes(int64_t total_tokens, const OpenOptions& options) const {
  if (options.tier != nullptr) {
    const int64_t own = options.tier->decode_gate ? 1 : 2;  // at the prompt's end
    return gated_pages(*options.tier, total_tokens, std::ssize(options.boundaries) + own) *
           pool_.page_bytes();
  }
  return columns_for(total_tokens, page_slots_) * lists_ * pool_.page_bytes();
}

bool Cache::admit(SequenceId id, int64_t total_tokens) {
  Sequence& sequence = at(id);
  if (total_tokens > std::numeric_limits<int32_t>::max()) return false;  // no sequence is so long
  const int64_t before = sequence.promised;
  sequence.promised = std::max(total_tokens, static_cast<int64_t>(sequence.tokens.size()));
  if (owed_pages() <= tree_.room()) return true;
  sequence.promised = before;
  return false;
}

int64_t Cache::overpromised_pages() { return std::max<int64_t>(0, owed_pages() - tree_.room()); }

// What admitted sequences may still take: each its tail up to the promise, and what is missing of
// nodes being written above them, once.
int64_t Cache::owed_pages() {
  ++admission_mark_;
  int64_t pages = 0;
  for (const auto& [id, sequence] : sequences_) {
    if (sequence.promised == 0) continue;
    pages += owed_for(sequence, sequence.tail);
    for (Node* node = sequence.tail->parent; !node->complete(); node = node->parent) {
      if (node->admission_mark == admission_mark_) break;
      node->admission_mark = admission_mark_;
      pages += owed_for(sequence, node);
    }
  }
  return pages;
}

// What a sequence's promise still makes a node of its path come to take.
int64_t Cache::owed_for(const Sequence& sequence, const Node* node) const {
  const int64_t end = node == sequence.tail ? sequence.promised : node->end();
  if (sequence.tier != nullptr) return owed_gated(sequence, node, end);
  const int64_t columns = columns_for(std::max<int64_t>(0, end - node->start), page_slots_);
  return std::max<int64_t>(0, columns - node->pages.columns()) * lists_;
}

bool Cache::set_budget(int64_t bytes) {
  CHECK(!planned_);
  const int64_t pages = std::max<int64_t>(0, bytes) / pool_.page_bytes();
  pool_.set_budget(std::min(pages, pool_.max_budget()));
  return tree_.make_room(0);
}

void Cache::flush() {
  CHECK(!planned_);
  tree_.reclaim_all();
}

// ---- pins

KvCache::Pin Cache::pin(const Scope& scope, std::span<const TokenId> tokens, double ttl_seconds) {
  CHECK(!planned_);
  Node* root = tree_.root(scope);
  if (root == nullptr) return {};
  PrefixTree::Reach reach;
  if (root->tier != nullptr) {
    const PrefixTree::Start start = tree_.last_start(root, tokens, PrefixTree::Count::kHeld);
    reach = {start.length > 0 ? tree_.cut(start, clock_) : root, nullptr, start.length};
  } else {
    reach = tree_.longest(root, tokens, PrefixTree::Count::kHeld);
  }
  if (reach.length == 0) return {};
  const PinId id = ++last_pin_;
  pins_[id] = {reach.node,
               ttl_seconds > 0 ? now_ + ttl_seconds : std::numeric_limits<double>::infinity()};
  tree_.pin(reach.node, {id, reach.length});
  return {id, reach.length};
}

bool Cache::unpin(PinId id) {
  CHECK(!planned_);
  const auto pin = pins_.find(id);
  if (pin == pins_.end()) return false;
  Node* node = pin->second.node;
  pins_.erase(pin);
  tree_.unpin(node, id);
  tree_.make_room(0);
  return true;
}

void Cache::expire(double now_seconds) {
  CHECK(!planned_);
  now_ = now_seconds;
  for (auto pin = pins_.begin(); pin != pins_.end();) {
    const PinId id = pin->first;
    const bool over = pin->second.expires <= now_seconds;
    ++pin;
    if (over) unpin(id);
  }
}

}  // namespace coppice::kv
