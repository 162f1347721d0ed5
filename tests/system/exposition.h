// Prometheus text (exposition format 0.0.4), read as strictly as the format's page says, so that a
// test sees what a lenient scraper would let pass.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace detente::test {

using Labels = std::map<std::string, std::string>;

struct Exposition {
    std::map<std::string, std::string> types;                  // family → "counter", …
    std::map<std::pair<std::string, Labels>, double> samples;  // (name, labels) → value
    std::vector<std::string> mistakes;                         // with the line; empty = valid
    double value(const std::string& name, const Labels& labels = {}) const;  // or NaN
    // Sums of counters and buckets of histograms: what may only grow.
    std::map<std::pair<std::string, Labels>, double> growing() const;
};

Exposition read_exposition(const std::string& text);

}  // namespace detente::test
