// Averages over NCCL: device memory, a stream of its own, a communicator that does not block.
//
// NCCL pairs calls by the order in which they are made, and says neither who is missing nor whether
// the others have what this member has. So members meet on a board (board.h): a key is handed to
// NCCL when all have joined it, in an order the first member gives, and has its mean when NCCL has
// ended at all of them. What NCCL is asked for is Σ aᵢ·gᵢ with aᵢ = float(wᵢ / W), in an order of
// its own; all members get the same bits where NCCL gives them (its rings and trees do).
//
// Failures. A process that is gone hangs up on the board; NCCL's own error at a member breaks the
// group over that member; an average that does not end by the deadline breaks it over those where
// it has not. However a group breaks, every member aborts its communicator, which ends what hangs
// on the device, and the next epoch makes a new one.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <list>
#include <utility>

#include "worker/collectives/collective_module.h"
#include "worker/collectives/key_posts.h"
#include "worker/collectives/keys_in_flight.h"
#include "worker/collectives/nccl/device.h"

namespace detente {

namespace {

// NCCL wakes nobody: while it works it is asked this often.
constexpr Nanos kAskEvery = std::chrono::microseconds(100);

Error nccl_error(const NcclSymbols& symbols, const std::string& doing, ncclResult_t code,
                 ncclComm_t communicator) {
    const char* last = symbols.last_error(communicator);
    return fail(ErrorCode::io, doing + " failed: " + symbols.nccl_text(code) +
                                   (last != nullptr && *last != 0 ? std::string("; ") + last : ""));
}

// A communicator, aborted with it: that needs nobody else, and by then nothing of ours is underway
// unless the group is broken.
class Communicator {
  public:
    explicit Communicator(const NcclSymbols& symbols) : symbols_(symbols) {}
    ~Communicator() { abort(); }
    Communicator(const Communicator&) = delete;
    Communicator& operator=(const Communicator&) = delete;

    ncclComm_t get() const { return handle_; }
    ncclComm_t* place() { return &handle_; }
    bool is_open() const { return handle_ != nullptr; }
    void abort() {
        if (handle_ != nullptr) symbols_.abort(std::exchange(handle_, nullptr));
    }
    // ncclInProgress: a call has not come to its end yet.
    ncclResult_t state() const {
        ncclResult_t state = ncclSuccess;
        const ncclResult_t asked = symbols_.async_error(handle_, &state);
        return asked == ncclSuccess ? state : asked;
    }

  private:
    const NcclSymbols& symbols_;
    ncclComm_t handle_ = nullptr;
};

class NcclCollective final : public Collective {
  public:
    NcclCollective(std::shared_ptr<Board> board, std::shared_ptr<Device> device, WorkerId self)
        : board_(std::move(board)),
          device_(std::move(device)),
          communicator_(device_->symbols()),
          self_(self) {}

    ~NcclCollective() override {
        board_->leave();
        communicator_.abort();
        const bool is_idle = std::all_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
            return entry.stage < Stage::launching;
        });
        if (!is_idle || still_runs_) device_->abandon();
    }

    // Joins NCCL's group, once all have met on the board.
    Result<void> connect(Nanos deadline);

    const Group& group() const override { return board_->group(); }
    WorkerId self() const override { return self_; }

    Result<GradientBuffer> buffer(std::size_t bytes) override {
        auto staging = device_->staging(bytes);
        if (staging.has_error()) return staging.error();
        const std::span<std::byte> pinned{(*staging)->host, bytes};
        return GradientBuffer{std::move(*staging), pinned};
    }

    Result<void> begin(const CollectiveKey& key, GradientShare share, Time deadline) override {
        if (auto refused = keys_.check(group(), broken_, key, share); refused.has_error()) {
            return refused;
        }
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
        board_->reclaim([](Post&) {});
        publish_what_fits();
        std::vector<CollectiveEnd> ends;
        look_for_errors();
        // Once more after each launch: the next in order may have been begun earlier.
        std::uint64_t launched = 0;
        do {
            launched = launched_;
            for (Entry& entry : entries_) advance(entry, ends);
        } while (launched_ != launched);
        for (const CollectiveKey& key : keys_.overdue(now)) miss(key);
        if (board_->is_broken()) give_up(ends);
        entries_.remove_if([](const Entry& entry) { return entry.stage == Stage::ended; });
        return ends;
    }

    const std::optional<Broken>& broken() const override { return broken_; }
    std::optional<Time> next_deadline() const override { return keys_.next_deadline(); }
    void wait(Nanos at_most) override {
        const bool works = std::any_of(entries_.begin(), entries_.end(), [](const Entry& entry) {
            return entry.stage == Stage::launching || entry.stage == Stage::running;
        });
        board_->wait(works ? std::min(at_most, kAskEvery) : at_most, !keys_.empty());
    }
    void wake() override { board_->notify(board_->self()); }

  private:
    // launching: NCCL has not taken the call yet; ran: at this member.
    enum class Stage { begun, posted, launching, running, ran, ended };
    struct Entry {
        CollectiveKey key;
        GradientShare share;
        Stage stage = Stage::begun;
        Post* post = nullptr;
        std::shared_ptr<Staging> staging{};
    };

    const NcclSymbols& cuda() const { return device_->symbols(); }

    void publish_what_fits() {
        for (Entry& entry : entries_) {
            if (entry.stage != Stage::begun || board_->is_broken()) continue;
            Post* post = board_->free_slot();
            if (post == nullptr) break;
            post->step.store(entry.key.step.value);
            post->bucket.store(entry.key.bucket.value);
            post->elements.store(entry.share.elements);
            post->weight.store(entry.share.weight);
            entry.post = post;
            entry.stage = Stage::posted;
            board_->publish(*post);
        }
    }

    void advance(Entry& entry, std::vector<CollectiveEnd>& ends) {
        if (entry.stage == Stage::ended) return;
        const KeyPosts posts(*board_, entry.key);
        KeyOutcome outcome = posts.outcome();
        if (outcome == KeyOutcome::open && posts.complete() && !board_->is_broken()) {
            outcome = work(entry, posts);
        }
        if (outcome != KeyOutcome::open) end(entry, outcome, ends);
    }

    KeyOutcome work(Entry& entry, const KeyPosts& posts) {
        if (!posts.agree(*board_, entry.key)) return KeyOutcome::open;
        const MeanShares shares = posts.shares();
        Post& first = *posts.first();
        if (shares.weight_sum == 0 || entry.share.elements == 0) return board_->settle(first);
        if (board_->self() == 0 && first.order.load() == 0) {
            first.order.store(++ordered_);
            board_->notify_all();
        }
        const bool is_next = first.order.load() == launched_ + 1 && !is_launching_;
        if (entry.stage == Stage::posted && is_next) {
            const float share = static_cast<float>(shares.of[board_->self()]);
            if (const auto failed = launch(entry, share); failed.has_error()) {
                board_->fail_here(failed.error(), entry.key);
            }
        }
        if (entry.stage == Stage::launching) finish_launch(entry);
        if (entry.stage == Stage::running) look_whether_ran(entry);
        if (entry.stage != Stage::ran || entry.post->ended.load() != 0) return KeyOutcome::open;
        entry.post->ended.store(1);
        const bool last = first.pieces_ended.fetch_add(1) + 1 == posts.count();
        return last ? board_->settle(first) : KeyOutcome::open;
    }

    // Hands the gradient to the device and the sum to NCCL.
    Result<void> launch(Entry& entry, float share) {
        const std::size_t bytes = entry.share.elements * sizeof(float);
        auto staging = device_->staging(bytes);
        if (staging.has_error()) return staging.error();
        entry.staging = std::move(*staging);
        entry.post->begun.store(1);
        entry.stage = Stage::launching;
        is_launching_ = true;
        cudaError_t copied = cudaSuccess;
        if (entry.share.weight == 0) {
            copied = cuda().fill(entry.staging->device, 0, bytes, device_->stream());
        } else {
            // From pinned memory of our own: what is brought may lie anywhere, at odd addresses
            // too.
            const std::byte* source = entry.share.gradient.bytes.data();
            if (!device_->owns(entry.share.gradient.bytes)) {
                std::memcpy(entry.staging->host, source, bytes);
                source = entry.staging->host;
            }
            copied = cuda().copy(entry.staging->device, source, bytes, cudaMemcpyHostToDevice,
                                 device_->stream());
        }
        if (copied != cudaSuccess) return cuda_error(cuda(), "copying to the device", copied);
        return call_nccl(*entry.staging, entry.share.elements, share);
    }

    Result<void> call_nccl(const Staging& staging, std::size_t elements, float share) {
        auto code = cuda().create_scaled_sum(&operation_, &share, ncclFloat32,
                                             ncclScalarHostImmediate, communicator_.get());
        if (code == ncclSuccess) {
            code = cuda().all_reduce(staging.device, staging.device, elements, ncclFloat32,
                                     operation_, communicator_.get(), device_->stream());
        }
        if (code == ncclSuccess || code == ncclInProgress) return {};
        return nccl_error(cuda(), "ncclAllReduce", code, communicator_.get());
    }

    // Once NCCL has put its kernel on the stream: the way back, and a mark behind it.
    void finish_launch(Entry& entry) {
        if (!communicator_.is_open() || communicator_.state() != ncclSuccess) return;
        cuda().destroy_operation(operation_, communicator_.get());
        const Staging& staging = *entry.staging;
        auto code = cuda().copy(staging.host, staging.device, entry.share.elements * sizeof(float),
                                cudaMemcpyDeviceToHost, device_->stream());
        if (code == cudaSuccess) code = cuda().record_event(staging.done, device_->stream());
        if (code != cudaSuccess) {
            board_->fail_here(cuda_error(cuda(), "copying from the device", code), entry.key);
            return;
        }
        entry.stage = Stage::running;
        is_launching_ = false;
        ++launched_;
    }

    void look_whether_ran(Entry& entry) {
        const auto code = cuda().query_event(entry.staging->done);
        if (code == cudaSuccess) entry.stage = Stage::ran;
        if (code != cudaSuccess && code != cudaErrorNotReady) {
            board_->fail_here(cuda_error(cuda(), "averaging on the device", code), entry.key);
        }
    }

    void look_for_errors() {
        if (!communicator_.is_open()) return;
        const ncclResult_t state = communicator_.state();
        // Of a remote one the board tells more: who it is, as soon as it has hung up.
        if (state == ncclSuccess || state == ncclInProgress || state == ncclRemoteError) return;
        const CollectiveKey key =
            entries_.empty() ? CollectiveKey{group().epoch, {}, {}} : entries_.front().key;
        board_->fail_here(nccl_error(cuda(), "an average", state, communicator_.get()), key);
    }

    // A deadline has passed. Missing is who has not joined; if all have, who has not called NCCL;
    // if all have done that, those where it has not ended.
    void miss(const CollectiveKey& key) {
        const bool in_flight = std::any_of(
            entries_.begin(), entries_.end(),
            [&key](const Entry& entry) { return entry.key == key && entry.stage != Stage::ended; });
        if (!in_flight || board_->is_broken()) return;
        const KeyPosts posts(*board_, key);
        std::uint64_t missing = posts.missing();
        std::uint64_t has_not_ended = 0;
        for (std::size_t i = 0; posts.complete() && i < posts.count(); ++i) {
            if (posts.of(i).begun.load() == 0) missing |= std::uint64_t{1} << i;
            if (posts.of(i).ended.load() == 0) has_not_ended |= std::uint64_t{1} << i;
        }
        if (missing == 0) missing = has_not_ended;
        if (missing != 0) board_->break_group(missing, BreakReason::late, key);
    }

    // The group is broken: ends what hangs on the device, and every key.
    void give_up(std::vector<CollectiveEnd>& ends) {
        communicator_.abort();
        if (!broken_) broken_ = board_->broken();
        for (Entry& entry : entries_) {
            if (entry.stage == Stage::ended) continue;
            end(entry, settle_broken(*board_, entry.key), ends);
        }
    }

    void end(Entry& entry, KeyOutcome outcome, std::vector<CollectiveEnd>& ends) {
        CollectiveEnd ended{entry.key, Weightless{}, std::move(entry.share.gradient)};
        if (outcome == KeyOutcome::broken) {
            ended.result = *board_->broken();
            // The copies around the aborted sum may still run: then its memory is not used again.
            const bool runs = entry.stage == Stage::running &&
                              cuda().query_event(entry.staging->done) != cudaSuccess;
            still_runs_ = still_runs_ || runs || entry.stage == Stage::launching;
        } else {
            const KeyPosts posts(*board_, entry.key);
            const double weight_sum = posts.shares().weight_sum;
            if (weight_sum > 0) {
                const std::size_t bytes = entry.share.elements * sizeof(float);
                const std::span<const std::byte> mean{entry.staging ? entry.staging->host : nullptr,
                                                      bytes};
                ended.result = Averaged{{entry.staging, mean}, weight_sum};
            }
            // The mean is this member's own.
            posts.first()->dropped.fetch_or(board_->self_bit());
            posts.finish(*board_);
        }
        entry.stage = Stage::ended;
        keys_.remove(entry.key);
        ends.push_back(std::move(ended));
    }

    std::shared_ptr<Board> board_;
    std::shared_ptr<Device> device_;
    Communicator communicator_;
    WorkerId self_;
    KeysInFlight keys_;
    std::list<Entry> entries_;
    std::uint64_t ordered_ = 0;   // keys given a place; the first member's
    std::uint64_t launched_ = 0;  // keys NCCL has taken here
    bool is_launching_ = false;
    bool still_runs_ = false;
    ncclRedOp_t operation_ = ncclSum;
    std::optional<Broken> broken_;
};

Result<void> NcclCollective::connect(Nanos deadline) {
    using Clock = std::chrono::steady_clock;
    const auto until = Clock::now() + deadline;
    const auto late = [&](const std::string& what) {
        return fail(ErrorCode::timed_out, what +
                                              " before the deadline to form the group of epoch " +
                                              std::to_string(group().epoch.value));
    };
    if (board_->self() == 0) {
        ncclUniqueId made;
        if (const auto code = cuda().unique_id(&made); code != ncclSuccess) {
            return nccl_error(cuda(), "ncclGetUniqueId", code, nullptr);
        }
        board_->say(std::as_bytes(std::span(&made, 1)));
    }
    static_assert(sizeof(ncclUniqueId) <= Board::kNoteBytes);
    while (board_->said() == nullptr) {
        if (Clock::now() >= until) return late(group().names_of(1) + " gave no NCCL id");
        board_->look();
        board_->look_for_losses();
        if (board_->is_broken()) return board_->broken()->error;
        if (board_->said() == nullptr) board_->wait(until - Clock::now(), false);
    }
    ncclUniqueId id;
    std::memcpy(&id, board_->said(), sizeof id);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    auto state = cuda().join(communicator_.place(), static_cast<int>(board_->count()), id,
                             static_cast<int>(board_->self()), &config);
    while (state == ncclInProgress) {
        if (Clock::now() >= until) {
            return late("NCCL did not connect " + group().names_of(board_->all()));
        }
        board_->look();
        // What NCCL says comes first: a member that it refused has left by now.
        state = communicator_.state();
        if (state != ncclInProgress) break;
        board_->look_for_losses();
        if (board_->is_broken()) return board_->broken()->error;
        board_->wait(10 * kAskEvery, false);
    }
    if (state == ncclSuccess) return {};
    Error error = nccl_error(cuda(), "joining NCCL's group", state, communicator_.get());
    if (state != ncclInvalidUsage) return error;
    // As it answers where two members use one device; trying again would change nothing.
    return fail(ErrorCode::not_supported,
                error.text + ". This worker uses CUDA device " + std::to_string(device_->number()) +
                    ", and NCCL takes one worker per GPU: start at most as many workers on a host "
                    "as it has GPUs, or set sync.backend = \"auto\"");
}

class NcclBackend final : public CollectiveBackend {
  public:
    NcclBackend(std::string run, NcclSymbols symbols, int device)
        : run_(std::move(run)), symbols_(symbols), device_(device) {}
    const char* name() const override { return "nccl"; }

    Result<std::unique_ptr<Collective>> form(const Group& group, WorkerId self,
                                             Nanos deadline) override {
        using Clock = std::chrono::steady_clock;
        const auto until = Clock::now() + deadline;
        if (auto refused = check_epoch(group, self, last_); refused.has_error()) {
            return refused.error();
        }
        auto device = Device::open(symbols_, device_);
        if (device.has_error()) return device.error();
        auto board = Board::form(run_, group, self, 0, deadline);
        if (board.has_error()) return board.error();
        last_ = group.epoch;
        auto collective =
            std::make_unique<NcclCollective>(std::move(*board), std::move(*device), self);
        if (auto connected = collective->connect(until - Clock::now()); connected.has_error()) {
            return connected.error();
        }
        return std::unique_ptr<Collective>(std::move(collective));
    }

  private:
    const std::string run_;
    const NcclSymbols symbols_;
    const int device_;
    GroupEpoch last_;
};

Result<int> number_in(const CollectiveOptions& options, const std::string& name) {
    const std::string text = option_of(options, name, "0");
    int number = -1;
    const char* end = text.data() + text.size();
    if (std::from_chars(text.data(), end, number).ptr == end && number >= 0) return number;
    return fail(
        ErrorCode::not_supported,
        "the option " + name + " of collectives over NCCL is a number from 0, not '" + text + "'");
}

// The device that is named, or else the one whose turn it is for a member of this place.
Result<int> device_in(const CollectiveOptions& options, const NcclSymbols& symbols,
                      const std::string& cuda) {
    const auto named = number_in(options, "device");
    if (named.has_error()) return named.error();
    const auto place = number_in(options, "place");
    if (place.has_error()) return place.error();
    int count = 0;
    const auto code = symbols.device_count(&count);
    if (code == cudaSuccess && *named < count) {
        return option_of(options, "device", "").empty() ? *place % count : *named;
    }
    const std::string found = code == cudaSuccess ? std::to_string(count) + " devices are there"
                                                  : std::string(symbols.cuda_text(code));
    return fail(ErrorCode::not_supported,
                "collectives over NCCL need CUDA device " + std::to_string(*named) +
                    ", and an NVIDIA driver that has it: " + cuda +
                    " was found, and its cudaGetDeviceCount looked for one and said: " + found +
                    ". Use shared_memory on a machine without a GPU");
}

Result<std::unique_ptr<NcclBackend>> make(const CollectiveOptions& options) {
    auto known = check_options(options, {"nccl_library", "cuda_library", "device", "place"});
    if (known.has_error()) return known.error();
    const std::string nccl = option_of(options, "nccl_library", "libnccl.so.2");
    const std::string cuda =
        option_of(options, "cuda_library", "libcudart.so." + std::to_string(CUDART_VERSION / 1000));
    auto symbols = find_nccl_symbols(nccl, cuda);
    if (symbols.has_error()) return symbols.error();
    const auto device = device_in(options, *symbols, cuda);
    if (device.has_error()) return device.error();
    return std::make_unique<NcclBackend>(options.run, *symbols, *device);
}

CollectiveBackend* create(const CollectiveOptions& options, Error& error) {
    auto made = make(options);
    if (made.has_value()) return made->release();
    error = made.error();
    return nullptr;
}

}  // namespace

}  // namespace detente

#define DETENTE_TEXT_OF(number) #number
#define DETENTE_TEXT(number) DETENTE_TEXT_OF(number)
extern "C" __attribute__((visibility("default")))
// NOLINTNEXTLINE(readability-identifier-naming): as kCollectiveSymbol says
const detente::CollectiveEntry detente_collective_entry{
    detente::kCollectiveAbi,
    "NCCL " DETENTE_TEXT(NCCL_MAJOR) "." DETENTE_TEXT(NCCL_MINOR) "." DETENTE_TEXT(NCCL_PATCH),
    detente::create};
