// What every program in bench/ prints: figures, each beside the machine's limit measured in the
// same run. A table for people; with --json a list of {name, value, unit, limit, ratio} for
// programs.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace detente::bench {

// One line. `limit` is in the same unit as `value`; no limit prints as "-", and null in JSON.
// ratio = value / limit: for rates (GB/s) 1 is perfect and less is worse, for costs (ns, ms, MiB) 1
// is perfect and more is worse.
struct Figure {
    std::string name;
    double value = 0;
    std::string unit;
    std::optional<double> limit;
    std::string note;  // shown in the table only
};

// What the command line of a bench program may say.
struct Options {
    bool json = false;   // --json
    bool quick = false;  // --quick: few repetitions, small arrays; shows that it runs, not how fast
    std::string filter;  // --filter TEXT: only figures whose name contains TEXT
    std::vector<std::string> rest;  // what is left, in order, for the program itself
    bool wants(const std::string& name) const { return name.find(filter) != std::string::npos; }
};
// Prints the usage and exits for --help, and with status 2 for an option that lacks its value.
Options parse_options(int argc, char** argv, const std::string& about);

// Collects figures and prints them. Owned by main.
class Report {
  public:
    Report(std::string title, Options options);
    void add(Figure figure);
    // A line for people above the table (machine, sizes); not in the JSON.
    void remark(std::string text);
    // Prints everything to standard output, once, at the end.
    void print() const;
    std::string json() const;
    std::string table() const;

  private:
    std::string title_;
    Options options_;
    std::vector<std::string> remarks_;
    std::vector<Figure> figures_;
};

// Middle value (mean of the two middle ones). Requires: not empty.
double median(std::vector<double> values);
// Seconds that `work` takes, on the steady clock.
double seconds_of(const std::function<void()>& work);
// Runs all `works` in turn, `rounds` times over, so that figure and limit see the same minutes of a
// shared machine; returns the median seconds of each. One unmeasured round goes first.
std::vector<double> interleaved_medians(const std::vector<std::function<void()>>& works,
                                        std::size_t rounds);

}  // namespace detente::bench
