// The parameters a policy takes: declared once beside the policy, and from that one declaration
// parsed, checked, explained and defaulted. Job files give them as text.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "common/config.h"
#include "common/result.h"

namespace detente {

using ParameterValue = std::variant<std::uint64_t, double, std::string>;

// One parameter of one policy. The alternative that `standard` holds is the parameter's type.
struct ParameterSpec {
    std::string name;         // under the paper's name: "tau_max"
    std::string meaning;      // a phrase with its unit, without the default
    ParameterValue standard;  // where the job gives none
    // Numbers: inclusive bounds.
    double lowest = 0;
    double highest = 1e18;
    // Text: the only values it may have.
    std::vector<std::string> choices = {};
};

// Checked values of every parameter of one policy.
class Parameters {
  public:
    // bad_job: unknown (the nearest named) or doubled parameter, no number, out of range, no
    // choice.
    static Result<Parameters> parse(const PolicyConfig& config,
                                    const std::vector<ParameterSpec>& specs);
    // Requires: the policy declared a parameter of that name and type.
    std::uint64_t count(const std::string& name) const;
    double real(const std::string& name) const;
    const std::string& choice(const std::string& name) const;

  private:
    std::map<std::string, ParameterValue> values_;
};

// What a policy declares, in the order of its own table; none = no such policy (catalog.cpp).
std::vector<ParameterSpec> parameter_specs(const std::string& policy);
// The value where the job gives none, as a job file would have it.
std::string standard_text(const ParameterSpec& spec);
// "largest staleness accepted, in versions (0 or more; default 8)"
std::string explain(const ParameterSpec& spec);

}  // namespace detente
