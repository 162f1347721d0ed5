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

Result<void> write_gaps(const RunDirectory& run,
                        const std::map<std::uint64_t, StalenessGap>& gaps) {
    const boost::json::object whole{{"gaps", gaps_json(gaps)}};
    return write_text(run.gaps_file(), boost::json::serialize(whole) + "\n");
}

Result<std::map<std::uint64_t, StalenessGap>> measure_gaps(const RunDirectory& run,
                                                           const Plan& plan,
                                                           std::shared_ptr<EnginePool> engines) {
    const auto recording = read_recording(run.path, {});
    if (recording.has_error()) return recording.error();
    ReplayOptions options;
    options.gaps = true;
    auto replay = Replay::create(*recording, plan, std::move(engines), std::move(options));
    if (replay.has_error()) return replay.error();
    auto figures = (*replay)->run();
    if (figures.has_error()) return figures.error();
    if (auto written = write_gaps(run, figures->gaps); written.has_error()) {
        return written.error();
    }
    return std::move(figures->gaps);
}

}  // namespace detente
