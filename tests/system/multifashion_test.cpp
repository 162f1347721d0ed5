// The main example on its real data: once through it, with the branch behind a learned gate that
// its option `residual` adds.
#include <boost/json.hpp>
#include <catch2/catch.hpp>
#include <cmath>

#include "tests/system/launched.h"

namespace detente::test {
namespace {

namespace json = boost::json;
using std::chrono::seconds;

// "50x320", as open_checkpoint.py wants it.
std::string shape_text(const json::array& shape) {
    std::string text;
    for (const json::value& extent : shape) {
        text += (text.empty() ? "" : "x") + std::to_string(extent.to_number<std::int64_t>());
    }
    return text.empty() ? "1" : text;
}

TEST_CASE("run: MultiFashion learns both tasks, and a gate of its residual branch for each") {
    const TemporaryFolder folder;
    const std::vector<std::string> job = {MULTIFASHION_JOB, "--set", "model.options.residual=true"};
    Launched described(folder, words({"describe"}, job));
    const auto code = described.wait(seconds(60));
    REQUIRE(code.has_value());
    if (code != 0) {
        REQUIRE_THAT(described.output(), Catch::Contains("dataset-fashion-mnist"));
        WARN("skipped: " << described.output());
        return;
    }
    const json::object model = json::parse(described.output()).as_object();

    // One data epoch in large batches: a few hundred gradients are enough to be far from chance.
    const std::string run = folder / "run";
    Launched launched(folder, words(words({"run"}, job), {"--set", "data.epochs=1", "--set",
                                                          "data.batch=256", "--out", run}));
    REQUIRE(launched.wait(seconds(100)) == 0);
    const json::object summary = json::parse(bytes_of_file(run + "/summary.json")).as_object();
    check_books(summary);
    CHECK(count(summary, "samples") == 60000);
    for (const char* task : {"left", "right"}) {
        CAPTURE(task);
        const json::object& of_task = summary.at("tasks").at(task).as_object();
        CHECK(of_task.at("accuracy").to_number<double>() > 0.4);  // chance is 0.1
    }

    const TemporaryFolder elsewhere;
    const std::string checkpoint(summary.at("last_checkpoint").as_string());
    std::vector<std::string> expected = {OPEN_CHECKPOINT, checkpoint + "/model.safetensors"};
    for (const json::value& tensor : model.at("tensors").as_array()) {
        expected.push_back(std::string(tensor.at("name").as_string()) + "=" +
                           shape_text(tensor.at("shape").as_array()));
    }
    Launched python(elsewhere, expected, "python3");
    const auto opened = python.wait(seconds(60));
    if (opened == 127) {
        WARN("the gates were not looked at: python3 is not installed");
        return;
    }
    const std::string shown = python.output();
    CAPTURE(shown);
    REQUIRE(opened == 0);
    for (const std::string gate : {"gates.branch.left", "gates.branch.right"}) {
        const auto at = shown.find(gate + " F32 lowest ");
        REQUIRE(at != std::string::npos);
        const double value = std::stod(shown.substr(at + gate.size() + 12));
        CHECK(std::isfinite(value));
        CHECK(value != Approx(-2).margin(1e-3));  // gates.initial: it has learnt
    }
}

}  // namespace
}  // namespace detente::test
