// manifest.json, both ways.
#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <filesystem>

#include "common/file.h"
#include "ps/checkpoint.h"
#include "ps/strict_json.h"

namespace detente {
namespace json = boost::json;
namespace {

constexpr const char* kFormat = "detente checkpoint 3";
constexpr const char* kBeforeStrides = "detente checkpoint 2";      // read, never written
constexpr const char* kBeforeAggregators = "detente checkpoint 1";  // read, never written
constexpr std::uint64_t kMostManifestBytes = 1U << 30U;

std::uint64_t checksum_in(const json::object& object) {
    const std::string text = text_in(object, "xxh3");
    std::uint64_t checksum = 0;
    const auto [stopped, error] =
        std::from_chars(text.data(), text.data() + text.size(), checksum, 16);
    if (error != std::errc() || stopped != text.data() + text.size() || text.size() != 16) {
        throw BadJson{fmt::format("expected 'xxh3' to be 16 hexadecimal digits, found '{}'", text)};
    }
    return checksum;
}

CheckpointFile file_of(const json::object& object) {
    CheckpointFile file{text_in(object, "name"), integer_in(object, "bytes"), checksum_in(object)};
    // A manifest may name no file outside its directory.
    if (file.name.empty() || file.name.find('/') != std::string::npos || file.name[0] == '.') {
        throw BadJson{fmt::format("'{}' is no file of a checkpoint", file.name)};
    }
    return file;
}

// `strided`: of a format that has strides.
TensorCut cut_of(const json::object& object, bool strided) {
    TensorCut cut;
    cut.name = text_in(object, "name");
    for (const json::value& extent : array_in(object, "shape")) {
        cut.shape.push_back(static_cast<std::int64_t>(integer_of(extent, "shape")));
    }
    for (const json::value& elements : array_in(object, "blocks")) {
        cut.block_elements.push_back(integer_of(elements, "blocks"));
    }
    if (!strided) {
        cut.block_strides.assign(cut.block_elements.size(), 1);
        return cut;
    }
    for (const json::value& stride : array_in(object, "strides")) {
        cut.block_strides.push_back(integer_of(stride, "strides"));
    }
    if (cut.block_strides.size() != cut.block_elements.size()) {
        throw BadJson{fmt::format("tensor '{}' has {} blocks and {} strides", cut.name,
                                  cut.block_elements.size(), cut.block_strides.size())};
    }
    return cut;
}

WorkerMethod method_of(const json::object& object) {
    WorkerMethod saved;
    saved.worker = WorkerId{small_integer_in(object, "worker")};
    saved.state.method = text_in(object, "name");
    saved.state.groups = small_integer_in(object, "groups");
    for (const json::value& bits : array_in(object, "state")) {
        saved.state.values.push_back(std::bit_cast<double>(integer_of(bits, "state")));
    }
    return saved;
}

json::object json_of(const WorkerMethod& saved) {
    json::array state;
    for (const double value : saved.state.values) {
        state.emplace_back(std::to_string(std::bit_cast<std::uint64_t>(value)));
    }
    return {{"worker", std::to_string(saved.worker.value)},
            {"name", saved.state.method},
            {"groups", std::to_string(saved.state.groups)},
            {"state", std::move(state)}};
}

}  // namespace

std::string to_json(const Manifest& manifest) {
    const auto quoted = [](const auto& numbers) {
        json::array texts;
        for (const auto number : numbers) texts.emplace_back(std::to_string(number));
        return texts;
    };
    json::array tensors;
    for (const TensorCut& tensor : manifest.tensors) {
        tensors.push_back(json::object{{"name", tensor.name},
                                       {"shape", quoted(tensor.shape)},
                                       {"blocks", quoted(tensor.block_elements)},
                                       {"strides", quoted(tensor.block_strides)}});
    }
    json::array files;
    for (const CheckpointFile& file : manifest.files) {
        files.push_back(json::object{{"name", file.name},
                                     {"bytes", std::to_string(file.bytes)},
                                     {"xxh3", fmt::format("{:016x}", file.checksum)}});
    }
    json::array aggregators;
    for (const WorkerMethod& saved : manifest.methods) aggregators.push_back(json_of(saved));
    const json::object object{
        {"format", kFormat},
        {"number", std::to_string(manifest.number)},
        {"generation", std::to_string(manifest.generation.value)},
        {"shards", std::to_string(manifest.shards)},
        {"model", manifest.model},
        {"lowest_version", std::to_string(manifest.lowest_version.value)},
        {"highest_version", std::to_string(manifest.highest_version.value)},
        {"samples_applied", std::to_string(manifest.samples_applied)},
        {"newest_incarnation", std::to_string(manifest.newest_incarnation.value)},
        {"aggregators", std::move(aggregators)},
        {"files", std::move(files)},
        {"tensors", std::move(tensors)}};
    std::string text;  // a line per member, for people
    for (const auto& member : object) {
        text += (text.empty() ? "{\n" : ",\n") + json::serialize(json::string(member.key())) +
                ": " + json::serialize(member.value());
    }
    return text + "\n}\n";
}

Result<Manifest> manifest_from_json(std::string_view text) {
    try {
        json::value keeper;
        const json::object& object = parse_object(text, keeper);
        const std::string format = text_in(object, "format");
        if (format != kFormat && format != kBeforeStrides && format != kBeforeAggregators) {
            throw BadJson{fmt::format("expected format '{}', found '{}'", kFormat, format)};
        }
        Manifest manifest;
        manifest.number = integer_in(object, "number");
        manifest.generation = Generation{integer_in(object, "generation")};
        const std::uint64_t shards = integer_in(object, "shards");
        if (shards == 0 || shards > 1'000'000) throw BadJson{"'shards' is out of range"};
        manifest.shards = static_cast<std::uint32_t>(shards);
        manifest.model = text_in(object, "model");
        manifest.lowest_version = Version{integer_in(object, "lowest_version")};
        manifest.highest_version = Version{integer_in(object, "highest_version")};
        manifest.samples_applied = integer_in(object, "samples_applied");
        if (format != kBeforeAggregators) {
            manifest.newest_incarnation =
                Incarnation{small_integer_in(object, "newest_incarnation")};
            for (const json::value& saved : array_in(object, "aggregators")) {
                manifest.methods.push_back(method_of(object_of(saved, "an aggregator")));
            }
        }
        for (const json::value& file : array_in(object, "files")) {
            manifest.files.push_back(file_of(object_of(file, "a file")));
        }
        for (const json::value& tensor : array_in(object, "tensors")) {
            manifest.tensors.push_back(cut_of(object_of(tensor, "a tensor"), format == kFormat));
        }
        return manifest;
    } catch (const BadJson& bad) {
        return fail(ErrorCode::bad_checkpoint,
                    "no manifest of a checkpoint: " + bad.text + "; use another checkpoint");
    }
}

Result<Manifest> read_manifest(const std::string& directory) {
    const std::string path = directory + "/manifest.json";
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) {
        const bool there = std::filesystem::is_directory(directory, ignored);
        return fail(ErrorCode::bad_checkpoint,
                    there ? fmt::format("checkpoint {} is incomplete: it has no manifest.json, "
                                        "which is written last; use an earlier checkpoint",
                                        directory)
                          : fmt::format("there is no checkpoint {}; see the folders in "
                                        "RUN/checkpoints",
                                        directory));
    }
    const Result<std::string> text = read_text(path, kMostManifestBytes);
    if (text.has_error()) return text.error();
    Result<Manifest> manifest = manifest_from_json(*text);
    if (manifest.has_error()) {
        return fail(ErrorCode::bad_checkpoint, path + ": " + manifest.error().text);
    }
    return manifest;
}

}  // namespace detente
