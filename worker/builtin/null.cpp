// builtin:null: computes nothing, so that a simulation costs what the protocol costs. Every
// gradient is zero.
#include "worker/builtin/models.h"
#include "worker/builtin/tensors.h"

namespace detente {
namespace {

class ZeroGradients final : public TaskGradients {
  public:
    explicit ZeroGradients(std::size_t elements) : zeros_(elements, 0.0F) {}
    const float* gradient(TaskId, std::size_t) const override { return zeros_.data(); }

  private:
    std::vector<float> zeros_;
};

class NullEngine final : public PlainEngine {
  public:
    explicit NullEngine(BuiltinOptions& options) {
        const std::uint64_t tasks = options.whole("tasks", 1, 1, kMaxTasks);
        const std::uint64_t tensors = options.whole("tensors", 1, 1, 1U << 16U);
        const std::uint64_t elements = options.whole("elements", 16, 1, 1U << 28U);
        description_.model = "null";
        description_.training_samples = options.whole("samples", 64'000, 1, 1U << 31U);
        description_.test_samples = 1;
        for (std::uint64_t t = 0; t < tasks; ++t) {
            description_.tasks.push_back("task" + std::to_string(t));
        }
        for (std::uint64_t i = 0; i < tensors; ++i) {
            add_tensor("w" + std::to_string(i), {static_cast<std::int64_t>(elements)}, all_tasks(),
                       std::vector<float>(elements, 1.0F));
        }
        zeros_ = std::make_shared<ZeroGradients>(elements);
    }

    Result<GradientReport> gradients(const GradientRequest& /*request*/) override {
        return GradientReport{std::vector<double>(description_.tasks.size(), 0.0), zeros_};
    }
    Result<std::vector<TaskScore>> evaluate() override {
        std::vector<TaskScore> scores;
        for (const std::string& task : description_.tasks) scores.push_back({task, 0, 0, 1});
        return scores;
    }

  private:
    std::shared_ptr<const ZeroGradients> zeros_;
};

}  // namespace

Result<std::unique_ptr<Engine>> make_null_engine(BuiltinOptions& options) {
    auto engine = std::make_unique<NullEngine>(options);
    if (const auto mistake = options.mistake()) return *mistake;
    return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace detente
