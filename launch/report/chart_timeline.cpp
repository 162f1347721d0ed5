// Who did what when.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "launch/report/charts.h"

namespace detente {
namespace {

constexpr double kWidth = 960;
constexpr double kNames = 96;
constexpr double kRight = 20;
constexpr double kLegend = 30;
constexpr std::size_t kMostRows = 32;
constexpr std::size_t kStretches = 160;
constexpr std::size_t kStepsShown = 8;    // of the slowest worker, in the detail
constexpr std::size_t kMostSpans = 4000;  // of all workers, there

constexpr std::array<Doing, 3> kAll = {Doing::computing, Doing::pushing, Doing::waiting};

void draw_legend(Svg& svg) {
    double at = kNames;
    for (const Doing doing : kAll) {
        svg.box({at, 6}, 12, 12, colour_of(doing));
        svg.text({at + 18, 16}, name_of(doing));
        at += 110;
    }
}

void draw_time(Svg& svg, const Scale& x, double base) {
    svg.line({x.from, base}, {x.to, base}, "axis");
    for (const double mark : ticks(x.low, x.high, 9)) {
        svg.line({x.at(mark), base}, {x.at(mark), base + 5}, "axis");
        svg.text({x.at(mark), base + 19}, short_number(mark), Anchor::middle, "tick");
    }
    svg.text({(x.from + x.to) / 2, base + 38}, "seconds, by the lead shard's clock",
             Anchor::middle);
}

std::map<WorkerId, std::size_t> rows_of(const Timeline& timeline) {
    std::map<WorkerId, std::size_t> rows;
    for (const WorkerId worker : timeline.workers) {
        if (rows.size() < kMostRows) rows.emplace(worker, rows.size());
    }
    return rows;
}

// Seconds of each doing per stretch, one worker.
using Shares = std::vector<std::array<double, 3>>;

void add(Shares& shares, const Span& span, double begin_s, double stretch_s) {
    const auto stretch_of = [&](double at) {
        const double place = (at - begin_s) / stretch_s;
        return std::min(static_cast<std::size_t>(std::max(place, 0.0)), shares.size() - 1);
    };
    for (std::size_t i = stretch_of(span.begin_s); i <= stretch_of(span.end_s); ++i) {
        const double from = begin_s + stretch_s * static_cast<double>(i);
        const double inside = std::min(span.end_s, from + stretch_s) - std::max(span.begin_s, from);
        if (inside > 0) shares[i][static_cast<std::size_t>(span.doing)] += inside;
    }
}

// A stretch of time in the middle of the run in which the slowest worker makes kStepsShown steps.
std::pair<double, double> detail_window(const Timeline& timeline) {
    std::map<WorkerId, std::size_t> steps;
    for (const Span& span : timeline.spans) {
        if (span.doing == Doing::computing) ++steps[span.worker];
    }
    std::size_t fewest = timeline.spans.size();
    for (const auto& [worker, count] : steps) fewest = std::min(fewest, count);
    const double whole = timeline.end_s - timeline.begin_s;
    const double width = whole * static_cast<double>(kStepsShown) /
                         static_cast<double>(std::max(fewest, kStepsShown));
    const double begin = timeline.begin_s + (whole - width) / 2;
    return {begin, begin + width};
}

}  // namespace

std::string_view colour_of(Doing doing) {
    switch (doing) {
        case Doing::computing:
            return "#0072b2";
        case Doing::pushing:
            return "#e69f00";
        case Doing::waiting:
            return "#c9c9c9";
    }
    return "#c9c9c9";
}

std::string draw_overview(const Timeline& timeline) {
    const double whole = timeline.end_s - timeline.begin_s;
    if (timeline.spans.empty() || !(whole > 0)) return "";
    constexpr double kRow = 34;
    const auto rows = rows_of(timeline);
    const double stretch_s = whole / static_cast<double>(kStretches);
    std::vector<Shares> shares(rows.size(), Shares(kStretches, {0, 0, 0}));
    for (const Span& span : timeline.spans) {
        const auto row = rows.find(span.worker);
        if (row != rows.end()) add(shares[row->second], span, timeline.begin_s, stretch_s);
    }
    const double base = kLegend + kRow * static_cast<double>(rows.size());
    const Scale x{timeline.begin_s, timeline.end_s, kNames, kWidth - kRight};
    Svg svg(kWidth, base + 48, "Share of time that each worker computed, pushed and waited");
    draw_legend(svg);
    const double wide = (x.to - x.from) / static_cast<double>(kStretches);
    for (const auto& [worker, row] : rows) {
        const double floor = kLegend + kRow * static_cast<double>(row + 1) - 4;
        svg.text({kNames - 10, floor - kRow / 2 + 8}, to_string(node_of(worker)), Anchor::end);
        for (std::size_t i = 0; i < kStretches; ++i) {
            double below = 0;
            for (const Doing doing : kAll) {
                const double share =
                    std::min(shares[row][i][static_cast<std::size_t>(doing)] / stretch_s, 1.0);
                const double height = share * (kRow - 6);
                if (height < 0.05) continue;
                svg.box({x.from + wide * static_cast<double>(i), floor - below - height},
                        wide + 0.2, height, colour_of(doing));
                below += height;
            }
        }
    }
    draw_time(svg, x, base + 2);
    return svg.finish();
}

std::string draw_detail(const Timeline& timeline) {
    if (timeline.spans.empty() || !(timeline.end_s > timeline.begin_s)) return "";
    constexpr double kRow = 26;
    const auto rows = rows_of(timeline);
    const auto [begin, end] = detail_window(timeline);
    const double base = kLegend + kRow * static_cast<double>(rows.size());
    const Scale x{begin, end, kNames, kWidth - kRight};
    Svg svg(kWidth, base + 48, "Steps of each worker in the middle of the run");
    draw_legend(svg);
    for (const auto& [worker, row] : rows) {
        svg.text({kNames - 10, kLegend + kRow * (static_cast<double>(row) + 0.5) + 3},
                 to_string(node_of(worker)), Anchor::end);
    }
    std::size_t drawn = 0;
    for (const Span& span : timeline.spans) {
        const auto row = rows.find(span.worker);
        if (row == rows.end() || span.end_s < begin || span.begin_s > end) continue;
        if (++drawn > kMostSpans) break;
        const double top = kLegend + kRow * static_cast<double>(row->second) + 2;
        const double left = x.at(std::max(span.begin_s, begin));
        const double right = x.at(std::min(span.end_s, end));
        const std::string settled = span.doing != Doing::pushing
                                        ? ""
                                        : fmt::format(", {} applied, {} wasted, staleness {}",
                                                      span.applied, span.wasted, span.staleness);
        svg.box({left, top}, std::max(right - left - 0.4, 0.6), kRow - 6, colour_of(span.doing),
                fmt::format("{} step {}: {:.4g} ms{}", name_of(span.doing), span.step.value,
                            (span.end_s - span.begin_s) * 1e3, settled));
        if (span.doing == Doing::pushing) {
            svg.line({right, top - 2}, {right, top + kRow - 4}, span.wasted > 0 ? "bad" : "mark");
        }
    }
    draw_time(svg, x, base + 2);
    return svg.finish();
}

}  // namespace detente
