// A checkpoint is of use to those who have none of our code.
#include <catch2/catch.hpp>
#include <sstream>

#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

TEST_CASE("checkpoint: Python opens what a run wrote, under the names that the model gave") {
    const TinyRun run;
    Launched launched(run.folder(), run.arguments());
    REQUIRE(launched.wait(seconds(60)) == 0);
    const TemporaryFolder folder;
    Launched python(folder,
                    {OPEN_CHECKPOINT, run.run_dir() + "/checkpoints/1/model.safetensors",
                     "trunk.weight=5000", "head.left.weight=64", "head.right.weight=64"},
                    "python3");
    const auto code = python.wait(seconds(60));
    if (code == 127) {
        WARN("skipped: python3 is not installed");
        return;
    }
    const std::string shown = python.output();
    CAPTURE(shown);
    CHECK(code == 0);
    std::map<std::string, std::pair<double, double>> ranges;
    std::istringstream lines(shown);
    std::string name, dtype, lowest, highest;
    double low = 0;
    double high = 0;
    while (lines >> name >> dtype >> lowest >> low >> highest >> high) {
        CHECK(dtype == "F32");
        ranges[name] = {low, high};
    }
    REQUIRE(ranges.size() == 3);
    // It is what was trained: heads are drawn to 3, the trunk to 1 where the tasks agree and to the
    // middle between them where not.
    for (const char* head : {"head.left.weight", "head.right.weight"}) {
        CHECK(ranges[head].first == Approx(3).margin(0.1));
        CHECK(ranges[head].second == Approx(3).margin(0.1));
    }
    CHECK(ranges["trunk.weight"].first == Approx(0).margin(0.1));
    CHECK(ranges["trunk.weight"].second == Approx(1).margin(0.1));
}

}  // namespace
}  // namespace detente::test
