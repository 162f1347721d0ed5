// The memory the processes of a group share: who has joined which key, what became of it, and room
// for gradients. shared_memory reduces in it; nccl uses it to agree on keys, order and outcome.
//
// No locks: a member may be killed or stopped between any two instructions. Every word has one
// writer, or only ever gains bits, or is settled once by compare-and-swap:
// - a member publishes its posts in slots of its own; a slot is used again only when every member
//   has finished with it;
// - the outcome of a key is one word in the first member's post, done or broken, whichever comes
//   first, for all; it is never set to done once the group is broken and someone may have seen that
//   this post is not there;
// - the group is broken by one word: who is missing, why, and who says so.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "worker/collectives/collective.h"
#include "worker/collectives/meeting.h"

namespace detente {

enum class KeyOutcome : std::uint32_t { open = 0, done = 1, broken = 2 };

// What a member says of a key. All zeros is an empty one.
struct alignas(64) Post {
    std::atomic<std::uint64_t> turn;  // odd while published; one more at each change
    std::atomic<std::uint64_t> step;
    std::atomic<std::uint64_t> bucket;
    std::atomic<std::uint64_t> elements;
    std::atomic<double> weight;
    std::atomic<std::uint64_t> gradient_at;  // bytes from the start of the memory
    std::atomic<std::uint64_t> result_at;    // the first member's only
    std::atomic<std::uint32_t> begun;        // pieces of the work, by this member
    std::atomic<std::uint32_t> ended;
    std::atomic<std::uint64_t> finished;  // members that will not look at this post again

    // Below, in the first member's post only, and written by all.
    alignas(64) std::atomic<KeyOutcome> outcome;
    std::atomic<std::uint32_t> next_piece;
    std::atomic<std::uint32_t> pieces_ended;
    std::atomic<std::uint64_t> dropped;  // members that have dropped the mean
    std::atomic<std::uint64_t> order;    // place of this key in an order for all; 0: none yet
};
static_assert(std::atomic<double>::is_always_lock_free);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

enum class BreakReason : std::uint64_t {
    lost = 0,
    late = 1,
    disagrees = 2,
    no_memory = 3,
    failed = 4
};

class Board {
  public:
    // Meets the others; see meet(). `arena_bytes` of room per member.
    static Result<std::shared_ptr<Board>> form(const std::string& run, const Group& group,
                                               WorkerId self, std::size_t arena_bytes,
                                               Nanos deadline);
    ~Board();
    Board(const Board&) = delete;
    Board& operator=(const Board&) = delete;

    const Group& group() const { return group_; }
    std::size_t self() const { return self_; }
    std::size_t count() const { return group_.members.size(); }
    std::uint64_t self_bit() const { return std::uint64_t{1} << self_; }
    std::uint64_t all() const { return (std::uint64_t{1} << count()) - 1; }

    std::byte* at(std::uint64_t offset) { return memory_ + offset; }
    std::uint64_t arena_at(std::size_t member) const;
    std::size_t arena_bytes() const { return arena_bytes_; }

    // ---- posts; thread: the collective's ----

    // A slot of this member's that is free; nullptr: all are in use.
    Post* free_slot();
    // Requires: a free slot, its fields written.
    void publish(Post& post);
    // Frees this member's posts that all have finished with; `on_freed` is told before each. The
    // first member's are kept until all have dropped the mean, too.
    template <class OnFreed>
    void reclaim(OnFreed on_freed) {
        for (Post& post : slots_of(self_)) {
            const bool published = (post.turn.load() & 1U) != 0;
            if (!published || post.finished.load() != all()) continue;
            if (self_ == 0 && post.dropped.load() != all()) continue;
            on_freed(post);
            clear(post);
        }
    }
    // The post of a member for a key that this member has not finished with; nullptr: none yet.
    Post* find(std::size_t member, const CollectiveKey& key);
    void finish(Post& post) { post.finished.fetch_or(self_bit()); }
    // Settles a key that is done, or broken if the group is; returns what it is settled as.
    KeyOutcome settle(Post& first);

    // ---- the group ----

    // Breaks the group, unless it is broken already. `key`: what was waited for, if anything.
    void break_group(std::uint64_t missing, BreakReason reason, const CollectiveKey& key);
    // Likewise, over this member. The others are told that it failed; it alone knows how, and says
    // so in its own broken().
    void fail_here(const Error& why, const CollectiveKey& key);
    bool is_broken() const;
    std::optional<Broken> broken() const;

    // A note of the first member to all, once. Requires (said): at most kNoteBytes.
    static constexpr std::size_t kNoteBytes = 128;
    void say(std::span<const std::byte> note);
    const std::byte* said() const;  // nullptr: nothing yet

    // ---- waking and waiting ----

    void notify(std::size_t member);  // thread: any
    void notify_all();                // all others
    // Remembers the notices so far: wait() returns as soon as there are more.
    void look() { seen_ = notices(); }
    void wait(Nanos at_most, bool spin);
    // Breaks the group if a member is gone.
    void look_for_losses();
    // Hangs up. The memory stays while means of it are held.
    void leave();
    // For a member that waits for room: whoever frees some of its room wakes it.
    void want_room(bool wanted);
    void room_freed(std::size_t member);  // thread: any

  private:
    struct Head;
    Board(const Group& group, WorkerId self, std::size_t arena_bytes, Meeting meeting);
    std::span<Post> slots_of(std::size_t member);
    void clear(Post& post);
    Error error_of(std::uint64_t missing, BreakReason reason, std::size_t author) const;
    std::uint64_t notices() const;
    void sleep(Nanos at_most);

    const Group group_;
    const std::size_t self_;
    const std::size_t arena_bytes_;
    Meeting meeting_;
    std::byte* memory_ = nullptr;
    Head* head_ = nullptr;
    std::uint64_t seen_ = 0;
    std::string own_failure_;  // the first
};

}  // namespace detente
