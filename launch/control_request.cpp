#include "launch/control_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "common/staleness/policy.h"
#include "launch/job.h"

namespace detente {
namespace json = boost::json;
namespace {

constexpr std::string_view kTable = "staleness.";

// "tau_max" of "staleness.tau_max = 4"; empty: of another table.
std::string_view staleness_key(std::string_view assignment) {
    if (!assignment.starts_with(kTable)) return {};
    std::string_view key = assignment.substr(0, assignment.find('=')).substr(kTable.size());
    while (key.ends_with(' ')) key.remove_suffix(1);
    return key;
}

// Keys of a running job that can change: the staleness policy, its parameters, who judges.
bool can_change(std::string_view assignment) {
    const std::string_view key = staleness_key(assignment);
    return !key.empty() && key != "for" && !key.starts_with("for.");
}

ErrorCode code_named(const std::string& name) {
    for (int code = 0; code <= static_cast<int>(ErrorCode::internal); ++code) {
        if (name == name_of(static_cast<ErrorCode>(code))) return static_cast<ErrorCode>(code);
    }
    return ErrorCode::internal;
}

}  // namespace

std::string to_json(const ControlRequest& request) {
    json::array set(request.set.begin(), request.set.end());
    json::object object{{"set", std::move(set)}, {"by", request.by}};
    if (!request.drain.empty()) object["drain"] = request.drain;
    return json::serialize(object);
}

Result<ControlRequest> control_request_of(std::string_view text) {
    boost::system::error_code error;
    const json::value parsed = json::parse(text, error);
    const json::object* object = error ? nullptr : parsed.if_object();
    const json::value* set = object == nullptr ? nullptr : object->if_contains("set");
    const json::value* by = object == nullptr ? nullptr : object->if_contains("by");
    ControlRequest request;
    bool whole = set != nullptr && set->is_array() && by != nullptr && by->is_string();
    for (std::size_t i = 0; whole && i < set->get_array().size(); ++i) {
        const json::value& one = set->get_array()[i];
        whole = one.is_string();
        if (whole) request.set.emplace_back(one.get_string());
    }
    const json::value* drain = object == nullptr ? nullptr : object->if_contains("drain");
    if (whole && drain != nullptr) {
        whole = drain->is_string();
        if (whole) request.drain = drain->get_string();
    }
    if (!whole || request.set.empty() == request.drain.empty()) {
        return fail(ErrorCode::bad_message,
                    "no control request: expected {\"set\": [\"KEY=VALUE\", …], \"by\": \"…\"}, or "
                    "an empty set and \"drain\": \"worker:N\"");
    }
    request.by = by->get_string();
    return request;
}

Result<ControlChange> apply_to(const std::string& job_text, const ControlRequest& request) {
    for (const std::string& assignment : request.set) {
        if (can_change(assignment)) continue;
        return fail(
            ErrorCode::bad_job,
            fmt::format(
                "--set {}: a running job can change staleness.policy, its "
                "parameters and staleness.admission only; for other keys end it (Ctrl-C writes a "
                "checkpoint) and go on with detente run JOB --set {} --resume RUN",
                assignment, assignment));
    }
    auto job = parse_job(job_text, "the running job", request.set);
    if (job.has_error()) return job.error();
    ControlChange made;
    made.change.policy = job->policy.name;
    made.change.parameters = job->policy.parameters;
    made.change.by = request.by;
    const bool asked = std::any_of(
        request.set.begin(), request.set.end(),
        [](const std::string& assignment) { return staleness_key(assignment) == "admission"; });
    if (asked) {
        const auto policy = make_policy(job->policy);
        if (policy.has_error()) return policy.error();
        if (auto fits = check_asked(job->admission, **policy); !fits) return fits.error();
        made.change.admission = job->admission;
    }
    made.job = std::move(*job);
    return made;
}

std::string to_json(const Result<std::string>& answer) {
    if (answer.has_value()) return json::serialize(json::object{{"decided", *answer}}) + "\n";
    return json::serialize(json::object{{"code", name_of(answer.error().code)},
                                        {"error", answer.error().text}}) +
           "\n";
}

Result<std::string> control_answer_of(std::string_view text) {
    boost::system::error_code error;
    const json::value parsed = json::parse(text, error);
    const json::object* object = error ? nullptr : parsed.if_object();
    const auto text_of = [&](const char* name) -> const json::string* {
        const json::value* value = object == nullptr ? nullptr : object->if_contains(name);
        return value == nullptr ? nullptr : value->if_string();
    };
    if (const json::string* decided = text_of("decided")) return std::string(*decided);
    const json::string* code = text_of("code");
    const json::string* why = text_of("error");
    if (code == nullptr || why == nullptr) {
        return fail(ErrorCode::bad_message,
                    fmt::format("expected the answer of a coordinator, found: {:.200}", text));
    }
    return fail(code_named(std::string(*code)), std::string(*why));
}

}  // namespace detente
