// The two services the coordinator's loop plays for its node: merging and evaluating checkpoints.
#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/json.hpp>
#include <filesystem>

#include "launch/checkpoint_services.h"
#include "launch/coordinator_loop.h"
#include "launch/describe.h"

namespace detente {

namespace asio = boost::asio;
namespace fs = std::filesystem;

void CoordinatorLoop::merge(const CheckpointRequest& request) {
    CheckpointOrigin origin;
    origin.generation = options_.generation;
    origin.job_text = options_.job_text;
    origin.workers = options_.job.most_workers();
    origin.worker_files = node_.worker_files();
    asio::post(merger_, [this, request, origin = std::move(origin)] {
        const CheckpointReply reply = merge_slices(request, options_.plan, options_.model, origin);
        asio::post(loop_, [this, reply] {
            answer(kMerger, reply);
            asio::post(loop_, [this] { remove_superfluous(); });
        });
    });
}

void CoordinatorLoop::remove_superfluous() {
    std::vector<std::string> doomed;
    for (const std::uint64_t number : node_.superfluous_checkpoints()) {
        doomed.push_back(options_.run.checkpoint_dir() + "/" + std::to_string(number));
    }
    if (doomed.empty()) return;
    asio::post(merger_, [doomed] {
        std::error_code ignored;
        for (const std::string& directory : doomed) fs::remove_all(directory, ignored);
    });
}

void CoordinatorLoop::evaluate(const CheckpointRequest& request) {
    // One that is still there is overdue, and the node has given it up.
    processes_.signal(evaluator_, SIGKILL);
    evaluator_ = fmt::format("evaluator:{}", request.number);
    ProcessSpec spec;
    spec.label = evaluator_;
    spec.arguments = {"evaluate", options_.run.path, "--checkpoint", std::to_string(request.number),
                      "--json"};
    spec.log_file = options_.run.log_file("evaluator");
    spec.keep_output = true;
    const Result<pid_t> started = processes_.start(spec);
    if (started.has_value()) return;
    Stopped failed;
    failed.failed = true;
    failed.code = started.error().code;
    failed.error = started.error().text;
    answer(kEvaluator, std::move(failed));
}

namespace {

// {"checkpoint":1,"tasks":{"a":{"accuracy":0.9,"loss":0.1,"samples":100}}}
Result<std::vector<NamedValue>> scores_of(const std::string& text) {
    try {
        std::vector<NamedValue> scores;
        const boost::json::value parsed = boost::json::parse(text);
        for (const auto& [task, score] : parsed.as_object().at("tasks").as_object()) {
            for (const char* what : {"accuracy", "loss"}) {
                const double value = score.as_object().at(what).to_number<double>();
                scores.push_back({what + ("." + std::string(task)), value});
            }
        }
        return scores;
    } catch (const std::exception& error) {
        return fail(ErrorCode::internal,
                    fmt::format("its output is no scores ({}): {:.200}", error.what(), text));
    }
}

}  // namespace

void CoordinatorLoop::evaluated(const std::string& label, const ProcessEnd& end) {
    if (finished_) return wind_down();
    if (label != evaluator_) return;  // it was given up
    const std::string output = processes_.output(label);
    Stopped answered;
    const auto failed_with = [&](const Error& error) {
        answered.failed = true;
        answered.code = error.code;
        answered.error = error.text;
    };
    if (const std::optional<Error> told = error_from_json(output)) {
        failed_with(*told);
    } else if (!end.clean()) {
        failed_with(
            fail(ErrorCode::peer_lost, fmt::format("the evaluating process: {}; see {}", end.text(),
                                                   options_.run.log_file("evaluator"))));
    } else {
        Result<std::vector<NamedValue>> scores = scores_of(output);
        if (scores.has_error()) {
            failed_with(scores.error());
        } else {
            answered.last.values = std::move(*scores);
        }
    }
    answer(kEvaluator, std::move(answered));
    asio::post(loop_, [this] {
        if (!node_.view().best) return;
        point_best_to(options_.run, *node_.view().best);
        remove_superfluous();
    });
}

}  // namespace detente
