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

// A file open for writing, closed with it. name: what errors call it.
class Writer {
 public:
  Writer(const std::string& path, int flags, std::string name) : name_(std::move(name)) {
    fd_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | flags, 0666);
  }
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
    return content([this](std::string_view bytes) { return write(bytes); });
  }
  Status close() {
    if (::close(std::exchange(fd_, -1)) != 0) return fail(system_error(name_, "write"));
    return {};
  }

 private:
  std::string name_;
  int fd_;
};

Status append(const std::string& path, const FileContent& content) {
  Writer out(path, O_APPEND, path);
  if (!out.is_open()) return fail(system_error(path, "open"));
  TRY_STATUS(out.write_all(content));
  return out.close();
}

// Whether the name still leads to that file: another process may have made its own of it.
bool leads_to(const std::string& path, const struct stat& file) {
  struct stat now {};
  return ::lstat(path.c_str(), &now) == 0 && now.st_dev == file.st_dev && now.st_ino == file.st_ino;
}

// path leads nowhere else. old: of the file that is replaced, whose permissions stay; null without
// one.
Status replace(const std::string& path, const FileContent& content, const struct stat* old) {
  const std::string temporary = partial_path(path);
  ::unlink(temporary.c_str());  // what a killed run left, which may be open or a link elsewhere
  Writer out(temporary, O_CREAT | O_EXCL | O_NOFOLLOW, path);
  if (!out.is_open()) return fail(system_error(errno == EEXIST ? temporary : path, "create"));
  struct stat made {};
  ::fstat(out.fd(), &made);
  const auto write = [&]() -> Status {
    if (old != nullptr && ::fchmod(out.fd(), old->st_mode & 07777) != 0) {
      return fail(system_error(path, "change the permissions"));
    }
    TRY_STATUS(out.write_all(content));
    if (!leads_to(temporary, made)) {
      return fail(ErrorCode::kInternal, path + ": cannot write: others write it at the same time");
    }
    TRY_STATUS(out.close());
    if (std::rename(temporary.c_str(), path.c_str()) != 0) return fail(system_error(path, "write"));
    return {};
  };
  Status written = write();
  if (!written && leads_to(temporary, made)) ::unlink(temporary.c_str());
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

std::string partial_path(const std::string& path) { return followed(path) + ".partial"; }

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
