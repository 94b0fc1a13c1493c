// What matches and what is pinned: the looking half of PrefixTree.
#include <algorithm>

#include "kv/prefix_tree.h"

namespace coppice::kv {
namespace {

int64_t common_prefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const size_t n = std::min(a.size(), b.size());
  const auto [x, y] =
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin());
  return x - a.begin();
}

std::span<const TokenId> first_page(std::span<const TokenId> run, int32_t page_slots) {
  return run.first(std::min(run.size(), static_cast<size_t>(page_slots)));
}

bool key_less(std::span<const TokenId> a, std::span<const TokenId> b) {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

}  // namespace

Node* PrefixTree::root(const Scope& scope) const {
  const auto it = roots_.find(scope);
  return it == roots_.end() ? nullptr : it->second.get();
}

size_t PrefixTree::first_not_before(const Node* parent, std::span<const TokenId> run) const {
  const std::span<const TokenId> key = first_page(run, page_slots_);
  const auto it = std::lower_bound(parent->children.begin(), parent->children.end(), key,
                                   [this](const std::unique_ptr<Node>& child, const auto& value) {
                                     return key_less(first_page(child->tokens, page_slots_), value);
                                   });
  return static_cast<size_t>(it - parent->children.begin());
}

PrefixTree::Reach PrefixTree::longest(Node* from, std::span<const TokenId> tokens, Count count,
                                      const Node* except, uint64_t older_than) const {
  Reach best{from, nullptr, from->end()};
  if (static_cast<int64_t>(tokens.size()) <= from->end()) return best;
  const std::span<const TokenId> query = tokens.subspan(static_cast<size_t>(from->end()));

  // Siblings stand in the order of their first pages, so what they share with the query shrinks in
  // both directions from where it would stand: false means that none further away is better.
  const auto visit = [&](Node* child) {
    const int64_t same = common_prefix(child->tokens, query);
    if (same == 0 || (same < page_slots_ && same <= best.length - from->end())) return false;
    if (child == except || child->age >= older_than) return true;
    const int64_t counted = count == Count::kHeld ? std::min(same, child->computed) : same;
    if (counted == 0) return true;
    Reach reach{child, child, from->end() + counted};
    if (counted == child->size()) {
      reach = longest(child, tokens, count, except, older_than);
      reach.child = child;
    }
    if (reach.length > best.length) best = reach;
    return true;
  };
  const size_t here = first_not_before(from, query);
  for (size_t i = here; i < from->children.size() && visit(from->children[i].get()); ++i) {
  }
  for (size_t i = here; i > 0 && visit(from->children[i - 1].get()); --i) {
  }
  return best;
}

Node* PrefixTree::unowned_leaf(Node* parent, std::span<const TokenId> run) const {
  for (size_t i = first_not_before(parent, run); i < parent->children.size(); ++i) {
    Node* child = parent->children[i].get();
    if (!std::ranges::equal(first_page(child->tokens, page_slots_), first_page(run, page_slots_))) {
      return nullptr;
    }
    if (child->owner == 0 && child->children.empty() && std::ranges::equal(child->tokens, run)) {
      return child;
    }
  }
  return nullptr;
}

Node* PrefixTree::twin(Node* node) const {
  if (node->computed < page_slots_) return nullptr;
  const std::span<const TokenId> key = first_page(node->tokens, page_slots_);
  Node* parent = node->parent;
  for (size_t i = first_not_before(parent, key); i < parent->children.size(); ++i) {
    Node* child = parent->children[i].get();
    if (!std::ranges::equal(first_page(child->tokens, page_slots_), key)) return nullptr;
    if (child != node && child->computed >= page_slots_) return child;
  }
  return nullptr;
}

int64_t PrefixTree::pinned_pages() const {
  int64_t pages = 0, charged = 0;
  for (const auto& [scope, root] : roots_) pages += pinned_pages(root.get(), charged);
  return pages + pool_.pages_for(charged);
}

int64_t PrefixTree::pinned_pages(const Node* node, int64_t& charged) const {
  if (node->pinned == 0) return 0;
  if (node->tier != nullptr) {
    int64_t held = node->held_pages();
    if (node->gated != nullptr) charged += node->gated->charged;
    if (node->pins.empty() && node->has_overlay()) {  // what pressure may free
      charged -= node->gated->memory_bytes();
      for (const int32_t count : node->gated->dropped_counts) {
        held -= columns_for(count, page_slots_);
      }
    }
    for (const auto& child : node->children) held += pinned_pages(child.get(), charged);
    return held;
  }
  int64_t columns = node->pages.columns();
  if (node->pinned == std::ssize(node->pins)) {
    // No pin below: what the node holds beyond its own can be cut off.
    const int64_t covered = std::ranges::max_element(node->pins, {}, &PinHold::tokens)->tokens;
    columns = columns_for(covered - node->start, page_slots_);
  }
  int64_t pages = columns * lists_;
  for (const auto& child : node->children) pages += pinned_pages(child.get(), charged);
  return pages;
}

}  // namespace coppice::kv
