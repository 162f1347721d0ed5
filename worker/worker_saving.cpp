// What a worker's computer keeps as vectors, on its way to a file: of a checkpoint that the
// coordinator asks for, and once more before the worker leaves.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "common/worker_file.h"
#include "worker/worker.h"

namespace detente {

// The method's state and its vectors are of the same step: the state as it is now, the vectors as
// they will be when what was asked of the computer before is done.
void Worker::save_for(const CheckpointRequest& request) {
    CheckpointReply answer{.number = request.number,
                           .file = "",
                           .code = {},
                           .error = "",
                           .method_state = method_state()};
    if (!setup_.checkpoint_dir.empty()) return begin_saving(request.directory, std::move(answer));
    Message message;
    message.body = std::move(answer);
    effects_->send(kCoordinator, std::move(message));
}

void Worker::begin_saving(const std::string& folder, CheckpointReply answer) {
    Saving saving;
    saving.path = folder + "/" + worker_file_name(setup_.id);
    saving.computes = effects_->compute(KeptWork{});
    saving.answer = std::move(answer);
    saving.since = now_;
    savings_.push_back(std::move(saving));
}

// A run's last checkpoint is made when its workers have left. Whether there is a last word for it
// is told, so that one that is missing then is not taken for one that never was.
bool Worker::last_word_saved() {
    if (!setup_.checkpoint_dir.empty() && !last_word_) {
        last_word_ = now_;
        CheckpointReply answer;
        answer.number = kLastWord;
        begin_saving(setup_.checkpoint_dir, std::move(answer));
    }
    return std::all_of(savings_.begin(), savings_.end(),
                       [](const Saving& saving) { return saving.told; });
}

// Half of what a worker has to leave: the rest of it, and the run, go on without what is late.
void Worker::give_up_overdue_savings() {
    const Nanos most = setup_.job->stop_deadline / 2;
    if (!last_word_ || now_ - *last_word_ < most) return;
    for (Saving& saving : savings_) {
        if (saving.told) continue;
        saving_ended(
            saving,
            fail(
                ErrorCode::timed_out,
                fmt::format("{} waited {:.1f} s (half of deadlines.stop_s) for {} to write {}; see "
                            "whether that disk hangs, or raise deadlines.stop_s",
                            to_string(node_of(setup_.id)), as_seconds(now_ - *last_word_),
                            saving.storing ? "the disk" : "its computer", saving.path)));
    }
}

bool Worker::saving_part(const ComputePart& event) {
    for (Saving& saving : savings_) {
        if (saving.storing || saving.computes != event.ticket) continue;
        if (!saving.told) saving.pieces.push_back(event.payload);
        return true;
    }
    return false;
}

bool Worker::saving_computed(const ComputeEnded& event) {
    const auto saving = std::find_if(savings_.begin(), savings_.end(), [&](const Saving& one) {
        return !one.storing && one.computes == event.ticket;
    });
    if (saving == savings_.end()) return false;
    if (event.result && !saving->pieces.empty() && !saving->told) {
        saving->storing = true;
        saving->stores = effects_->store({saving->path, std::move(saving->pieces)});
        saving->pieces.clear();
        return true;
    }
    if (!event.result) {
        saving_ended(*saving, event.result.error());
    } else {
        saving->path.clear();  // it has nothing yet
        saving_ended(*saving, std::nullopt);
    }
    savings_.erase(saving);
    return true;
}

void Worker::saving_stored(const Stored& event) {
    const auto saving = std::find_if(savings_.begin(), savings_.end(), [&](const Saving& one) {
        return one.storing && one.stores == event.ticket;
    });
    if (saving == savings_.end()) {
        // No file of ours: the ledger, and a run whose record is torn must not look whole.
        if (!event.result) fail_with(event.result.error());
        return;
    }
    std::optional<Error> error;
    if (!event.result) error = event.result.error();
    saving_ended(*saving, error);
    savings_.erase(saving);
}

void Worker::saving_ended(Saving& saving, const std::optional<Error>& error) {
    if (saving.told) return;
    saving.told = true;
    if (saving.answer.number == kLastWord && error) {
        effects_->log(LogLevel::warning,
                      "what conflict.method '" + setup_.job->aggregator.name +
                          "', gates or staleness.policy '" + setup_.job->policy.name +
                          "' keep as vectors is not in the last checkpoint, a resumed run begins "
                          "without it: " +
                          error->text);
    }
    CheckpointReply answer = saving.answer;
    if (error) {
        answer.code = error->code;
        answer.error = error->text;
    } else {
        answer.file = saving.path;
    }
    Message message;
    message.body = std::move(answer);
    effects_->send(kCoordinator, std::move(message));
}

}  // namespace detente
