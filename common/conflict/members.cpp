#include "common/conflict/members.h"

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "common/conflict/methods.h"

namespace detente {
namespace {

void append(std::string& list, std::string_view piece, char separator, bool first) {
    if (!first) list += separator;
    list += piece;
}

// A list of tasks: the members among them, by their new numbers.
std::string renumbered(std::string_view list, const std::vector<std::size_t>& members) {
    std::string text;
    bool first = true;
    for (const std::string_view piece : methods::split(list, ',')) {
        std::size_t task = 0;
        const auto end = std::from_chars(piece.data(), piece.data() + piece.size(), task);
        if (end.ec != std::errc{}) continue;
        for (std::size_t k = 0; k < members.size(); ++k) {
            if (members[k] != task) continue;
            append(text, std::to_string(k), ',', first);
            first = false;
        }
    }
    return text;
}

// As it is, where it lists nothing per task.
std::string of_members(std::string_view text, const std::vector<std::size_t>& members,
                       std::size_t tasks) {
    const std::vector<std::string_view> lists = methods::split(text, ';');
    std::string chosen;
    if (lists.size() == tasks && tasks > 1) {
        for (const std::size_t i : members) {
            append(chosen, renumbered(lists[i], members), ';', i == members.front());
        }
        return chosen;
    }
    const std::vector<std::string_view> values = methods::split(methods::unbracketed(text), ',');
    if (values.size() != tasks || tasks < 2) return std::string(text);
    for (const std::size_t i : members) append(chosen, values[i], ',', i == members.front());
    return chosen;
}

}  // namespace

std::vector<std::size_t> indices_of(TaskSet members, std::size_t tasks) {
    std::vector<std::size_t> indices;
    for (std::uint32_t task = 0; task < tasks; ++task) {
        if (members.contains(TaskId{task})) indices.push_back(task);
    }
    return indices;
}

AggregatorConfig for_members(const AggregatorConfig& config, TaskSet members, std::size_t tasks) {
    const std::vector<std::size_t> indices = indices_of(members, tasks);
    AggregatorConfig own = config;
    for (const ExplainedParameter& explained : aggregator_parameters(config.name)) {
        for (auto& [name, text] : own.parameters) {
            if (explained.per_task && name == explained.name) {
                text = of_members(text, indices, tasks);
            }
        }
    }
    return own;
}

Gramian for_members(const Gramian& whole, TaskSet members) {
    const std::vector<std::size_t> indices = indices_of(members, whole.tasks());
    Gramian own(indices.size());
    for (std::size_t i = 0; i < indices.size(); ++i) {
        for (std::size_t j = 0; j < indices.size(); ++j) {
            own.at(i, j) = whole.at(indices[i], indices[j]);
        }
    }
    return own;
}

std::vector<double> for_members(std::span<const double> whole, TaskSet members) {
    std::vector<double> own;
    for (const std::size_t i : indices_of(members, whole.size())) own.push_back(whole[i]);
    return own;
}

std::vector<double> for_all(std::span<const double> of_members, TaskSet members, std::size_t tasks,
                            double others) {
    std::vector<double> all(tasks, others);
    const std::vector<std::size_t> indices = indices_of(members, tasks);
    for (std::size_t k = 0; k < indices.size(); ++k) all[indices[k]] = of_members[k];
    return all;
}

}  // namespace detente
