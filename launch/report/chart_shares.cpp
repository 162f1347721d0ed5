// Histograms, divided bars and heat maps.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "launch/report/charts.h"

namespace detente {
namespace {

constexpr double kWidth = 960;
constexpr std::size_t kMostBars = 40;

std::string percent(double share) {
    if (share > 0 && share < 0.001) return "<0.1 %";
    return fmt::format("{:.1f} %", 100 * share);
}

struct Bar {
    std::string name;
    std::uint64_t count = 0;
};

// Bins up to the last that is not empty; where there are too many, neighbours share a bar.
std::vector<Bar> bars_of(const Histogram& histogram) {
    std::size_t used = histogram.bins.size();
    while (used > 0 && histogram.bins[used - 1] == 0) --used;
    const std::size_t width = std::max<std::size_t>(1, (used + kMostBars - 1) / kMostBars);
    std::vector<Bar> bars;
    for (std::size_t first = 0; first < used; first += width) {
        const std::size_t last = std::min(first + width, used) - 1;
        Bar bar{width == 1 ? std::to_string(first) : fmt::format("{}–{}", first, last), 0};
        for (std::size_t bin = first; bin <= last; ++bin) bar.count += histogram.bins[bin];
        const bool open = histogram.last_is_open && last + 1 == histogram.bins.size();
        if (open) bar.name = fmt::format("{}+", first);
        bars.push_back(std::move(bar));
    }
    return bars;
}

// #rrggbb between white and a strong colour, by how far the value is from 0.
std::string shade(double value) {
    const double strength = std::min(std::abs(value), 1.0);
    const int strong[2][3] = {{0x1f, 0x5a, 0xa6}, {0xd5, 0x5e, 0x00}};  // below, above
    const int* end = strong[value > 0 ? 1 : 0];
    std::string text = "#";
    for (int i = 0; i < 3; ++i) {
        const double part = 255 + strength * (end[i] - 255);
        text += fmt::format("{:02x}", static_cast<int>(std::lround(part)));
    }
    return text;
}

}  // namespace

std::string draw(const Histogram& histogram) {
    constexpr double kHeight = 250;
    constexpr double kLeft = 66;
    constexpr double kBase = kHeight - 48;
    const std::vector<Bar> bars = bars_of(histogram);
    if (bars.empty()) return "";
    std::uint64_t most = 0;
    std::uint64_t total = 0;
    for (const Bar& bar : bars) {
        most = std::max(most, bar.count);
        total += bar.count;
    }
    const auto share = [total](std::uint64_t count) {
        return static_cast<double>(count) / static_cast<double>(total);
    };
    const Scale y{0, share(most) * 1.12, kBase, 14};
    Svg svg(kWidth, kHeight, histogram.label);
    for (const double mark : ticks(0, y.high, 5)) {
        svg.line({kLeft, y.at(mark)}, {kWidth - 20, y.at(mark)}, "grid");
        svg.text({kLeft - 8, y.at(mark) + 4}, fmt::format("{:.3g} %", 100 * mark), Anchor::end,
                 "tick");
    }
    const double slot = std::min((kWidth - 20 - kLeft) / static_cast<double>(bars.size()), 90.0);
    // A label needs its room: of many bars only some are named.
    const auto every = static_cast<std::size_t>(std::ceil(46 / slot));
    for (std::size_t i = 0; i < bars.size(); ++i) {
        const double x = kLeft + slot * static_cast<double>(i);
        const double top = y.at(share(bars[i].count));
        svg.box(
            {x + slot * 0.1, top}, slot * 0.8, kBase - top, palette(0),
            fmt::format("{}: {} ({})", bars[i].name, bars[i].count, percent(share(bars[i].count))));
        if (i % every == 0)
            svg.text({x + slot / 2, kBase + 18}, bars[i].name, Anchor::middle, "tick");
        if (slot >= 46 && bars[i].count > 0) {
            svg.text({x + slot / 2, top - 5}, percent(share(bars[i].count)), Anchor::middle,
                     "tick");
        }
    }
    svg.line({kLeft, kBase}, {kWidth - 20, kBase}, "axis");
    svg.text({kLeft + slot * static_cast<double>(bars.size()) / 2, kBase + 38}, histogram.x_title,
             bars.size() < 4 ? Anchor::start : Anchor::middle);
    return svg.finish();
}

std::string draw(const ShareBars& bars) {
    constexpr double kRow = 30;
    constexpr double kLegend = 30;
    const double names = bars.rows.size() == 1 && bars.rows[0].name.empty() ? 20 : 300;
    const double height = kLegend + kRow * static_cast<double>(bars.rows.size()) + 24;
    Svg svg(kWidth, height, bars.label);
    const auto sum_of = [](const ShareBars::Row& row) {
        return std::accumulate(row.values.begin(), row.values.end(), 0.0);
    };
    double longest = 0;
    for (const ShareBars::Row& row : bars.rows) longest = std::max(longest, sum_of(row));
    double at = names;
    for (const auto& [name, colour] : bars.parts) {
        svg.box({at, 6}, 12, 12, colour);
        svg.text({at + 18, 16}, name);
        at += 40 + 8.0 * static_cast<double>(name.size());
    }
    for (std::size_t i = 0; i < bars.rows.size(); ++i) {
        const auto& row = bars.rows[i];
        const double y = kLegend + kRow * static_cast<double>(i);
        svg.text({names - 12, y + 18}, shortened(row.name, 44), Anchor::end);
        const double sum = sum_of(row);
        const double whole = bars.unit.empty() ? sum : longest;
        const Scale x{0, whole > 0 ? whole : 1, names, kWidth - 40};
        double before = 0;
        for (std::size_t part = 0; part < row.values.size(); ++part) {
            const double value = row.values[part];
            if (value <= 0) continue;
            const double left = x.at(before);
            before += value;
            const double width = x.at(before) - left;
            svg.box({left, y + 3}, width, kRow - 8, bars.parts[part].second,
                    fmt::format("{}: {}", bars.parts[part].first, percent(value / sum)));
            if (width > 64) {
                svg.text({left + width / 2, y + 18}, percent(value / sum), Anchor::middle,
                         "inside");
            }
        }
    }
    const double base = kLegend + kRow * static_cast<double>(bars.rows.size()) + 4;
    const Scale whole{0, bars.unit.empty() ? 1 : longest, names, kWidth - 40};
    const auto mark = [&](double at_value, const std::string& text) {
        const double x = whole.at(at_value);
        svg.line({x, base - 4}, {x, base}, "axis");
        svg.text({x, base + 14}, text, Anchor::middle, "tick");
    };
    if (bars.unit.empty()) {
        for (const double share : {0.0, 0.25, 0.5, 0.75, 1.0}) {
            mark(share, fmt::format("{:.0f} %", 100 * share));
        }
    } else {
        for (const double value : ticks(0, whole.high, 6)) {
            mark(value, short_number(value) + " " + bars.unit);
        }
    }
    return svg.finish();
}

std::string draw(const HeatMap& map) {
    const std::vector<std::string>& columns = map.columns.empty() ? map.names : map.columns;
    const std::size_t count = std::max(map.names.size(), columns.size());
    if (map.names.empty() || columns.empty()) return "";
    constexpr double kNames = 150;
    const double cell = std::clamp(420.0 / static_cast<double>(count), 8.0, 76.0);
    const double side = cell * static_cast<double>(columns.size());
    const bool named = cell >= 14;
    const double height = std::max(cell * static_cast<double>(map.names.size()), 40.0);
    Svg svg(kWidth, height + 48, map.label);
    for (std::size_t j = 0; j < columns.size() && cell >= 50; ++j) {
        svg.text({kNames + cell * (static_cast<double>(j) + 0.5), 20},
                 shortened(columns[j], static_cast<std::size_t>(cell / 7.6)), Anchor::middle);
    }
    for (std::size_t i = 0; i < map.names.size(); ++i) {
        const double y = 30 + cell * static_cast<double>(i);
        if (named)
            svg.text({kNames - 10, y + cell / 2 + 4}, shortened(map.names[i], 20), Anchor::end);
        for (std::size_t j = 0; j < columns.size(); ++j) {
            const double value = map.values[i][j];
            const double x = kNames + cell * static_cast<double>(j);
            const bool there = std::isfinite(value);
            svg.box({x, y}, cell - 1, cell - 1, there ? shade(value) : "#dddddd",
                    there ? fmt::format("{} and {}: {:+.3f}", map.names[i], columns[j], value)
                          : fmt::format("{} and {}: nothing", map.names[i], columns[j]));
            if (cell < 40 || !there) continue;
            svg.text({x + cell / 2, y + cell / 2 + 4}, fmt::format("{:+.2f}", value),
                     Anchor::middle, std::abs(value) > 0.6 ? "inside" : "tick");
        }
    }
    const double legend = kNames + side + 60;
    for (int i = 0; i < 41; ++i) {
        svg.box({legend + 6.0 * i, 32}, 6.2, 14, shade(i / 20.0 - 1));
    }
    svg.text({legend, 62}, "−1 opposed", Anchor::start, "tick");
    svg.text({legend + 123, 62}, "0", Anchor::middle, "tick");
    svg.text({legend + 246, 62}, "aligned +1", Anchor::end, "tick");
    return svg.finish();
}

}  // namespace detente
