#include "bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "common/invariant.h"

namespace detente::bench {

Options parse_options(int argc, char** argv, const std::string& about) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "--json") {
            options.json = true;
        } else if (argument == "--quick") {
            options.quick = true;
        } else if (argument == "--filter") {
            if (i + 1 >= argc) {
                fmt::print(stderr, "{}: --filter needs a text to look for in names\n", argv[0]);
                std::exit(2);
            }
            options.filter = argv[++i];
        } else if (argument == "--help" || argument == "-h") {
            fmt::print(
                "{}\nusage: {} [--json] [--quick] [--filter TEXT]\n"
                "  --json         list of {{name, value, unit, limit, ratio}}\n"
                "  --quick        few and small repetitions: shows that it runs, not how fast\n"
                "  --filter TEXT  only figures whose name contains TEXT\n",
                about, argv[0]);
            std::exit(0);
        } else {
            options.rest.push_back(argument);
        }
    }
    return options;
}

Report::Report(std::string title, Options options)
    : title_(std::move(title)), options_(std::move(options)) {}

void Report::add(Figure figure) { figures_.push_back(std::move(figure)); }
void Report::remark(std::string text) { remarks_.push_back(std::move(text)); }

namespace {
std::optional<double> ratio_of(const Figure& figure) {
    if (!figure.limit || *figure.limit == 0) return std::nullopt;
    return figure.value / *figure.limit;
}
}  // namespace

std::string Report::json() const {
    boost::json::array list;
    for (const Figure& figure : figures_) {
        boost::json::object entry;
        entry["name"] = figure.name;
        entry["value"] = figure.value;
        entry["unit"] = figure.unit;
        entry["limit"] =
            figure.limit ? boost::json::value(*figure.limit) : boost::json::value(nullptr);
        const auto ratio = ratio_of(figure);
        entry["ratio"] = ratio ? boost::json::value(*ratio) : boost::json::value(nullptr);
        list.push_back(std::move(entry));
    }
    return boost::json::serialize(list);
}

std::string Report::table() const {
    std::size_t width = 4;
    for (const Figure& figure : figures_) width = std::max(width, figure.name.size());
    std::string text = title_ + "\n";
    for (const std::string& remark : remarks_) text += "  " + remark + "\n";
    text += fmt::format("{:<{}}  {:>12}  {:>12}  {:>6}  {}\n", "name", width, "value", "limit",
                        "ratio", "unit");
    for (const Figure& figure : figures_) {
        const auto ratio = ratio_of(figure);
        text += fmt::format("{:<{}}  {:>12.4g}  {:>12}  {:>6}  {}{}\n", figure.name, width,
                            figure.value, figure.limit ? fmt::format("{:.4g}", *figure.limit) : "-",
                            ratio ? fmt::format("{:.2f}", *ratio) : "-", figure.unit,
                            figure.note.empty() ? "" : "   " + figure.note);
    }
    return text;
}

void Report::print() const {
    fmt::print("{}", options_.json ? json() + "\n" : table());
    std::fflush(stdout);
}

double median(std::vector<double> values) {
    invariant(!values.empty(), "a median needs at least one value");
    const std::size_t middle = values.size() / 2;
    std::sort(values.begin(), values.end());
    if (values.size() % 2 == 1) return values[middle];
    return (values[middle - 1] + values[middle]) / 2;
}

double seconds_of(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<double> interleaved_medians(const std::vector<std::function<void()>>& works,
                                        std::size_t rounds) {
    std::vector<std::vector<double>> seconds(works.size());
    for (const auto& work : works) work();
    for (std::size_t round = 0; round < rounds; ++round) {
        for (std::size_t i = 0; i < works.size(); ++i) seconds[i].push_back(seconds_of(works[i]));
    }
    std::vector<double> medians;
    medians.reserve(works.size());
    for (auto& of_one : seconds) medians.push_back(median(std::move(of_one)));
    return medians;
}

}  // namespace detente::bench
