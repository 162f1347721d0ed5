// The bounded fuzz of the decoder: seeded mutations of valid messages of every kind, the same ones
// in every run. Run by CTest.
//
//   fuzz_decode_bounded [ROUNDS [SEED]]     default 200000 1
//   fuzz_decode_bounded --corpus DIRECTORY  writes valid messages as a corpus for fuzz_decode
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "tests/common/codec_samples.h"
#include "tests/fuzz/check_decode.h"

namespace detente {
namespace {

// Messages of up to a few KiB, so that a mutation is likely to hit what matters.
std::vector<std::vector<std::byte>> corpus() {
    constexpr std::size_t kMostBytes = 12U << 10U;
    Random random(random_key(1, Purpose::test));
    std::vector<std::vector<std::byte>> messages;
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
        for (int wanted = 8; wanted > 0;) {
            const Sample sample = wanted == 8 ? Sample::zeros : Sample::mixed;
            std::vector<std::byte> bytes = encode_stream(sample_message(kind, sample, random));
            if (bytes.size() > kMostBytes) continue;
            messages.push_back(std::move(bytes));
            --wanted;
        }
    }
    return messages;
}

int write_corpus(const std::string& directory) {
    std::size_t number = 0;
    for (const std::vector<std::byte>& bytes : corpus()) {
        std::ofstream file(directory + "/message-" + std::to_string(number++), std::ios::binary);
        file.write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
        if (!file) {
            std::fprintf(stderr, "cannot write to %s; does the folder exist?\n", directory.c_str());
            return 1;
        }
    }
    return 0;
}

int fuzz(std::uint64_t rounds, std::uint64_t seed) {
    const std::vector<std::vector<std::byte>> messages = corpus();
    for (const auto& message : messages) {
        if (!check_decode(message)) decode_broke("a valid message was refused");
    }
    std::uint64_t taken = 0;
    for (std::uint64_t round = 0; round < rounds; ++round) {
        Random random(random_key(seed, Purpose::test, {round}));
        std::vector<std::byte> bytes = messages[random.below(messages.size())];
        // Past the two lengths in front in most rounds, or nearly all would end there.
        const std::size_t front = random.below(8) == 0 ? 0 : 8;
        std::vector<std::byte> rest(bytes.begin() + static_cast<std::ptrdiff_t>(front),
                                    bytes.end());
        mutate(rest, random);
        bytes.resize(front);
        bytes.insert(bytes.end(), rest.begin(), rest.end());
        if (random.below(16) != 0) reseal_stream(bytes);
        taken += check_decode(bytes) ? 1 : 0;
    }
    std::printf("%llu mutated messages: %llu taken, the rest refused\n",
                static_cast<unsigned long long>(rounds), static_cast<unsigned long long>(taken));
    // A fuzz whose inputs all end at the first check proves nothing.
    return rounds >= 1000 && (taken == 0 || taken == rounds) ? 1 : 0;
}

}  // namespace
}  // namespace detente

int main(int argc, char** argv) {
    if (argc == 3 && std::string(argv[1]) == "--corpus") return detente::write_corpus(argv[2]);
    const std::uint64_t rounds = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 200'000;
    const std::uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
    return detente::fuzz(rounds, seed);
}
