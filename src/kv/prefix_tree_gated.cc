// Gated scopes: where a sequence may start, how runs are sealed, cut and joined.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "kv/prefix_tree.h"

namespace coppice::kv {
namespace {

int64_t common_prefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const size_t n = std::min(a.size(), b.size());
  const auto end = a.begin() + static_cast<std::ptrdiff_t>(n);
  return std::mismatch(a.begin(), end, b.begin()).first - a.begin();
}

}  // namespace

// ---- look

PrefixTree::Start PrefixTree::last_start(Node* root, std::span<const TokenId> tokens,
                                         Count count) const {
  Start best{root, 0};
  find_start(root, tokens, count, best);
  return best;
}

void PrefixTree::find_start(Node* from, std::span<const TokenId> tokens, Count count,
                            Start& best) const {
  if (static_cast<int64_t>(tokens.size()) <= from->end()) return;
  const auto query = tokens.subspan(static_cast<size_t>(from->end()));
  const auto look = [&](Node* child, int64_t same) {
    if (child->unpublished()) return;
    const bool writing = child->gated == nullptr || child->gated->tail == GatedRun::Tail::kWorking;
    int64_t usable = 0;
    if (writing) {
      // Where its writer stands or, if it has rows in this step, will stand.
      const int32_t reserved = child->gated != nullptr ? child->gated->reserved : 0;
      const int64_t least = child->computed + reserved;
      if (count == Count::kPlanned && same >= least) usable = same;
      if (count == Count::kHeld && same >= least && reserved == 0) usable = child->computed;
    } else if (same == child->size() && child->can_start()) {
      usable = same;
    }
    if (usable > 0 && from->end() + usable > best.length) best = {child, from->end() + usable};
    if (same == child->size() && (count == Count::kPlanned || child->complete())) {
      find_start(child, tokens, count, best);
    }
  };
  // Away from where the query would stand, siblings have ever less in common with it, as far as
  // their order looks. Runs shorter than that and passed whole may have more below: by name.
  const auto visit = [&](Node* child) {
    const int64_t same = common_prefix(child->tokens, query);
    if (same == 0 || (same < page_slots_ && from->end() + same <= best.length)) return false;
    if (same >= page_slots_ || same < child->size()) look(child, same);
    return true;
  };
  const size_t here = first_not_before(from, query);
  for (size_t i = here; i < from->children.size() && visit(from->children[i].get()); ++i) {
  }
  for (size_t i = here; i > 0 && visit(from->children[i - 1].get()); --i) {
  }
  const int64_t shorter = std::min<int64_t>(std::ssize(query), page_slots_ - 1);
  for (int64_t n = 1; n <= shorter; ++n) {
    const auto run = query.first(static_cast<size_t>(n));
    for (size_t i = first_not_before(from, run); i < from->children.size(); ++i) {
      Node* child = from->children[i].get();
      if (!std::ranges::equal(child->tokens, run)) break;
      look(child, n);
    }
  }
}

std::vector<int64_t> PrefixTree::partings(const Node* node, std::span<const TokenId> rest) const {
  std::vector<int64_t> out;
  find_partings(node, rest, out);
  return out;
}

void PrefixTree::find_partings(const Node* node, std::span<const TokenId> rest,
                               std::vector<int64_t>& out) const {
  const auto visit = [&](const Node* child) {
    const int64_t same = common_prefix(child->tokens, rest);
    if (same == 0 || child->unpublished()) return same > 0;
    out.push_back(node->end() + same);
    // Held further on, but its overlay was freed: what rewrites it must end where it ends.
    if (same == child->size()) find_partings(child, rest.subspan(static_cast<size_t>(same)), out);
    return true;
  };
  const size_t here = first_not_before(node, rest);
  for (size_t i = here; i < node->children.size() && visit(node->children[i].get()); ++i) {
  }
  for (size_t i = here; i > 0 && visit(node->children[i - 1].get()); --i) {
  }
}

void PrefixTree::dropped_positions(const Node* node, int32_t list, std::span<int32_t> out) const {
  size_t left = out.size();
  for (; left > 0 && !node->is_root(); node = node->parent) {
    for (int64_t i = node->computed; i-- > 0 && left > 0;) {
      if (node->gated->keep[static_cast<size_t>(i * lists_ + list)] == ops::kDroppedByte) {
        out[--left] = static_cast<int32_t>(node->start + i);
      }
    }
  }
  CHECK(left == 0);
}

// ---- shape

void PrefixTree::start_run(Node* node) {
  Node* parent = node->parent;
  CHECK(node->gated == nullptr && node->tier != nullptr);
  const GatedRun* above = parent->is_root() ? nullptr : parent->gated.get();
  node->gated = runs_.start(
      above, node->tier->memory_floats,
      [&](int32_t list, std::span<int32_t> out) { dropped_positions(parent, list, out); });
  if (above != nullptr) --parent->unstarted;
  node->born = epochs_to(parent);
  refresh(parent);
  refresh(node);
}

// The upper part takes what is computed; the lower one keeps its identity, owner and children, and
// has not started.
Node* PrefixTree::split_gated(Node* node, int64_t at) {
  CHECK(!node->is_root() && at > 0 && at <= node->size() && at >= node->computed);
  Node* parent = node->parent;
  std::unique_ptr<Node> lower = detach(node);
  auto owned = std::make_unique<Node>(lists_);
  Node* upper = owned.get();
  upper->start = node->start;
  upper->tokens.assign(node->tokens.begin(), node->tokens.begin() + at);
  upper->computed = node->computed;
  upper->live = node->live;
  upper->pinned = node->pinned;
  upper->age = node->age;
  upper->last_used = node->last_used;
  upper->tier = node->tier;
  upper->gated = std::move(node->gated);
  upper->publish_end = node->publish_end;
  upper->born = node->born;
  upper->unstarted = 1;
  move_pins(node, upper, upper->end());
  cut_front(node, at);
  attach(upper, std::move(lower));
  attach(parent, std::move(owned));  // where its shorter run belongs
  ++nodes_;
  refresh(upper);
  refresh(node);
  return upper;
}

Node* PrefixTree::add_tail(Node* parent, std::span<const TokenId> tokens, SequenceId owner,
                           int64_t publish_end) {
  Node* tail = add_child(parent, tokens, owner);
  tail->publish_end = publish_end;
  if (tail->start < publish_end && publish_end < tail->end()) {
    split_gated(tail, publish_end - tail->start);
  }
  return tail;
}

Node* PrefixTree::cut(const Start& start, uint64_t clock) {
  Node* node = start.node;
  if (node->is_root()) return node;
  note(clock);
  const int64_t at = start.length - node->start;
  if (at == node->computed && !node->has_overlay()) {
    node = graft_twins(seal(node, clock));
  } else if (at < node->size() || node->owner != 0) {
    node = split_gated(node, at);
  }
  node->boundary_used = clock;
  refresh(node);
  return node;
}

Node* PrefixTree::seal(Node* node, uint64_t clock) {
  CHECK(node->gated != nullptr && node->computed > 0);
  note(clock);
  Node* run = node->owner != 0 || !node->complete() ? split_gated(node, node->computed) : node;
  runs_.pack(*run->gated, run->end(), run->tier->rule.window);
  run->boundary_used = clock;
  refresh(run);
  return run;
}

// `node` begins with all of upper's tokens: it goes on below it.
void PrefixTree::hang_below(Node* node, Node* upper) {
  std::unique_ptr<Node> owned = detach(node);
  runs_.cut_front(*node->gated, upper->size());
  upper->live += node->live;
  upper->pinned += node->pinned;
  upper->last_used = std::max(upper->last_used, node->last_used);
  cut_front(node, upper->size());
  attach(upper, std::move(owned));
  refresh(node);
  refresh(upper);
}

Node* PrefixTree::graft_twins(Node* node) {
  // What was computed from other keys, or holds fewer of them, is something else.
  const auto alike_in_epoch = [node](const Node* other) {
    return other->epoch == 0 && node->epoch == 0 && other->born == node->born;
  };
  Node* parent = node->parent;
  std::vector<Node*> alike;
  const auto visit = [&](Node* other) {
    const int64_t same = common_prefix(other->tokens, node->tokens);
    const bool one_ends = same > 0 && same == std::min(node->size(), other->size());
    if (other != node && one_ends && other->computed >= same && !other->unpublished() &&
        !node->unpublished() && alike_in_epoch(other)) {
      alike.push_back(other);
    }
    return same > 0;
  };
  const size_t here = first_not_before(parent, node->tokens);
  for (size_t i = here; i < parent->children.size() && visit(parent->children[i].get()); ++i) {
  }
  for (size_t i = here; i > 0 && visit(parent->children[i - 1].get()); --i) {
  }
  std::ranges::stable_sort(alike, std::ranges::greater{}, &Node::size);
  for (Node* other : alike) {
    if (other->size() > node->size()) {
      hang_below(other, node);
      continue;
    }
    // Its own end is no boundary yet while it is written, and a tail has no room for children.
    if (other->gated->tail == GatedRun::Tail::kWorking) continue;
    if (other->size() < node->size()) {
      hang_below(node, other);
      return graft_twins(node);  // what hangs there already may begin like the rest of it
    }
    if (!other->has_overlay()) runs_.move_overlay(*node->gated, *other->gated);
    other->boundary_used = std::max(other->boundary_used, node->boundary_used);
    other->last_used = std::max(other->last_used, node->last_used);
    other->live += node->live;
    other->pinned += node->pinned;
    other->unstarted += node->unstarted;
    move_pins(node, other, node->end());
    for (std::unique_ptr<Node>& child : node->children) attach(other, std::move(child));
    node->children.clear();
    runs_.release(*node->gated);
    forget(node);
    detach(node);
    refresh(other);
    return other;
  }
  return node;
}

// ---- the owner leaves

void PrefixTree::release_gated(Node* tail, uint64_t clock) {
  Node* node = tail;
  while (node->live == 0 && node->children.empty()) {
    Node* parent = node->parent;
    const bool keeps = node->computed > 0 && !node->unpublished();
    if (keeps) {
      std::unique_ptr<Node> owned = detach(node);
      node->tokens.resize(static_cast<size_t>(node->computed));
      attach(parent, std::move(owned));
      if (node->gated->tail == GatedRun::Tail::kWorking) seal(node, clock);
      refresh(node);
      graft_twins(node);
      return;
    }
    if (node->references() > 0) return;
    const bool last_of_scope = parent->is_root() && parent->children.size() == 1;
    remove(node);
    if (last_of_scope || parent->is_root()) return;
    if (parent->complete() && !parent->unpublished()) return drop_tombstones(parent);
    node = parent;
  }
}

// ---- overlays

void PrefixTree::refresh_overlay(Node* node) {
  Node::Accounted& seen = node->accounted;
  if (seen.overlay) overlays_.erase(*seen.overlay);
  seen.overlay.reset();
  overlay_pages_ -= seen.overlay_pages;
  reclaimable_bytes_ -= seen.overlay_bytes;
  seen.overlay_pages = seen.overlay_bytes = 0;
  // A leaf without one would be held for nothing, and with it its pages count as the leaf's.
  if (!node->has_overlay() || node->children.empty() || node->unstarted > 0 ||
      !node->pins.empty()) {
    return;
  }
  seen.overlay = OverlayQueue::Entry{node->boundary_used, node->age, node, node->tier->elastic};
  overlays_.insert(*seen.overlay);
  if (node->references() == 0) return;  // counted with the node's pages
  for (int32_t list = 0; list < lists_; ++list) {
    seen.overlay_pages +=
        columns_for(node->gated->dropped_counts[static_cast<size_t>(list)], page_slots_);
  }
  seen.overlay_bytes = node->gated->memory_bytes();
  overlay_pages_ += seen.overlay_pages;
  reclaimable_bytes_ += seen.overlay_bytes;
}

}  // namespace coppice::kv
