// The invariants of prefix_tree.h, by number.
#include <algorithm>
#include <string>
#include <unordered_map>

#include "base/check.h"
#include "kv/cache.h"

namespace coppice::kv {
namespace {

void invariant(int number, bool holds, int line = __builtin_LINE()) {
  if (holds) return;
  const std::string text = "kv cache: invariant " + std::to_string(number) + " is broken";
  check_failed(text.c_str(), __FILE__, line);
}

bool on_path(const Node* node, const Node* below) {
  for (; below != nullptr; below = below->parent) {
    if (below == node) return true;
  }
  return false;
}

}  // namespace

struct Cache::Recount {
  std::vector<bool> page_seen;
  std::unordered_map<const Node*, int64_t> reserved;  // slots, by the node that will hold them
  std::unordered_map<const Node*, int32_t> live, pinned;
  int64_t pages = 0;
  int64_t nodes = 0;
  int64_t tokens = 0;
  int64_t reclaimable_pages = 0;
  int64_t reclaimable_bytes = 0;
  int64_t overlay_pages = 0;
  int64_t charged = 0;
  size_t queued = 0;
  size_t overlays = 0;
  size_t owners = 0;
};

void Cache::check_invariants() const {
  Recount recount;
  for (const auto& [id, s] : sequences_) {
    for (const Node* n = s.tail; n != nullptr; n = n->parent) {
      ++recount.live[n];
      const int64_t from = std::max(s.position, n->start);
      const int64_t to = std::min(s.position + s.rows, n->end());
      if (from < to) {
        invariant(10, from == n->computed_end() && recount.reserved[n] == 0);
        recount.reserved[n] = to - from;
      }
    }
  }
  for (const auto& [id, pin] : pins_) {
    for (const Node* n = pin.node; n != nullptr; n = n->parent) ++recount.pinned[n];
  }
  for (const auto& [scope, root] : tree_.roots()) {
    invariant(2, root->size() == 0 && root->start == 0 && root->parent == nullptr);
    invariant(8, !root->children.empty());
    check_node(root.get(), recount);
  }
  check_sequences(recount);
  check_pins();
  check_totals(recount);
}

void Cache::check_node(const Node* node, Recount& recount) const {
  invariant(8, node->live == recount.live[node] && node->pinned == recount.pinned[node]);
  if (!node->is_root()) {
    const Node* parent = node->parent;
    const bool gated = node->tier != nullptr;
    invariant(2, node->start == parent->end() && (gated || node->start % page_slots_ == 0));
    invariant(2, node->children.empty() ||
                     (node->size() > 0 && (gated || node->size() % page_slots_ == 0)));
    invariant(13, node->tier == parent->tier);
    invariant(3, node->computed >= 0 && node->computed <= node->size());
    invariant(3, node->computed == 0 || parent->complete());
    if (gated) {
      check_gated(node, recount);
    } else {
      check_pages(node, recount);
    }
    invariant(7, node->complete() || node->live > 0);
    invariant(8, node->references() > 0 || node->size() > 0);
    const bool queued = node->references() == 0 && (node->children.empty() || node->thinnable());
    invariant(8, node->accounted.queued.has_value() == queued);
    if (queued) {
      const ReclaimQueue::Entry& entry = *node->accounted.queued;
      invariant(8, entry.node == node && entry.candidate.tokens == node->size() &&
                       entry.candidate.depth == node->start &&
                       entry.candidate.last_used == node->last_used && entry.epoch == node->epoch);
    }
    if (node->owner != 0) {
      invariant(6, node->children.empty());
      ++recount.owners;
    }
    ++recount.nodes;
    recount.tokens += node->computed;
    recount.queued += queued ? 1 : 0;
    if (node->references() == 0) recount.reclaimable_pages += node->held_pages();
  }
  check_children(node);
  for (const auto& child : node->children) {
    invariant(2, child->parent == node);
    check_node(child.get(), recount);
  }
}

void Cache::check_pages(const Node* node, Recount& recount) const {
  const int64_t slots = node->computed + recount.reserved[node];
  invariant(3, node->pages.columns() == columns_for(slots, page_slots_));
  for (int32_t list = 0; list < lists_; ++list) {
    for (int32_t c = 0; c < node->pages.columns(); ++c) {
      const PageId id = node->pages.at(list, c);
      invariant(1, pool_.is_held(id));
      if (recount.page_seen.size() <= static_cast<size_t>(id)) {
        recount.page_seen.resize(static_cast<size_t>(id) + 1);
      }
      invariant(1, !recount.page_seen[static_cast<size_t>(id)]);
      recount.page_seen[static_cast<size_t>(id)] = true;
      ++recount.pages;
    }
  }
}

// Counts pages that nobody above holds too; a first page is the parent's last one or the node's
// own.
void Cache::check_gated(const Node* node, Recount& recount) const {
  invariant(3, node->pages.columns() == 0);
  int32_t unstarted = 0;
  for (const auto& child : node->children) unstarted += child->gated == nullptr ? 1 : 0;
  invariant(13, node->unstarted == unstarted);
  invariant(13, node->gated != nullptr || (node->computed == 0 && recount.reserved[node] == 0));
  if (node->gated == nullptr) return;
  const GatedRun& run = *node->gated;
  invariant(14, node->epoch >= 0 && node->epoch <= kMostEpochs &&
                    (node->epoch == 0 || node->tier->elastic));
  invariant(14, node->born <= PrefixTree::epochs_to(node->parent) &&
                    (node->live == 0 || node->complete() ||
                     node->born == PrefixTree::epochs_to(node->parent)));
  invariant(13, run.reserved == recount.reserved[node] && (run.reserved > 0 || run.stock.empty()));
  invariant(13, std::ssize(run.keep) == node->computed * lists_);
  const bool tail = node->owner != 0 || !node->complete();
  invariant(13, tail == (run.tail == GatedRun::Tail::kWorking));
  invariant(13, node->children.empty() || run.tail != GatedRun::Tail::kNone || unstarted == 0);
  const auto see = [&](PageId id, bool shared) {
    invariant(1, pool_.is_held(id));
    if (recount.page_seen.size() <= static_cast<size_t>(id)) {
      recount.page_seen.resize(static_cast<size_t>(id) + 1);
    }
    invariant(1, recount.page_seen[static_cast<size_t>(id)] == shared);
    recount.page_seen[static_cast<size_t>(id)] = true;
    if (!shared) ++recount.pages;
    return shared ? 0 : 1;
  };
  const Counts counts = counts_before(node);
  int64_t owned = 0, dropped = 0;
  for (int32_t list = 0; list < lists_; ++list) {
    const auto i = static_cast<size_t>(list);
    int32_t kept = 0;
    for (int64_t t = 0; t < node->computed; ++t) {
      const uint8_t keep = run.keep[static_cast<size_t>(t * lists_) + i];
      kept += ops::holds_slot(keep) ? 1 : 0;
      const bool guarded = node->start + t < node->tier->rule.sinks ||
                           (node->tokens[static_cast<size_t>(t)] & kExactToken) != 0;
      invariant(14, guarded == (keep == ops::kProtectedByte));
      invariant(14, node->epoch > 0 || keep != ops::kThinnedByte);
    }
    const GatedRun* above = node->parent->gated.get();
    const int32_t before = above != nullptr ? above->kept_end(list) : 0;
    invariant(13, run.starts[i] + counts.kept[i] == before + kept);
    invariant(13, run.starts[i] == before / page_slots_ * page_slots_);
    const int64_t columns = columns_for(counts.kept[i], page_slots_);
    for (int32_t c = 0; c < columns; ++c) {
      owned += see(run.kept.row(list)[c], c == 0 && run.borrowed[i] != 0);
    }
    for (int32_t c = 0; c < columns_for(counts.dropped[i], page_slots_); ++c, ++dropped) {
      owned += see(run.dropped.row(list)[c], false);
    }
    if (run.tail == GatedRun::Tail::kOverlay) {
      invariant(13, run.inner[i] == run.counts[i] / page_slots_ * page_slots_);
      invariant(13, run.dropped_counts[i] < node->tier->rule.window);
    }
  }
  for (const PageId id : run.stock) owned += see(id, false);
  invariant(13, owned == run.owned);
  invariant(13, run.charged ==
                    std::ssize(run.keep) + int64_t{run.reserved} * lists_ + run.memory_bytes());
  recount.charged += run.charged;
  const bool queued = run.tail == GatedRun::Tail::kOverlay && !node->children.empty() &&
                      unstarted == 0 && node->pins.empty();
  invariant(13, node->accounted.overlay.has_value() == queued);
  recount.overlays += queued ? 1 : 0;
  if (node->references() == 0) {
    recount.reclaimable_bytes += run.charged;
  } else if (queued) {
    recount.overlay_pages += dropped;
    recount.reclaimable_bytes += run.memory_bytes();
  }
}

void Cache::check_children(const Node* node) const {
  const auto page = [&](const Node& n) {
    return std::span(n.tokens).first(std::min(n.tokens.size(), static_cast<size_t>(page_slots_)));
  };
  for (size_t i = 1; i < node->children.size(); ++i) {
    const Node& a = *node->children[i - 1];
    const Node& b = *node->children[i];
    const bool same = std::ranges::equal(page(a), page(b));
    invariant(4, same || std::ranges::lexicographical_compare(page(a), page(b)));
    for (size_t j = 0; j < i; ++j) {
      const Node& c = *node->children[j];
      invariant(4, node->tier != nullptr || c.computed < page_slots_ || b.computed < page_slots_ ||
                       !std::ranges::equal(page(c), page(b)));
      invariant(5, c.age != b.age);
    }
  }
}

void Cache::check_sequences(const Recount& recount) const {
  invariant(6, recount.owners == sequences_.size());
  for (const auto& [id, s] : sequences_) {
    invariant(6, s.tail->owner == id && s.tail->end() == static_cast<int64_t>(s.tokens.size()));
    for (const Node* n = s.tail; n != nullptr; n = n->parent) {
      invariant(6, std::equal(n->tokens.begin(), n->tokens.end(), s.tokens.begin() + n->start));
    }
    if (s.rows == 0) continue;
    for (const auto& [elder, e] : sequences_) {
      if (elder >= id) break;
      for (const Node* n = s.tail; n != nullptr; n = n->parent) {
        const bool written = n->start < s.position + s.rows && n->end() > s.position;
        invariant(10, !written || !on_path(n, e.tail));
      }
    }
  }
}

void Cache::check_pins() const {
  for (const auto& [id, pin] : pins_) {
    const Node* n = pin.node;
    const auto hold = std::ranges::find(n->pins, id, &PinHold::id);
    invariant(
        9, hold != n->pins.end() && hold->tokens > n->start && hold->tokens <= n->computed_end());
  }
}

void Cache::check_totals(const Recount& recount) const {
  invariant(1, recount.charged == pool_.charged());
  invariant(1, recount.pages + pool_.pages_for(pool_.charged()) == pool_.held());
  invariant(13, recount.overlays == tree_.queued_overlays() &&
                    recount.overlay_pages == tree_.overlay_pages());
  invariant(11, recount.nodes == tree_.nodes() && recount.tokens == tree_.tokens_held() &&
                    recount.reclaimable_pages == tree_.reclaimable_pages() &&
                    recount.reclaimable_bytes == tree_.reclaimable_bytes() &&
                    recount.queued == tree_.queued());
  invariant(12, pool_.held() <= pool_.budget() || recount.queued + recount.overlays == 0);
}

}  // namespace coppice::kv
