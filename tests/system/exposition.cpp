#include "tests/system/exposition.h"

#include <cmath>
#include <cstdlib>
#include <regex>
#include <set>
#include <sstream>

namespace detente::test {
namespace {

const std::string kName = "[a-zA-Z_:][a-zA-Z0-9_:]*";

// The family a sample belongs to: a histogram's samples have suffixes.
std::string family_of(const std::string& name, const std::map<std::string, std::string>& types) {
    for (const std::string suffix : {"_bucket", "_sum", "_count"}) {
        if (!name.ends_with(suffix)) continue;
        const std::string family = name.substr(0, name.size() - suffix.size());
        const auto type = types.find(family);
        if (type != types.end() && type->second == "histogram") return family;
    }
    return name;
}

// `name="value",…` between braces; false if it is anything else.
bool read_labels(const std::string& text, Labels& labels) {
    static const std::regex label(
        "([a-zA-Z_][a-zA-Z0-9_]*)=\"((?:[^\"\\\\\n]|\\\\[\\\\\"n])*)\"(,|$)");
    for (std::size_t at = 0; at < text.size();) {
        std::smatch match;
        const std::string rest = text.substr(at);
        if (!std::regex_search(rest, match, label, std::regex_constants::match_continuous)) {
            return false;
        }
        if (!labels.emplace(match[1], match[2]).second) return false;
        at += static_cast<std::size_t>(match.length());
    }
    return true;
}

class Reader {
  public:
    Exposition read(const std::string& text) {
        if (text.empty() || text.back() != '\n') wrong("no line feed at the end");
        std::istringstream lines(text);
        while (std::getline(lines, line_)) {
            if (line_.starts_with('#')) {
                comment();
            } else if (!line_.empty()) {
                sample();
            }
        }
        check_histograms();
        return std::move(out_);
    }

  private:
    void wrong(const std::string& what) { out_.mistakes.push_back(what + ": " + line_); }

    void comment() {
        static const std::regex help("# HELP (" + kName + ") \\S.*");
        static const std::regex type("# TYPE (" + kName + ") (counter|gauge|histogram|summary)");
        std::smatch match;
        if (std::regex_match(line_, match, help)) {
            if (!helped_.insert(match[1]).second) wrong("a second HELP");
        } else if (std::regex_match(line_, match, type)) {
            if (!out_.types.emplace(match[1], match[2]).second) wrong("a second TYPE");
            if (!helped_.contains(match[1])) wrong("no HELP before");
            const bool total = std::string(match[1]).ends_with("_total");
            if (total != (match[2] == "counter")) wrong("a counter, and only one, ends in _total");
        } else {
            wrong("neither HELP nor TYPE");
        }
    }

    void sample() {
        static const std::regex shape("(" + kName + ")(?:\\{(.*)\\})? (\\S+)");
        std::smatch match;
        if (!std::regex_match(line_, match, shape)) return wrong("no sample");
        Labels labels;
        if (!read_labels(match[2], labels)) return wrong("labels");
        const std::string number = match[3];
        char* end = nullptr;
        const double value = std::strtod(number.c_str(), &end);
        const bool spelled = number == "NaN" || number == "+Inf" || number == "-Inf";
        if (*end != '\0' || (!std::isfinite(value) && !spelled)) return wrong("no number");
        const std::string family = family_of(match[1], out_.types);
        if (!out_.types.contains(family)) wrong("no TYPE before");
        if (family != family_) {
            if (!closed_.insert(family).second) wrong("lines of one family lie apart");
            family_ = family;
        }
        if (!out_.samples.emplace(std::pair(std::string(match[1]), labels), value).second) {
            wrong("twice");
        }
    }

    void check_histograms() {
        for (const auto& [family, type] : out_.types) {
            if (type != "histogram") continue;
            line_ = family;
            std::map<double, double> buckets;
            for (const auto& [key, value] : out_.samples) {
                if (key.first != family + "_bucket") continue;
                buckets[std::strtod(key.second.at("le").c_str(), nullptr)] = value;
            }
            double below = 0;
            for (const auto& [bound, value] : buckets) {
                if (value < below) wrong("a bucket smaller than the one before");
                below = value;
            }
            if (buckets.empty() || !std::isinf(buckets.rbegin()->first)) wrong("no +Inf");
            if (below != out_.value(family + "_count")) wrong("+Inf is not the count");
            if (!out_.samples.contains({family + "_sum", {}})) wrong("no sum");
        }
    }

    Exposition out_;
    std::string line_;
    std::string family_;
    std::set<std::string> helped_;
    std::set<std::string> closed_;
};

}  // namespace

double Exposition::value(const std::string& name, const Labels& labels) const {
    const auto found = samples.find({name, labels});
    return found == samples.end() ? std::nan("") : found->second;
}

std::map<std::pair<std::string, Labels>, double> Exposition::growing() const {
    std::map<std::pair<std::string, Labels>, double> found;
    for (const auto& [key, value] : samples) {
        const auto type = types.find(family_of(key.first, types));
        if (type == types.end()) continue;
        if (type->second == "counter" || type->second == "histogram") found[key] = value;
    }
    return found;
}

Exposition read_exposition(const std::string& text) { return Reader().read(text); }

}  // namespace detente::test
