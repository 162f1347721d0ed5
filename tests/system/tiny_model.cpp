// A model library in plain C++, without LibTorch, for system tests that are fast: two tasks pull a
// shared trunk to different points and each its own head to another. Options: `elements` of the
// trunk, `samples`, `step_ms` that a gradient takes, `evaluate_ms` that scoring takes (it then says
// in which process), `crash_at` and `nan_at` (which gradient of each process aborts, or fails).
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "worker/engine.h"

namespace detente {
namespace {

constexpr std::size_t kTasks = 2;
constexpr std::size_t kHeadElements = 64;
constexpr std::uintmax_t kDatasetBytes = 16;

class Rows final : public TaskGradients {
  public:
    explicit Rows(std::size_t elements) {
        for (auto& row : trunk) row.resize(elements);
        for (auto& row : head) row.resize(kHeadElements);
    }
    const float* gradient(TaskId task, std::size_t tensor) const override {
        if (tensor == 0) return trunk[task.value].data();
        return tensor == 1 + task.value ? head[task.value].data() : nullptr;
    }
    std::vector<float> trunk[kTasks];
    std::vector<float> head[kTasks];
};

class TinyModel final : public Engine {
  public:
    explicit TinyModel(const EngineOptions& options) {
        for (const auto& [key, value] : options.options) {
            const std::uint64_t number = std::stoull(value);
            if (key == "elements") elements_ = number;
            if (key == "samples") description_.training_samples = number;
            if (key == "step_ms") step_ = std::chrono::milliseconds(number);
            if (key == "evaluate_ms") evaluation_ = std::chrono::milliseconds(number);
            if (key == "crash_at") crash_at_ = number;
            if (key == "nan_at") nan_at_ = number;
        }
        description_.model = "tiny";
        description_.tasks = {"left", "right"};
        description_.test_samples = kHeadElements;
        description_.versions = "plain C++";
        add("trunk.weight", elements_, TaskSet{3});
        add("head.left.weight", kHeadElements, TaskSet{1});
        add("head.right.weight", kHeadElements, TaskSet{2});
    }

    const ModelDescription& description() const override { return description_; }
    std::span<const float> tensor(std::size_t index) const override { return values_[index]; }
    void load(std::size_t index, std::size_t offset, std::span<const std::byte> bytes) override {
        std::copy(bytes.begin(), bytes.end(),
                  std::as_writable_bytes(std::span(values_[index]).subspan(offset)).begin());
    }

    Result<GradientReport> gradients(const GradientRequest& request) override {
        ++calls_;
        if (calls_ == crash_at_) {
            std::fprintf(stderr, "terminate called: the tiny model was told to crash\n");
            std::abort();
        }
        if (calls_ == nan_at_) return fail(ErrorCode::not_finite, "the loss of task left is NaN");
        std::this_thread::sleep_for(step_);
        auto rows = std::make_shared<Rows>(elements_);
        GradientReport report;
        for (std::size_t task = 0; task < kTasks; ++task) {
            double loss = 0;
            for (std::size_t i = 0; i < elements_; ++i) {
                // The tasks agree on most of the trunk and disagree on a quarter of it.
                const float target = task == 0 || i % 4 != 0 ? 1.0F : -1.0F;
                rows->trunk[task][i] = values_[0][i] - target;
            }
            for (std::size_t i = 0; i < kHeadElements; ++i) {
                const float off = values_[1 + task][i] - 3.0F;
                rows->head[task][i] = off;
                loss += 0.5 * static_cast<double>(off) * static_cast<double>(off);
            }
            report.losses.push_back(loss / kHeadElements + 1e-6 * request.samples.size());
        }
        report.gradients = std::move(rows);
        return report;
    }

    // A head element near its target is a right answer.
    Result<std::vector<TaskScore>> evaluate() override {
        if (evaluation_.count() > 0) {
            std::fprintf(stderr, "the tiny model is scored in process %d\n", ::getpid());
            std::this_thread::sleep_for(evaluation_);
        }
        std::vector<TaskScore> scores;
        for (std::size_t task = 0; task < kTasks; ++task) {
            std::uint64_t right = 0;
            for (const float value : values_[1 + task]) {
                if (std::abs(value - 3.0F) < 0.1F) ++right;
            }
            scores.push_back({description_.tasks[task], static_cast<double>(right) / kHeadElements,
                              0, kHeadElements});
        }
        return scores;
    }

  private:
    void add(const std::string& name, std::size_t elements, TaskSet owners) {
        TensorDescription tensor;
        tensor.name = name;
        tensor.shape = {static_cast<std::int64_t>(elements)};
        tensor.owners = owners;
        description_.tensors.push_back(std::move(tensor));
        values_.emplace_back(elements, 0.0F);
    }

    ModelDescription description_;
    std::vector<std::vector<float>> values_;
    std::size_t elements_ = 5000;
    std::chrono::milliseconds step_{0};
    std::chrono::milliseconds evaluation_{0};
    std::uint64_t crash_at_ = 0;
    std::uint64_t nan_at_ = 0;
    std::uint64_t calls_ = 0;
};

Engine* create(const EngineOptions& options, Error& error) {
    if (!options.dataset_dir.empty()) {
        const std::string path = options.dataset_dir + "/tiny.data";
        std::error_code missing;
        const std::uintmax_t bytes = std::filesystem::file_size(path, missing);
        if (missing || bytes != kDatasetBytes) {
            error = fail(ErrorCode::bad_dataset,
                         path + ": expected " + std::to_string(kDatasetBytes) + " bytes, found " +
                             (missing ? missing.message() : std::to_string(bytes) + " bytes") +
                             "; get the dataset again");
            return nullptr;
        }
    }
    return new TinyModel(options);
}

}  // namespace
}  // namespace detente

extern "C" {
extern const detente::EngineEntry detente_engine_entry;
const detente::EngineEntry detente_engine_entry = {detente::kEngineAbi, "plain C++",
                                                   detente::create};
}
