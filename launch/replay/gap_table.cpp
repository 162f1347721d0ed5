#include "launch/replay/gap_table.h"

#include <fmt/format.h>

#include "launch/progress.h"

namespace detente {

std::string gap_table(const std::map<std::uint64_t, StalenessGap>& gaps) {
    std::string text = fmt::format("{:>9}  {:>10}  {:>18}  {:>24}\n", "staleness", "gradients",
                                   "mean ‖w − w_stale‖", "mean cosine with gradient now");
    for (const auto& [staleness, gap] : gaps) {
        const auto count = static_cast<double>(gap.gradients);
        text +=
            fmt::format("{:>9}  {:>10}  {:>18.6g}  {:>29.4f}\n", staleness,
                        with_commas(gap.gradients), gap.gap_sum / count, gap.cosine_sum / count);
    }
    return text;
}

boost::json::array gaps_json(const std::map<std::uint64_t, StalenessGap>& gaps) {
    boost::json::array rows;
    for (const auto& [staleness, gap] : gaps) {
        const auto count = static_cast<double>(gap.gradients);
        rows.push_back(boost::json::object{{"staleness", staleness},
                                           {"gradients", gap.gradients},
                                           {"gap", gap.gap_sum / count},
                                           {"cosine", gap.cosine_sum / count}});
    }
    return rows;
}

}  // namespace detente
