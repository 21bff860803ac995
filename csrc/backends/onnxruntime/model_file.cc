#include "backends/onnxruntime/model_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <protozero/pbf_reader.hpp>
#include <string_view>
#include <system_error>

#include "base/strcat.h"

namespace penstock::ort {
namespace {

namespace fs = std::filesystem;
using protozero::pbf_reader;
using protozero::pbf_wire_type;

// Field numbers of onnx.proto, each a message, string or bytes.
constexpr uint32_t Field(uint32_t number) {
  return protozero::tag_and_type(number, pbf_wire_type::length_delimited);
}

// Graphs in attributes of nodes of graphs: no exporter nests like this.
constexpr int kMaxDepth = 64;
constexpr uint64_t kMaxFileBytes = uint64_t{2} << 30;  // protobuf's own limit

constexpr std::array<std::string_view, 8> kHeavyOperators = {
    "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "LSTM", "GRU", "RNN", "Attention"};

// The walk. Malformed protobuf leaves it as a protozero::exception, excessive depth as TooDeep.
class Walk {
 public:
  struct TooDeep {};

  void Model(pbf_reader model) {
    while (model.next()) {
      switch (model.tag_and_type()) {
        case Field(7):
          Interface(model.get_message());
          has_graph_ = true;
          break;
        case Field(20):
          Training(model.get_message());
          break;
        case Field(25):
          Function(model.get_message());
          break;
        default:
          model.skip();
      }
    }
  }

  bool has_graph() const { return has_graph_; }
  const std::set<std::string>& locations() const { return locations_; }
  ModelFileFacts& facts() { return facts_; }

 private:
  // The outermost graph: as any graph, and its inputs and outputs.
  void Interface(pbf_reader graph) {
    Graph(graph, 0);
    while (graph.next()) {
      switch (graph.tag_and_type()) {
        case Field(11):
        case Field(12):
          Value(graph.get_message());
          break;
        default:
          graph.skip();
      }
    }
  }

  void Graph(pbf_reader graph, int depth) {
    if (depth > kMaxDepth) throw TooDeep();
    while (graph.next()) {
      switch (graph.tag_and_type()) {
        case Field(1):
          Node(graph.get_message(), depth);
          break;
        case Field(5):
          Tensor(graph.get_message(), /*is_inner=*/depth > 0);
          break;
        case Field(15):
          SparseTensor(graph.get_message());
          break;
        default:
          graph.skip();
      }
    }
  }

  void Training(pbf_reader info) {
    while (info.next()) {
      switch (info.tag_and_type()) {
        case Field(1):
        case Field(2):
          Graph(info.get_message(), 1);
          break;
        default:
          info.skip();
      }
    }
  }

  void Function(pbf_reader function) {
    while (function.next()) {
      switch (function.tag_and_type()) {
        case Field(7):
          Node(function.get_message(), 1);
          break;
        case Field(11):
          Attribute(function.get_message(), 1);
          break;
        default:
          function.skip();
      }
    }
  }

  void Node(pbf_reader node, int depth) {
    while (node.next()) {
      switch (node.tag_and_type()) {
        case Field(4):
          Operator(node.get_string());
          break;
        case Field(5):
          Attribute(node.get_message(), depth);
          break;
        default:
          node.skip();
      }
    }
  }

  void Operator(const std::string& type) {
    for (std::string_view heavy : kHeavyOperators) facts_.has_heavy_operator |= type == heavy;
  }

  void Attribute(pbf_reader attribute, int depth) {
    while (attribute.next()) {
      switch (attribute.tag_and_type()) {
        case Field(5):
        case Field(10):
          Tensor(attribute.get_message(), /*is_inner=*/true);
          break;
        case Field(6):
        case Field(11):
          Graph(attribute.get_message(), depth + 1);
          break;
        case Field(22):
        case Field(23):
          SparseTensor(attribute.get_message());
          break;
        default:
          attribute.skip();
      }
    }
  }

  void SparseTensor(pbf_reader tensor) {
    while (tensor.next()) {
      switch (tensor.tag_and_type()) {
        case Field(1):
        case Field(2):
          Tensor(tensor.get_message(), /*is_inner=*/true);
          break;
        default:
          tensor.skip();
      }
    }
  }

  void Tensor(pbf_reader tensor, bool is_inner) {
    while (tensor.next()) {
      if (tensor.tag_and_type() == Field(13)) {
        ExternalData(tensor.get_message(), is_inner);
      } else {
        tensor.skip();
      }
    }
  }

  void ExternalData(pbf_reader entry, bool is_inner) {
    std::string key;
    std::string value;
    while (entry.next()) {
      switch (entry.tag_and_type()) {
        case Field(1):
          key = entry.get_string();
          break;
        case Field(2):
          value = entry.get_string();
          break;
        default:
          entry.skip();
      }
    }
    if (key != "location") return;
    locations_.insert(value);
    if (is_inner) facts_.inner_locations.insert(value);
  }

  // A ValueInfoProto: its name, and whether its type says a shape.
  void Value(pbf_reader value) {
    std::string name;
    bool has_shape = false;
    while (value.next()) {
      switch (value.tag_and_type()) {
        case Field(1):
          name = value.get_string();
          break;
        case Field(2):
          has_shape = HasShape(value.get_message());
          break;
        default:
          value.skip();
      }
    }
    if (!has_shape) facts_.rank_unknown.insert(name);
  }

  static bool HasShape(pbf_reader type) {
    while (type.next(1, pbf_wire_type::length_delimited)) {
      pbf_reader tensor = type.get_message();
      if (tensor.next(2, pbf_wire_type::length_delimited)) return true;
    }
    return false;
  }

  bool has_graph_ = false;
  std::set<std::string> locations_;
  ModelFileFacts facts_;
};

struct Bytes {
  std::unique_ptr<char[]> data;
  size_t size = 0;
};

class File {
 public:
  explicit File(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

bool ReadAll(const File& file, char* to, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t n = pread(file.fd(), to + done, size - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

Status CannotRead(const LoadOptions& options, std::string_view why) {
  const std::string name = fs::path(options.path).filename().string();
  return InvalidArgument(StrCat(ModelLabel(options), ": file '", name, "' ", why));
}

Result<Bytes> ReadFile(const LoadOptions& options) {
  const File file(options.path);
  struct stat info;
  if (file.fd() < 0 || fstat(file.fd(), &info) != 0) {
    const std::string name = fs::path(options.path).filename().string();
    return NotFound(StrCat(ModelLabel(options), ": file '", name,
                           "' cannot be opened: ", std::generic_category().message(errno)));
  }
  if (!S_ISREG(info.st_mode)) return CannotRead(options, "is not a regular file");
  if (info.st_size == 0) return CannotRead(options, "is empty");
  if (static_cast<uint64_t>(info.st_size) >= kMaxFileBytes) {
    return CannotRead(options,
                      "is 2 GiB or larger, more than ONNX allows in one file: export its "
                      "weights as external data");
  }
  Bytes bytes{std::unique_ptr<char[]>(new char[info.st_size]), static_cast<size_t>(info.st_size)};
  if (!ReadAll(file, bytes.data.get(), bytes.size)) {
    return CannotRead(options, "could not be read to its end");
  }
  return bytes;
}

bool IsOrtFormat(const Bytes& bytes) {
  return bytes.size >= 8 && std::memcmp(bytes.data.get() + 4, "ORTM", 4) == 0;
}

bool IsInside(const fs::path& path, const fs::path& directory) {
  const auto [end, rest] =
      std::mismatch(directory.begin(), directory.end(), path.begin(), path.end());
  return end == directory.end();
}

Status BadLocation(const LoadOptions& options, const std::string& location, std::string_view why) {
  return InvalidArgument(StrCat(ModelLabel(options), ": external data '", location, "' ", why));
}

// `location`, relative to the model file, must be a regular file in the model's directory; where it
// is, links followed.
Result<fs::path> Resolve(const LoadOptions& options, const std::string& location) {
  const fs::path relative(location);
  if (location.empty() || location.find('\0') != std::string::npos) {
    return InvalidArgument(ModelLabel(options) + ": external data without a file name");
  }
  if (relative.is_absolute()) return BadLocation(options, location, "is an absolute path");
  for (const fs::path& part : relative) {
    if (part == "..") return BadLocation(options, location, "leads out of the model's directory");
  }
  const fs::path file_directory = fs::path(options.path).parent_path();
  const fs::path root =
      options.model_directory.empty() ? file_directory : fs::path(options.model_directory);
  std::error_code error;
  const fs::path resolved = fs::canonical(file_directory / relative, error);
  if (error) {
    return NotFound(StrCat(ModelLabel(options), ": external data '", location,
                           "' cannot be opened: ", error.message()));
  }
  const fs::path allowed = fs::canonical(root, error);
  if (error || !IsInside(resolved, allowed)) {
    return BadLocation(options, location, "leads out of the model's directory by a symbolic link");
  }
  if (!fs::is_regular_file(resolved, error)) {
    return BadLocation(options, location, "is not a regular file");
  }
  return resolved;
}

void EraseAll(std::string* text, const std::string& what) {
  if (what.size() < 2) return;
  for (size_t at = text->find(what); at != std::string::npos; at = text->find(what, at)) {
    text->erase(at, what.size());
  }
}

}  // namespace

std::string ModelLabel(const LoadOptions& options) {
  return StrCat("model '", options.model_name, "' version ", options.version);
}

std::string WithoutPaths(std::string message, const LoadOptions& options) {
  for (const fs::path& directory :
       {fs::path(options.path).parent_path(), fs::path(options.model_directory)}) {
    if (directory.empty()) continue;
    std::error_code error;
    const fs::path resolved = fs::canonical(directory, error);
    if (!error) EraseAll(&message, resolved.string() + "/");
    EraseAll(&message, directory.string() + "/");
    if (!error) EraseAll(&message, resolved.string());
    EraseAll(&message, directory.string());
  }
  return message;
}

Result<ModelFileFacts> InspectModelFile(const LoadOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(const Bytes bytes, ReadFile(options));
  if (IsOrtFormat(bytes)) {
    return CannotRead(options,
                      "is in ONNX Runtime's own format: serve the ONNX file it was made from");
  }
  Walk walk;
  try {
    walk.Model(pbf_reader(bytes.data.get(), bytes.size));
  } catch (const protozero::exception&) {
    return CannotRead(options, "is not an ONNX file, or is damaged or cut short");
  } catch (const Walk::TooDeep&) {
    return CannotRead(options, StrCat("nests more than ", kMaxDepth, " graphs"));
  }
  if (!walk.has_graph()) return CannotRead(options, "is not an ONNX file: it holds no graph");
  walk.facts().size_bytes = bytes.size;
  for (const std::string& location : walk.locations()) {
    PENSTOCK_ASSIGN_OR_RETURN(const fs::path path, Resolve(options, location));
    std::error_code error;
    const uintmax_t size = fs::file_size(path, error);
    if (error) return BadLocation(options, location, "cannot be read");
    walk.facts().size_bytes += size;
  }
  walk.facts().locations = walk.locations();
  return std::move(walk.facts());
}

Result<std::vector<ExternalData>> ReadExternalData(const LoadOptions& options,
                                                   const std::set<std::string>& locations) {
  std::vector<ExternalData> read;
  for (const std::string& location : locations) {
    PENSTOCK_ASSIGN_OR_RETURN(const fs::path path, Resolve(options, location));
    const File file(path.string());
    struct stat info;
    if (file.fd() < 0 || fstat(file.fd(), &info) != 0 || !S_ISREG(info.st_mode)) {
      return BadLocation(options, location, "cannot be read");
    }
    const size_t size = static_cast<size_t>(info.st_size);
    ExternalData data{location, std::unique_ptr<char[]>(new char[size + 1]), size};
    if (!ReadAll(file, data.bytes.get(), size)) {
      return BadLocation(options, location, "could not be read to its end");
    }
    read.push_back(std::move(data));
  }
  return read;
}

}  // namespace penstock::ort
