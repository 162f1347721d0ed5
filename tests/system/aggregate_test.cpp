// `detente aggregate` as a program in a pipe.
#include <boost/json.hpp>
#include <catch2/catch.hpp>

#include "launch/exit_code.h"
#include "tests/system/launched.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

struct Piped {
    std::optional<int> code;
    std::string output;
};

Piped piped(const std::string& input, const std::string& arguments) {
    const TemporaryFolder folder;
    write_file(folder / "input.json", input);
    Launched shell(folder,
                   {"-c", std::string(DETENTE_PROGRAM) + " aggregate " + arguments + " < '" +
                              (folder / "input.json") + "'"},
                   "sh");
    Piped result;
    result.code = shell.wait(seconds(20));
    result.output = shell.output();
    return result;
}

}  // namespace

TEST_CASE("aggregate: answers in a pipe and ends with the code for bad input") {
    const Piped good = piped("{\"matrix\": [[-4,1,1],[6,1,1]]}", "--method cagrad --param c=0.5");
    CHECK(good.code == 0);
    const auto weights = boost::json::parse(good.output).at("weights");
    CHECK(weights.at(0).to_number<double>() == Approx(.7041).margin(5e-5));

    const int usage = value_of(ExitCode::usage);
    CHECK(piped("{\"matrix\": [[1,2],[3]]}", "--method mgda").code == usage);
    CHECK(piped("{\"matrix\": [[1e400,2],[3,1]]}", "--method mgda").code == usage);
    CHECK(piped("{\"matrix\": [[null,2],[3,1]]}", "--method mgda").code == usage);
    CHECK(piped("{\"matrix\": [[1,2],[3,4]]}", "--method mgad").code == usage);
    CHECK(piped("{\"matrix\": [[1,2],[3,4]]}", "--method mgda --param c=1").code == usage);
    CHECK(piped("{\"matrix\": [[1,2],[3,4]]}", "--method cagrad --param c").code == usage);
    CHECK(piped("{\"matrix\": [[1,2],[3,4]]}", "").code == usage);

    const Piped list = piped("", "--list");
    CHECK(list.code == 0);
    CHECK_THAT(list.output, Catch::Contains("upgrad") && Catch::Contains("Quinton"));
    const Piped help = piped("", "--help");
    CHECK(help.code == 0);
    CHECK_THAT(help.output, Catch::Contains("matrix2") && Catch::Contains("Example"));
}

}  // namespace detente::test
