// What a worker's computer keeps as vectors, on its way to a file: of a checkpoint that the
// coordinator asks for, and once more before the worker leaves.
#include <algorithm>

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

void Worker::begin_saving(const std::string& folder, std::optional<CheckpointReply> answers) {
    Saving saving;
    saving.path = folder + "/" + worker_file_name(setup_.id);
    saving.computes = effects_->compute(KeptWork{});
    saving.answers = std::move(answers);
    savings_.push_back(std::move(saving));
}

// A run's last checkpoint is made when its workers have left.
bool Worker::last_word_saved() {
    if (!setup_.checkpoint_dir.empty() && !last_word_) {
        last_word_ = true;
        begin_saving(setup_.checkpoint_dir, std::nullopt);
    }
    return savings_.empty();
}

bool Worker::saving_part(const ComputePart& event) {
    for (Saving& saving : savings_) {
        if (saving.storing || saving.computes != event.ticket) continue;
        saving.pieces.push_back(event.payload);
        return true;
    }
    return false;
}

bool Worker::saving_computed(const ComputeEnded& event) {
    for (std::size_t i = 0; i < savings_.size(); ++i) {
        Saving& saving = savings_[i];
        if (saving.storing || saving.computes != event.ticket) continue;
        if (!event.result) {
            saving_ended(i, event.result.error());
        } else if (saving.pieces.empty()) {
            saving.path.clear();  // it has nothing yet
            saving_ended(i, std::nullopt);
        } else {
            saving.storing = true;
            saving.stores = effects_->store({saving.path, std::move(saving.pieces)});
            saving.pieces.clear();
        }
        return true;
    }
    return false;
}

void Worker::saving_stored(const Stored& event) {
    for (std::size_t i = 0; i < savings_.size(); ++i) {
        if (!savings_[i].storing || savings_[i].stores != event.ticket) continue;
        std::optional<Error> error;
        if (!event.result) error = event.result.error();
        return saving_ended(i, error);
    }
    // No file of ours: the ledger, and a run whose record is torn must not look whole.
    if (!event.result) fail_with(event.result.error());
}

void Worker::saving_ended(std::size_t index, const std::optional<Error>& error) {
    Saving saving = std::move(savings_[index]);
    savings_.erase(savings_.begin() + static_cast<std::ptrdiff_t>(index));
    if (!saving.answers) {
        if (!error) return;
        effects_->log(LogLevel::warning,
                      "what conflict.method '" + setup_.job->aggregator.name +
                          "' or gates keep is not in the last checkpoint, a resumed run begins "
                          "without it: " +
                          error->text);
        return;
    }
    CheckpointReply& answer = *saving.answers;
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
