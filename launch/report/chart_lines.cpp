// Curves and dots.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "launch/report/charts.h"

namespace detente {
namespace {

constexpr double kWidth = 960;
constexpr double kHeight = 340;
constexpr double kLeft = 66;
constexpr double kRight = 30;  // beside the curves' names
constexpr double kLetter = 7.6;
constexpr std::size_t kMostLetters = 44;
constexpr double kTop = 14;
constexpr double kBottom = 48;
constexpr double kLogarithmicFrom = 30;

struct Range {
    double low = std::numeric_limits<double>::infinity();
    double high = -std::numeric_limits<double>::infinity();
    void take(double value) {
        if (!std::isfinite(value)) return;
        low = std::min(low, value);
        high = std::max(high, value);
    }
    bool any() const { return low <= high; }
};

bool finite(const Point& point) { return std::isfinite(point.x) && std::isfinite(point.y); }

Scale y_scale(const Range& range) {
    Scale scale{0, range.high * 1.05, kHeight - kBottom, kTop};
    if (range.low > 0 && range.high / range.low > kLogarithmicFrom) {
        scale.logarithmic = true;
        scale.low = range.low * 0.9;
        scale.high = range.high * 1.1;
    } else if (range.low < 0) {
        scale.low = range.low * 1.05;
        scale.high = std::max(range.high * 1.05, 0.0);
    }
    if (scale.high <= scale.low) scale.high = scale.low + 1;
    return scale;
}

void draw_axes(Svg& svg, const Scale& x, const Scale& y, const std::string& x_title,
               const std::string& y_title) {
    for (const double mark : ticks(y.low, y.high, 6, y.logarithmic)) {
        svg.line({x.from, y.at(mark)}, {x.to, y.at(mark)}, "grid");
        svg.text({x.from - 8, y.at(mark) + 4}, short_number(mark), Anchor::end, "tick");
    }
    for (const double mark : ticks(x.low, x.high, 9)) {
        svg.line({x.at(mark), y.from}, {x.at(mark), y.from + 5}, "axis");
        svg.text({x.at(mark), y.from + 19}, short_number(mark), Anchor::middle, "tick");
    }
    svg.line({x.from, y.from}, {x.to, y.from}, "axis");
    svg.text({(x.from + x.to) / 2, y.from + 39}, x_title, Anchor::middle);
    const std::string title = y.logarithmic ? y_title + ", logarithmic" : y_title;
    svg.rotated_text({14, (y.from + y.to) / 2}, title);
}

// Room for the longest name, if it leaves room for the curves.
double name_width(const LineChart& chart) {
    std::size_t longest = 0;
    for (const Curve& curve : chart.curves) longest = std::max(longest, curve.label.size());
    return kLetter * static_cast<double>(std::min(longest, kMostLetters));
}

// Names at the ends of their curves, moved apart where they would overlap.
void draw_names(Svg& svg, const LineChart& chart, const Scale& x, const Scale& y) {
    struct Name {
        std::size_t curve;
        double at;
    };
    std::vector<Name> names;
    for (std::size_t i = 0; i < chart.curves.size(); ++i) {
        const auto& points = chart.curves[i].points;
        const auto last = std::find_if(points.rbegin(), points.rend(), finite);
        if (last != points.rend()) names.push_back({i, y.at(last->y)});
    }
    std::sort(names.begin(), names.end(), [](const Name& a, const Name& b) { return a.at < b.at; });
    constexpr double kLine = 16;
    for (std::size_t i = 1; i < names.size(); ++i) {
        names[i].at = std::max(names[i].at, names[i - 1].at + kLine);
    }
    double lowest = y.from + 4;
    for (std::size_t i = names.size(); i-- > 0;) {  // back into the drawing, from below
        names[i].at = std::min(names[i].at, lowest);
        lowest = names[i].at - kLine;
    }
    for (const Name& name : names) {
        svg.text({x.to + 10, name.at + 4}, shortened(chart.curves[name.curve].label, kMostLetters),
                 Anchor::start, "name", palette(name.curve));
    }
}

void draw_curve(Svg& svg, const Curve& curve, std::size_t number, const Scale& x, const Scale& y) {
    const auto place = [&](const Point& point) { return Point{x.at(point.x), y.at(point.y)}; };
    std::vector<Point> outline;
    for (const Point& point : curve.high) {
        if (finite(point)) outline.push_back(place(point));
    }
    for (auto point = curve.low.rbegin(); point != curve.low.rend(); ++point) {
        if (finite(*point)) outline.push_back(place(*point));
    }
    svg.area(outline, palette(number));
    std::vector<Point> stretch;
    for (const Point& point : curve.points) {
        if (finite(point)) {
            stretch.push_back(place(point));
        } else {
            svg.polyline(stretch, palette(number), dashes(number));
            stretch.clear();
        }
    }
    svg.polyline(stretch, palette(number), dashes(number));
}

}  // namespace

std::string draw(const LineChart& chart) {
    Range xs;
    Range ys;
    for (const Curve& curve : chart.curves) {
        for (const auto* points : {&curve.points, &curve.low, &curve.high}) {
            for (const Point& point : *points) {
                if (!finite(point)) continue;
                xs.take(point.x);
                ys.take(point.y);
            }
        }
    }
    if (!xs.any()) return "";
    const Scale y = y_scale(ys);
    Scale x{xs.low, xs.high, kLeft, kWidth - kRight - name_width(chart)};
    if (x.low > 0 && x.low < 0.2 * x.high) x.low = 0;
    if (x.high <= x.low) x.high = x.low + 1;
    Svg svg(kWidth, kHeight, chart.label);
    draw_axes(svg, x, y, chart.x_title, chart.y_title);
    for (std::size_t i = 0; i < chart.curves.size(); ++i) {
        draw_curve(svg, chart.curves[i], i, x, y);
    }
    draw_names(svg, chart, x, y);
    return svg.finish();
}

std::string draw(const DotRows& dots) {
    constexpr double kRow = 24;
    constexpr double kNames = 300;
    Range range;
    for (const auto& row : dots.rows) {
        for (const double value : row.values) range.take(value);
    }
    if (!range.any()) return "";
    const double bottom = kTop + kRow * static_cast<double>(dots.rows.size());
    const double margin = std::max((range.high - range.low) * 0.08, 0.005);
    const Scale x{range.low - margin, range.high + margin, kNames, kWidth - 40};
    Svg svg(kWidth, bottom + kBottom, dots.label);
    for (const double mark : ticks(x.low, x.high, 8)) {
        svg.line({x.at(mark), kTop}, {x.at(mark), bottom}, "grid");
        svg.text({x.at(mark), bottom + 18}, short_number(mark), Anchor::middle, "tick");
    }
    svg.text({(x.from + x.to) / 2, bottom + 38}, dots.x_title, Anchor::middle);
    for (std::size_t i = 0; i < dots.rows.size(); ++i) {
        const auto& row = dots.rows[i];
        const double y = kTop + kRow * (static_cast<double>(i) + 0.5);
        svg.text({kNames - 12, y + 4}, shortened(row.name, kMostLetters), Anchor::end);
        double sum = 0;
        std::size_t count = 0;
        for (const double value : row.values) {
            if (!std::isfinite(value)) continue;
            svg.dot({x.at(value), y}, 4, palette(0), true);
            sum += value;
            ++count;
        }
        if (count > 0) {
            svg.box({x.at(sum / static_cast<double>(count)) - 1.5, y - 8}, 3, 16, palette(1));
        }
    }
    return svg.finish();
}

}  // namespace detente
