// A gate: any bytes are a gate file whose tensors can all be read and whose header can be written
// and read again, or one line that says why not. Text that begins with a brace is a header alone,
// text that begins with "policy:" is a policy.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "fuzz_require.h"
#include "model/gate_file.h"
#include "model/gate_policies.h"

using namespace coppice;  // NOLINT: a fuzzer is one function

namespace {

void require_one_line(const std::string& message, std::string_view begin) {
  REQUIRE(message.starts_with(begin) && message.size() < 2000);
  for (const char c : message) REQUIRE(c >= 0x20 && c < 0x7f);
}

void read_header(const std::string& text) {
  const auto header = model::read_gate_header(text, "f");
  if (!header) {
    require_one_line(header.error().message, "f: ");
    return;
  }
  const auto again = model::read_gate_header(model::gate_header_json(*header), "f");
  REQUIRE(again && *again == *header);
}

void read_policy(const std::string& spec) {
  const auto gate = model::make_policy(spec, {});
  if (!gate) {
    require_one_line(gate.error().message, "gate ");
    return;
  }
  const ops::GateRule rule = (*gate)->rule(model::GateTier::kMild);
  REQUIRE(rule.window >= 1 && rule.window <= 512 && rule.sinks >= 0 && rule.sinks <= 64);
  REQUIRE(!std::isnan(rule.threshold));
  const std::string text = (*gate)->describe().substr(model::kPolicyPrefix.size());
  const auto again = model::make_policy(text, {});
  REQUIRE(again && (*again)->hash() == (*gate)->hash());
}

void read_tensors(const model::GateFile& file) {
  for (const model::GateTensor& tensor : model::gate_tensors(file.header())) {
    const auto data = file.tensor(tensor);
    REQUIRE(data && data->view.shape() == tensor.shape);
    for (int64_t i = 0; i < data->view.elements(); ++i) {
      REQUIRE(std::isfinite(data->view.f32()[i]));
    }
  }
  REQUIRE(file.hash() == file.hash());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (text.starts_with('{')) {
    read_header(text);
  } else if (text.starts_with(model::kPolicyPrefix)) {
    read_policy(text.substr(model::kPolicyPrefix.size()));
  } else {
    const auto file = model::GateFile::read(std::span(data, size), "f");
    if (!file) {
      require_one_line(file.error().message, "f: ");
      return 0;
    }
    read_header(model::gate_header_json(file->header()));
    read_tensors(*file);
  }
  return 0;
}
