// What the codec costs per message, beside a copy of the same bytes where bytes are copied.
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/report.h"
#include "common/codec/codec.h"

namespace {

using namespace detente;

constexpr std::size_t kBlocks = 200;
constexpr std::size_t kBlockBytes = 4096;

Payload filled(std::size_t bytes) {
    AlignedBuffer buffer(bytes);
    std::memset(buffer.data(), 1, bytes);
    return payload_of(std::make_shared<const AlignedBuffer>(std::move(buffer)));
}

// 200 gradients as combine leaves them: side by side in one part.
Message push_of_small() {
    const Payload part = filled(kBlocks * kBlockBytes);
    Push push;
    for (std::size_t i = 0; i < kBlocks; ++i) {
        push.blocks.push_back({{i},
                               TaskSet{3},
                               {1},
                               {9},
                               {part.owner, part.bytes.subspan(i * kBlockBytes, kBlockBytes)},
                               {}});
    }
    return {{}, push};
}
Message push_of_one(std::size_t bytes) {
    Push push;
    push.blocks.push_back({{1}, TaskSet{3}, {1}, {9}, filled(bytes), {}});
    return {{}, push};
}
// 200 weights as a shard has them: each in memory of its own, so copied into one frame.
Message reply_of_small() {
    PushReply reply;
    for (std::size_t i = 0; i < kBlocks; ++i) {
        reply.verdicts.push_back({.block = {i}, .epoch = {1}, .version = {10}});
        reply.blocks.push_back({{i}, {1}, {10}, filled(kBlockBytes), {}});
    }
    return {{}, reply};
}

struct Bench {
    bench::Report report;
    bench::Options options;
    std::size_t rounds;

    // Median nanoseconds of one call, over batches long enough to time.
    double nanoseconds(const std::function<void()>& once) const {
        const std::size_t times = options.quick ? 20 : 500;
        std::vector<double> batches;
        for (std::size_t round = 0; round < rounds; ++round) {
            batches.push_back(bench::seconds_of([&] {
                for (std::size_t i = 0; i < times; ++i) once();
            }));
        }
        return bench::median(batches) / static_cast<double>(times) * 1e9;
    }
    void message(const std::string& name, const Message& message, bool checksums,
                 std::optional<double> copy_limit_ns = {}) {
        const std::string suffix = checksums ? ", with checksums" : "";
        if (options.wants("encode " + name + suffix)) {
            const double ns = nanoseconds([&] { encode(message, checksums); });
            report.add({"encode " + name + suffix, ns, "ns", copy_limit_ns, ""});
        }
        if (!checksums && options.wants("decode " + name)) {
            const Frames frames = encode(message, false);
            const double ns = nanoseconds([&] {
                if (!decode(frames.header.bytes, frames.payloads)) std::abort();
            });
            report.add({"decode " + name, ns, "ns", {}, ""});
            report.remark(name + ": header of " + std::to_string(frames.header.size()) +
                          " bytes, payload of " + std::to_string(payload_bytes(message.body)));
        }
    }
};

}  // namespace

int main(int argc, char** argv) {
    bench::Options options =
        bench::parse_options(argc, argv, "codec_bench: nanoseconds per encoded, decoded message");
    Bench run{bench::Report("codec", options), options, options.quick ? 3U : 21U};

    const Payload from = filled(kBlocks * kBlockBytes);
    AlignedBuffer to(from.size());
    const double copy_ns =
        run.nanoseconds([&] { std::memcpy(to.data(), from.bytes.data(), from.size()); });

    PullRequest request;
    for (std::size_t i = 0; i < kBlocks; ++i) request.blocks.push_back({i});
    run.message("cancel note", {{}, CancelNote{}}, false);
    run.message("pull request of 200 blocks", {{}, request}, false);
    run.message("push of 200 x 4 KiB in one part", push_of_small(), false);
    run.message("push of 200 x 4 KiB in one part", push_of_small(), true);
    run.message("push of 1 MiB", push_of_one(1U << 20U), false);
    run.message("push of 1 MiB", push_of_one(1U << 20U), true);
    run.message("push reply of 200 x 4 KiB, copied", reply_of_small(), false, copy_ns);
    run.report.print();
    return 0;
}
