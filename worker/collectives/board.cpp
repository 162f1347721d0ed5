#include "worker/collectives/board.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "common/invariant.h"

namespace detente {

namespace {

// As long as an exchange with a running member takes; then sleeping costs less than it saves.
constexpr Nanos kSpin = std::chrono::microseconds(40);
constexpr std::size_t kPage = 4096;

constexpr unsigned kReasonAt = kMostGroupMembers;  // the broken word: members, reason, who says so
constexpr unsigned kAuthorAt = kReasonAt + 3;
static_assert(kAuthorAt + 6 == 64 && kMostGroupMembers <= 1U << 6U);

void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

std::size_t whole_pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

}  // namespace

// At the start of the memory; all zeros at first. Then the posts, then the arenas.
struct Board::Head {
    struct alignas(64) Member {
        std::atomic<std::uint64_t> notices;
        std::atomic<std::uint32_t> sleeping;
        std::atomic<std::uint32_t> wants_room;
        // What it waited for when it broke the group.
        std::atomic<std::uint64_t> step;
        std::atomic<std::uint64_t> bucket;
    };
    std::atomic<std::uint64_t> broken;
    std::atomic<std::uint64_t> has_note;
    std::byte note[kNoteBytes];
    Member members[kMostGroupMembers];
};

namespace {
std::size_t posts_bytes(std::size_t members) { return members * kMostKeysInFlight * sizeof(Post); }
}  // namespace

Result<std::shared_ptr<Board>> Board::form(const std::string& run, const Group& group,
                                           WorkerId self, std::size_t arena_bytes, Nanos deadline) {
    if (auto checked = check_group(group, self); checked.has_error()) return checked.error();
    const std::size_t members = group.members.size();
    const std::size_t arena = whole_pages(arena_bytes);
    const std::size_t bytes = whole_pages(sizeof(Head) + posts_bytes(members)) + members * arena;
    auto met = meet(run, group, self, bytes, deadline);
    if (met.has_error()) return met.error();
    std::shared_ptr<Board> board(new Board(group, self, arena, std::move(*met)));
    if (board->memory_ == nullptr) {
        return fail(ErrorCode::not_supported,
                    "mapping " + std::to_string(bytes) +
                        " bytes of shared memory failed: " + std::strerror(errno) +
                        "; raise ulimit -v, or keep fewer layers in step (sync.layers)");
    }
    return board;
}

Board::Board(const Group& group, WorkerId self, std::size_t arena_bytes, Meeting meeting)
    : group_(group),
      self_(group.index_of(self)),
      arena_bytes_(arena_bytes),
      meeting_(std::move(meeting)) {
    void* mapped = ::mmap(nullptr, meeting_.memory_bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_NORESERVE, meeting_.memory.get(), 0);
    if (mapped == MAP_FAILED) return;
    memory_ = static_cast<std::byte*>(mapped);
    head_ = reinterpret_cast<Head*>(memory_);
    // Only a wish: large pages are faulted in five hundred times less often.
    ::madvise(memory_, meeting_.memory_bytes, MADV_HUGEPAGE);
    meeting_.memory = Descriptor();
}

Board::~Board() {
    if (memory_ != nullptr) ::munmap(memory_, meeting_.memory_bytes);
}

std::uint64_t Board::arena_at(std::size_t member) const {
    return meeting_.memory_bytes - (count() - member) * arena_bytes_;
}

std::span<Post> Board::slots_of(std::size_t member) {
    auto* posts = reinterpret_cast<Post*>(memory_ + sizeof(Head));
    return {posts + member * kMostKeysInFlight, kMostKeysInFlight};
}

Post* Board::free_slot() {
    for (Post& post : slots_of(self_)) {
        if ((post.turn.load() & 1U) == 0) return &post;
    }
    return nullptr;
}

void Board::publish(Post& post) {
    invariant((post.turn.load() & 1U) == 0, "a post is published once");
    post.turn.fetch_add(1);
    notify_all();
}

void Board::clear(Post& post) {
    post.turn.fetch_add(1);
    post.begun.store(0);
    post.ended.store(0);
    post.finished.store(0);
    post.outcome.store(KeyOutcome::open);
    post.next_piece.store(0);
    post.pieces_ended.store(0);
    post.dropped.store(0);
    post.order.store(0);
}

Post* Board::find(std::size_t member, const CollectiveKey& key) {
    for (Post& post : slots_of(member)) {
        const std::uint64_t turn = post.turn.load();
        if ((turn & 1U) == 0) continue;
        const bool same = post.step.load() == key.step.value &&
                          post.bucket.load() == key.bucket.value &&
                          (post.finished.load() & self_bit()) == 0;
        // Another key's post may be cleared and used again while it is read.
        if (same && post.turn.load() == turn) return &post;
    }
    return nullptr;
}

KeyOutcome Board::settle(Post& first) {
    // In this order: who finds the group broken and no first post ends a key broken without a trace
    // in it. Such a one looked before the post came, so that here the group is seen broken.
    KeyOutcome expected = KeyOutcome::open;
    const KeyOutcome wanted = is_broken() ? KeyOutcome::broken : KeyOutcome::done;
    const bool settled = first.outcome.compare_exchange_strong(expected, wanted);
    if (settled) notify_all();
    return settled ? wanted : expected;
}

void Board::break_group(std::uint64_t missing, BreakReason reason, const CollectiveKey& key) {
    invariant(missing != 0, "a group is broken over somebody");
    if (is_broken()) return;
    head_->members[self_].step.store(key.step.value);
    head_->members[self_].bucket.store(key.bucket.value);
    std::uint64_t whole = 0;
    head_->broken.compare_exchange_strong(
        whole, missing | static_cast<std::uint64_t>(reason) << kReasonAt |
                   static_cast<std::uint64_t>(self_) << kAuthorAt);
    notify_all();
}

void Board::fail_here(const Error& why, const CollectiveKey& key) {
    if (own_failure_.empty()) own_failure_ = why.text;
    break_group(self_bit(), BreakReason::failed, key);
}

bool Board::is_broken() const { return head_->broken.load() != 0; }

Error Board::error_of(std::uint64_t missing, BreakReason reason, std::size_t author) const {
    const std::string names = group_.names_of(missing);
    const std::string who = to_string(node_of(group_.members[author]));
    const Head::Member& waited = head_->members[author];
    const std::string key = to_string(CollectiveKey{
        group_.epoch, {waited.step.load()}, {static_cast<std::uint32_t>(waited.bucket.load())}});
    switch (reason) {
        case BreakReason::lost:
            return fail(ErrorCode::peer_lost, names + " is gone, or has left the group of epoch " +
                                                  std::to_string(group_.epoch.value) +
                                                  " (seen by " + who + ")");
        case BreakReason::late:
            return fail(ErrorCode::timed_out, names + " had not done its part of " + key +
                                                  " when the deadline of " + who + " passed");
        case BreakReason::disagrees:
            return fail(ErrorCode::bad_length, names + " disagrees with " + group_.names_of(1) +
                                                   " about the elements of " + key +
                                                   "; all must average the same blocks");
        case BreakReason::no_memory:
            return fail(ErrorCode::over_limit,
                        names + " found no room for " + key + " in its " +
                            std::to_string(arena_bytes_) +
                            " bytes of shared memory before the deadline: gradients and means "
                            "that are still held fill it");
        case BreakReason::failed:
            break;
    }
    return fail(ErrorCode::io,
                "what averages at " + names + " failed during " + key + "; its log says how");
}

std::optional<Broken> Board::broken() const {
    const std::uint64_t word = head_->broken.load();
    if (word == 0) return std::nullopt;
    const std::uint64_t missing = word & ((std::uint64_t{1} << kReasonAt) - 1);
    const auto reason = static_cast<BreakReason>(word >> kReasonAt & 7U);
    Error error = error_of(missing, reason, word >> kAuthorAt);
    if (!own_failure_.empty()) error.text += "; here: " + own_failure_;
    return Broken{std::move(error), group_.ids_of(missing)};
}

void Board::say(std::span<const std::byte> note) {
    invariant(note.size() <= kNoteBytes && self_ == 0, "the first member says a short note");
    std::memcpy(head_->note, note.data(), note.size());
    head_->has_note.store(1);
    notify_all();
}

const std::byte* Board::said() const { return head_->has_note.load() != 0 ? head_->note : nullptr; }

std::uint64_t Board::notices() const { return head_->members[self_].notices.load(); }

void Board::notify(std::size_t member) {
    Head::Member& other = head_->members[member];
    other.notices.fetch_add(1);
    if (other.sleeping.exchange(0) == 0) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(meeting_.wakeups[member].get(), &one, sizeof one);
}

void Board::notify_all() {
    for (std::size_t i = 0; i < count(); ++i) {
        if (i != self_) notify(i);
    }
}

void Board::wait(Nanos at_most, bool spin) {
    using Clock = std::chrono::steady_clock;
    static const bool others_run = std::thread::hardware_concurrency() > 1;
    if (spin && others_run) {
        const auto until = Clock::now() + std::min(kSpin, at_most);
        while (notices() == seen_ && Clock::now() < until) pause_briefly();
    }
    if (notices() != seen_ || at_most <= Nanos::zero()) return;
    sleep(at_most);
}

void Board::sleep(Nanos at_most) {
    Head::Member& own = head_->members[self_];
    own.sleeping.store(1);
    if (notices() == seen_) {
        std::vector<pollfd> waits{{meeting_.wakeups[self_].get(), POLLIN, 0}};
        for (const Descriptor& peer : meeting_.peers) waits.push_back({peer.get(), POLLIN, 0});
        timespec timeout{};
        timeout.tv_sec = static_cast<time_t>(at_most.count() / 1'000'000'000);
        timeout.tv_nsec = static_cast<long>(at_most.count() % 1'000'000'000);
        ::ppoll(waits.data(), waits.size(), &timeout, nullptr);
        std::uint64_t taken = 0;
        [[maybe_unused]] const auto got =
            ::read(meeting_.wakeups[self_].get(), &taken, sizeof taken);
    }
    own.sleeping.store(0);
}

void Board::look_for_losses() {
    std::vector<pollfd> waits;
    waits.reserve(meeting_.peers.size());
    for (const Descriptor& peer : meeting_.peers) waits.push_back({peer.get(), POLLIN, 0});
    if (::poll(waits.data(), waits.size(), 0) <= 0) return;
    std::uint64_t gone = 0;
    for (std::size_t i = 0; i < waits.size(); ++i) {
        // Nobody has anything to say here: readable means that it has hung up.
        if (waits[i].revents == 0) continue;
        gone |= std::uint64_t{1} << i;
        meeting_.peers[i] = Descriptor();
    }
    if (gone != 0) break_group(gone, BreakReason::lost, {group_.epoch, {}, {}});
}

void Board::leave() {
    for (Descriptor& peer : meeting_.peers) peer = Descriptor();
}

void Board::want_room(bool wanted) { head_->members[self_].wants_room.store(wanted ? 1 : 0); }

void Board::room_freed(std::size_t member) {
    if (head_->members[member].wants_room.load() != 0) notify(member);
}

}  // namespace detente
