#include "launch/aggregate.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <cmath>

#include "common/conflict/dense_aggregation.h"
#include "launch/strict_reading.h"

namespace detente {
namespace {

namespace json = boost::json;

std::vector<double> numbers_of(const json::value& value, const std::string& what) {
    const json::array* list = value.if_array();
    if (list == nullptr) throw BadMember{fmt::format("'{}' must be a list of numbers", what)};
    std::vector<double> numbers;
    for (const json::value& number : *list) numbers.push_back(number_of(number, what));
    return numbers;
}

DenseRows rows_at(const json::object& object, std::string_view key) {
    DenseRows rows;
    for (const json::value& row : array_at(object, key)) {
        rows.push_back(numbers_of(row, fmt::format("{}[{}]", key, rows.size())));
    }
    if (rows.empty()) {
        throw BadMember{fmt::format("'{}' is empty: it must have one row per task", key)};
    }
    return rows;
}

DenseStep step_from(const json::object& object) {
    for (const auto& entry : object) {
        const std::string_view key{entry.key().data(), entry.key().size()};
        if (key == "matrix" || key == "losses" || key == "matrix2") continue;
        throw BadMember{
            fmt::format("there is no member '{}'; a step has matrix, losses, matrix2", key)};
    }
    DenseStep step;
    step.rows = rows_at(object, "matrix");
    if (object.contains("losses")) step.losses = numbers_of(member(object, "losses"), "losses");
    if (object.contains("matrix2")) step.second = rows_at(object, "matrix2");
    return step;
}

json::array list_of(std::span<const double> values) {
    json::array list;
    for (const double value : values) list.emplace_back(value);
    return list;
}

json::array square_of(std::span<const double> entries, std::size_t n) {
    json::array rows;
    for (std::size_t i = 0; i < n; ++i) rows.push_back(list_of(entries.subspan(i * n, n)));
    return rows;
}

json::object json_of(const std::string& method, const DenseResult& result) {
    const AggregatorOutput& output = result.output;
    const std::size_t tasks = result.gramian.tasks();
    json::object object = {{"method", method}, {"status", name_of(output.status)}};
    object["weights"] = nullptr;
    if (!output.weights.empty()) object["weights"] = list_of(output.weights);
    object["result"] = list_of(result.result);
    object["gramian"] = square_of(result.gramian.entries(), tasks);
    object["cosines"] = square_of(cosines_of(result.gramian), tasks);
    if (output.kkt_residual) object["kkt_residual"] = *output.kkt_residual;
    if (output.objective) object["objective"] = *output.objective;
    return object;
}

std::string needs_of(const AggregatorNeeds& needs) {
    if (needs.coordinates) return "rows";
    std::string text;
    const auto add = [&](bool needed, const char* what) {
        if (needed) text += (text.empty() ? "" : ", ") + std::string(what);
    };
    add(needs.averages, "averages");
    add(needs.second_batch, "matrix2");
    add(needs.excess, "squares");
    add(needs.gramian && !needs.averages && !needs.second_batch, "G");
    add(needs.losses, "losses");
    return text.empty() ? "nothing" : text;
}

}  // namespace

Result<std::string> aggregate_json(const std::string& input, const AggregatorConfig& config,
                                   std::uint64_t seed) {
    auto made = make_aggregator(config);
    if (!made) return made.error();
    std::vector<DenseStep> steps;
    bool list = false;
    try {
        const json::object object = object_from(input);
        list = object.contains("steps");
        if (list && object.size() > 1) {
            throw BadMember{"beside 'steps' there is nothing else: each step has its own matrix"};
        }
        if (!list) steps.push_back(step_from(object));
        for (std::size_t k = 0; list && k < array_at(object, "steps").size(); ++k) {
            const json::object* step = array_at(object, "steps")[k].if_object();
            if (step == nullptr) throw BadMember{fmt::format("'steps[{}]' must be an object", k)};
            steps.push_back(step_from(*step));
        }
        if (steps.empty()) throw BadMember{"'steps' is empty"};
    } catch (const BadMember& bad) {
        const bool no_json = bad.text.find("not JSON") != std::string::npos;
        return fail(ErrorCode::bad_job,
                    "the input: " + bad.text +
                        (no_json ? " (JSON has no NaN or Infinity, nor have gradients)" : ""));
    }
    DenseAggregation aggregation(std::move(*made), seed);
    json::array answers;
    for (std::size_t k = 0; k < steps.size(); ++k) {
        const auto result = aggregation.step(steps[k]);
        if (!result) {
            return fail(result.error().code,
                        (list ? fmt::format("step {}: ", k) : std::string()) + result.error().text);
        }
        answers.push_back(json_of(config.name, *result));
    }
    return list ? json::serialize(answers) : json::serialize(answers.front());
}

std::string aggregator_list() {
    std::string text;
    for (const std::string& name : aggregator_names()) {
        const auto made = make_aggregator({name, {}});
        text += fmt::format("{} ({}), needs {}\n", name, aggregator_paper(name),
                            needs_of((*made)->needs()));
        for (const ExplainedParameter& parameter : aggregator_parameters(name)) {
            if (parameter.name == "preference" || parameter.name == "cr_mogm") continue;
            text += fmt::format("    {}: {}\n", parameter.name, parameter.meaning);
        }
    }
    text += "Every method takes:\n";
    for (const ExplainedParameter& parameter : aggregator_parameters("sum")) {
        text += fmt::format("    {}: {}\n", parameter.name, parameter.meaning);
    }
    return text;
}

}  // namespace detente
