// A step of the cache: who may go on, which pages its rows take, the plan, the commit.
#include <algorithm>

#include "base/check.h"
#include "kv/cache.h"

namespace coppice::kv {
namespace {

SequenceId oldest_at_or_below(const Node* node) {
  SequenceId oldest = node->owner != 0 ? node->owner : UINT64_MAX;
  for (const auto& child : node->children) {
    oldest = std::min(oldest, oldest_at_or_below(child.get()));
  }
  return oldest;
}

}  // namespace

// ---- who may go on

// Someone older is about to compute more of these tokens, beside `node`, than are held.
bool Cache::waits_for_elders(const Node* node, const Sequence& sequence, int64_t reach) const {
  if (node->computed >= page_slots_ || reach >= sequence.shareable) return false;
  const auto tokens = std::span(sequence.tokens).first(static_cast<size_t>(sequence.shareable));
  return tree_.longest(node->parent, tokens, PrefixTree::Count::kPlanned, node, node->age).length >
         reach;
}

Cache::Frontier Cache::frontier(SequenceId id, const Sequence& sequence) const {
  Frontier f;
  for (Node* node = sequence.tail; !node->is_root(); node = node->parent) {
    if (!node->complete()) {
      f.node = node;
    } else if (node->size() > 0) {
      break;  // so is all above
    }
  }
  if (f.node == nullptr) {
    f.reach = static_cast<int64_t>(sequence.tokens.size());
    return f;
  }
  f.reach = f.node->computed_end();
  if (sequence.tier != nullptr) {
    f.blocked = f.node != sequence.tail && oldest_at_or_below(f.node) != id;
    return f;
  }
  if (f.node->computed < page_slots_ && f.reach < sequence.shareable) {
    const auto tokens = std::span(sequence.tokens).first(static_cast<size_t>(sequence.shareable));
    f.held = tree_.longest(f.node->parent, tokens, PrefixTree::Count::kHeld, f.node);
    f.reach = std::max(f.reach, f.held.length);
  }
  f.blocked = (f.node != sequence.tail && oldest_at_or_below(f.node) != id) ||
              waits_for_elders(f.node, sequence, f.reach);
  return f;
}

// ---- reserve

std::optional<int32_t> Cache::reserve(SequenceId id, int32_t n) {
  Sequence& sequence = at(id);
  CHECK(!planned_ && n >= 1 && sequence.rows == 0);
  Frontier f = frontier(id, sequence);
  CHECK(f.reach < static_cast<int64_t>(sequence.tokens.size()));
  if (f.blocked) return std::nullopt;
  if (sequence.tier != nullptr) return reserve_gated(id, sequence, f, n);
  Node* source = bring_in(id, sequence, f);
  if (f.blocked) return std::nullopt;

  // A leaf that ends here and that nobody uses need not be copied.
  if (source != nullptr && source->size() == f.reach - f.node->start &&
      steal(sequence, f, source)) {
    source = nullptr;
  }
  int32_t rows = take_rows(sequence, f, source, n);
  if (rows == 0 && source != nullptr && steal(sequence, f, source)) {
    rows = take_rows(sequence, f, nullptr, n);
  }
  if (rows == 0) return std::nullopt;
  sequence.position = f.reach;
  sequence.rows = rows;
  reserved_.push_back(id);
  return rows;
}

Node* Cache::bring_in(SequenceId id, const Sequence& sequence, Frontier& f) {
  while (f.held.length >= f.node->start + page_slots_) {
    Node* beside = f.held.child;
    const int64_t shared =
        std::min({f.held.length - f.node->start, beside->computed, f.node->size()});
    tree_.join(f.node, beside, shared / page_slots_ * page_slots_);
    f = frontier(id, sequence);
  }
  return f.reach > f.node->computed_end() ? f.held.node : nullptr;
}

int32_t Cache::take_rows(const Sequence& sequence, const Frontier& f, Node* source, int32_t n) {
  if (source != nullptr) tree_.add_pinned(source, +1);  // making room must not reclaim it
  int32_t rows = want(sequence, f, n);
  while (rows > 0 && !take_wanted(sequence)) {
    const int64_t end = f.reach + rows;  // try one page less
    rows =
        static_cast<int32_t>(std::max<int64_t>(0, (end - 1) / page_slots_ * page_slots_ - f.reach));
    rows = rows > 0 ? want(sequence, f, rows) : 0;
  }
  want_nothing();
  if (source != nullptr) {
    if (rows > 0) copy_slots(f.node, source, f.reach - f.node->start);
    tree_.add_pinned(source, -1);
  }
  return rows;
}

int32_t Cache::want(const Sequence& sequence, const Frontier& f, int32_t n) {
  want_nothing();
  for (Node* node = sequence.tail; node != f.node; node = node->parent) path_.push_back(node);
  path_.push_back(f.node);
  std::reverse(path_.begin(), path_.end());
  int64_t position = f.reach;
  const int64_t end = position + n;
  for (Node* node : path_) {
    if (node != f.node && waits_for_elders(node, sequence, node->start)) break;
    position = std::min(end, node->end());
    if (position <= node->start) continue;
    const int64_t columns = columns_for(position - node->start, page_slots_);
    node->wanted_columns = std::max<int64_t>(0, columns - node->pages.columns());
  }
  return static_cast<int32_t>(position - f.reach);
}

void Cache::want_nothing() {
  for (Node* node : path_) node->wanted_columns = 0;
  path_.clear();
}

// May so many pages be taken, `promised` of which were promised to their taker? Those always; more
// only from what nobody was promised, and only then is everybody asked what that is.
bool Cache::leaves_promises(int64_t pages, int64_t promised) {
  const int64_t room = tree_.room();
  return pages <= room && (pages <= promised || owed_pages() - promised <= room - pages);
}

// Of so many pages that a sequence would take for a node of its path, what owed_pages() counts for
// that node: promised to the sequence itself or, above its tail, to one that waits for it there.
int64_t Cache::promised_of(const Sequence& sequence, const Node* node, int64_t pages) const {
  const bool counted = sequence.promised > 0 || (node != sequence.tail && promised_below(node));
  return counted ? std::min(pages, owed_for(sequence, node)) : 0;
}

bool Cache::promised_below(const Node* node) const {
  if (node->owner != 0) return at(node->owner).promised > 0;
  return std::ranges::any_of(node->children,
                             [this](const auto& child) { return promised_below(child.get()); });
}

// The page of an unreferenced leaf moves to the frontier, in place of a copy.
bool Cache::steal(const Sequence& sequence, const Frontier& f, Node* source) {
  if (source->references() > 0 || !source->children.empty() || f.node->pages.columns() > 0 ||
      !leaves_promises(lists_, promised_of(sequence, f.node, lists_))) {
    return false;
  }
  tree_.steal(f.node, source, f.reach - f.node->start);
  return true;
}

bool Cache::take_wanted(const Sequence& sequence) {
  int64_t pages = 0, promised = 0;
  for (const Node* node : path_) {
    const int64_t more = node->wanted_columns * lists_;
    pages += more;
    promised += promised_of(sequence, node, more);
  }
  if (pages > 0) {
    if (!leaves_promises(pages, promised)) return false;
    CHECK(tree_.make_room(pages));
  }
  for (Node* node : path_) {
    if (node->wanted_columns > 0) tree_.add_columns(node, node->wanted_columns);
    node->wanted_columns = 0;
  }
  return true;
}

void Cache::copy_first_page(SequenceId id, const Sequence& sequence) {
  const Frontier f = frontier(id, sequence);
  Node* source = f.held.node;
  tree_.add_pinned(source, +1);
  path_.push_back(f.node);
  f.node->wanted_columns = 1;
  if (take_wanted(sequence)) copy_slots(f.node, source, f.reach - f.node->start);
  want_nothing();
  tree_.add_pinned(source, -1);
}

void Cache::copy_slots(Node* node, const Node* from, int64_t slots) {
  for (int32_t list = 0; list < lists_; ++list) {
    pool_.backend().copy_slots(pool_.arena(), from->pages.at(list, 0), 0, node->pages.at(list, 0),
                               0, static_cast<int32_t>(slots));
  }
  tokens_copied_ += slots - node->computed;
  tree_.advance(node, slots - node->computed);
}

// ---- plan, commit, abandon

Step& Cache::plan(Partition partition) {
  reservations_.clear();
  for (SequenceId id : reserved_) {
    const Sequence& s = at(id);
    reservations_.push_back(
        {id, s.tail,
         std::span(s.tokens).subspan(static_cast<size_t>(s.position), static_cast<size_t>(s.rows)),
         s.position, s.rows});
  }
  planner_.plan(reservations_, partition, options_.kv_heads, step_);
  describe_gate();
  planned_ = true;
  return step_;
}

void Cache::commit() {
  CHECK(planned_);
  for (SequenceId id : reserved_) {
    const Sequence& s = at(id);
    if (s.tier != nullptr) continue;
    for (Node* node = s.tail; !node->is_root(); node = node->parent) {
      const int64_t from = std::max(s.position, node->start);
      const int64_t to = std::min(s.position + s.rows, node->end());
      if (from >= to) continue;
      CHECK(from == node->computed_end());
      tree_.advance(node, to - from);
    }
  }
  commit_gated();
  for (SequenceId id : reserved_) {
    Sequence& s = at(id);
    s.rows = 0;
    if (s.tier == nullptr) tree_.settle(s.tail);
  }
  end_step();
}

void Cache::abandon() {
  for (SequenceId id : reserved_) release_rows(at(id));
  end_step();
}

void Cache::end_step() {
  reserved_.clear();
  planned_ = false;
  ++clock_;
}

void Cache::release_rows(Sequence& sequence) {
  if (sequence.tier != nullptr) return abandon_gated(sequence);
  for (Node* node = sequence.tail; !node->is_root(); node = node->parent) {
    if (node->start < sequence.position + sequence.rows && node->end() > sequence.position) {
      tree_.drop_unused_columns(node);
    }
  }
  sequence.rows = 0;
}

}  // namespace coppice::kv
