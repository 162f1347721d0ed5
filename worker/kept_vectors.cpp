#include "worker/kept_vectors.h"

#include <fmt/format.h>

#include <charconv>

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
    return kept;
}

}  // namespace detente
