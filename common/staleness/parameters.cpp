#include "common/staleness/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <system_error>

#include "common/invariant.h"
#include "common/nearest_name.h"

namespace detente {
namespace {

std::string joined(const std::vector<std::string>& names) {
    return fmt::format("{}", fmt::join(names, ", "));
}

std::string range_of(const ParameterSpec& spec) {
    if (!spec.choices.empty()) return "one of " + joined(spec.choices);
    const char* kind =
        std::holds_alternative<std::uint64_t>(spec.standard) ? "a whole number" : "a number";
    if (spec.highest >= 1e18) return fmt::format("{} of at least {}", kind, spec.lowest);
    return fmt::format("{} from {} to {}", kind, spec.lowest, spec.highest);
}

template <class Number>
std::optional<Number> number_of(const std::string& text, const ParameterSpec& spec) {
    Number number{};
    const char* end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || stopped != end || text.empty()) return std::nullopt;
    const auto value = static_cast<double>(number);
    if (!(value >= spec.lowest && value <= spec.highest)) return std::nullopt;  // NaN too
    return number;
}

std::optional<ParameterValue> value_of(const std::string& text, const ParameterSpec& spec) {
    if (std::holds_alternative<std::uint64_t>(spec.standard)) {
        return number_of<std::uint64_t>(text, spec);
    }
    if (std::holds_alternative<double>(spec.standard)) return number_of<double>(text, spec);
    const bool valid =
        std::find(spec.choices.begin(), spec.choices.end(), text) != spec.choices.end();
    if (!valid) return std::nullopt;
    return text;
}

Error unknown_parameter(const PolicyConfig& config, const std::string& key,
                        const std::vector<ParameterSpec>& specs) {
    std::vector<std::string> valid;
    valid.reserve(specs.size());
    for (const ParameterSpec& spec : specs) valid.push_back(spec.name);
    if (valid.empty()) {
        return fail(ErrorCode::bad_job,
                    fmt::format("staleness policy '{}' takes no parameters, found '{}': remove it",
                                config.name, key));
    }
    return fail(ErrorCode::bad_job,
                fmt::format("staleness policy '{}' has no parameter '{}'; did you mean '{}'? "
                            "Valid: {}",
                            config.name, key, nearest_name(key, valid), joined(valid)));
}

}  // namespace

Result<Parameters> Parameters::parse(const PolicyConfig& config,
                                     const std::vector<ParameterSpec>& specs) {
    Parameters parameters;
    for (const auto& [key, text] : config.parameters) {
        const auto spec = std::find_if(specs.begin(), specs.end(),
                                       [&key = key](const auto& s) { return s.name == key; });
        if (spec == specs.end()) return unknown_parameter(config, key, specs);
        const std::optional<ParameterValue> value = value_of(text, *spec);
        if (!value) {
            return fail(ErrorCode::bad_job,
                        fmt::format("staleness policy '{}': {} must be {}, found '{}'", config.name,
                                    key, range_of(*spec), text));
        }
        if (!parameters.values_.emplace(key, *value).second) {
            return fail(ErrorCode::bad_job,
                        fmt::format("staleness policy '{}': {} is given twice", config.name, key));
        }
    }
    for (const ParameterSpec& spec : specs) parameters.values_.emplace(spec.name, spec.standard);
    return parameters;
}

std::uint64_t Parameters::count(const std::string& name) const {
    const auto at = values_.find(name);
    invariant(at != values_.end(), "a policy asks only for parameters it declared");
    return std::get<std::uint64_t>(at->second);
}

double Parameters::real(const std::string& name) const {
    const auto at = values_.find(name);
    invariant(at != values_.end(), "a policy asks only for parameters it declared");
    return std::get<double>(at->second);
}

const std::string& Parameters::choice(const std::string& name) const {
    const auto at = values_.find(name);
    invariant(at != values_.end(), "a policy asks only for parameters it declared");
    return std::get<std::string>(at->second);
}

std::string standard_text(const ParameterSpec& spec) {
    return std::visit([](const auto& v) { return fmt::format("{}", v); }, spec.standard);
}

std::string explain(const ParameterSpec& spec) {
    return fmt::format("{} ({}; default {})", spec.meaning, range_of(spec), standard_text(spec));
}

}  // namespace detente
