// The drawings of a report. Each takes numbers and gives one SVG; sizes are the page's column.
//
// Thread: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "launch/report/svg.h"
#include "launch/report/timeline.h"

namespace detente {

struct Curve {
    std::string label;  // written at its end
    std::vector<Point> points;
    // Lowest and highest of several runs; empty = one run.
    std::vector<Point> low{};
    std::vector<Point> high{};
};
struct LineChart {
    std::string label;    // of the whole, for those who cannot see it
    std::string x_title;  // with its unit
    std::string y_title;
    std::vector<Curve> curves;
};
// Logarithmic in y where the values span more than a factor of 30. Points that are not finite are
// gaps. No finite point at all: an empty text.
std::string draw(const LineChart& chart);

// Shares of a histogram of whole numbers; the last bin may be open ("63+").
struct Histogram {
    std::string label;
    std::string x_title;
    std::vector<std::uint64_t> bins;
    bool last_is_open = true;
};
std::string draw(const Histogram& histogram);

// One horizontal bar per row, divided; a row's parts are shares of its sum. With a `unit` the bars
// are as long as their sums, on one axis.
struct ShareBars {
    std::string label;
    std::vector<std::pair<std::string, std::string>> parts;  // name, colour
    struct Row {
        std::string name;
        std::vector<double> values;  // one per part
    };
    std::vector<Row> rows;
    std::string unit{};
};
std::string draw(const ShareBars& bars);

// Numbers in [-1, 1], blue below and orange above 0, grey where there is none (NaN); a square
// unless there are `columns`.
struct HeatMap {
    std::string label;
    std::vector<std::string> names;           // of the rows
    std::vector<std::vector<double>> values;  // row by row
    std::vector<std::string> columns{};       // empty: as the rows
};
std::string draw(const HeatMap& map);

// One dot per run and a tick at their mean, row by row.
struct DotRows {
    std::string label;
    std::string x_title;
    struct Row {
        std::string name;
        std::vector<double> values;
    };
    std::vector<Row> rows;
};
std::string draw(const DotRows& dots);

// What each worker did over the whole run, as shares of short stretches of time.
std::string draw_overview(const Timeline& timeline);
// Single steps, from the middle of the run.
std::string draw_detail(const Timeline& timeline);
std::string_view colour_of(Doing doing);

}  // namespace detente
