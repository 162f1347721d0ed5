#include "launch/describe.h"

#include <fmt/format.h>
#include <string.h>

#include <boost/json.hpp>

#include "common/file.h"
#include "launch/child_process.h"
#include "launch/job.h"
#include "worker/builtin/catalog.h"

namespace detente {
namespace {

namespace json = boost::json;

constexpr std::size_t kShownBytes = 2000;  // of what a crashed child printed

std::string end_of(const std::string& text) {
    return text.size() <= kShownBytes ? text : "…" + text.substr(text.size() - kShownBytes);
}

}  // namespace

EngineOptions engine_options_of(const Job& job) {
    EngineOptions options;
    options.seed = job.seed;
    options.threads = static_cast<int>(job.threads);
    options.dataset_dir = job.dataset_dir;
    options.options = job.model_options;
    options.frozen = job.frozen;
    options.gates = job.gates_enabled;
    options.gate_initial = job.gate_initial;
    options.representation = job.conflict_space == ConflictSpace::representation;
    return options;
}

Result<std::string> library_checksum(const std::string& library) {
    if (library.starts_with(kBuiltinPrefix)) return std::string();
    const auto digest = digest_of(library);
    if (!digest) return digest.error();
    return fmt::format("{:016x}", digest->checksum);
}

std::string to_json(const Error& error) {
    return json::serialize(json::object{{"error", name_of(error.code)}, {"text", error.text}});
}

std::optional<Error> error_from_json(const std::string& text) {
    try {
        const json::object object = json::parse(text).as_object();
        const json::value* name = object.if_contains("error");
        const json::value* sentence = object.if_contains("text");
        if (name == nullptr || sentence == nullptr) return std::nullopt;
        for (int code = 0; code <= static_cast<int>(ErrorCode::internal); ++code) {
            const auto candidate = static_cast<ErrorCode>(code);
            if (name->as_string() == name_of(candidate)) {
                return Error{candidate, std::string(sentence->as_string())};
            }
        }
    } catch (const std::exception&) {
        // Not JSON, or of another shape: no error of ours.
    }
    return std::nullopt;
}

Result<ModelDescription> describe_in_child(const Job& job, const std::string& device) {
    const auto child =
        run_child({"/proc/self/exe", "describe", "--resolved-job", "--device", device},
                  to_toml(job), job.start_deadline);
    if (!child) {
        return fail(child.error().code,
                    fmt::format("describing the model of {}: {}. If its dataset takes so long to "
                                "read, raise deadlines.start_s",
                                job.model_library, child.error().text));
    }
    if (const auto error = error_from_json(child->output)) return *error;
    if (child->exit_code == 0) {
        auto description = model_description_from_json(child->output);
        if (description) return description;
    }
    const std::string how =
        child->signal != 0
            ? fmt::format("was killed by signal {} ({})", child->signal, ::strsignal(child->signal))
            : fmt::format("ended with exit code {} and no description", child->exit_code);
    return fail(ErrorCode::bad_model,
                fmt::format("the process that describes the model of {} {}; it printed: {}",
                            job.model_library, how, end_of(child->errors + child->output)));
}

}  // namespace detente
