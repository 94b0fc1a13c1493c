#include "kv/prefix_tree.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"

namespace coppice::kv {
namespace {

void drop_front(std::vector<TokenId>& tokens, int64_t count) {
  tokens.erase(tokens.begin(), tokens.begin() + count);
}

}  // namespace

// ---- totals

void PrefixTree::refresh(Node* node) {
  if (node->is_root()) return;
  Node::Accounted& seen = node->accounted;
  tokens_held_ += node->computed - seen.tokens;
  seen.tokens = node->computed;
  const bool unreferenced = node->references() == 0;
  const int64_t pages = unreferenced ? node->held_pages() : 0;
  reclaimable_pages_ += pages - seen.reclaimable_pages;
  seen.reclaimable_pages = pages;
  const int64_t bytes = unreferenced && node->gated != nullptr ? node->gated->charged : 0;
  reclaimable_bytes_ += bytes - seen.reclaimable_bytes;
  seen.reclaimable_bytes = bytes;
  refresh_overlay(node);
  if (seen.queued) queue_.erase(*seen.queued);
  seen.queued.reset();
  if (unreferenced && (node->children.empty() || node->thinnable())) {
    seen.queued = ReclaimQueue::Entry{
        {node->last_used, node->size(), node->start}, node->age, node, node->epoch};
    queue_.insert(*seen.queued);
  }
}

void PrefixTree::forget(Node* node) {
  if (node->accounted.queued) queue_.erase(*node->accounted.queued);
  if (node->accounted.overlay) overlays_.erase(*node->accounted.overlay);
  tokens_held_ -= node->accounted.tokens;
  reclaimable_pages_ -= node->accounted.reclaimable_pages;
  reclaimable_bytes_ -= node->accounted.reclaimable_bytes;
  overlay_pages_ -= node->accounted.overlay_pages;
  reclaimable_bytes_ -= node->accounted.overlay_bytes;
  --nodes_;
}

// ---- children

std::unique_ptr<Node>& PrefixTree::slot_of(Node* node) const {
  Node* parent = node->parent;
  size_t i = first_not_before(parent, node->tokens);
  while (parent->children[i].get() != node) ++i;
  return parent->children[i];
}

void PrefixTree::attach(Node* parent, std::unique_ptr<Node> child) {
  child->parent = parent;
  size_t i = first_not_before(parent, child->tokens);
  const auto page = [this](const Node& n) {
    return std::span(n.tokens).first(std::min(n.tokens.size(), static_cast<size_t>(page_slots_)));
  };
  while (i < parent->children.size() && parent->children[i]->age < child->age &&
         std::ranges::equal(page(*parent->children[i]), page(*child))) {
    ++i;
  }
  parent->children.insert(parent->children.begin() + static_cast<std::ptrdiff_t>(i),
                          std::move(child));
}

std::unique_ptr<Node> PrefixTree::detach(Node* child) {
  std::unique_ptr<Node>& slot = slot_of(child);
  std::vector<std::unique_ptr<Node>>& all = child->parent->children;
  std::unique_ptr<Node> owned = std::move(slot);
  all.erase(all.begin() + (&slot - all.data()));
  return owned;
}

Node* PrefixTree::make_root(const Scope& scope) {
  std::unique_ptr<Node>& root = roots_[scope];
  if (!root) root = std::make_unique<Node>(lists_);
  return root.get();
}

Node* PrefixTree::add_child(Node* parent, std::span<const TokenId> tokens, SequenceId owner) {
  auto child = std::make_unique<Node>(lists_);
  Node* node = child.get();
  node->start = parent->end();
  node->tokens.assign(tokens.begin(), tokens.end());
  node->owner = owner;
  node->age = next_age();
  node->tier = parent->tier;
  if (node->tier != nullptr && !parent->is_root()) ++parent->unstarted;
  attach(parent, std::move(child));
  ++nodes_;
  add_live(node, +1);
  return node;
}

void PrefixTree::remove(Node* leaf) {
  CHECK(leaf->children.empty() && leaf->owner == 0 && leaf->references() == 0);
  Node* parent = leaf->parent;
  if (leaf->gated != nullptr) {
    runs_.release(*leaf->gated);
  } else if (leaf->tier != nullptr && !parent->is_root()) {
    --parent->unstarted;
  } else {
    leaf->pages.cut_back(0, scratch_);
    give_back(scratch_);
  }
  forget(leaf);
  detach(leaf);
  if (parent->is_root() && parent->children.empty()) {
    std::erase_if(roots_, [&](const auto& entry) { return entry.second.get() == parent; });
  } else {
    refresh(parent);
  }
}

// ---- references

void PrefixTree::add_live(Node* node, int32_t delta) {
  for (; node != nullptr; node = node->parent) {
    node->live += delta;
    refresh(node);
  }
}

void PrefixTree::add_pinned(Node* node, int32_t delta) {
  for (; node != nullptr; node = node->parent) {
    node->pinned += delta;
    refresh(node);
  }
}

void PrefixTree::pin(Node* node, PinHold hold) {
  node->pins.push_back(hold);
  add_pinned(node, +1);
  const int64_t cut = columns_for(hold.tokens - node->start, page_slots_) * page_slots_;
  if (cut < node->size()) split(node, cut);
}

void PrefixTree::unpin(Node* node, PinId id) {
  CHECK(std::erase_if(node->pins, [id](const PinHold& hold) { return hold.id == id; }) == 1);
  add_pinned(node, -1);
  narrow_to_pins(node);
  if (node->children.size() == 1) {
    merge_upwards(node->children.front().get());
  } else {
    merge_upwards(node);
  }
}

// A pin keeps the pages that it covers, not what else grew in its node.
void PrefixTree::narrow_to_pins(Node* node) {
  if (node->live > 0 || node->pins.empty()) return;
  const int64_t covered = std::ranges::max_element(node->pins, {}, &PinHold::tokens)->tokens;
  const int64_t cut = columns_for(covered - node->start, page_slots_) * page_slots_;
  if (cut < node->size()) split(node, cut);
}

void PrefixTree::move_pins(Node* from, Node* to, int64_t up_to) {
  std::erase_if(from->pins, [&](const PinHold& hold) {
    if (hold.tokens > up_to) return false;
    to->pins.push_back(hold);
    --from->pinned;
    if (on_pin_moved) on_pin_moved(hold.id, to);
    return true;
  });
}

// ---- shape

void PrefixTree::cut_front(Node* node, int64_t at) {
  drop_front(node->tokens, at);
  node->start += at;
  node->computed = std::max<int64_t>(0, node->computed - at);
  node->page_filled = false;
}

Node* PrefixTree::split(Node* node, int64_t at) {
  CHECK(!node->is_root() && at > 0 && at <= node->size() && at % page_slots_ == 0);
  std::unique_ptr<Node>& slot = slot_of(node);
  auto owned = std::make_unique<Node>(lists_);
  Node* upper = owned.get();
  upper->parent = node->parent;
  upper->start = node->start;
  upper->tokens.assign(node->tokens.begin(), node->tokens.begin() + at);
  upper->computed = std::min(node->computed, at);
  upper->live = node->live;
  upper->pinned = node->pinned;
  upper->age = node->age;
  upper->last_used = node->last_used;
  upper->page_filled = node->page_filled;
  const int32_t columns = std::min(node->pages.columns(), static_cast<int32_t>(at / page_slots_));
  node->pages.cut_front(columns, scratch_);
  upper->pages.append(scratch_);
  scratch_.clear();

  move_pins(node, upper, upper->end());
  cut_front(node, at);
  node->parent = upper;
  upper->children.push_back(std::move(slot));
  slot = std::move(owned);
  ++nodes_;
  refresh(upper);
  refresh(node);
  return upper;
}

void PrefixTree::join(Node* node, Node* held, int64_t at) {
  CHECK(node != held && node->parent == held->parent);
  CHECK(at > 0 && at % page_slots_ == 0 && at <= node->size() && at <= held->computed);
  Node* upper = at == held->size() && held->owner == 0 ? held : split(held, at);
  std::unique_ptr<Node> owned = detach(node);
  upper->live += node->live;
  upper->pinned += node->pinned;
  const int32_t columns = std::min(node->pages.columns(), static_cast<int32_t>(at / page_slots_));
  node->pages.cut_front(columns, scratch_);
  give_back(scratch_);
  upper->last_used = std::max(upper->last_used, node->last_used);
  move_pins(node, upper, upper->end());
  if (at < node->size() || node->owner != 0) {
    cut_front(node, at);
    attach(upper, std::move(owned));
    refresh(node);
  } else {
    for (std::unique_ptr<Node>& child : node->children) attach(upper, std::move(child));
    forget(node);
  }
  refresh(upper);
}

void PrefixTree::join_twins(Node* node) {
  node->page_filled = false;
  while (Node* held = twin(node)) {
    const auto [a, b] = std::mismatch(node->tokens.begin(), node->tokens.begin() + node->computed,
                                      held->tokens.begin(), held->tokens.begin() + held->computed);
    const int64_t at = (a - node->tokens.begin()) / page_slots_ * page_slots_;
    if (at == node->size() && node->owner == 0) {
      std::vector<Node*> children;
      for (const auto& child : node->children) children.push_back(child.get());
      join(node, held, at);
      for (Node* child : children) join_twins(child);
      return;
    }
    join(node, held, at);
  }
}

void PrefixTree::settle(Node* tail) {
  for (Node* node = tail; !node->is_root();) {
    if (node->page_filled) {
      join_twins(node);  // the path is another one now
      node = tail;
    } else {
      node = node->parent;
    }
  }
  merge_upwards(tail);
}

void PrefixTree::steal(Node* node, Node* from, int64_t slots) {
  CHECK(node->pages.columns() == 0 && node->computed == 0 && slots > 0 && slots < page_slots_);
  CHECK(slots <= from->computed && slots <= node->size());
  from->pages.cut_back(1, scratch_);
  give_back(scratch_);
  from->pages.cut_front(1, scratch_);
  node->pages.append(scratch_);
  scratch_.clear();
  tokens_reclaimed_ += from->computed - slots;
  remove(from);
  node->computed = slots;
  refresh(node);
}

void PrefixTree::merge_upwards(Node* node) {
  if (node->tier != nullptr) return;  // a boundary stays one
  while (!node->is_root()) {
    Node* parent = node->parent;
    const bool alone = !parent->is_root() && parent->children.size() == 1 && parent->pins.empty();
    if (!alone || (node->references() == 0 && parent->last_used > node->last_used)) {
      node = parent;
      continue;
    }
    CHECK(node->computed == 0 || parent->complete());
    node->pages.prepend(parent->pages);
    node->tokens.insert(node->tokens.begin(), parent->tokens.begin(), parent->tokens.end());
    node->computed += parent->computed;
    node->start = parent->start;
    node->age = std::min(node->age, parent->age);
    node->last_used = std::max(node->last_used, parent->last_used);
    node->page_filled = parent->page_filled;
    forget(parent);
    std::unique_ptr<Node>& slot = slot_of(parent);
    std::unique_ptr<Node> owned = std::move(parent->children.front());
    node->parent = parent->parent;
    slot = std::move(owned);
    refresh(node);
  }
}

void PrefixTree::append(Node* tail, TokenId token) {
  if (tail->size() >= page_slots_) {
    tail->tokens.push_back(token);
    return;
  }
  Node* parent = tail->parent;
  std::unique_ptr<Node> owned = detach(tail);
  tail->tokens.push_back(token);
  attach(parent, std::move(owned));
}

void PrefixTree::own(Node* leaf, SequenceId owner) {
  CHECK(leaf->owner == 0 && leaf->children.empty() && leaf->complete());
  leaf->owner = owner;
  add_live(leaf, +1);
}

void PrefixTree::trim(Node* node) {
  Node* parent = node->parent;
  std::unique_ptr<Node> owned = detach(node);
  node->tokens.resize(static_cast<size_t>(node->computed));
  attach(parent, std::move(owned));
  drop_unused_columns(node);
}

void PrefixTree::release(Node* tail, uint64_t clock) {
  CHECK(tail->owner != 0);
  tail->owner = 0;
  note(clock);
  for (Node* node = tail; node != nullptr; node = node->parent) node->last_used = clock;
  add_live(tail, -1);
  if (tail->tier != nullptr) return release_gated(tail, clock);

  Node* node = tail;
  while (node->live == 0 && node->children.empty() && (!node->complete() || node->size() == 0)) {
    trim(node);
    if (node->size() > 0) break;
    Node* parent = node->parent;
    const bool last_of_scope = parent->is_root() && parent->children.size() == 1;
    remove(node);
    if (last_of_scope || parent->is_root()) return;
    node = parent;
  }
  for (Node* above = node; !above->is_root(); above = above->parent) narrow_to_pins(above);
  if (node->children.empty() && node->references() == 0) {
    Node* parent = node->parent;
    drop_if_held_beside(node);
    node = parent;
  }
  merge_upwards(node->children.size() == 1 ? node->children.front().get() : node);
}

// ---- pages

void PrefixTree::give_back(std::vector<PageId>& ids) {
  pool_.give_back(ids);
  ids.clear();
}

void PrefixTree::add_columns(Node* node, int64_t columns) {
  scratch_.resize(static_cast<size_t>(columns * lists_));
  pool_.take(scratch_);
  node->pages.append(scratch_);
  scratch_.clear();
  refresh(node);
}

void PrefixTree::drop_unused_columns(Node* node) {
  node->pages.cut_back(static_cast<int32_t>(columns_for(node->computed, page_slots_)), scratch_);
  give_back(scratch_);
  refresh(node);
}

void PrefixTree::advance(Node* node, int64_t slots) {
  const bool had_page = node->computed >= page_slots_;
  node->computed += slots;
  CHECK(node->computed <= node->size());
  if (!had_page && node->computed >= page_slots_) node->page_filled = true;
  refresh(node);
}

void PrefixTree::drop_if_held_beside(Node* leaf) {
  Node* parent = leaf->parent;
  if (leaf->size() < page_slots_) {
    for (size_t i = first_not_before(parent, leaf->tokens); i < parent->children.size(); ++i) {
      Node* other = parent->children[i].get();
      if (other->size() < leaf->size() ||
          !std::equal(leaf->tokens.begin(), leaf->tokens.end(), other->tokens.begin())) {
        break;
      }
      if (other != leaf && other->computed >= leaf->size()) {
        other->last_used = std::max(other->last_used, leaf->last_used);
        refresh(other);
        return remove(leaf);
      }
    }
  }
  const int64_t shorter = std::min<int64_t>(leaf->size(), page_slots_);
  for (int64_t n = 1; n < shorter; ++n) {
    Node* other = unowned_leaf(parent, std::span(leaf->tokens).first(static_cast<size_t>(n)));
    if (other != nullptr && other->references() == 0) remove(other);
  }
}

}  // namespace coppice::kv
