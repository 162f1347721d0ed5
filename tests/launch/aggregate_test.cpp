#include "launch/aggregate.h"

#include <boost/json.hpp>
#include <catch2/catch.hpp>

#include "common/conflict/aggregator.h"

namespace detente {
namespace {

namespace json = boost::json;

json::value answer(const std::string& input, const AggregatorConfig& config,
                   std::uint64_t seed = 0) {
    const auto text = aggregate_json(input, config, seed);
    if (!text) FAIL(text.error().text);
    return json::parse(*text);
}

std::vector<double> numbers(const json::value& list) {
    std::vector<double> values;
    for (const json::value& number : list.as_array()) values.push_back(number.to_number<double>());
    return values;
}

void refused(const std::string& input, const std::string& says,
             const AggregatorConfig& config = {"mgda", {}}) {
    CAPTURE(input, says);
    const auto text = aggregate_json(input, config, 0);
    REQUIRE(text.has_error());
    CHECK_THAT(text.error().text, Catch::Contains(says));
}

const std::string kExample = R"({"matrix": [[-4,1,1],[6,1,1]]})";

}  // namespace

TEST_CASE("aggregate: answers the worked example in full") {
    const json::value found = answer(kExample, {"mgda", {}});
    CHECK(found.at("status").as_string() == "ok");
    CHECK(found.at("method").as_string() == "mgda");
    CHECK(numbers(found.at("weights"))[0] == Approx(0.6));
    CHECK(numbers(found.at("result"))[1] == Approx(1));
    CHECK(numbers(found.at("gramian").at(0)) == std::vector<double>{18, -22});
    CHECK(numbers(found.at("cosines").at(1))[0] == Approx(-22 / std::sqrt(18.0 * 38)));
    CHECK(found.at("kkt_residual").to_number<double>() <= 1e-10);
    CHECK_FALSE(found.as_object().contains("objective"));
}

TEST_CASE("aggregate: every method answers an input that has all a method may need") {
    for (const std::string& name : aggregator_names()) {
        CAPTURE(name);
        const json::value found = answer(
            R"({"matrix": [[-4,1],[6,1],[1,2]], "losses": [1,2,3], "matrix2": [[-3,1],[5,1],[1,1]]})",
            {name, {}});
        CHECK(numbers(found.at("result")).size() == 2);
        const bool weighs = name != "graddrop" && name != "trimmed_mean";
        CHECK(found.at("weights").is_array() == weighs);
    }
}

TEST_CASE("aggregate: parameters and the seed reach the method") {
    CHECK(numbers(answer(kExample, {"cagrad", {{"c", "0.5"}}}).at("weights"))[0] ==
          Approx(.7041).margin(5e-5));
    CHECK(numbers(answer(kExample, {"cagrad", {{"c", "0"}}}).at("weights"))[0] == Approx(.5));
    const auto drawn = [](std::uint64_t seed) {
        return numbers(answer(kExample, {"rlw", {}}, seed).at("weights"));
    };
    CHECK(drawn(1) == drawn(1));
    CHECK(drawn(1) != drawn(2));
    const json::value smooth =
        answer(R"({"matrix": [[1,0],[0,1]], "losses": [0,0]})", {"stch", {{"mu", "1"}}});
    CHECK(smooth.at("objective").to_number<double>() == Approx(std::log(2.0)));
}

TEST_CASE("aggregate: steps share a state and are answered as a list") {
    const json::value found =
        answer(R"({"steps": [{"matrix": [[2,0],[0,2]]}, {"matrix": [[2,0],[0,2]]}]})",
               {"moco", {{"beta", "0.5"}, {"gamma", "0"}}});
    REQUIRE(found.as_array().size() == 2);
    CHECK(numbers(found.at(0).at("result")) == std::vector<double>{0.5, 0.5});
    CHECK(numbers(found.at(1).at("result")) == std::vector<double>{0.75, 0.75});
    CHECK(answer(R"({"steps": [{"matrix": [[1]]}]})", {"sum", {}}).as_array().size() == 1);
}

TEST_CASE("aggregate: what is wrong with the input is said") {
    refused("", "not JSON");
    refused("{\"matrix\": [[NaN]]}", "JSON has no NaN");
    refused("[1]", "must be a JSON object");
    refused("{}", "'matrix' is missing");
    refused(R"({"matrix": []})", "'matrix' is empty");
    refused(R"({"matrix": [[]]})", "hold no numbers");
    refused(R"({"matrix": [[1,2],[1]]})", "row 0 has 2 numbers and row 1 has 1");
    refused(R"({"matrix": [[1,2],[1,null]]})", "task 1");
    refused(R"({"matrix": [[1,2],[1,"x"]]})", "matrix[1]");
    refused(R"({"matrix": [1,2]})", "matrix[0]");
    refused(R"({"matrx": [[1]]})", "no member 'matrx'");
    refused(R"({"matrix": [[1]], "losses": [null]})", "loss of task 0");
    refused(R"({"matrix": [[1],[2]], "losses": [1]})", "2 tasks, but 1 losses");
    refused(R"({"matrix": [[1],[2]]})", "needs losses", {"gls", {}});
    refused(R"({"matrix": [[1],[2]]})", "second, independent batch", {"modo", {}});
    refused(R"({"matrix": [[1],[2]], "matrix2": [[1]]})", "shape of matrix", {"modo", {}});
    refused(R"({"steps": []})", "'steps' is empty");
    refused(R"({"steps": [{"matrix": [[1]]}, {"matrix": [[1],[2]]}]})", "step 1: every step's");
    refused(R"({"steps": [1]})", "'steps[0]' must be an object");
    refused(R"({"steps": [{"matrix": [[1]]}], "losses": [1]})", "nothing else");
    refused(kExample, "did you mean 'pcgrad'", {"pcgrd", {}});
    refused(kExample, "no parameter 'radius'", {"cagrad", {{"radius", "1"}}});
}

TEST_CASE("aggregate: the list names every method with its paper and parameters") {
    const std::string list = aggregator_list();
    for (const std::string& name : aggregator_names()) {
        CHECK_THAT(list, Catch::Contains("\n" + name + " (") || Catch::StartsWith(name + " ("));
        for (const auto& parameter : aggregator_parameters(name)) {
            CHECK_THAT(list, Catch::Contains("    " + parameter.name + ": "));
        }
    }
}

}  // namespace detente
