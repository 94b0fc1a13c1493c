// What:    the one error type of the project, and Expected<T>: a value or an Error.
// Owns:    nothing but the message.
// Threads: plain values.
// Fails:   never; ignoring a returned Expected is a compile error.
#pragma once

#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace coppice {

// Why something failed, in the caller's terms. One table (server) maps codes to HTTP statuses.
enum class ErrorCode {
  kInvalidArgument,  // the request or flag is wrong; the message names the field
  kNotFound,         // a file, model, prefix or id does not exist
  kCorrupt,          // a file's bytes contradict its format; the message names key and byte
  kUnsupported,      // well-formed but outside what this build does; the message lists what works
  kTooLarge,         // can never fit the configured budget; the message names bytes
  kOverloaded,       // no room now, try later
  kCancelled,        // stopped on request
  kInternal,         // a library or the machine failed
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
};

template <class T>
class [[nodiscard]] Expected : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

using Status = Expected<void>;

// return fail(ErrorCode::kCorrupt, "model.safetensors: ...");
inline tl::unexpected<Error> fail(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

}  // namespace coppice

// TRY(auto x, f()): x = value of f(), or return its error. TRY_STATUS(f()) for Expected<void>.
#define COPPICE_CONCAT_(a, b) a##b
#define COPPICE_CONCAT(a, b) COPPICE_CONCAT_(a, b)
#define TRY_IMPL_(tmp, lhs, ...)                            \
  auto tmp = (__VA_ARGS__);                                 \
  if (!tmp) return ::coppice::fail(std::move(tmp).error()); \
  lhs = std::move(*tmp)
#define TRY(lhs, ...) TRY_IMPL_(COPPICE_CONCAT(try_, __LINE__), lhs, __VA_ARGS__)
#define TRY_STATUS(...)                                                     \
  do {                                                                      \
    auto try_status = (__VA_ARGS__);                                        \
    if (!try_status) return ::coppice::fail(std::move(try_status).error()); \
  } while (0)
