// Short notes between the ranks of an MPI job, beside its collectives: who has joined a key, what
// to sum next, what became of it. One receive is always posted; sends own their bytes until MPI has
// let go of them. Notes between two ranks arrive in the order in which they were sent.
// Thread: one at a time.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <list>
#include <memory>
#include <optional>

#include "common/result.h"
#include "worker/collectives/collective.h"

namespace detente {

enum class NoteKind : std::uint32_t {
    hello,    // to the first member: I am here, for this group
    welcome,  // from the first member: all are here
    refused,  // from the first member: you ask for another group of this epoch
    joined,   // to the first member: my elements and weight for a key
    sum,      // from the first member: all have joined; sum it next
    summed,   // to the first member: MPI has ended it here
    done,     // from the first member: it has ended everywhere
    overdue,  // to the first member: my deadline for this key has passed
    leaving,  // to the first member, or from it to all
    broken    // from the first member
};

struct Note {
    NoteKind kind = NoteKind::hello;
    std::uint32_t index = 0;  // the sender's, in its group
    std::uint64_t epoch = 0;
    std::uint64_t members = 0;  // checksum of the group's list
    std::uint64_t step = 0;
    std::uint32_t bucket = 0;
    std::uint32_t reason = 0;
    std::uint64_t elements = 0;
    std::uint64_t missing = 0;
    double weights[kMostGroupMembers] = {};  // joined: its own comes first
};

class Notes {
  public:
    explicit Notes(MPI_Comm world);
    ~Notes() = default;
    Notes(const Notes&) = delete;
    Notes& operator=(const Notes&) = delete;

    // The last call: nothing is received any more. What was sent and not delivered yet (over UCX a
    // send waits for room, whatever its size) MPI reads until it is finalized, so that this object
    // must outlive that. Requires: MPI is not finalized.
    void let_go();

    // io: MPI's own words.
    Result<void> send(int rank, const Note& note);
    // The next note that has come; nothing: none has. Hellos are put aside: whoever says one may be
    // a group ahead of who hears it, and says it once.
    Result<std::optional<Note>> take();
    // A hello for the group of this epoch that was put aside; those for earlier ones are forgotten.
    std::optional<Note> take_hello(std::uint64_t epoch);
    // Whether somebody waits for a later group already.
    bool has_later_hello(std::uint64_t epoch) const;

  private:
    struct Sent {
        MPI_Request request;
        Note note;
    };
    Result<void> listen();
    Result<std::optional<Note>> take_any();

    MPI_Comm world_;
    std::list<Sent> sent_;
    std::list<Note> hellos_;  // at most one per member and group
    MPI_Request receiving_ = MPI_REQUEST_NULL;
    Note received_;
};

Error mpi_error(const char* doing, int code);

}  // namespace detente
