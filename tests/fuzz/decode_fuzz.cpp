// libFuzzer target over the decoder. Unbounded, by hand, from the build folder:
//
//   ninja fuzz_decode fuzz_decode_bounded
//   mkdir -p corpus && tests/fuzz/fuzz_decode_bounded --corpus corpus
//   tests/fuzz/decode_fuzzer -max_len=65536 corpus          (until Ctrl-C; -jobs=N for N processes)
//
// A finding is written to crash-…; run the target with that file to see it again. The target is
// there where clang++ and its libFuzzer are (Debian: clang libclang-rt-14-dev). The bounded program
// (decode_bounded.cpp) is what the tests run.
#include <cstdint>
#include <vector>

#include "tests/fuzz/check_decode.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    const auto* first = reinterpret_cast<const std::byte*>(bytes);
    detente::check_decode({first, size});
    std::vector<std::byte> sealed(first, first + size);
    detente::reseal_stream(sealed);
    detente::check_decode(sealed);
    return 0;
}
