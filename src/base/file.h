// What:    read-only maps of files, and whole-file reads and writes.
// Owns:    MappedFile owns its mapping; moved-from it is empty.
// Threads: a mapping may be read by any thread.
// Fails:   kNotFound or kInternal with the path and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "coppice/error.h"

namespace coppice {

class MappedFile {
 public:
  static Expected<MappedFile> open(const std::string& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept { swap(other); }
  MappedFile& operator=(MappedFile&& other) noexcept {
    swap(other);
    return *this;
  }
  ~MappedFile();

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

 private:
  void swap(MappedFile& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(path_, other.path_);
  }
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  std::string path_;
};

// The whole file; kTooLarge beyond `limit` bytes.
Expected<std::string> read_file(const std::string& path, size_t limit = size_t{1} << 30);
// Writes beside the target (to a new file, its name and ".partial") and renames, so a reader never
// sees half a file.
// Symbolic links are followed; a pipe, a device or an open descriptor (/dev/stdout) is written to
// and stays what it is.
Status write_file(const std::string& path, std::string_view bytes);
// The same for what is made piece by piece: content hands the pieces to its sink, in order. What
// either fails with is the result, and the file stays as it was.
using FileSink = std::function<Status(std::string_view bytes)>;
using FileContent = std::function<Status(const FileSink& sink)>;
Status write_file(const std::string& path, const FileContent& content);
// What `path` leads to through symbolic links; it need not exist.
std::string followed(const std::string& path);

}  // namespace coppice
