// Krum and Multi-Krum: Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine learning with
// adversaries: Byzantine tolerant gradient descent" (2017), section 4: a gradient's score is the
// sum of its squared distances to its T − f − 2 nearest others; the m of lowest score are averaged
// (m = 1 is Krum). Distances are d²ᵢⱼ = Gᵢᵢ + Gⱼⱼ − 2Gᵢⱼ.
//
// Equal scores go to the lower task number (status degenerate, if that decides). Fewer than f + 3
// tasks are refused.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "common/conflict/methods.h"

namespace detente::methods {
namespace {

class Krum final : public Aggregator {
  public:
    Krum(std::size_t f, std::size_t m) : f_(f), m_(m) {}
    std::string name() const override { return "krum"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        const Gramian& g = *input.gramian;
        const std::size_t tasks = g.tasks();
        if (tasks < f_ + 3 || m_ > tasks) {
            return fail(ErrorCode::bad_job,
                        fmt::format("krum with f = {} and m = {} needs at least {} tasks, but "
                                    "there are {}",
                                    f_, m_, std::max(f_ + 3, m_), tasks));
        }
        const std::vector<double> scores = scores_of(g);
        std::vector<std::size_t> order(tasks);
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t i, std::size_t j) { return scores[i] < scores[j]; });
        AggregatorOutput output;
        output.weights.assign(tasks, 0.0);
        for (std::size_t k = 0; k < m_; ++k) {
            output.weights[order[k]] = 1.0 / static_cast<double>(m_);
        }
        if (m_ < tasks && scores[order[m_ - 1]] == scores[order[m_]]) {
            output.status = AggregatorStatus::degenerate;
        }
        if (all_zero(g)) output.status = AggregatorStatus::all_zero;
        return output;
    }

  private:
    std::vector<double> scores_of(const Gramian& g) const {
        const std::size_t tasks = g.tasks();
        std::vector<double> scores(tasks, 0.0);
        for (std::size_t i = 0; i < tasks; ++i) {
            std::vector<double> distances;
            for (std::size_t j = 0; j < tasks; ++j) {
                if (j == i) continue;
                distances.push_back(
                    std::max(0.0, (g.at(i, i) - g.at(i, j)) + (g.at(j, j) - g.at(i, j))));
            }
            std::sort(distances.begin(), distances.end());
            for (std::size_t k = 0; k < tasks - f_ - 2; ++k) scores[i] += distances[k];
        }
        return scores;
    }

    std::size_t f_;
    std::size_t m_;
};

MadeAggregator make(const AggregatorConfig& config) {
    Settings settings(config);
    const std::uint64_t f = settings.count("f", 0, 0, 1000000);
    const std::uint64_t m = settings.count("m", 1, 1, 1000000);
    if (settings.error()) return *settings.error();
    return std::make_unique<const Krum>(f, m);
}

}  // namespace

Method krum() {
    return {"krum",
            {{"f", "how many gradients may be wrong: at most the tasks less 3 (default 0)", "0"},
             {"m", "how many gradients are averaged, at least 1 (default 1)", "1"}},
            make,
            "Blanchard et al. 2017"};
}

}  // namespace detente::methods
