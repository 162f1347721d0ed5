// Averages over MPI, where MPI started the job; one module for each MPI, since their interfaces are
// not one in binary. Every process of the job loads it, members or not: MPI_Init is for all.
//
// MPI pairs collective calls by the order in which they are made, and waits for ever. So a key is
// handed to MPI_Iallreduce only when all have joined it, in the order in which the first member
// says so, and is done when that member says that it is done everywhere. What MPI sums is Σ aᵢ·gᵢ
// with aᵢ = float(wᵢ / W), in an order of its own; MPI's standard asks that all ranks get the same
// bits.
//
// What a loss means. MPI has no word for it: mpirun ends the whole job when a rank dies, unless it
// is told otherwise (Open MPI: --mca orte_enable_recovery 1; MPICH: -disable-auto-cleanup), and a
// rank that stands still is missed at the deadline like anybody. The first member decides what
// becomes of a key, for all. If it is the first that is missing, the others find that half a second
// after the deadline, and one may have the mean of a key that is broken for another. A sum that is
// underway then cannot be cancelled: its memory is kept to the process's end, and MPI is not
// finalized unless it has ended by then. Communicators are kept, too.
#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <thread>
#include <utility>

#include "common/checksum.h"
#include "worker/collectives/collective_module.h"
#include "worker/collectives/mpi/mpi_collective.h"

namespace detente {

namespace {

using Clock = std::chrono::steady_clock;

// "2=0,5=1": worker 2 is rank 0, worker 5 is rank 1.
Result<std::map<WorkerId, int>> parse_ranks(const std::string& text, int world) {
    std::map<WorkerId, int> ranks;
    std::size_t at = 0;
    while (at < text.size()) {
        unsigned worker = 0;
        int rank = -1;
        int length = 0;
        const int read = std::sscanf(text.c_str() + at, "%u=%d%n", &worker, &rank, &length);
        if (read != 2 || rank < 0 || rank >= world) {
            return fail(ErrorCode::not_supported,
                        "the option ranks of collectives over MPI is worker=rank,worker=rank,… "
                        "with ranks below " +
                            std::to_string(world) + ", not '" + text + "'");
        }
        ranks[WorkerId{worker}] = rank;
        at += static_cast<std::size_t>(length);
        if (at < text.size() && text[at] == ',') ++at;
    }
    return ranks;
}

class MpiBackend final : public CollectiveBackend {
  public:
    MpiBackend(std::map<WorkerId, int> ranks, bool initialised_here)
        : ranks_(std::move(ranks)),
          initialised_here_(initialised_here),
          notes_(std::make_unique<Notes>(MPI_COMM_WORLD)) {}

    ~MpiBackend() override {
        notes_->let_go();
        // With a sum underway, finalizing would wait for it.
        bool all_ended = true;
        for (Abandoned::Sum& sum : abandoned_.sums) {
            int ended = 0;
            const int code = MPI_Test(&sum.request, &ended, MPI_STATUS_IGNORE);
            all_ended = all_ended && code == MPI_SUCCESS && ended != 0;
        }
        if (initialised_here_ && all_ended) MPI_Finalize();
        // Whoever initialised MPI goes on with it, and MPI with what it has not sent yet.
        if (!initialised_here_) static_cast<void>(notes_.release());
    }

    const char* name() const override { return "mpi"; }

    Result<std::unique_ptr<Collective>> form(const Group& group, WorkerId self,
                                             Nanos deadline) override {
        if (auto checked = check_group(group, self); checked.has_error()) return checked.error();
        if (auto refused = check_epoch(group, self, last_); refused.has_error()) {
            return refused.error();
        }
        std::vector<int> ranks;
        for (const WorkerId member : group.members) {
            const auto found = ranks_.find(member);
            if (found == ranks_.end()) {
                return fail(ErrorCode::not_supported,
                            "the option ranks of collectives over MPI does not say which rank " +
                                to_string(node_of(member)) + " is");
            }
            ranks.push_back(found->second);
        }
        const auto until = Clock::now() + deadline;
        const std::size_t index = group.index_of(self);
        const auto met = index == 0 ? host(group, ranks, until) : visit(group, ranks, index, until);
        if (met.has_error()) return met.error();
        last_ = group.epoch;
        auto communicator = connect(ranks, group.epoch);
        if (communicator.has_error()) return communicator.error();
        return std::unique_ptr<Collective>(std::make_unique<MpiCollective>(
            group, self, std::move(ranks), *communicator, *notes_, abandoned_));
    }

  private:
    Note note_of(NoteKind kind, const Group& group, std::size_t index) const {
        Note note;
        note.kind = kind;
        note.index = static_cast<std::uint32_t>(index);
        note.epoch = group.epoch.value;
        note.members = checksum_of(std::as_bytes(std::span(group.members)));
        return note;
    }

    Error missed(const Group& group, std::uint64_t missing) const {
        return fail(ErrorCode::timed_out,
                    group.names_of(missing) + " did not come to form the group of epoch " +
                        std::to_string(group.epoch.value) + " before the deadline");
    }
    Error other_group(const Group& group) const {
        return fail(ErrorCode::wrong_epoch, "members ask for different groups of epoch " +
                                                std::to_string(group.epoch.value) +
                                                "; all must be given the same members");
    }

    // The next note of this epoch or a later one; none by then, or every so often.
    Result<std::optional<Note>> next_note(const Group& group, Clock::time_point until) {
        for (;;) {
            auto note = notes_->take();
            if (note.has_error()) return note.error();
            if (note->has_value() && (*note)->epoch >= group.epoch.value) return note;
            if (note->has_value()) continue;
            if (Clock::now() >= until) return std::optional<Note>();
            std::this_thread::sleep_for(std::chrono::microseconds(200));
        }
    }

    // The next hello for this group; none by then. wrong_epoch: a member is at a later group, of
    // which this one has not heard yet; its hello is kept for that.
    Result<std::optional<Note>> next_hello(const Group& group, Clock::time_point until) {
        for (;;) {
            auto note = notes_->take();
            if (note.has_error()) return note.error();
            if (note->has_value()) continue;  // what still comes from an earlier group
            if (notes_->has_later_hello(group.epoch.value)) {
                return fail(ErrorCode::wrong_epoch,
                            "a member asks for a later group than that of epoch " +
                                std::to_string(group.epoch.value) + ", which is given up");
            }
            if (auto hello = notes_->take_hello(group.epoch.value)) return hello;
            if (Clock::now() >= until) return std::optional<Note>();
            std::this_thread::sleep_for(std::chrono::microseconds(200));
        }
    }

    Result<void> host(const Group& group, const std::vector<int>& ranks, Clock::time_point until) {
        std::uint64_t missing = (std::uint64_t{1} << ranks.size()) - 2;
        while (missing != 0) {
            auto hello = next_hello(group, until);
            if (hello.has_error()) return hello.error();
            if (!hello->has_value()) return missed(group, missing);
            const Note& note = **hello;
            if (note.index >= ranks.size()) continue;
            if (note.members != note_of(NoteKind::hello, group, note.index).members) {
                const Note refused = note_of(NoteKind::refused, group, 0);
                for (std::size_t i = 1; i < ranks.size(); ++i) {
                    if (auto sent = notes_->send(ranks[i], refused); sent.has_error()) return sent;
                }
                return other_group(group);
            }
            missing &= ~(std::uint64_t{1} << note.index);
        }
        for (std::size_t i = 1; i < ranks.size(); ++i) {
            auto sent = notes_->send(ranks[i], note_of(NoteKind::welcome, group, 0));
            if (sent.has_error()) return sent;
        }
        return {};
    }

    Result<void> visit(const Group& group, const std::vector<int>& ranks, std::size_t index,
                       Clock::time_point until) {
        auto sent = notes_->send(ranks[0], note_of(NoteKind::hello, group, index));
        if (sent.has_error()) return sent;
        for (;;) {
            auto note = next_note(group, until);
            if (note.has_error()) return note.error();
            // It tells nobody whom it waits for until then; its own error does.
            if (!note->has_value()) return missed(group, 1);
            if ((*note)->epoch != group.epoch.value) continue;
            if ((*note)->kind == NoteKind::refused) return other_group(group);
            if ((*note)->kind == NoteKind::welcome) return {};
        }
    }

    // All have just said that they are there. Blocks.
    Result<MPI_Comm> connect(const std::vector<int>& ranks, GroupEpoch epoch) {
        MPI_Group world = MPI_GROUP_NULL;
        MPI_Group members = MPI_GROUP_NULL;
        MPI_Comm communicator = MPI_COMM_NULL;
        int code = MPI_Comm_group(MPI_COMM_WORLD, &world);
        if (code == MPI_SUCCESS) {
            code = MPI_Group_incl(world, static_cast<int>(ranks.size()), ranks.data(), &members);
        }
        if (code == MPI_SUCCESS) {
            const int tag = static_cast<int>(epoch.value % 30'000);
            code = MPI_Comm_create_group(MPI_COMM_WORLD, members, tag, &communicator);
        }
        if (members != MPI_GROUP_NULL) MPI_Group_free(&members);
        if (world != MPI_GROUP_NULL) MPI_Group_free(&world);
        if (code == MPI_SUCCESS) {
            code = MPI_Comm_set_errhandler(communicator, MPI_ERRORS_RETURN);
        }
        if (code != MPI_SUCCESS) return mpi_error("making a communicator", code);
        return communicator;
    }

    const std::map<WorkerId, int> ranks_;
    const bool initialised_here_;
    Abandoned abandoned_;
    std::unique_ptr<Notes> notes_;
    GroupEpoch last_;
};

Result<std::unique_ptr<MpiBackend>> make(const CollectiveOptions& options) {
    auto known = check_options(options, {"ranks"});
    if (known.has_error()) return known.error();
    int is_initialised = 0;
    MPI_Initialized(&is_initialised);
    int threads = MPI_THREAD_SINGLE;
    if (is_initialised == 0) {
        const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &threads);
        if (code != MPI_SUCCESS) return mpi_error("MPI_Init_thread", code);
    } else {
        MPI_Query_thread(&threads);
    }
    if (threads < MPI_THREAD_SERIALIZED) {
        return fail(ErrorCode::not_supported,
                    "this MPI was begun without MPI_THREAD_SERIALIZED, which collectives on a "
                    "thread of their own need");
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    int world = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &world);
    auto ranks = parse_ranks(option_of(options, "ranks", ""), world);
    if (ranks.has_error()) return ranks.error();
    return std::make_unique<MpiBackend>(std::move(*ranks), is_initialised == 0);
}

CollectiveBackend* create(const CollectiveOptions& options, Error& error) {
    auto made = make(options);
    if (made.has_value()) return made->release();
    error = made.error();
    return nullptr;
}

}  // namespace

}  // namespace detente

#if defined(OPEN_MPI)
#define DETENTE_MPI "Open MPI"
#else
#define DETENTE_MPI "MPICH"
#endif
extern "C" __attribute__((visibility("default")))
// NOLINTNEXTLINE(readability-identifier-naming): as kCollectiveSymbol says
const detente::CollectiveEntry detente_collective_entry{detente::kCollectiveAbi, DETENTE_MPI,
                                                        detente::create};
