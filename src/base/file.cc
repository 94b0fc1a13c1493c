#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace coppice {
namespace {

Error system_error(const std::string& path, const char* verb) {
  const int code = errno;
  return {code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kInternal,
          path + ": cannot " + verb + ": " + std::strerror(code)};
}

constexpr int kMostLinks = 40;  // as many as the system follows

// What `path` leads to, which need not exist.
std::string followed(const std::string& path) {
  std::filesystem::path at = path;
  for (int links = 0; links < kMostLinks; ++links) {
    std::error_code error;
    const std::filesystem::path next = std::filesystem::read_symlink(at, error);
    if (error) break;
    at = at.parent_path() / next;
  }
  return at.string();
}

// An open file's name: others wrote to it and will go on, so nothing may take its place.
bool names_descriptor(std::string_view path) {
  return path == "/dev/stdout" || path == "/dev/stderr" || path.starts_with("/dev/fd/") ||
         path.starts_with("/proc/");
}

Status append(const std::string& path, std::string_view bytes) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return fail(system_error(path, "open"));
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) {
      const Error error = system_error(path, "write");
      ::close(fd);
      return fail(error);
    }
    bytes.remove_prefix(static_cast<size_t>(wrote));
  }
  if (::close(fd) != 0) return fail(system_error(path, "write"));
  return {};
}

// old: of the file that is replaced, whose permissions stay; null without one.
Status replace(const std::string& path, std::string_view bytes, const struct stat* old) {
  const std::string temporary = path + ".partial";
  std::FILE* out = std::fopen(temporary.c_str(), "wb");
  if (out == nullptr) return fail(system_error(temporary, "create"));
  const bool written = (old == nullptr || ::fchmod(::fileno(out), old->st_mode & 07777) == 0) &&
                       std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size();
  const bool closed = std::fclose(out) == 0;
  if (written && closed && std::rename(temporary.c_str(), path.c_str()) == 0) return {};
  const Error error = system_error(path, "write");
  ::unlink(temporary.c_str());
  return fail(error);
}

}  // namespace

Expected<MappedFile> MappedFile::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(system_error(path, "open"));
  struct stat info {};
  if (::fstat(fd, &info) != 0) {
    const Error error = system_error(path, "stat");
    ::close(fd);
    return fail(error);
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    return fail(ErrorCode::kInvalidArgument, path + ": is not a regular file");
  }
  MappedFile file;
  file.path_ = path;
  file.size_ = static_cast<size_t>(info.st_size);
  if (file.size_ > 0) {
    void* data = ::mmap(nullptr, file.size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      const Error error = system_error(path, "map");
      ::close(fd);
      return fail(error);
    }
    file.data_ = static_cast<const uint8_t*>(data);
  }
  ::close(fd);
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

Expected<std::string> read_file(const std::string& path, size_t limit) {
  TRY(const MappedFile file, MappedFile::open(path));
  if (file.bytes().size() > limit) {
    return fail(ErrorCode::kTooLarge, path + ": " + std::to_string(file.bytes().size()) +
                                          " bytes, more than the " + std::to_string(limit) +
                                          " allowed for such a file");
  }
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

Status write_file(const std::string& path, std::string_view bytes) {
  struct stat info {};
  const bool exists = ::stat(path.c_str(), &info) == 0;
  if (!exists && errno != ENOENT) return fail(system_error(path, "write"));
  if (exists && (!S_ISREG(info.st_mode) || names_descriptor(path))) return append(path, bytes);
  return replace(followed(path), bytes, exists ? &info : nullptr);
}

}  // namespace coppice
