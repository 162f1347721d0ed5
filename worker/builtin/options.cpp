#include "worker/builtin/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "common/nearest_name.h"

namespace detente {
namespace {

std::string shown(double number) {
    std::string text = std::to_string(number);
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
    return text;
}

}  // namespace

const std::string* BuiltinOptions::find(const std::string& name) {
    known_.insert(name);
    for (const auto& [key, value] : options_.options) {
        if (key == name) return &value;
    }
    return nullptr;
}

std::optional<Error> BuiltinOptions::refuse(const std::string& name, const std::string& sentence) {
    if (!mistake_) {
        mistake_ = fail(ErrorCode::bad_job,
                        "[model.options] " + name + ": builtin:" + model_ + " " + sentence);
    }
    return mistake_;
}

double BuiltinOptions::number(const std::string& name, double otherwise, double lowest,
                              double highest) {
    const std::string* text = find(name);
    if (text == nullptr) return otherwise;
    double value = 0;
    const auto read = std::from_chars(text->data(), text->data() + text->size(), value);
    const bool whole_text = read.ec == std::errc() && read.ptr == text->data() + text->size();
    if (whole_text && value >= lowest && value <= highest) return value;
    refuse(name, "takes a number from " + shown(lowest) + " to " + shown(highest) + ", found '" +
                     *text + "'");
    return otherwise;
}

std::uint64_t BuiltinOptions::whole(const std::string& name, std::uint64_t otherwise,
                                    std::uint64_t lowest, std::uint64_t highest) {
    const double value = number(name, static_cast<double>(otherwise), static_cast<double>(lowest),
                                static_cast<double>(highest));
    if (value == std::floor(value)) return static_cast<std::uint64_t>(value);
    refuse(name, "takes a whole number, found " + shown(value));
    return otherwise;
}

std::string BuiltinOptions::text(const std::string& name, const std::string& otherwise) {
    const std::string* given = find(name);
    return given == nullptr ? otherwise : *given;
}

std::string BuiltinOptions::choice(const std::string& name, const std::vector<std::string>& valid) {
    std::string given = text(name, valid.front());
    if (std::find(valid.begin(), valid.end(), given) != valid.end()) return given;
    std::string all;
    for (const std::string& one : valid) all += (all.empty() ? "" : ", ") + one;
    refuse(name, "knows no '" + given + "'; one of " + all);
    return valid.front();
}

std::optional<Error> BuiltinOptions::mistake() const {
    if (mistake_) return mistake_;
    for (const auto& [key, value] : options_.options) {
        if (known_.contains(key)) continue;
        const std::vector<std::string> names(known_.begin(), known_.end());
        return fail(ErrorCode::bad_job, "[model.options] " + key + ": builtin:" + model_ +
                                            " has no such option; the nearest is '" +
                                            nearest_name(key, names) + "'");
    }
    return std::nullopt;
}

}  // namespace detente
