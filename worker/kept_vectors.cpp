#include "worker/kept_vectors.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

#include "common/safetensors.h"

namespace detente {
namespace {

constexpr const char* kFormat = "detente worker vectors 1";
constexpr std::size_t kMostGates = 65536;

std::string task_name(std::size_t block, std::size_t task) {
    return fmt::format("block.{}.task{}", block, task);
}
std::string gate_name(std::size_t gate, std::size_t place) {
    return fmt::format("gate.{}.{}", gate, place);
}

constexpr const char* kComputed = "halves.computed";
std::string half_name(std::size_t block, const std::string& policy, std::size_t place) {
    return fmt::format("block.{}.half.{}.{}", block, policy, place);
}
// The block and the policy of a half's vector, whatever its place; none = another tensor's name.
std::optional<std::pair<std::size_t, std::string>> half_in(std::string_view name) {
    constexpr std::string_view kBlock = "block.";
    constexpr std::string_view kHalf = ".half.";
    if (!name.starts_with(kBlock)) return std::nullopt;
    name.remove_prefix(kBlock.size());
    std::size_t block = 0;
    const auto [stopped, error] = std::from_chars(name.data(), name.data() + name.size(), block);
    if (error != std::errc()) return std::nullopt;
    name.remove_prefix(static_cast<std::size_t>(stopped - name.data()));
    const std::size_t last = name.rfind('.');
    if (!name.starts_with(kHalf) || last < kHalf.size()) return std::nullopt;
    return std::pair{block, std::string(name.substr(kHalf.size(), last - kHalf.size()))};
}

Error bad(const std::string& path, const std::string& text) {
    return fail(ErrorCode::bad_checkpoint,
                fmt::format("{} is no worker's file of a checkpoint: {}; use another checkpoint",
                            path, text));
}

class Pieces {
  public:
    void add(std::string name, const std::shared_ptr<const void>& owner,
             const std::vector<float>& values) {
        tensors_.push_back({std::move(name), Dtype::f32, {values.size()}});
        pieces_.push_back({owner, std::as_bytes(std::span(values))});
    }
    void add(std::string name, std::vector<std::int64_t> numbers) {
        tensors_.push_back({std::move(name), Dtype::i64, {numbers.size()}});
        const auto owner = std::make_shared<const std::vector<std::int64_t>>(std::move(numbers));
        pieces_.push_back({owner, std::as_bytes(std::span(*owner))});
    }
    Result<std::vector<Payload>> with_header(const SafetensorsMetadata& metadata) && {
        if (tensors_.empty()) return std::vector<Payload>{};
        Result<Payload> header = safetensors_header(tensors_, metadata);
        if (header.has_error()) {
            return fail(header.error().code,
                        "what a worker keeps as vectors: " + header.error().text +
                            "; use larger blocks (blocks.bytes), so that there are fewer");
        }
        pieces_.front() = std::move(*header);
        return std::move(pieces_);
    }

  private:
    std::vector<TensorEntry> tensors_;
    std::vector<Payload> pieces_ = std::vector<Payload>(1);  // the header's place
};

// Empty where the file does not have it.
Result<std::vector<float>> floats_in(const SafetensorsFile& file, const std::string& name) {
    const SafetensorsFile::Tensor* tensor = file.find(name);
    if (tensor == nullptr) return std::vector<float>{};
    if (tensor->entry.dtype != Dtype::f32) {
        return bad(file.path(), fmt::format("'{}' is no list of F32", name));
    }
    std::vector<float> values(tensor->entry.bytes() / sizeof(float));
    const auto read = file.read(*tensor, 0, std::as_writable_bytes(std::span(values)));
    if (read.has_error()) return read.error();
    return values;
}

Result<std::shared_ptr<const TaskVectors>> task_vectors(const SafetensorsFile& file,
                                                        const Plan& plan, std::size_t tasks) {
    auto vectors = std::make_shared<TaskVectors>(plan.blocks.size() * tasks);
    bool any = false;
    for (const Block& block : plan.blocks) {
        if (!block.trainable() || !block.shared()) continue;
        for (std::uint32_t task = 0; task < tasks; ++task) {
            if (!block.owners.contains(TaskId{task})) continue;
            const std::string name = task_name(block.id.value, task);
            auto values = floats_in(file, name);
            if (values.has_error()) return values.error();
            if (!values->empty() && values->size() != block.elements) {
                return bad(file.path(), fmt::format("'{}': expected {} elements, found {}", name,
                                                    block.elements, values->size()));
            }
            any = any || !values->empty();
            (*vectors)[block.id.value * tasks + task] = std::move(*values);
        }
    }
    return any ? std::shared_ptr<const TaskVectors>(std::move(vectors)) : nullptr;
}

Result<std::shared_ptr<const GateVectors>> gate_vectors(const SafetensorsFile& file) {
    const auto told = file.metadata().find("gates");
    const std::string text = told == file.metadata().end() ? "none" : told->second;
    std::size_t gates = 0;
    const auto [stopped, error] = std::from_chars(text.data(), text.data() + text.size(), gates);
    if (error != std::errc() || stopped != text.data() + text.size() || gates > kMostGates) {
        return bad(file.path(), fmt::format("expected a number of gates, found '{}'", text));
    }
    if (gates == 0) return std::shared_ptr<const GateVectors>{};
    auto vectors = std::make_shared<GateVectors>(gates);
    for (std::size_t gate = 0; gate < gates; ++gate) {
        for (;;) {
            auto values = floats_in(file, gate_name(gate, (*vectors)[gate].size()));
            if (values.has_error()) return values.error();
            if (values->empty()) break;
            (*vectors)[gate].push_back(std::move(*values));
        }
    }
    return std::shared_ptr<const GateVectors>(std::move(vectors));
}

void add_halves(const HalfVectors& halves, Pieces& pieces) {
    std::vector<std::int64_t> computed;
    for (std::size_t block = 0; block < halves.blocks.size(); ++block) {
        const HalfVectors::OfBlock& own = halves.blocks[block];
        computed.push_back(static_cast<std::int64_t>(own.computed));
        for (std::size_t place = 0; place < own.vectors.size(); ++place) {
            pieces.add(half_name(block, own.policy, place), own.vectors[place],
                       *own.vectors[place]);
        }
    }
    pieces.add(kComputed, std::move(computed));
}

Result<std::vector<std::int64_t>> computed_in(const SafetensorsFile& file, std::size_t blocks) {
    const SafetensorsFile::Tensor* tensor = file.find(kComputed);
    std::vector<std::int64_t> computed(blocks);
    if (tensor == nullptr || tensor->entry.dtype != Dtype::i64 ||
        tensor->entry.bytes() != blocks * sizeof(std::int64_t)) {
        return bad(file.path(), fmt::format("expected '{}' of {} I64", kComputed, blocks));
    }
    const auto read = file.read(*tensor, 0, std::as_writable_bytes(std::span(computed)));
    if (read.has_error()) return read.error();
    return computed;
}

Result<std::shared_ptr<const HalfVectors>> half_vectors(const SafetensorsFile& file,
                                                        const Plan& plan) {
    auto halves = std::make_shared<HalfVectors>();
    halves->blocks.resize(plan.blocks.size());
    bool any = false;
    for (const SafetensorsFile::Tensor& tensor : file.tensors()) {
        const std::string& name = tensor.entry.name;
        const auto half = half_in(name);
        if (!half) continue;
        any = true;
        const auto& [id, policy] = *half;
        if (id >= plan.blocks.size()) {
            return bad(file.path(),
                       fmt::format("'{}': expected a block below {}", name, plan.blocks.size()));
        }
        HalfVectors::OfBlock& own = halves->blocks[id];
        if (name != half_name(id, policy, own.vectors.size())) {
            return bad(file.path(), fmt::format("expected '{}', found '{}'",
                                                half_name(id, policy, own.vectors.size()), name));
        }
        auto values = floats_in(file, name);
        if (values.has_error()) return values.error();
        if (values->size() != plan.blocks[id].elements) {
            return bad(file.path(), fmt::format("'{}': expected {} elements, found {}", name,
                                                plan.blocks[id].elements, values->size()));
        }
        own.policy = policy;
        own.vectors.push_back(std::make_shared<const std::vector<float>>(std::move(*values)));
    }
    if (!any) return std::shared_ptr<const HalfVectors>{};
    const auto computed = computed_in(file, plan.blocks.size());
    if (computed.has_error()) return computed.error();
    for (std::size_t id = 0; id < plan.blocks.size(); ++id) {
        HalfVectors::OfBlock& own = halves->blocks[id];
        if ((*computed)[id] < 0 || ((*computed)[id] == 0) != own.vectors.empty()) {
            return bad(file.path(),
                       fmt::format("'{}' has {} for block {}, which has {} vectors", kComputed,
                                   (*computed)[id], id, own.vectors.size()));
        }
        own.computed = static_cast<std::uint64_t>((*computed)[id]);
    }
    return std::shared_ptr<const HalfVectors>(std::move(halves));
}

}  // namespace

Result<std::vector<Payload>> to_pieces(const KeptVectors& kept, std::size_t tasks) {
    Pieces pieces;
    for (std::size_t i = 0; kept.tasks != nullptr && i < kept.tasks->size(); ++i) {
        if ((*kept.tasks)[i].empty()) continue;
        pieces.add(task_name(i / tasks, i % tasks), kept.tasks, (*kept.tasks)[i]);
    }
    for (std::size_t gate = 0; kept.gates != nullptr && gate < kept.gates->size(); ++gate) {
        const auto& vectors = (*kept.gates)[gate];
        for (std::size_t place = 0; place < vectors.size(); ++place) {
            pieces.add(gate_name(gate, place), kept.gates, vectors[place]);
        }
    }
    if (kept.halves != nullptr) add_halves(*kept.halves, pieces);
    const std::size_t gates = kept.gates == nullptr ? 0 : kept.gates->size();
    return std::move(pieces).with_header(
        {{"format", kFormat}, {"method", kept.method}, {"gates", std::to_string(gates)}});
}

Result<KeptVectors> read_kept(const std::string& path, const Plan& plan, std::size_t tasks) {
    const auto file = SafetensorsFile::open(path);
    if (file.has_error()) return file.error();
    const auto format = file->metadata().find("format");
    const auto method = file->metadata().find("method");
    if (format == file->metadata().end() || format->second != kFormat ||
        method == file->metadata().end()) {
        return bad(path, fmt::format("expected format '{}', found '{}'", kFormat,
                                     format == file->metadata().end() ? "none" : format->second));
    }
    KeptVectors kept;
    kept.method = method->second;
    auto of_tasks = task_vectors(*file, plan, tasks);
    if (of_tasks.has_error()) return of_tasks.error();
    kept.tasks = std::move(*of_tasks);
    auto of_gates = gate_vectors(*file);
    if (of_gates.has_error()) return of_gates.error();
    kept.gates = std::move(*of_gates);
    auto of_halves = half_vectors(*file, plan);
    if (of_halves.has_error()) return of_halves.error();
    kept.halves = std::move(*of_halves);
    return kept;
}

}  // namespace detente
