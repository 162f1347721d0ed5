// How a live change reaches the coordinator's node and its answer whoever asked for it.
#include <fmt/core.h>

#include "launch/control_request.h"
#include "launch/coordinator_loop.h"
#include "launch/job.h"
#include "launch/staging_plan.h"

namespace detente {
namespace {

using ErrorOfAsio = boost::system::error_code;

constexpr std::chrono::seconds kControlDeadline{10};

HttpReply reply_of(const Result<std::string>& answer) {
    const unsigned status = answer.has_value()                            ? 200
                            : answer.error().code == ErrorCode::peer_lost ? 503
                            : answer.error().code == ErrorCode::timed_out ? 504
                            : answer.error().code == ErrorCode::not_owner ? 403
                                                                          : 400;
    return {status, {"application/json", to_json(answer)}};
}

// Takes as long wherever they differ.
bool same_secret(const std::string& a, const std::string& b) {
    unsigned differs = a.size() == b.size() ? 0 : 1;
    for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
        differs |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
    }
    return differs == 0;
}

}  // namespace

void CoordinatorLoop::posted(const HttpPost& post, HttpRespond respond) {
    if (post.path != kControlPath) {
        return respond({404, {"text/plain", "there is POST /control\n"}});
    }
    if (!same_secret(post.token, token_)) {
        return respond(reply_of(
            fail(ErrorCode::not_owner, fmt::format("the header {} must hold what {} does",
                                                   kTokenHeader, options_.run.token_file()))));
    }
    const auto request = control_request_of(post.body);
    if (request.has_error()) return respond(reply_of(request.error()));
    if (!request->drain.empty()) return respond(reply_of(drained(*request)));
    auto made = apply_to(options_.job_text, *request);
    if (made.has_error()) return respond(reply_of(made.error()));
    const auto fits = check_staging(options_.plan, made->job, node_.view());
    if (fits.has_error()) return respond(reply_of(fits.error()));
    const std::uint64_t number = ++last_control_;
    made->change.request = number;
    PendingControl& pending = controls_[number];
    pending.respond = std::move(respond);
    pending.job = std::move(made->job);
    pending.deadline = std::make_unique<boost::asio::steady_timer>(loop_, kControlDeadline);
    pending.deadline->async_wait([this, number](const ErrorOfAsio& cancelled) {
        if (cancelled) return;
        const auto late = controls_.find(number);
        if (late == controls_.end() || !late->second.respond) return;
        // The entry stays: an answer that comes yet says what the running job is.
        std::exchange(late->second.respond, nullptr)(reply_of(
            fail(ErrorCode::timed_out,
                 fmt::format("the lead shard, shard:0, has not answered within {} s; its ledger "
                             "says whether it changed",
                             kControlDeadline.count()))));
    });
    answer(kCoordinator, std::move(made->change));
}

// The answer says that it will leave; its end is in the log, as any worker's.
Result<std::string> CoordinatorLoop::drained(const ControlRequest& request) {
    const auto refused = [&request](const std::string& why) {
        return fail(ErrorCode::bad_job, fmt::format("--drain {}: {}", request.drain, why));
    };
    const ClusterView& view = node_.view();
    const ProcessView* wanted = nullptr;
    std::size_t working = 0;
    std::string names;
    for (const ProcessView& process : view.processes) {
        if (process.node.role != Role::worker || !process.live()) continue;
        ++working;
        names += (names.empty() ? "" : ", ") + to_string(process.node);
        if (to_string(process.node) == request.drain) wanted = &process;
    }
    if (wanted == nullptr) return refused("expected a worker that works: " + names);
    if (view.stage != Stage::training) {
        return refused(fmt::format("workers leave while training runs; the run is at: {}",
                                   name_of(view.stage)));
    }
    if (working == 1) {
        return refused(
            "it is the only one left; Ctrl-C, or SIGTERM to the coordinator, ends the "
            "job with a checkpoint");
    }
    PeerChange leaving;
    leaving.node = wanted->node;
    leaving.reason = request.by;
    answer(kCoordinator, std::move(leaving));
    return fmt::format("{} on {} finishes what it has pushed and leaves", request.drain,
                       wanted->endpoint.host);
}

void CoordinatorLoop::controlled(std::uint64_t number, const Result<std::string>& answer) {
    const auto found = controls_.find(number);
    if (found == controls_.end()) return;
    PendingControl pending = std::move(found->second);
    controls_.erase(found);
    if (answer.has_value()) {
        options_.job = pending.job;  // what the next change starts from, and checkpoints hold
        options_.job_text = to_toml(pending.job);
    }
    if (pending.respond) pending.respond(reply_of(answer));
}

}  // namespace detente
