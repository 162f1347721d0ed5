// builtin:quadratic: task t's loss is f_t(w) = ½(w − a_t)ᵀA(w − a_t), its gradient comes with
// noise. A is diagonal, with eigenvalues from `smallest` to `largest` in equal ratios, or
// tridiagonal: largest/4·tridiag(−1, 2, −1) + smallest·I, the hard case of Nesterov (2018, §2.1.2),
// as in Rennala and Ringmaster (Tyurin & Richtárik 2023; Maranjyan 2025). w starts at `start` in
// every coordinate; one task has its optimum at 0, several at `distance` times standard normal
// draws.
//
// The score that evaluate() gives as accuracy is the share of the first loss that is gone,
// 1 − f(w)/f(w₀), not below 0.
#include <algorithm>
#include <cmath>

#include "common/random.h"
#include "worker/builtin/models.h"
#include "worker/builtin/tensors.h"

namespace detente {
namespace {

class QuadraticEngine final : public PlainEngine {
  public:
    QuadraticEngine(BuiltinOptions& options, std::uint64_t seed) {
        const std::uint64_t tasks = options.whole("tasks", 1, 1, kMaxTasks);
        const std::uint64_t dimension = options.whole("dimension", 100, 1, 1U << 26U);
        const std::uint64_t tensors = options.whole("tensors", 1, 1, dimension);
        tridiagonal_ = options.choice("matrix", {"diagonal", "tridiagonal"}) == "tridiagonal";
        smallest_ = options.number("smallest", tridiagonal_ ? 0 : 1, 0, 1e12);
        largest_ = options.number("largest", 1, 0, 1e12);
        noise_ = options.number("noise", 0, 0, 1e12);
        noise_for_all_ = options.choice("noise_draw", {"coordinate", "all"}) == "all";
        const double start = options.number("start", 1, -1e12, 1e12);
        const double distance = options.number("distance", 1, 0, 1e12);
        description_.model = "quadratic";
        description_.training_samples = options.whole("samples", 64'000, 1, 1U << 31U);
        description_.test_samples = 1;
        for (std::uint64_t t = 0; t < tasks; ++t) {
            description_.tasks.push_back("task" + std::to_string(t));
            std::vector<double>& optimum = optima_.emplace_back(dimension, 0.0);
            if (tasks == 1) continue;
            Random random(random_key(seed, Purpose::model, {t}));
            for (double& value : optimum) value = distance * random.normal();
        }
        for (std::uint64_t i = 0; i < tensors; ++i) {
            const std::uint64_t elements = dimension * (i + 1) / tensors - dimension * i / tensors;
            add_tensor("w" + std::to_string(i), {static_cast<std::int64_t>(elements)}, all_tasks(),
                       std::vector<float>(elements, static_cast<float>(start)));
        }
        curvature_.resize(dimension);
        for (std::size_t i = 0; i < dimension && !tridiagonal_; ++i) {
            const double part =
                dimension == 1 ? 1 : static_cast<double>(i) / static_cast<double>(dimension - 1);
            curvature_[i] =
                smallest_ > 0 ? smallest_ * std::pow(largest_ / smallest_, part) : largest_ * part;
        }
        for (std::size_t t = 0; t < tasks; ++t) first_losses_.push_back(loss(t));
    }

    Result<GradientReport> gradients(const GradientRequest& request) override {
        auto held = std::make_shared<PlainGradients>();
        GradientReport report;
        for (std::uint32_t t = 0; t < optima_.size(); ++t) {
            std::vector<std::vector<float>>& rows = held->rows.emplace_back(tensors_.size());
            report.losses.push_back(0);
            if (!request.tasks.contains(TaskId{t})) continue;
            report.losses.back() = loss(t);  // leaves w − a_t and A(w − a_t) behind
            Random random(random_key(request.random_key, Purpose::model, {t}));
            double noise = noise_ * random.normal();
            std::size_t at = 0;
            for (std::size_t i = 0; i < tensors_.size(); ++i) {
                rows[i].reserve(tensors_[i].size());
                for (std::size_t k = 0; k < tensors_[i].size(); ++k, ++at) {
                    rows[i].push_back(static_cast<float>(slope_[at] + noise));
                    if (!noise_for_all_ && noise_ > 0) noise = noise_ * random.normal();
                }
            }
        }
        report.gradients = std::move(held);
        return report;
    }

    Result<std::vector<TaskScore>> evaluate() override {
        std::vector<TaskScore> scores;
        for (std::size_t t = 0; t < optima_.size(); ++t) {
            const double now = loss(t);
            const double gone = first_losses_[t] > 0 ? 1 - now / first_losses_[t] : 0;
            scores.push_back(
                {description_.tasks[t], std::isfinite(now) ? std::max(0.0, gone) : 0, now, 1});
        }
        return scores;
    }

  private:
    double loss(std::size_t task) {
        error_.clear();
        for (const std::vector<float>& tensor : tensors_) {
            for (const float value : tensor) error_.push_back(value - optima_[task][error_.size()]);
        }
        slope_.resize(error_.size());
        double sum = 0;
        for (std::size_t i = 0; i < error_.size(); ++i) {
            if (tridiagonal_) {
                const double before = i > 0 ? error_[i - 1] : 0;
                const double after = i + 1 < error_.size() ? error_[i + 1] : 0;
                slope_[i] = largest_ / 4 * (2 * error_[i] - before - after) + smallest_ * error_[i];
            } else {
                slope_[i] = curvature_[i] * error_[i];
            }
            sum += 0.5 * error_[i] * slope_[i];
        }
        return sum;
    }

    bool tridiagonal_ = false;
    double smallest_ = 1;
    double largest_ = 1;
    double noise_ = 0;
    bool noise_for_all_ = false;
    std::vector<double> curvature_;  // diagonal
    std::vector<std::vector<double>> optima_;
    std::vector<double> first_losses_;
    std::vector<double> error_;  // w − a of the task that loss() was last asked for …
    std::vector<double> slope_;  // … and A(w − a)
};

}  // namespace

Result<std::unique_ptr<Engine>> make_quadratic_engine(BuiltinOptions& options, std::uint64_t seed) {
    auto engine = std::make_unique<QuadraticEngine>(options, seed);
    if (const auto mistake = options.mistake()) return *mistake;
    return std::unique_ptr<Engine>(std::move(engine));
}

}  // namespace detente
