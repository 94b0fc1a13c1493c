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
#include <utility>

namespace coppice {
namespace {

Error system_error(const std::string& path, const char* verb) {
  const int code = errno;
  return {code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kInternal,
          path + ": cannot " + verb + ": " + std::strerror(code)};
}

// An open file's name: others wrote to it and will go on, so nothing may take its place.
bool names_descriptor(std::string_view path) {
  return path == "/dev/stdout" || path == "/dev/stderr" || path.starts_with("/dev/fd/") ||
         path.starts_with("/proc/");
}

constexpr int kToWrite = O_WRONLY | O_CLOEXEC | O_NOCTTY;

// A file open for writing, closed with it. name: what errors call it.
class Writer {
 public:
  Writer(int fd, std::string name) : name_(std::move(name)), fd_(fd) {}
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() {
    if (fd_ >= 0) ::close(fd_);
  }

  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  Status write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t wrote = ::write(fd_, bytes.data(), bytes.size());
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) return fail(system_error(name_, "write"));
      bytes.remove_prefix(static_cast<size_t>(wrote));
    }
    return {};
  }
  Status write_all(const FileContent& content) {
    TRY_STATUS(content([this](std::string_view bytes) { return write(bytes); }));
    if (::close(std::exchange(fd_, -1)) != 0) return fail(system_error(name_, "write"));
    return {};
  }

 private:
  std::string name_;
  int fd_;
};

Status append(const std::string& path, const FileContent& content) {
  Writer out(::open(path.c_str(), kToWrite | O_APPEND), path);
  if (!out.is_open()) return fail(system_error(path, "open"));
  return out.write_all(content);
}

// Opens a new file beside `path`, so that nothing is written through or over: neither what another
// process is writing nor what a killed one left. -1 with errno as open().
int open_beside(const std::string& path, mode_t mode, std::string& name) {
  constexpr int kMostTaken = 100;
  int fd = -1;
  for (int taken = 0; fd < 0 && taken < kMostTaken; ++taken) {
    name = path + ".partial" + (taken == 0 ? "" : std::to_string(taken));
    fd = ::open(name.c_str(), kToWrite | O_CREAT | O_EXCL, mode);
    if (fd < 0 && errno != EEXIST) return fd;
  }
  return fd;
}

// path leads nowhere else. old: of the file that is replaced, whose permissions stay; null without
// one.
Status replace(const std::string& path, const FileContent& content, const struct stat* old) {
  std::string temporary;
  Writer out(open_beside(path, old != nullptr ? 0600 : 0666, temporary), path);
  if (!out.is_open()) return fail(system_error(path, "create"));
  const auto write = [&]() -> Status {
    if (old != nullptr && ::fchmod(out.fd(), old->st_mode & 07777) != 0) {
      return fail(system_error(path, "change the permissions"));
    }
    TRY_STATUS(out.write_all(content));
    if (std::rename(temporary.c_str(), path.c_str()) != 0) return fail(system_error(path, "write"));
    return {};
  };
  Status written = write();
  if (!written) ::unlink(temporary.c_str());
  return written;
}

}  // namespace

Expected<MappedFile> MappedFile::open(const std::string& path) {
  // A pipe without a writer is refused, not waited for.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
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

std::string followed(const std::string& path) {
  constexpr int kMostLinks = 40;  // as many as the system follows
  std::filesystem::path at = path;
  for (int links = 0; links < kMostLinks; ++links) {
    std::error_code error;
    const std::filesystem::path next = std::filesystem::read_symlink(at, error);
    if (error) break;
    at = at.parent_path() / next;
  }
  return at.string();
}

Status write_file(const std::string& path, std::string_view bytes) {
  return write_file(path, [&](const FileSink& sink) { return sink(bytes); });
}

Status write_file(const std::string& path, const FileContent& content) {
  struct stat info {};
  const bool exists = ::stat(path.c_str(), &info) == 0;
  if (!exists && errno != ENOENT) return fail(system_error(path, "write"));
  if (exists && (!S_ISREG(info.st_mode) || names_descriptor(path))) return append(path, content);
  return replace(followed(path), content, exists ? &info : nullptr);
}

}  // namespace coppice
