// What:    whatever the suites of attention and pages judge: a backend, or one kernel of the CPU's.
// Owns:    a subject its backend or its threads and scratch.
// Threads: one caller.
// Fails:   as the backend's methods do.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "ops/backend.h"

namespace coppice::ops {

class Subject {
 public:
  virtual ~Subject() = default;
  virtual Expected<KvLayout> kv_layout(DType type, int32_t dim) = 0;
  virtual void zero_pages(const KvArena& arena, std::span<const PageId> ids) = 0;
  virtual void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to,
                          int32_t to_slot, int32_t slots) = 0;
  virtual void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                         const TensorView& v) = 0;
  virtual void write_kv(const TensorView& k, const TensorView& v, int32_t layer,
                        const AttentionPlan& plan, const KvArena& arena) = 0;
  virtual void attention(const TensorView& q, const AttentionParams& params,
                         const AttentionPlan& plan, const KvArena& arena,
                         const TensorView& out) = 0;
};

// "ref", "cpu": backends; "kernel/ISA": a kernel alone; "kernel/emulated": the bf16-dot kernel on
// emulated vectors. Null where this CPU has no such ISA.
std::unique_ptr<Subject> make_subject(const std::string& name, int threads);

// Every name that make_subject knows.
inline constexpr const char* kSubjects[] = {
    "ref", "cpu", "kernel/avx2", "kernel/avx512", "kernel/avx512bf16", "kernel/emulated"};
// A name as part of a test's name.
std::string test_name(const char* subject);

// The emulated kernel over bf16 pages with the pages of a tile folded in reverse: as accurate, and
// not canonical.
std::unique_ptr<Subject> reversed_subject();

}  // namespace coppice::ops
