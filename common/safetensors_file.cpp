// Reading: everything a header says is checked before a byte of a tensor is read.
#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <optional>

#include "common/invariant.h"
#include "common/safetensors.h"

namespace detente {
namespace json = boost::json;
namespace {

// Thrown and caught in this file only: a JSON walk has too many ways to fail for one return each.
struct Refused {
    std::string text;
};

std::optional<Dtype> dtype_of(std::string_view name) {
    for (const Dtype dtype : {Dtype::f32, Dtype::f64, Dtype::i64, Dtype::u8}) {
        if (name == name_of(dtype)) return dtype;
    }
    return std::nullopt;
}

const json::value& member(const json::object& object, const char* key, const std::string& tensor) {
    const json::value* value = object.if_contains(key);
    if (value == nullptr) throw Refused{fmt::format("tensor '{}' has no {}", tensor, key)};
    return *value;
}

std::vector<std::uint64_t> numbers_of(const json::value& value, const char* key,
                                      const std::string& tensor) {
    const json::array* array = value.if_array();
    std::vector<std::uint64_t> numbers;
    for (std::size_t i = 0; array != nullptr && i < array->size(); ++i) {
        boost::system::error_code error;
        const auto number = (*array)[i].to_number<std::uint64_t>(error);
        if (error || (*array)[i].is_double()) {
            array = nullptr;
        } else {
            numbers.push_back(number);
        }
    }
    if (array == nullptr) {
        throw Refused{
            fmt::format("tensor '{}': expected {} to be a list of whole numbers, found "
                        "{}",
                        tensor, key, json::serialize(value))};
    }
    return numbers;
}

// The product of a shape may overflow; then it fits no file.
std::optional<std::uint64_t> bytes_of(const TensorEntry& entry) {
    std::uint64_t bytes = size_bytes(entry.dtype);
    for (const std::uint64_t extent : entry.shape) {
        if (__builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
    }
    return bytes;
}

SafetensorsFile::Tensor tensor_of(const std::string& name, const json::value& value,
                                  std::uint64_t tensors_bytes) {
    const json::object* object = value.if_object();
    if (object == nullptr) throw Refused{fmt::format("tensor '{}' is no JSON object", name)};
    SafetensorsFile::Tensor tensor;
    tensor.entry.name = name;
    const json::string* dtype_text = member(*object, "dtype", name).if_string();
    const auto dtype = dtype_text == nullptr
                           ? std::nullopt
                           : dtype_of(std::string_view(dtype_text->data(), dtype_text->size()));
    if (!dtype) {
        throw Refused{fmt::format("tensor '{}': expected dtype F32, F64, I64 or U8, found {}", name,
                                  json::serialize(member(*object, "dtype", name)))};
    }
    tensor.entry.dtype = *dtype;
    tensor.entry.shape = numbers_of(member(*object, "shape", name), "shape", name);
    const std::vector<std::uint64_t> range =
        numbers_of(member(*object, "data_offsets", name), "data_offsets", name);
    if (range.size() != 2 || range[0] > range[1] || range[1] > tensors_bytes) {
        throw Refused{fmt::format(
            "tensor '{}': expected a range within the {} bytes behind the "
            "header, found {}: the file is truncated or altered",
            name, tensors_bytes, json::serialize(member(*object, "data_offsets", name)))};
    }
    const std::optional<std::uint64_t> wanted = bytes_of(tensor.entry);
    if (!wanted || *wanted != range[1] - range[0]) {
        throw Refused{fmt::format(
            "tensor '{}': expected {} bytes for its shape and dtype, found a "
            "range of {}",
            name, wanted ? std::to_string(*wanted) : "more than 2^64", range[1] - range[0])};
    }
    tensor.offset_bytes = range[0];
    return tensor;
}

SafetensorsMetadata metadata_of(const json::value& value) {
    const json::object* object = value.if_object();
    if (object == nullptr) throw Refused{"__metadata__ is no JSON object"};
    SafetensorsMetadata metadata;
    for (const auto& entry : *object) {
        const json::string* text = entry.value().if_string();
        if (text == nullptr) {
            throw Refused{fmt::format("__metadata__: expected text under '{}', found {}",
                                      std::string(entry.key()), json::serialize(entry.value()))};
        }
        metadata.emplace(std::string(entry.key()), std::string(text->data(), text->size()));
    }
    return metadata;
}

// Sorted by place, each must begin where the one before ended, and the last end with the file.
void check_gapless(const std::vector<SafetensorsFile::Tensor>& tensors,
                   std::uint64_t tensors_bytes) {
    std::uint64_t end = 0;
    for (const auto& tensor : tensors) {
        if (tensor.offset_bytes != end) {
            throw Refused{fmt::format(
                "tensor '{}': expected it to begin at byte {}, where the one before ends, found {} "
                "({})",
                tensor.entry.name, end, tensor.offset_bytes,
                tensor.offset_bytes < end ? "they overlap" : "there is a gap")};
        }
        end += tensor.entry.bytes();
    }
    if (end != tensors_bytes) {
        throw Refused{
            fmt::format("expected the tensors to end with the file, {} bytes behind the "
                        "header, found {}",
                        tensors_bytes, end)};
    }
}

std::vector<SafetensorsFile::Tensor> parse(std::string_view header, std::uint64_t tensors_bytes,
                                           SafetensorsMetadata& metadata) {
    boost::system::error_code error;
    const json::value parsed = json::parse(json::string_view(header.data(), header.size()), error);
    if (error) throw Refused{"the header is no JSON: " + error.message()};
    const json::object* object = parsed.if_object();
    if (object == nullptr) throw Refused{"the header is no JSON object"};
    std::vector<SafetensorsFile::Tensor> tensors;
    for (const auto& entry : *object) {
        if (entry.key() == "__metadata__") {
            metadata = metadata_of(entry.value());
        } else {
            tensors.push_back(tensor_of(std::string(entry.key()), entry.value(), tensors_bytes));
        }
    }
    std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
        // An empty tensor shares its offset with the one after it.
        return std::pair(a.offset_bytes, a.entry.bytes()) <
               std::pair(b.offset_bytes, b.entry.bytes());
    });
    check_gapless(tensors, tensors_bytes);
    return tensors;
}

Error refused(const std::string& path, const std::string& text) {
    return fail(ErrorCode::bad_checkpoint,
                fmt::format("{} is no whole safetensors file: {}; restore it from a copy, or use "
                            "another checkpoint",
                            path, text));
}

}  // namespace

Result<SafetensorsFile> SafetensorsFile::open(std::string path) {
    Result<OpenFile> opened = open_to_read(path);
    if (opened.has_error()) return opened.error();
    SafetensorsFile file;
    file.path_ = std::move(path);
    file.file_ = std::move(*opened);
    const Result<std::uint64_t> size = file_size(file.file_, file.path_);
    if (size.has_error()) return size.error();
    file.file_bytes_ = *size;
    if (*size < 8) {
        return refused(file.path_, fmt::format("expected 8 bytes of header length, found a file "
                                               "of {} bytes",
                                               *size));
    }
    std::array<std::byte, 8> prefix{};
    auto read = read_whole(file.file_, 0, prefix, file.path_);
    if (read.has_error()) return read.error();
    std::uint64_t header_bytes = 0;
    for (unsigned i = 0; i < 8; ++i) {
        header_bytes |= static_cast<std::uint64_t>(prefix[i]) << (8U * i);
    }
    if (header_bytes > *size - 8 || header_bytes > kMostSafetensorsHeader) {
        return refused(file.path_,
                       fmt::format("expected a header within the {} bytes of the file (at most "
                                   "{}), found a length of {}",
                                   *size, kMostSafetensorsHeader, header_bytes));
    }
    std::string header(header_bytes, '\0');
    read = read_whole(file.file_, 8, std::as_writable_bytes(std::span(header)), file.path_);
    if (read.has_error()) return read.error();
    try {
        file.tensors_ = parse(header, *size - 8 - header_bytes, file.metadata_);
    } catch (const Refused& refusal) {
        return refused(file.path_, refusal.text);
    }
    for (std::size_t i = 0; i < file.tensors_.size(); ++i) {
        file.tensors_[i].offset_bytes += 8 + header_bytes;
        file.by_name_.emplace(file.tensors_[i].entry.name, i);
    }
    return file;
}

const SafetensorsFile::Tensor* SafetensorsFile::find(std::string_view name) const {
    const auto at = by_name_.find(name);
    return at == by_name_.end() ? nullptr : &tensors_[at->second];
}

Result<Payload> SafetensorsFile::read(const Tensor& tensor) const {
    auto buffer = std::make_shared<AlignedBuffer>(tensor.entry.bytes());
    const auto done = read(tensor, 0, {buffer->data(), buffer->size()});
    if (done.has_error()) return done.error();
    return payload_of(std::move(buffer));
}

Result<void> SafetensorsFile::read(const Tensor& tensor, std::uint64_t from_bytes,
                                   std::span<std::byte> into) const {
    const std::uint64_t bytes = tensor.entry.bytes();
    invariant(from_bytes <= bytes && into.size() <= bytes - from_bytes,
              "a read stays within its tensor");
    return read_whole(file_, tensor.offset_bytes + from_bytes, into, path_);
}

}  // namespace detente
