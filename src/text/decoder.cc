#include "text/decoder.h"

#include "text/byte_alphabet.h"

namespace coppice::text {
namespace {

constexpr char kWorks[] = "; what works: ByteLevel, or a Sequence of ByteLevel and then Fuse";

Expected<TokenBytes> load_sequence(const JsonAt& config) {
  TRY(const JsonAt list, config.at("decoders"));
  TRY_STATUS(list.array());
  if (list.value().empty()) return list.unsupported(std::string("is empty") + kWorks);
  TRY(const TokenBytes first, load_decoder(list.item(0)));
  for (size_t i = 1; i < list.value().size(); ++i) {
    TRY(const std::string type, list.item(i).string("type"));
    // Joining what is joined already changes nothing.
    if (type != "Fuse") return list.item(i).unsupported("has the type " + in_quotes(type) + kWorks);
  }
  return first;
}

}  // namespace

Expected<TokenBytes> load_decoder(const JsonAt& config) {
  if (config.is_null()) return config.unsupported(std::string("is null") + kWorks);
  TRY(const std::string type, config.string("type"));
  if (type == "ByteLevel") return &bytes_of_token;
  if (type == "Sequence") return load_sequence(config);
  return config.unsupported("has the type " + in_quotes(type) + kWorks);
}

}  // namespace coppice::text
