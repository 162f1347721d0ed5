#include "common/ledger_controls.h"

#include <fmt/format.h>

#include <charconv>
#include <sstream>
#include <string_view>
#include <vector>

namespace detente {
namespace {

constexpr std::string_view kRestored = "restored ";
constexpr std::string_view kUnderEpoch = " under epoch ";
constexpr std::string_view kPolicy = "staleness policy '";
constexpr std::string_view kInPlaceOf = " in place of '";
constexpr std::string_view kAdmission = "', admission ";
constexpr std::string_view kSummedBy = "averages are summed in an order of their own by ";
constexpr std::string_view kRemembered = "conflict method remembers: ";

std::string change_to(const PolicyChange& change, Sequence decision) {
    return fmt::format(
        "change to policy {}{}, by {}, decision {}:{}",
        text_of(PolicyConfig{change.policy, change.parameters}),
        change.admission ? fmt::format(", admission {}", name_of(*change.admission)) : "",
        change.by, decision.lead_epoch.value, decision.number);
}

// Behind the name of the policy before: "', admission step, by …", or "', by …".
std::optional<Admission> admission_in(std::string_view text) {
    const std::size_t quote = text.find('\'');
    if (quote == std::string_view::npos) return std::nullopt;
    text.remove_prefix(quote);
    if (!text.starts_with(kAdmission)) return std::nullopt;
    text.remove_prefix(kAdmission.size());
    for (const Admission admission : {Admission::block, Admission::step}) {
        if (text.starts_with(std::string(name_of(admission)) + ", by ")) return admission;
    }
    return std::nullopt;
}

}  // namespace

ControlRecord restored_shard(const RestoredFrom& from, std::uint64_t updates_lost) {
    return {fmt::format("{}{}{}{}: {} updates applied after it are lost", kRestored, from.directory,
                        kUnderEpoch, from.epoch.value, updates_lost)};
}

std::optional<RestoredFrom> restored_from(const ControlRecord& record) {
    const std::string_view text = record.what;
    const std::size_t epoch = text.rfind(kUnderEpoch);  // the folder's name may hold anything
    if (!text.starts_with(kRestored) || epoch == std::string_view::npos) return std::nullopt;
    RestoredFrom from;
    from.directory = text.substr(kRestored.size(), epoch - kRestored.size());
    const char* number = text.data() + epoch + kUnderEpoch.size();
    const auto read = std::from_chars(number, text.data() + text.size(), from.epoch.value);
    if (read.ec != std::errc() || read.ptr == text.data() + text.size() || *read.ptr != ':') {
        return std::nullopt;
    }
    return from;
}

std::string text_of(const PolicyConfig& policy) {
    std::string text = "'" + policy.name + "'";
    for (const auto& [name, value] : policy.parameters) {
        text.append(" ").append(name).append(" = ").append(value);
    }
    return text;
}

ControlRecord policy_changed(const PolicyChange& change, const std::string& former,
                             Sequence decision) {
    return policy_changed(
        fmt::format("{}{}{}{}, by {}, decision {}:{}",
                    text_of(PolicyConfig{change.policy, change.parameters}), kInPlaceOf, former,
                    change.admission ? std::string(kAdmission) + name_of(*change.admission) : "'",
                    change.by, decision.lead_epoch.value, decision.number));
}

ControlRecord policy_change_decided(const PolicyChange& change, Sequence decision) {
    return {change_to(change, decision) +
            ": decided, and made when every step that has begun is settled"};
}

ControlRecord policy_change_overtaken(const PolicyChange& change, Sequence decision) {
    return {change_to(change, decision) + ": not made here, for the run ended before"};
}

std::optional<ChangedPolicy> changed_policy(const ControlRecord& record) {
    std::string_view text = record.what;
    if (!text.starts_with(kPolicy)) return std::nullopt;
    text.remove_prefix(kPolicy.size());
    const std::size_t quote = text.find('\'');
    const std::size_t end = text.find(kInPlaceOf);
    if (quote == std::string_view::npos || end == std::string_view::npos || end < quote) {
        return std::nullopt;
    }
    ChangedPolicy changed;
    PolicyConfig& policy = changed.policy;
    policy.name = text.substr(0, quote);
    changed.admission = admission_in(text.substr(end + kInPlaceOf.size()));
    std::istringstream words{std::string(text.substr(quote + 1, end - quote - 1))};
    std::vector<std::string> all;
    for (std::string word; words >> word;) all.push_back(std::move(word));
    // NAME = VALUE …; a value ends where the next name is.
    for (std::size_t i = 0; i < all.size(); ++i) {
        if (i + 1 < all.size() && all[i + 1] == "=") {
            policy.parameters.emplace_back(all[i++], "");
        } else if (policy.parameters.empty()) {
            return std::nullopt;
        } else {
            std::string& value = policy.parameters.back().second;
            value += (value.empty() ? "" : " ") + all[i];
        }
    }
    return changed;
}

ControlRecord summed_by(const std::string& backend) {
    return {fmt::format("{}{}", kSummedBy, backend)};
}

std::optional<std::string> summed_elsewhere(const ControlRecord& record) {
    if (!record.what.starts_with(kSummedBy)) return std::nullopt;
    return record.what.substr(kSummedBy.size());
}

ControlRecord method_goes_on(const MethodState& state) {
    return {fmt::format("{}{} {} {}", kRemembered, state.method, state.groups,
                        fmt::join(state.values, " "))};
}

std::optional<MethodState> method_went_on(const ControlRecord& record) {
    std::string_view text = record.what;
    if (!text.starts_with(kRemembered)) return std::nullopt;
    text.remove_prefix(kRemembered.size());
    std::istringstream words{std::string(text)};
    MethodState state;
    if (!(words >> state.method >> state.groups)) return std::nullopt;
    for (std::string word; words >> word;) {
        const char* last = word.data() + word.size();
        const auto read = std::from_chars(word.data(), last, state.values.emplace_back());
        if (read.ec != std::errc() || read.ptr != last) return std::nullopt;
    }
    return state;
}

}  // namespace detente
