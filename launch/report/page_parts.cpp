#include "launch/report/page_parts.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

namespace detente {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light; }
body { font: 16px/1.5 "Inter", "Segoe UI", "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
  color: #1c1c1c; background: #fdfdfb; max-width: 1000px; margin: 40px auto; padding: 0 24px; }
h1 { font-size: 34px; font-weight: 650; letter-spacing: -0.02em; margin: 0 0 2px; }
h2 { font-size: 21px; font-weight: 650; margin: 44px 0 8px; padding-top: 14px;
  border-top: 1px solid #e2e2dc; }
p { margin: 6px 0; max-width: 760px; }
p.lead { color: #555; font-size: 17px; }
p.failed { background: #fbe9e2; border-left: 4px solid #d55e00; padding: 10px 14px;
  white-space: pre-wrap; overflow-wrap: anywhere; max-width: none; }
ul.remarks { color: #6b5200; background: #fff8e4; border-left: 4px solid #e69f00;
  padding: 10px 14px 10px 32px; }
figure { margin: 14px 0 26px; }
figcaption { color: #555; font-size: 14.5px; max-width: 760px; margin-top: 4px; }
svg { width: 100%; height: auto; display: block; background: #fff; border: 1px solid #ecece6;
  border-radius: 6px; }
svg text { font-size: 13px; fill: #1c1c1c; }
svg text.tick { fill: #666; font-size: 12px; }
svg text.name { font-weight: 600; }
svg rect { shape-rendering: crispEdges; }
svg text.inside { fill: #fff; font-size: 12px; }
.grid { stroke: #e6e6e0; stroke-width: 1; }
.axis { stroke: #555; stroke-width: 1; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.band { fill-opacity: 0.14; }
.mark { stroke: #1c1c1c; stroke-width: 1; }
.bad { stroke: #d55e00; stroke-width: 3; }
dl.figures { display: flex; flex-wrap: wrap; gap: 10px 40px; margin: 22px 0 8px; }
dl.figures div { display: flex; flex-direction: column-reverse; }
dl.figures dd { margin: 0; font-size: 27px; font-weight: 650; letter-spacing: -0.01em;
  font-variant-numeric: tabular-nums; }
dl.figures dt { color: #666; font-size: 13.5px; }
table { border-collapse: collapse; margin: 10px 0 22px; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; font-size: 14px; color: #444;
  border-bottom: 1.5px solid #555; padding: 4px 14px; vertical-align: bottom; }
td { text-align: right; padding: 4px 14px; border-bottom: 1px solid #e6e6e0; font-size: 15px; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; padding-left: 2px; overflow-wrap: anywhere; }
div.wide { overflow-x: auto; }
details { margin: 12px 0; }
summary { cursor: pointer; color: #0072b2; }
pre { background: #f5f5f0; padding: 14px; border-radius: 6px; font-size: 13px; overflow-x: auto; }
@media print { body { margin: 0; max-width: none; } figure { break-inside: avoid; } }
)";

}  // namespace

Page::Page(std::string_view title) {
    out_ = fmt::format(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n"
        "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n",
        escaped(title), kStyle);
}

void Page::heading(std::string_view text) { out_ += "<h2>" + escaped(text) + "</h2>\n"; }

void Page::paragraph(std::string_view text, std::string_view kind) {
    out_ += kind.empty() ? "<p>" : fmt::format("<p class=\"{}\">", kind);
    out_ += escaped(text) + "</p>\n";
}

void Page::figure(const std::string& drawing, std::string_view caption) {
    if (drawing.empty()) return;
    out_ +=
        "<figure>\n" + drawing + "<figcaption>" + escaped(caption) + "</figcaption>\n</figure>\n";
}

void Page::figures(const std::vector<std::pair<std::string, std::string>>& value_and_meaning) {
    out_ += "<dl class=\"figures\">\n";
    for (const auto& [value, meaning] : value_and_meaning) {
        out_ +=
            fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", escaped(meaning), escaped(value));
    }
    out_ += "</dl>\n";
}

void Page::table(const std::vector<std::string>& header,
                 const std::vector<std::vector<std::string>>& rows) {
    out_ += "<div class=\"wide\"><table>\n<thead><tr>";
    for (const std::string& cell : header) out_ += "<th>" + escaped(cell) + "</th>";
    out_ += "</tr></thead>\n<tbody>\n";
    for (const auto& row : rows) {
        out_ += "<tr>";
        for (const std::string& cell : row) out_ += "<td>" + escaped(cell) + "</td>";
        out_ += "</tr>\n";
    }
    out_ += "</tbody></table></div>\n";
}

void Page::folded(std::string_view title, std::string_view text) {
    out_ += fmt::format("<details><summary>{}</summary><pre>{}</pre></details>\n", escaped(title),
                        escaped(text));
}

void Page::remarks(const std::vector<std::string>& texts) {
    if (texts.empty()) return;
    out_ += "<ul class=\"remarks\">\n";
    for (const std::string& text : texts) out_ += "<li>" + escaped(text) + "</li>\n";
    out_ += "</ul>\n";
}

std::string Page::finish() { return std::move(out_) + "</body>\n</html>\n"; }

std::string percent_text(double share) {
    return std::isfinite(share) ? fmt::format("{:.2f} %", 100 * share) : "–";
}

const std::vector<std::pair<std::string, std::string>>& outcome_parts() {
    static const std::vector<std::pair<std::string, std::string>> parts = {
        {"applied", "#009e73"},
        {"rejected", "#d55e00"},
        {"cancelled", "#cc79a7"},
        {"lost", "#333333"},
        {"in flight", "#56b4e9"}};
    return parts;
}

std::vector<double> outcomes_of(const Books& books) {
    return {static_cast<double>(books.applied), static_cast<double>(books.rejected),
            static_cast<double>(books.cancelled), static_cast<double>(books.lost),
            static_cast<double>(books.in_flight)};
}

double share_applied(const Books& books) {
    const std::uint64_t settled = books.applied + books.rejected + books.cancelled + books.lost;
    return settled == 0 ? 1 : static_cast<double>(books.applied) / static_cast<double>(settled);
}

namespace {

double place_of(const SeriesPoint& point, Against against) {
    return against == Against::seconds ? point.seconds : static_cast<double>(point.books.applied);
}

}  // namespace

std::vector<Point> loss_points(const RunRecord& run, std::size_t task, Against against) {
    std::vector<Point> points;
    for (const SeriesPoint& point : run.points) {
        points.push_back({place_of(point, against), point.losses[task]});
    }
    return points;
}

std::vector<Point> mean_loss_points(const RunRecord& run, Against against) {
    std::vector<Point> points;
    for (const SeriesPoint& point : run.points) {
        double sum = 0;
        for (const double loss : point.losses) sum += loss;
        const double mean = sum / static_cast<double>(point.losses.size());
        // A run that stands still has several points at one place: the newest counts.
        const double x = place_of(point, against);
        if (!points.empty() && points.back().x >= x) points.pop_back();
        points.push_back({x, mean});
    }
    return points;
}

std::string axis_title(Against against, bool virtual_time) {
    if (against == Against::updates) return "updates of one block, applied";
    return virtual_time ? "virtual seconds since the run began" : "seconds since the run began";
}

double mean_accuracy(const RunRecord& run) {
    double sum = 0;
    for (const auto& [task, accuracy] : run.accuracy) sum += accuracy;
    return run.accuracy.empty() ? std::numeric_limits<double>::quiet_NaN()
                                : sum / static_cast<double>(run.accuracy.size());
}

}  // namespace detente
