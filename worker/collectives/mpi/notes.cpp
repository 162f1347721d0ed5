#include "worker/collectives/mpi/notes.h"

#include <algorithm>
#include <string>

namespace detente {

namespace {
constexpr int kTag = 0x2e1;  // below every MPI's bound
}

Error mpi_error(const char* doing, int code) {
    char text[MPI_MAX_ERROR_STRING + 1] = {};
    int length = 0;
    MPI_Error_string(code, text, &length);
    return fail(ErrorCode::io, std::string(doing) + " failed: " + text);
}

Notes::Notes(MPI_Comm world) : world_(world) {}

void Notes::let_go() {
    if (receiving_ != MPI_REQUEST_NULL) {
        MPI_Cancel(&receiving_);
        MPI_Wait(&receiving_, MPI_STATUS_IGNORE);
    }
    // One to a rank that never looks is not waited for.
    for (Sent& sent : sent_) {
        int ended = 0;
        MPI_Test(&sent.request, &ended, MPI_STATUS_IGNORE);
        if (ended == 0) MPI_Request_free(&sent.request);
    }
}

Result<void> Notes::send(int rank, const Note& note) {
    for (auto it = sent_.begin(); it != sent_.end();) {
        int ended = 0;
        const int code = MPI_Test(&it->request, &ended, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS) return mpi_error("MPI_Test of a note", code);
        it = ended != 0 ? sent_.erase(it) : std::next(it);
    }
    sent_.push_back({MPI_REQUEST_NULL, note});
    Sent& sent = sent_.back();
    const int code =
        MPI_Isend(&sent.note, sizeof(Note), MPI_BYTE, rank, kTag, world_, &sent.request);
    if (code != MPI_SUCCESS) return mpi_error("MPI_Isend", code);
    return {};
}

Result<void> Notes::listen() {
    if (receiving_ != MPI_REQUEST_NULL) return {};
    const int code =
        MPI_Irecv(&received_, sizeof(Note), MPI_BYTE, MPI_ANY_SOURCE, kTag, world_, &receiving_);
    if (code != MPI_SUCCESS) return mpi_error("MPI_Irecv", code);
    return {};
}

Result<std::optional<Note>> Notes::take() {
    for (;;) {
        auto note = take_any();
        if (note.has_error() || !note->has_value()) return note;
        if ((*note)->kind != NoteKind::hello) return note;
        hellos_.push_back(**note);
    }
}

std::optional<Note> Notes::take_hello(std::uint64_t epoch) {
    hellos_.remove_if([epoch](const Note& hello) { return hello.epoch < epoch; });
    const auto found = std::find_if(hellos_.begin(), hellos_.end(),
                                    [epoch](const Note& hello) { return hello.epoch == epoch; });
    if (found == hellos_.end()) return std::nullopt;
    const Note hello = *found;
    hellos_.erase(found);
    return hello;
}

bool Notes::has_later_hello(std::uint64_t epoch) const {
    return std::any_of(hellos_.begin(), hellos_.end(),
                       [epoch](const Note& hello) { return hello.epoch > epoch; });
}

Result<std::optional<Note>> Notes::take_any() {
    if (auto listening = listen(); listening.has_error()) return listening.error();
    int came = 0;
    const int code = MPI_Test(&receiving_, &came, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) return mpi_error("MPI_Test", code);
    if (came == 0) return std::optional<Note>();
    const Note note = received_;
    if (auto listening = listen(); listening.has_error()) return listening.error();
    return std::optional<Note>(note);
}

}  // namespace detente
