#include "launch/layer_pairs.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <numeric>

#include "common/conflict/cosine_bins.h"
#include "launch/conflict_ledger.h"

namespace detente {
namespace {

struct Count {
    double sum = 0;
    std::array<std::uint64_t, kCosineBins> bins{};

    void add(double cosine) {
        sum += cosine;
        ++bins[cosine_bin(cosine)];
    }
    // Requires: something was added.
    PairSummary summary(const std::string& a, const std::string& b) const {
        const auto negative = std::accumulate(bins.begin(), bins.begin() + kCosineBins / 2, 0.0);
        const auto total = std::accumulate(bins.begin(), bins.end(), 0.0);
        return {a,
                b,
                sum / total,
                cosine_quantile(bins, 0.1),
                cosine_quantile(bins, 0.9),
                negative / total};
    }
    bool empty() const {
        return std::all_of(bins.begin(), bins.end(), [](std::uint64_t bin) { return bin == 0; });
    }
};

}  // namespace

Result<std::vector<LayerPairs>> read_layer_pairs(const RunDirectory& run) {
    std::error_code ignored;
    if (!std::filesystem::is_directory(run.ledger_dir(), ignored)) return std::vector<LayerPairs>{};
    std::vector<std::string> layers;
    std::vector<std::string> tasks;
    std::vector<std::vector<Count>> counts;  // [layer][pair]
    const auto read =
        read_resolved_steps(run, [&](const NamesRecord& names, const ResolvedStep& step) {
            if (step.gramians.size() != names.layers.size()) return;  // of the whole only
            if (counts.empty()) {
                layers = names.layers;
                tasks = names.tasks;
                counts.assign(layers.size(), std::vector<Count>(pairs_of(tasks.size())));
            }
            if (names.layers != layers || names.tasks != tasks) return;  // another run's
            for (std::size_t layer = 0; layer < layers.size(); ++layer) {
                const std::vector<double> cosines = pair_cosines(step.gramians[layer]);
                for (std::size_t pair = 0; pair < cosines.size(); ++pair) {
                    if (!std::isnan(cosines[pair])) counts[layer][pair].add(cosines[pair]);
                }
            }
        });
    if (read.has_error() && read.error().code != ErrorCode::not_supported) return read.error();
    std::vector<LayerPairs> all;
    for (std::size_t layer = 0; layer < counts.size(); ++layer) {
        LayerPairs own{layers[layer], {}};
        std::size_t pair = 0;
        for (std::size_t a = 0; a < tasks.size(); ++a) {
            for (std::size_t b = a + 1; b < tasks.size(); ++b, ++pair) {
                const Count& count = counts[layer][pair];
                if (!count.empty()) own.pairs.push_back(count.summary(tasks[a], tasks[b]));
            }
        }
        all.push_back(std::move(own));
    }
    return all;
}

}  // namespace detente
