#include "worker/collectives/shared_memory.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <map>
#include <utility>

#include "common/collective/average.h"
#include "common/invariant.h"
#include "worker/collectives/arena.h"
#include "worker/collectives/board.h"
#include "worker/collectives/key_posts.h"
#include "worker/collectives/keys_in_flight.h"

namespace detente {

namespace {

// Small enough that members finish together, large enough that taking one costs nothing.
constexpr std::uint64_t kPieceElements = std::uint64_t{1} << 16U;

// A stretch of this member's arena, given back with it, on any thread.
class Room {
  public:
    static std::shared_ptr<Room> take(std::shared_ptr<Board> board, std::shared_ptr<Arena> arena,
                                      std::size_t bytes) {
        const auto at = arena->take(bytes);
        if (!at) return nullptr;
        return std::make_shared<Room>(std::move(board), std::move(arena), *at, bytes);
    }
    Room(std::shared_ptr<Board> board, std::shared_ptr<Arena> arena, std::size_t at,
         std::size_t bytes)
        : board_(std::move(board)), arena_(std::move(arena)), at_(at), bytes_(bytes) {}
    ~Room() {
        arena_->give_back(at_, bytes_);
        board_->room_freed(board_->self());
    }
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

    std::uint64_t offset() const { return board_->arena_at(board_->self()) + at_; }
    std::span<std::byte> bytes() const { return {board_->at(offset()), bytes_}; }

  private:
    std::shared_ptr<Board> board_;
    std::shared_ptr<Arena> arena_;
    std::size_t at_;
    std::size_t bytes_;
};

// What a mean's payload holds; the memory under it is the first member's.
struct HeldMean {
    std::shared_ptr<Board> board;
    Post* first;
    ~HeldMean() {
        first->dropped.fetch_or(board->self_bit());
        board->room_freed(0);
    }
};

class SharedMemoryCollective final : public Collective {
  public:
    SharedMemoryCollective(std::shared_ptr<Board> board, WorkerId self)
        : board_(std::move(board)),
          self_(self),
          arena_(std::make_shared<Arena>(board_->arena_bytes())) {}
    ~SharedMemoryCollective() override { board_->leave(); }

    const Group& group() const override { return board_->group(); }
    WorkerId self() const override { return self_; }

    Result<GradientBuffer> buffer(std::size_t bytes) override {
        auto room = Room::take(board_, arena_, bytes);
        if (!room) return no_room(bytes);
        const auto all = room->bytes();
        return GradientBuffer{std::move(room), all};
    }

    Result<void> begin(const CollectiveKey& key, GradientShare share, Time deadline) override {
        if (auto refused = keys_.check(group(), broken_, key, share); refused.has_error()) {
            return refused;
        }
        const std::size_t own = is_in_arena(share.gradient) ? 0 : share.gradient.size();
        const std::size_t mean = board_->self() == 0 ? share.elements * sizeof(float) : 0;
        if (own + mean > arena_->bytes()) return no_room(own + mean);
        keys_.add(key, deadline);
        entries_.push_back({key, std::move(share)});
        publish_what_fits();
        return {};
    }

    void give_up(const CollectiveKey& key, const Error& why) override {
        if (!board_->is_broken()) board_->fail_here(why, key);
    }

    std::vector<CollectiveEnd> poll(Time now) override {
        board_->look();
        board_->look_for_losses();
        reclaim();
        publish_what_fits();
        std::vector<CollectiveEnd> ends;
        for (Entry& entry : entries_) advance(entry, ends);
        for (const CollectiveKey& key : keys_.overdue(now)) miss(key);
        if (board_->is_broken()) {
            for (Entry& entry : entries_) advance(entry, ends);
            if (!broken_) broken_ = board_->broken();
        }
        entries_.remove_if([](const Entry& entry) { return entry.has_ended; });
        return ends;
    }

    const std::optional<Broken>& broken() const override { return broken_; }
    std::optional<Time> next_deadline() const override { return keys_.next_deadline(); }
    void wait(Nanos at_most) override { board_->wait(at_most, !keys_.empty()); }
    void wake() override { board_->notify(board_->self()); }

  private:
    struct Entry {
        CollectiveKey key;
        GradientShare share;
        std::shared_ptr<Room> copy{};  // of a gradient from elsewhere
        Post* post = nullptr;
        bool has_ended = false;
    };

    Error no_room(std::size_t bytes) const {
        return fail(ErrorCode::over_limit,
                    to_string(node_of(self_)) + " has no room for " + std::to_string(bytes) +
                        " bytes in its " + std::to_string(arena_->bytes()) +
                        " of shared memory, of which its gradients and means that are still held "
                        "take " +
                        std::to_string(arena_->used_bytes()));
    }

    bool is_in_arena(const Payload& payload) const {
        const std::byte* start = board_->at(board_->arena_at(board_->self()));
        const std::byte* at = payload.bytes.data();
        return !payload.empty() && at >= start && at + payload.size() <= start + arena_->bytes();
    }

    // In the order in which they were begun: one that finds no room holds up those behind it, so
    // that a large one is not passed for ever.
    void publish_what_fits() {
        bool all = true;
        for (Entry& entry : entries_) {
            if (entry.post != nullptr || entry.has_ended || board_->is_broken()) continue;
            all = all && publish(entry);
        }
        board_->want_room(!all);
    }

    bool publish(Entry& entry) {
        Post* post = board_->free_slot();
        if (post == nullptr) return false;
        std::uint64_t gradient_at = 0;
        const Payload& gradient = entry.share.gradient;
        const bool counts = entry.share.weight > 0;
        if (counts && is_in_arena(gradient)) {
            gradient_at = static_cast<std::uint64_t>(gradient.bytes.data() - board_->at(0));
        } else if (counts && !gradient.empty()) {
            if (!entry.copy) entry.copy = Room::take(board_, arena_, gradient.size());
            if (!entry.copy) return false;
            std::memcpy(entry.copy->bytes().data(), gradient.bytes.data(), gradient.size());
            gradient_at = entry.copy->offset();
        }
        if (board_->self() == 0) {
            auto mean = Room::take(board_, arena_, entry.share.elements * sizeof(float));
            if (!mean) return false;
            post->result_at.store(mean->offset());
            means_[post] = std::move(mean);
        }
        post->step.store(entry.key.step.value);
        post->bucket.store(entry.key.bucket.value);
        post->elements.store(entry.share.elements);
        post->weight.store(entry.share.weight);
        post->gradient_at.store(gradient_at);
        entry.post = post;
        board_->publish(*post);
        return true;
    }

    void reclaim() {
        board_->reclaim([this](Post& post) { means_.erase(&post); });
    }

    void advance(Entry& entry, std::vector<CollectiveEnd>& ends) {
        if (entry.has_ended) return;
        const KeyPosts posts(*board_, entry.key);
        KeyOutcome outcome = posts.outcome();
        if (outcome == KeyOutcome::open && posts.complete() && !board_->is_broken()) {
            outcome = work(entry, posts);
        }
        if (outcome == KeyOutcome::open && board_->is_broken()) {
            outcome = settle_broken(*board_, entry.key);
        }
        if (outcome != KeyOutcome::open) end(entry, outcome, ends);
    }

    // Does what there is to do of a key that all have joined.
    KeyOutcome work(Entry& entry, const KeyPosts& posts) {
        if (!posts.agree(*board_, entry.key)) return KeyOutcome::open;
        const MeanShares shares = posts.shares();
        if (shares.weight_sum == 0 || entry.share.elements == 0) {
            return board_->settle(*posts.first());
        }
        std::vector<const float*> gradients;
        for (std::size_t i = 0; i < posts.count(); ++i) {
            gradients.push_back(
                reinterpret_cast<const float*>(board_->at(posts.of(i).gradient_at.load())));
        }
        return sum(*entry.post, *posts.first(), shares.of, gradients, entry.share.elements);
    }

    KeyOutcome sum(Post& own, Post& first, const std::vector<double>& shares,
                   const std::vector<const float*>& gradients, std::uint64_t elements) {
        const std::uint64_t pieces = (elements + kPieceElements - 1) / kPieceElements;
        auto* mean = reinterpret_cast<float*>(board_->at(first.result_at.load()));
        while (!board_->is_broken()) {
            // Said before it is taken: a member that is stopped in between can be named.
            own.begun.fetch_add(1);
            const std::uint64_t piece = first.next_piece.fetch_add(1);
            if (piece >= pieces) {
                own.ended.fetch_add(1);
                break;
            }
            const std::uint64_t from = piece * kPieceElements;
            const std::uint64_t count = std::min(kPieceElements, elements - from);
            write_mean(shares, gradients, from, {mean + from, count});
            const bool last = first.pieces_ended.fetch_add(1) + 1 == pieces;
            const KeyOutcome outcome = last ? board_->settle(first) : KeyOutcome::open;
            own.ended.fetch_add(1);
            if (last) return outcome;
        }
        return first.outcome.load();
    }

    // A deadline has passed: whoever has not joined, or has not ended what it took, is missing.
    void miss(const CollectiveKey& key) {
        const auto found = std::find_if(
            entries_.begin(), entries_.end(),
            [&key](const Entry& entry) { return entry.key == key && !entry.has_ended; });
        if (found == entries_.end() || board_->is_broken()) return;
        if (found->post == nullptr) {
            board_->break_group(board_->self_bit(), BreakReason::no_memory, key);
            return;
        }
        const KeyPosts posts(*board_, key);
        std::uint64_t missing = posts.missing();
        for (std::size_t i = 0; posts.complete() && i < posts.count(); ++i) {
            const bool owes = posts.of(i).begun.load() != posts.of(i).ended.load();
            if (i != board_->self() && owes) missing |= std::uint64_t{1} << i;
        }
        // Nobody: then it has just been settled, and the next poll() finds it so.
        if (missing != 0) board_->break_group(missing, BreakReason::late, key);
    }

    void end(Entry& entry, KeyOutcome outcome, std::vector<CollectiveEnd>& ends) {
        CollectiveEnd ended{entry.key, Weightless{}, std::move(entry.share.gradient)};
        if (outcome == KeyOutcome::broken) {
            ended.result = *board_->broken();
        } else {
            // Done, so all posts are there, and stay until this member has finished with them.
            const KeyPosts posts(*board_, entry.key);
            Post* first = posts.first();
            const double weight_sum = posts.shares().weight_sum;
            if (weight_sum > 0) {
                const std::span<const std::byte> mean{board_->at(first->result_at.load()),
                                                      entry.share.elements * sizeof(float)};
                ended.result = Averaged{
                    {std::shared_ptr<const void>(new HeldMean{board_, first}), mean}, weight_sum};
            } else {
                first->dropped.fetch_or(board_->self_bit());
            }
            posts.finish(*board_);
        }
        entry.copy.reset();
        entry.has_ended = true;
        keys_.remove(entry.key);
        ends.push_back(std::move(ended));
    }

    std::shared_ptr<Board> board_;
    WorkerId self_;
    std::shared_ptr<Arena> arena_;
    KeysInFlight keys_;
    std::list<Entry> entries_;                      // in the order in which they were begun
    std::map<Post*, std::shared_ptr<Room>> means_;  // by post; the first member's only
    std::optional<Broken> broken_;
};

}  // namespace

Result<void> check_memory(const Group& group, const SharedMemoryOptions& options,
                          std::uint64_t host_bytes) {
    const std::uint64_t wanted = (group.members.size() + 1) * options.round_bytes;
    if (wanted <= host_bytes) return {};
    return fail(ErrorCode::not_supported,
                "the averages of " + std::to_string(group.members.size()) + " workers take up to " +
                    std::to_string(wanted) + " bytes of shared memory in a round (" +
                    std::to_string(options.round_bytes) +
                    " of each, and as many for the means), this host has " +
                    std::to_string(host_bytes) +
                    " bytes of memory; keep fewer layers in step (sync.layers), or fewer workers "
                    "on a host");
}

std::uint64_t memory_of_host() {
    const auto pages = static_cast<std::uint64_t>(std::max(0L, ::sysconf(_SC_PHYS_PAGES)));
    return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

Result<std::unique_ptr<Collective>> SharedMemoryBackend::form(const Group& group, WorkerId self,
                                                              Nanos deadline) {
    if (auto refused = check_epoch(group, self, last_); refused.has_error()) {
        return refused.error();
    }
    if (auto checked = check_memory(group, options_, memory_of_host()); checked.has_error()) {
        return checked.error();
    }
    auto board = Board::form(options_.run, group, self, options_.arena_bytes, deadline);
    if (board.has_error()) return board.error();
    last_ = group.epoch;
    return std::unique_ptr<Collective>(
        std::make_unique<SharedMemoryCollective>(std::move(*board), self));
}

}  // namespace detente
