#include "common/ledger_entry.h"

#include <charconv>
#include <string_view>

namespace detente {
namespace {

constexpr std::string_view kCheckpoint = "checkpoint ";
constexpr std::string_view kForgotten = "vectors forgotten of worker:";
constexpr std::string_view kPolicy = "staleness policy ";

template <class Number>
std::optional<Number> number_behind(std::string_view prefix, const std::string& text) {
    if (!text.starts_with(prefix)) return std::nullopt;
    Number number{};
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data() + prefix.size(), end, number);
    if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
    return number;
}

}  // namespace

ControlRecord checkpoint_made(std::uint64_t number) {
    return {std::string(kCheckpoint) + std::to_string(number)};
}

std::optional<std::uint64_t> checkpoint_of(const ControlRecord& record) {
    return number_behind<std::uint64_t>(kCheckpoint, record.what);
}

ControlRecord worker_forgotten(WorkerId worker) {
    return {std::string(kForgotten) + std::to_string(worker.value)};
}

std::optional<WorkerId> forgotten_worker(const ControlRecord& record) {
    const auto number = number_behind<std::uint32_t>(kForgotten, record.what);
    if (!number) return std::nullopt;
    return WorkerId{*number};
}

ControlRecord policy_changed(const std::string& how) { return {std::string(kPolicy) + how}; }

bool changes_policy(const ControlRecord& record) { return record.what.starts_with(kPolicy); }

}  // namespace detente
